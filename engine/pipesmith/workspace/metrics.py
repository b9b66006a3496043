"""`metrics`: the locked numbers of the work tree and of revisions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipesmith.errors import UserError
from pipesmith.workspace.revisions import lockfile_at

if TYPE_CHECKING:
    from pipesmith.workspace.workspace import Workspace

__all__ = ["metrics"]


def metrics(workspace: Workspace, revs: Sequence[str] = ()) -> dict[str, dict[str, dict[str, float]]]:
    """Return revision (`workspace` for the work tree) to stage to metric to number. Raises UserError for what is no
    revision."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    if not revs:
        lockfile = workspace.session().lockfile
        found["workspace"] = {name: dict(entry.metrics) for name, entry in lockfile.stages.items() if entry.metrics}
    for rev in revs:
        workspace.repo.resolve(rev)
        at = lockfile_at(workspace, rev)
        if at is None:
            raise UserError(f"there is no pipe.lock at `{rev}`", "commit it after a build")
        found[rev] = {name: dict(entry.metrics) for name, entry in at.stages.items() if entry.metrics}
    return found
