"""Cached outputs are no business of git's: those that it does not ignore yet are added to the workspace's
.gitignore."""

from __future__ import annotations

import json
import os
from _blake2 import blake2b
from collections.abc import Collection

from pipesmith.errors import EnvironmentFailure, UserError
from pipesmith.git.ignore import ignored
from pipesmith.workspace.session import Session

__all__ = ["ignore_outputs", "refuse_tracked"]

_SPECIAL = str.maketrans({char: f"\\{char}" for char in "*?[]!#\\ "})


def ignore_outputs(session: Session) -> list[str]:
    """Add lines for cached outputs to .gitignore, and return them.

    Raises UserError for a cached output that git tracks, and for an uncached one that git ignores would be no error: it
    is the user's business. Raises EnvironmentFailure where .gitignore can't be written.
    """
    workspace, pipeline = session.workspace, session.pipeline
    cached = sorted({out.path for stage in pipeline.stages.values() for out in stage.outputs.values() if out.cache})
    if not cached:
        return []
    key = _key(session, cached)
    if workspace.stamps.query("SELECT 1 FROM parsed WHERE key = ?", (key,)):
        return []
    refuse_tracked(session, session.tracked(cached))
    missing = [path for path in cached if path not in ignored(workspace.repo, workspace.root, cached)]
    lines = [f"/{path.translate(_SPECIAL)}" for path in missing]
    if lines:
        _append(os.path.join(workspace.root, ".gitignore"), lines)
        key = _key(session, cached)
    workspace.stamps.write([("INSERT OR REPLACE INTO parsed VALUES (?, ?)", (key, b""))])
    return lines


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


def _append(path: str, lines: list[str]) -> None:
    try:
        text = ""
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                text = file.read()
        if text and not text.endswith("\n"):
            text += "\n"
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text + "".join(f"{line}\n" for line in lines))
    except OSError as error:
        raise EnvironmentFailure(f"`{path}` can't be written: {error.strerror}") from None


def _key(session: Session, paths: list[str]) -> str:
    """Return a name for this question: the outputs, all that git's answer hangs on, and the index."""
    repo = session.workspace.repo
    hasher = blake2b(digest_size=16)
    hasher.update(json.dumps([session.workspace.root, paths]).encode())
    places = {os.path.join(repo.common_dir, "info", "exclude"), os.path.join(repo.git_dir, "index")}
    for inner in {"", *(path.rpartition("/")[0] for path in paths)}:
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
