"""Refs outside of branches and tags, and the commits they lead to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pipesmith.git.objects import ObjectReader
from pipesmith.git.repository import Repository

__all__ = ["commit_message", "delete_refs", "list_refs", "set_refs", "update_ref"]


def list_refs(repo: Repository, prefix: str) -> dict[str, str]:
    """Return name to object id of all refs below a prefix such as `refs/pipe/runs/`."""
    output = repo.run("for-each-ref", "--format=%(objectname) %(refname)", prefix).decode("utf-8", "surrogateescape")
    rows = (line.split(" ", 1) for line in output.splitlines())
    return {name: identity for identity, name in rows}


def update_ref(repo: Repository, name: str, new: str, old: str | None = None) -> None:
    """Set a ref; where `old` is given, only if it is that still. Raises EnvironmentFailure."""
    repo.run("update-ref", name, new, *([old] if old is not None else []))


def set_refs(repo: Repository, refs: Mapping[str, tuple[str, str]]) -> None:
    """Set refs, all or none. refs: name to (new id, the id that it has now: the zero id where it is not there).

    Raises EnvironmentFailure where one has another id by now, or can't be written."""
    lines = "".join(f"update {name} {new} {old}\n" for name, (new, old) in refs.items())
    if lines:
        repo.run("update-ref", "--stdin", input=lines.encode("utf-8", "surrogateescape"))


def delete_refs(repo: Repository, names: Iterable[str]) -> None:
    """Delete refs in one go; those that are not there are passed over. Raises EnvironmentFailure."""
    lines = "".join(f"delete {name}\n" for name in names)
    if lines:
        repo.run("update-ref", "--stdin", input=lines.encode("utf-8", "surrogateescape"))


def commit_message(reader: ObjectReader, commit: str) -> str | None:
    """Return a commit's message, None where the id is no commit here."""
    found = reader.read(commit)
    if found is None or found[0] != "commit":
        return None
    return found[1].partition(b"\n\n")[2].decode("utf-8", "surrogateescape")
