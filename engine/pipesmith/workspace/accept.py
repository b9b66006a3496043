"""`accept`: a person says that what differs does not matter. Only the lockfile says so, never the action cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipesmith.errors import StageError, UserError
from pipesmith.lockfile.model import Accepted
from pipesmith.pipeline.graph import order as topological
from pipesmith.pipeline.graph import upstream
from pipesmith.records import replace
from pipesmith.verdict.reasons import Reason
from pipesmith.verdict.verdict import State
from pipesmith.workspace.lock_keeper import LockKeeper
from pipesmith.workspace.pins import user_and_host
from pipesmith.workspace.session import select_stages

if TYPE_CHECKING:
    from pipesmith.workspace.workspace import Workspace

__all__ = ["accept"]


def accept(workspace: Workspace, name: str, reason: str) -> dict[str, tuple[Reason, ...]]:
    """Let the locked results of a stage (of all its cells) count for today's fingerprints; return stage to what was
    accepted.

    Raises UserError for a stage that was never built, StageError where its fingerprint can't be known yet.
    """
    reason = " ".join(reason.split())  # it is shown on a line
    if not reason:
        raise UserError("`pipe accept` needs a reason", f'run `pipe accept {name} --reason "why it does not matter"`')
    session = workspace.session()
    pipeline = session.pipeline
    wanted = select_stages(pipeline, [name])
    judgement = session.judgement()
    looked_at = upstream(pipeline, wanted)
    verdicts = {n: judgement.judge(pipeline.stages[n]) for n in topological(pipeline) if n in looked_at}
    accepted: dict[str, tuple[Reason, ...]] = {}
    writer = LockKeeper(session).writer
    for each in wanted:
        verdict, entry = verdicts[each], session.lockfile.stages.get(each)
        if entry is None:
            raise UserError(f"stage `{each}` was never built: there is no result to accept", f"run `pipe build {each}`")
        if verdict.fingerprint is None or verdict.problems or verdict.state is State.PENDING:
            raise StageError(
                f"stage `{each}` can't be judged yet: something before it is not up to date", "build that first"
            )
        if verdict.fingerprint.key == entry.fingerprint:
            continue
        user, _host = user_and_host()
        said = Accepted(fingerprint=verdict.fingerprint.key, reason=reason, by=user)
        writer.set_stage(each, replace(entry, accepted=said))
        accepted[each] = verdict.reasons
    writer.write()
    return accepted
