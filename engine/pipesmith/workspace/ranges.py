"""`status --rev A..B`: every commit of a range, each judged by its own pipeline and lockfile."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipesmith.errors import UserError
from pipesmith.workspace.results import StatusResult
from pipesmith.workspace.status import status

if TYPE_CHECKING:
    from pipesmith.workspace.workspace import Workspace

__all__ = ["status_of_range"]


def status_of_range(workspace: Workspace, names: Sequence[str], revisions: str) -> tuple[StatusResult, ...]:
    """Return the states at each commit that is in B and not in A, the oldest first.

    revisions: `A..B`; an empty side is HEAD. Commits without a pipeline.toml in the workspace's folder are left out.
    Raises UserError for a side that is no revision.
    """
    start, _, end = revisions.partition("..")
    if end.startswith("."):
        raise UserError(f"`{revisions}` is not a range of commits", "write `A..B`: what is in B and not in A")
    first, last = workspace.repo.resolve(start or "HEAD"), workspace.repo.resolve(end or "HEAD")
    listed = workspace.repo.process("rev-list", "--reverse", "--topo-order", f"{first}..{last}").stdout.decode().split()
    file = os.path.normpath(os.path.join(workspace.prefix or ".", "pipeline.toml"))
    return tuple(
        status(workspace, names, rev=commit)
        for commit in listed
        if workspace.repo.process("cat-file", "-e", f"{commit}:{file}").returncode == 0
    )
