"""`metrics`: the locked numbers of the work tree and of revisions, and those of runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipesmith.errors import UserError
from pipesmith.workspace.revisions import lockfile_at, run_named

if TYPE_CHECKING:
    from pipesmith.workspace.workspace import Workspace

__all__ = ["metrics"]


def metrics(workspace: Workspace, revs: Sequence[str] = ()) -> dict[str, dict[str, dict[str, float]]]:
    """Return revision or run (`workspace` for the work tree) to stage to metric to number. Raises UserError for what
    is neither."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    if not revs:
        lockfile = workspace.session().lockfile
        found["workspace"] = {name: dict(entry.metrics) for name, entry in lockfile.stages.items() if entry.metrics}
    for rev in revs:
        at = lockfile_at(workspace, rev)
        if at is None and (run := run_named(workspace, rev)) is not None:
            found[rev] = {stage.name: dict(stage.metrics) for stage in run.stages if stage.metrics}
            continue
        if at is None:
            raise UserError(f"there is no pipe.lock at `{rev}`", "commit it after a build")
        found[rev] = {name: dict(entry.metrics) for name, entry in at.stages.items() if entry.metrics}
    return found
