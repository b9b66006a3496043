"""What a push brings: the commits that it names, and the folders of each that hold a pipeline with a lockfile.

Imports little: a push of what was judged before is answered by this, git and state.db.
"""

from __future__ import annotations

import os

from pipesmith.errors import UserError
from pipesmith.git.objects import FOLDER, GITLINK, ObjectReader
from pipesmith.git.repository import Repository

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Tip", "commits_of", "folders_of", "repository_of_hook", "tips_of_push"]

_RUNS = "refs/pipe/runs/"
_PIPELINE = (b"pipeline.toml", b"pipe.lock")


class Tip:
    """One thing that is pushed. ref: what it will be called there. object: its id, or another name for it."""

    __slots__ = ("object", "ref")

    def __init__(self, ref: str, object: str) -> None:
        self.ref = ref
        self.object = object


def tips_of_push(lines: str, environ: Mapping[str, str]) -> list[Tip]:
    """Return what is pushed, by what git tells its hook on standard input, else by what pre-commit tells in variables.

    lines: `LOCAL-REF LOCAL-ID REMOTE-REF REMOTE-ID` each. Raises UserError for anything else.
    Source: githooks(5); pre-commit's `commands/hook_impl.py`: one ref a push, a first push without ids.
    """
    found = []
    for line in lines.splitlines():
        parts = line.rsplit(" ", 3)  # a local ref may be `HEAD@{2 days ago}`
        if len(parts) != 4 or not parts[1]:
            raise UserError(
                f"`{line}` is no line of git's: LOCAL-REF LOCAL-ID REMOTE-REF REMOTE-ID",
                "`pipe hooks install` installs a hook that is given such lines",
            )
        found.append(Tip(parts[2], parts[1]))
    told = environ.get("PRE_COMMIT_TO_REF") or environ.get("PRE_COMMIT_LOCAL_BRANCH")
    if told is None and environ.get("PRE_COMMIT"):
        told = "HEAD"  # run by hand: `pre-commit run --hook-stage pre-push`
    if not lines.strip() and told:
        found.append(Tip(environ.get("PRE_COMMIT_REMOTE_BRANCH", told), told))
    return found


def repository_of_hook(folder: str) -> Repository:
    """Return the repository that a hook runs for, with its objects as they are pushed.

    Git's variables name it where a hook runs outside of the work tree. Raises UserError where there is none."""
    try:
        found = Repository.discover(folder)
    except UserError:
        place = os.environ.get("GIT_WORK_TREE") or os.environ.get("GIT_DIR")
        if place is None:
            raise
        found = Repository.discover(os.path.realpath(place))
    return found.without_replacements()


def commits_of(reader: ObjectReader, tips: Sequence[Tip]) -> dict[str, list[str]]:
    """Return each pushed commit with what it will be called.

    Deletions, runs of pipe's history, and tags of what is no commit have none. Raises UserError for what is no name of
    an object here."""
    commits: dict[str, list[str]] = {}
    for tip in tips:
        if tip.object.strip("0") and not tip.ref.startswith(_RUNS):
            commit = _peeled(reader, tip.object)
            if commit is not None and tip.ref not in commits.setdefault(commit, []):
                commits[commit].append(tip.ref)
    return commits


def _peeled(reader: ObjectReader, name: str) -> str | None:
    """Return the commit that an object is or a tag leads to, None where that is another thing."""
    if len(name) != len(reader.repo.empty_id) or name.strip("0123456789abcdef"):
        name = reader.repo.resolve(name)
    while True:
        found = reader.read(name)
        if found is None:
            raise UserError(f"`{name}` is no object of this repository", "`git fsck` tells what is missing")
        if found[0] == "commit":
            return name
        if found[0] != "tag":
            return None
        name = found[1].split(b"\n", 1)[0].removeprefix(b"object ").decode()


def folders_of(reader: ObjectReader, tree: str) -> tuple[list[str], bool]:
    """Return the folders below a tree that hold both a pipeline.toml and a pipe.lock, `.` for itself, and whether there
    are submodules, whose pipelines are their own repositories' business."""
    folders, has_submodules = _below(reader, tree)
    return sorted(folder or "." for folder in folders), has_submodules


def _below(reader: ObjectReader, tree: str) -> tuple[list[str], bool]:
    known = reader.memo.get(("pipelines", tree))
    if known is None:
        entries = reader.raw_tree(tree) if reader.may_hold(tree, _PIPELINE) else {}
        folders = [""] if all(name in entries for name in _PIPELINE) else []
        inner = {name: oid.hex() for name, (mode, oid) in entries.items() if mode == FOLDER}
        has_submodules = any(mode == GITLINK for mode, _oid in entries.values())
        if len(inner) > 1:
            reader.read_trees(oid for oid in inner.values() if ("pipelines", oid) not in reader.memo)
        for name, oid in inner.items():
            below, more = _below(reader, oid)
            folders += [f"{os.fsdecode(name)}/{folder}".rstrip("/") for folder in below]
            has_submodules = has_submodules or more
        known = reader.memo["pipelines", tree] = (folders, has_submodules)
    return known
