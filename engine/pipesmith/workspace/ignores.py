"""Cached outputs are no business of git's: those that it does not ignore yet are added to the workspace's .gitignore,
and taken out of it when they are left to git."""

from __future__ import annotations

import json
import os
from _blake2 import blake2b
from collections.abc import Collection

from pipesmith.errors import EnvironmentFailure, UserError
from pipesmith.git.ignore import ignored
from pipesmith.lockfile.io import put
from pipesmith.workspace.session import Session

__all__ = ["ignore_outputs", "refuse_tracked"]

_SPECIAL = str.maketrans({char: f"\\{char}" for char in "*?[]!#\\ "})


def ignore_outputs(session: Session) -> list[str]:
    """Add lines for cached outputs to .gitignore, take out those of outputs that are left to git by now, and return
    what was done, for people.

    Raises UserError for a cached output that git tracks, and a .gitignore that is a link. An uncached one that another
    line ignores is no error: it is the user's business. Raises EnvironmentFailure where .gitignore can't be read
    or written.
    """
    workspace = session.workspace
    outputs = [out for stage in session.pipeline.stages.values() for out in stage.outputs.values()]
    cached = sorted({out.path for out in outputs if out.cache})
    left_to_git = sorted({out.path for out in outputs if not out.cache})
    if not outputs:
        return []
    key = _key(session, cached, left_to_git)
    if workspace.stamps.query("SELECT 1 FROM parsed WHERE key = ?", (key,)):
        return []
    refuse_tracked(session, session.tracked(cached))
    place, unwanted = os.path.join(workspace.root, ".gitignore"), {_line(path) for path in left_to_git}
    lines, dropped = _missing(session, cached), [row for row in _rows(place) if row.rstrip("\r\n") in unwanted]
    if lines or dropped:
        with workspace.guard():  # builds that begin together write each line once
            lines = _missing(session, cached)
            dropped = _rewrite(place, lines, unwanted)
    if lines or dropped:
        key = _key(session, cached, left_to_git)
    workspace.stamps.write([("INSERT OR REPLACE INTO parsed VALUES (?, ?)", (key, b""))])
    added = [f"added `{line}` to .gitignore" for line in lines]
    return added + [f"took `{line}` out of .gitignore: that output is left to git" for line in dropped]


def _missing(session: Session, cached: list[str]) -> list[str]:
    """Return the lines of the outputs that git does not ignore."""
    known = ignored(session.workspace.repo, session.workspace.root, cached)
    return [_line(path) for path in cached if path not in known]


def _line(path: str) -> str:
    """Return the line of .gitignore that names an output, and nothing else."""
    return f"/{path.translate(_SPECIAL)}"


def refuse_tracked(session: Session, held: Collection[str]) -> None:
    """Raise UserError if git tracks cached outputs. held: the paths of those that it does."""
    if not held:
        return
    path = sorted(held)[0]
    where = next(
        f"stage.{stage.base}.outputs.{out.name}"
        for stage in session.pipeline.stages.values()
        for out in stage.outputs.values()
        if out.path == path
    )
    recursive = "-r " if os.path.isdir(os.path.join(session.workspace.root, path)) else ""
    raise UserError(
        f"git tracks `{path}`, a cached output ({where})",
        f"run `git rm --cached {recursive}{path}`, or set `cache = false` to leave it to git",
    )


def _rows(path: str) -> list[str]:
    """Return the lines of an ignore file with their ends. Raises EnvironmentFailure where it can't be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            return file.readlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise EnvironmentFailure(f"`{path}` can't be read: {error.strerror}") from None


def _rewrite(path: str, lines: list[str], unwanted: set[str]) -> list[str]:
    """Add lines to an ignore file and take the unwanted ones out; return which those were. Raises UserError for a link,
    EnvironmentFailure where it can't be written."""
    rows = _rows(path)
    kept = [row for row in rows if row.rstrip("\r\n") not in unwanted]
    dropped = [row.rstrip("\r\n") for row in rows if row.rstrip("\r\n") in unwanted]
    if not (lines or dropped):
        return []
    if os.path.islink(path):
        raise UserError(
            "`.gitignore` is a symbolic link, which git does not follow: no output can be ignored by it",
            "make it a file, or name the outputs in `.git/info/exclude`",
        )
    if kept and not kept[-1].endswith("\n"):
        kept[-1] += "\n"
    text = "".join(kept) + "".join(f"{line}\n" for line in lines)
    try:
        put(path, text.encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise EnvironmentFailure(f"`{path}` can't be written: {error.strerror}") from None
    return dropped


def _key(session: Session, cached: list[str], left_to_git: list[str]) -> str:
    """Return a name for this question: the outputs, all that git's answer hangs on, and the index."""
    repo = session.workspace.repo
    hasher = blake2b(digest_size=16)
    hasher.update(json.dumps([session.workspace.root, cached, left_to_git]).encode())
    places = {os.path.join(repo.common_dir, "info", "exclude"), os.path.join(repo.git_dir, "index")}
    for inner in {"", *(path.rpartition("/")[0] for path in cached)}:
        folder = os.path.join(session.workspace.root, inner).rstrip("/")
        while folder.startswith(repo.top):
            places.add(os.path.join(folder, ".gitignore"))
            folder = os.path.dirname(folder)
    for place in sorted(places):
        try:
            info = os.stat(place)
            hasher.update(
                f"{place} {info.st_ino} {info.st_size} {info.st_mtime_ns} {info.st_ctime_ns}".encode(
                    "utf-8", "surrogateescape"
                )
            )
        except OSError:
            hasher.update(b"absent")
    return f"ignored-{hasher.hexdigest()}"
