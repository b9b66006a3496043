"""What a build says that a person may not expect, most of it once a clone."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipesmith.executors.output import MIN_SECRET
from pipesmith.pipeline.model import InputMode
from pipesmith.workspace.session import Session

if TYPE_CHECKING:
    from pipesmith.workspace.plan import Plan

__all__ = ["remark"]

_IDLE = "idle-gpus"


def remark(plan: Plan, notice: Callable[..., None]) -> None:
    """Say that a secret is too short to be masked, and that GPUs lie idle. At every build, of stages that may run: that
    nothing is mounted, and which `hash-paths` are not there."""
    session, stages = plan.session, plan.stages
    mounting = [stage.name for stage in plan.to_run if any(i.mode is InputMode.MOUNT for i in stage.inputs.values())]
    if mounting:
        more = f" and {len(mounting) - 1} more" if len(mounting) > 1 else ""
        notice(f'`mode = "mount"` of `{mounting[0]}`{more}: this version mounts nothing, so that it is downloaded')
    absent = {
        (stage.base, path): None
        for stage in plan.to_run
        if (seen := plan.verdicts[stage.name].seen) is not None
        for path in stage.hash_paths
        if path not in seen.hash_paths
    }
    for name, path in absent:
        notice(f"`{path}`, of the `hash-paths` of `{name}`, does not exist: it counts as absent", level="warning")
    short = {name for stage in stages for name in stage.pass_env if 0 < len(os.environ.get(name, "")) < MIN_SECRET}
    for name in sorted(short):
        if _once(session, f"short-{name}"):
            notice(
                f"the value of `{name}` has under {MIN_SECRET} characters: it is not masked in logs",
                level="warning",
            )
    if not any(stage.resources.gpus for stage in session.pipeline.stages.values()) and not _was_said(session, _IDLE):
        gpus = session.computes.driver.gpus if session.computes.has_driver else None
        if gpus and _once(session, _IDLE):
            notice(
                f"this machine has {len(gpus)} GPU{'s' if len(gpus) > 1 else ''} and no stage asks for one",
                help="a stage that wants one says so: `resources = { gpus = 1 }`",
            )


def _key(session: Session, name: str) -> str:
    return f"said-{session.workspace.home.root}-{name}"


def _was_said(session: Session, name: str) -> bool:
    """Return whether something was said in this clone before."""
    return bool(session.workspace.state.query("SELECT 1 FROM parsed WHERE key = ?", (_key(session, name),)))


def _once(session: Session, name: str) -> bool:
    """Return whether something is to be said for the first time in this clone."""
    if _was_said(session, name):
        return False
    session.workspace.state.write([("INSERT OR REPLACE INTO parsed VALUES (?, ?)", (_key(session, name), b""))])
    return True
