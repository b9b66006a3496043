"""`lock resolve`: both sides of a conflicted lockfile, merged stage by stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipesmith.errors import UserError
from pipesmith.lockfile import io
from pipesmith.lockfile.merge import Merged, merge, resolve_markers
from pipesmith.lockfile.model import Lockfile
from pipesmith.lockfile.reader import has_markers, parse

if TYPE_CHECKING:
    from pipesmith.workspace.workspace import Workspace

__all__ = ["Resolved", "resolve_lock"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """dropped: stages that the sides disagree on. pins: `environment.NAME` or `dataset.NAME` that are ours now.

    conflict: whether there was anything to mend.
    """

    conflict: bool = True
    dropped: tuple[str, ...] = ()
    pins: tuple[str, ...] = ()


def resolve_lock(workspace: Workspace) -> Resolved:
    """Mend the lockfile, where it has conflict markers. Raises UserError where a side can't be read.

    While git still has the three versions of a merge, those are merged: the text between the markers may be a mixture.
    """
    session = workspace.session()
    text = session.lock_text or ""
    if not has_markers(text):
        _ = session.lockfile  # told where it is broken in another way
        return Resolved(conflict=False)
    merged = _from_index(workspace)
    if merged is None:
        try:
            merged = resolve_markers(text)
        except UserError as error:
            raise UserError(
                f"pipe.lock can't be mended: {error.text}",
                "take one side with `git checkout --ours pipe.lock` or `--theirs`, then build",
            ) from None
    with workspace.guard():
        io.write(workspace.lock_path, merged.lockfile)
    return Resolved(dropped=merged.dropped, pins=merged.pins)


def _from_index(workspace: Workspace) -> Merged | None:
    """Return the merge of the versions in git's index, None where it has no two sides that are lockfiles."""
    base, ours, theirs = (_staged(workspace, stage) for stage in (1, 2, 3))
    return merge(ours, theirs, base) if ours is not None and theirs is not None else None


def _staged(workspace: Workspace, stage: int) -> Lockfile | None:
    done = workspace.repo.process("cat-file", "blob", f":{stage}:./pipe.lock", cwd=workspace.root)
    if done.returncode != 0:
        return None
    try:
        return parse(done.stdout.decode("utf-8", "surrogateescape"))
    except UserError:
        return None
