"""`why`: item by item what differs, and of a stage that ran, which known result was nearest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipesmith.errors import UserError
from pipesmith.fingerprint.fingerprint import Item
from pipesmith.records import record
from pipesmith.verdict.differences import differences
from pipesmith.verdict.judgement import named
from pipesmith.workspace.results import StageState
from pipesmith.workspace.session import select_stages

if TYPE_CHECKING:
    from pipesmith.store.action_cache import ActionResult
    from pipesmith.workspace.session import Session
    from pipesmith.workspace.workspace import Workspace

__all__ = ["Why", "why"]


@record
class Why:
    """now: the stage's state in the work tree, None when asked of a run. run: the stage's record there. nearest: the
    known result that differed least, with what differed."""

    stage: str
    now: StageState | None = None
    run: dict[str, Any] | None = None
    nearest: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "now": self.now.as_json() if self.now else None,
            "run": self.run,
            "nearest": self.nearest,
        }


def why(workspace: Workspace, name: str, run: str | None = None) -> list[Why]:
    """Return for a stage (each of its cells) why it would run, or why it ran in a recorded run. Raises UserError."""
    session = workspace.session()
    wanted = select_stages(session.pipeline, [name])
    if run is None:
        states = {state.name: state for state in workspace.status(wanted).stages}
        return [
            Why(stage=each, now=states[each], nearest=_nearest(session, each, states[each].fingerprint))
            for each in wanted
        ]
    record = workspace.run_store.get(run)
    found = []
    for each in wanted:
        stage = record.stage(each)
        if stage is not None:
            body = {"id": record.id, "status": stage.status, "why": stage.why, "fingerprint": stage.fingerprint}
            found.append(
                Why(stage=each, run=body, nearest=_nearest(session, each, stage.fingerprint, before=record.time))
            )
    if not found:
        raise UserError(f"stage `{name}` is not in run {record.id}", f"`pipe show {record.id}` lists its stages")
    return found


def _nearest(session: Session, stage: str, key: str | None, before: float | None = None) -> dict[str, Any] | None:
    """Return the known result of the stage's that differs least from a fingerprint that is itself known, else None."""
    actions = session.actions
    mine = actions.lookup(key) if key else []
    if not mine:
        return None
    items = tuple(Item(*item) for item in mine[0].items)
    best: tuple[int, float, ActionResult, Any] | None = None
    for _path, result in actions:
        if result.key == key or result.stage.partition("@")[0] != stage.partition("@")[0]:
            continue
        if before is not None and result.created > before:
            continue
        reasons = differences({(kind, item): value for kind, item, value in result.items}, items)
        rank = (len(reasons), -result.created)
        if best is None or rank < best[:2]:
            best = (*rank, result, reasons)
    if best is None:
        return None
    differs = named(session.pipeline.stages[stage], best[3], session.pins.packages_between)
    return {"origin": best[2].origin, "stage": best[2].stage, "differs": [reason.as_json() for reason in differs]}
