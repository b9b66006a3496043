"""`status`: the state of stages, in the work tree or at a revision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipesmith.pipeline.graph import order as topological
from pipesmith.pipeline.graph import upstream
from pipesmith.workspace.results import StatusResult
from pipesmith.workspace.selecting import select_stages
from pipesmith.workspace.states import state_of

if TYPE_CHECKING:
    from pipesmith.workspace.workspace import Workspace

__all__ = ["status"]


def status(
    workspace: Workspace,
    names: Sequence[str] = (),
    *,
    rev: str | None = None,
    allow_missing: bool = False,
) -> StatusResult:
    """Return the states of stages (all without names), in topological order. Runs nothing and writes nothing that
    counts."""
    if rev is not None:
        commit = workspace.repo.resolve(rev)
        from pipesmith.workspace.at_commit import verdicts_at

        pipeline, verdicts = verdicts_at(workspace, commit)
        wanted = set(select_stages(pipeline, names)) if names else set(verdicts)
        return StatusResult(
            revision=commit,
            stages=tuple(state_of(verdict, pipeline.file) for name, verdict in verdicts.items() if name in wanted),
        )
    session = workspace.session()
    pipeline = session.pipeline
    wanted = set(select_stages(pipeline, names)) if names else set(pipeline.stages)
    looked_at = upstream(pipeline, wanted)
    judgement = session.judgement(lenient=allow_missing)
    states = []
    for name in topological(pipeline):
        if name in looked_at:
            verdict = judgement.judge(pipeline.stages[name])
            if name in wanted:
                states.append(state_of(verdict, pipeline.file, session.line))
    session.tree.flush()
    session.stat_cache.flush()
    result = StatusResult(stages=tuple(states))
    if result.fresh:
        workspace.all_fresh = (session, tuple(pipeline.stages[name] for name in looked_at))
    return result
