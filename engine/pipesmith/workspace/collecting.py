"""`gc`: drops what nothing needs any more."""

from __future__ import annotations

from pipesmith.retention.gc import Report, collect
from pipesmith.workspace.session import Session

__all__ = ["Report", "collect_garbage"]


def collect_garbage(
    session: Session,
    *,
    keep_days: float = 30.0,
    kept_days: float = 30.0,
    max_size_bytes: int | None = None,
    only_over_size: bool = False,
    dry_run: bool = False,
) -> Report:
    """Drop what neither tips, recent runs nor people need; return what that was. Raises EnvironmentFailure,
    UserError."""
    workspace = session.workspace
    return collect(
        repo=workspace.repo,
        pipe_dir=workspace.pipe_dir,
        store=session.store,
        actions=session.actions,
        runs=workspace.run_store,
        state=workspace.state,
        keep_days=keep_days,
        kept_days=kept_days,
        max_size_bytes=max_size_bytes,
        only_over_size=only_over_size,
        dry_run=dry_run,
    )
