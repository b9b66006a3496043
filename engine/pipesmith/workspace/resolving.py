"""`lock resolve`: both sides of a conflicted lockfile, merged stage by stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipesmith.errors import PipeError, UserError
from pipesmith.git.drivers import installed_drivers
from pipesmith.lockfile import io
from pipesmith.lockfile.markers import first_marker
from pipesmith.lockfile.merge import Merged, merge_texts, resolve_markers
from pipesmith.records import record

if TYPE_CHECKING:
    from pipesmith.workspace.workspace import Workspace

__all__ = ["Resolved", "resolve_lock"]


@record
class Resolved:
    """merged: what it came to, None where there was nothing to mend. unmerged: git waits for `git add`.

    driver: whether git asks pipe to merge lockfiles in this clone.
    """

    merged: Merged | None = None
    unmerged: bool = False
    driver: bool = True


def resolve_lock(workspace: Workspace) -> Resolved:
    """Mend the lockfile, where it has conflict markers or git could not merge it. Raises UserError where a side can't
    be read. The index stays as it is.

    While git still has the three versions of a merge, those are merged: the text between the markers may be a mixture.
    """
    session = workspace.session()
    data = session.read_file("pipe.lock") or b""
    text = data.decode("utf-8", "surrogateescape")
    base, ours, theirs = (_staged(workspace, stage) for stage in (1, 2, 3))
    in_index = ours is not None and theirs is not None
    marked = first_marker(text) is not None
    if not marked and not (in_index and (text == ours or _is_broken(workspace))):
        _ = session.lockfile  # told where it is broken in another way
        return Resolved(unmerged=in_index)
    merged: Merged | None = None
    failed: PipeError | None = None
    if ours is not None and theirs is not None:
        try:
            merged = merge_texts(ours, theirs, base)
        except PipeError as error:
            failed = error
    if merged is None and marked:
        try:
            merged = resolve_markers(text)
        except PipeError as error:
            failed = failed or error
    if merged is None:
        assert failed is not None
        finding = failed.findings()[0]
        where = f"{finding.file}: " if finding.file and finding.file != "pipe.lock" else ""
        raise UserError(
            f"pipe.lock can't be mended: {where}{failed.text.removeprefix('pipe.lock: ')}",
            "take one side with `git checkout --ours pipe.lock` or `--theirs`, then build",
        ) from None
    with workspace.guard():
        io.write(workspace.lock_path, merged.lockfile)
    return Resolved(merged=merged, unmerged=in_index, driver="merge" in installed_drivers(workspace.repo))


def _is_broken(workspace: Workspace) -> bool:
    try:
        _ = workspace.session().lockfile
    except PipeError:
        return True
    return False


def _staged(workspace: Workspace, stage: int) -> str | None:
    """Return a version of the lockfile that git keeps in the index while it is not merged. 1: base, 2: ours, 3:
    theirs."""
    done = workspace.repo.process("cat-file", "blob", f":{stage}:./pipe.lock", cwd=workspace.root)
    return done.stdout.decode("utf-8", "surrogateescape") if done.returncode == 0 else None
