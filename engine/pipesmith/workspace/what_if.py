"""`what-if`: what a build would do, here or with a commit checked out, a branch merged, params set; and how long it
would take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipesmith.errors import StageError
from pipesmith.history.timings import last_seconds, makespan
from pipesmith.pipeline.graph import edges, upstream
from pipesmith.pipeline.graph import order as topological
from pipesmith.pipeline.model import Stage
from pipesmith.records import record
from pipesmith.verdict.reasons import Reason
from pipesmith.verdict.verdict import Result
from pipesmith.verdict.what_if import Forecast, Would, forecast
from pipesmith.workspace.ignores import refuse_tracked
from pipesmith.workspace.plan import BuildOptions, refuse, refuse_unrunnable
from pipesmith.workspace.session import Session, select_stages

if TYPE_CHECKING:
    from pipesmith.workspace.workspace import Workspace

__all__ = ["StageForecast", "WhatIf", "what_if"]


@record
class StageForecast:
    """would: fresh, restored or run. seconds: how long that takes by the history (0 where nothing runs), None where
    there is none. sure: False where it hangs on what a stage before it will make. broken: expectations that the known
    result does not meet, so that the build would fail there."""

    name: str
    would: str
    why: tuple[Reason, ...] = ()
    seconds: float | None = None
    sure: bool = True
    fingerprint: str | None = None
    notes: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "would": self.would,
            "why": [reason.as_json() for reason in self.why],
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "sure": self.sure,
            "fingerprint": self.fingerprint,
            "notes": list(self.notes),
            "broken": list(self.broken),
        }


@record
class WhatIf:
    """revision: the commit that was asked about, None for the work tree. merged: the commit merged into it. stages: in
    topological order. seconds: from start to end with `jobs` stages at once; stages of no known duration add nothing,
    their names are in `unknown`. conflicts: files that git can't merge; no stage is told of then."""

    revision: str | None = None
    merged: str | None = None
    stages: tuple[StageForecast, ...] = ()
    seconds: float = 0.0
    jobs: int = 1
    unknown: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> StageForecast:
        """Return the forecast of a stage by its name. Raises KeyError."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)

    def as_json(self) -> dict[str, Any]:
        return {
            "revision": self.revision,
            "merged": self.merged,
            "stages": [stage.as_json() for stage in self.stages],
            "seconds": round(self.seconds, 3),
            "jobs": self.jobs,
            "unknown": list(self.unknown),
            "conflicts": list(self.conflicts),
        }


def what_if(
    workspace: Workspace,
    names: Sequence[str] = (),
    *,
    rev: str | None = None,
    merge: str | None = None,
    overrides: Mapping[str, str] | None = None,
    jobs: int | None = None,
) -> WhatIf:
    """Return what a build of these stages (all targets without names) would do. Runs nothing; work tree, index, refs
    and objects stay as they are.

    rev: as if that commit were checked out. merge: as if that branch were merged into it, or into HEAD.
    overrides: `--set` texts by dotted key. Raises what a build raises before it runs anything.
    """
    if rev is None and merge is None:
        return _told(workspace.session(overrides), names, jobs)
    from pipesmith.workspace.proposed import Conflict, proposed

    revision = workspace.repo.resolve(rev if rev is not None else "HEAD")
    merged = workspace.repo.resolve(merge) if merge is not None else None
    try:
        with proposed(workspace, overrides or {}, rev=revision, merged=merged) as session:
            return _told(session, names, jobs, revision=revision, merged=merged)
    except Conflict as conflict:
        return WhatIf(revision=revision, merged=merged, conflicts=conflict.files)


def _told(
    session: Session, names: Sequence[str], jobs: int | None, *, revision: str | None = None, merged: str | None = None
) -> WhatIf:
    pipeline = session.pipeline
    wanted = set(upstream(pipeline, select_stages(pipeline, names) if names else pipeline.targets))
    order = tuple(name for name in topological(pipeline) if name in wanted)
    stages = [pipeline.stages[name] for name in order]
    refuse_unrunnable(session, stages, BuildOptions())
    cached = [out.path for stage in pipeline.stages.values() for out in stage.outputs.values() if out.cache]
    refuse_tracked(session, session.tracked(cached))
    unpinned = _pin_what_is_here(session, stages)
    judgement = session.judgement(building=True)
    told = forecast(
        judgement,
        order,
        lambda stage, key: _known(session, stage, key),
        lambda stage: unpinned(stage) or judgement.outside.environment(stage)[1] is not None,
    )
    _refuse(session, told)
    session.tree.flush()
    session.stat_cache.flush()
    seconds = _seconds(session, told)
    before = {name: [each for each in earlier if each in wanted] for name, earlier in edges(pipeline).items()}
    jobs = jobs or max(1, int(session.computes.here().cpus))
    return WhatIf(
        revision=revision,
        merged=merged,
        stages=tuple(_stage(each, seconds[name]) for name, each in told.items()),
        seconds=makespan({name: seconds[name] or 0.0 for name in order}, before, jobs),
        jobs=jobs,
        unknown=tuple(name for name in order if seconds[name] is None),
    )


def _stage(told: Forecast, seconds: float | None) -> StageForecast:
    verdict = told.verdict
    return StageForecast(
        name=verdict.stage,
        would=told.would.value,
        why=verdict.reasons,
        seconds=seconds,
        sure=told.sure,
        fingerprint=verdict.fingerprint.key if verdict.fingerprint is not None else None,
        notes=verdict.notes,
        broken=verdict.broken,
    )


def _known(session: Session, stage: Stage, key: str) -> Result | None:
    """Return what was made of an action key once, its outputs at hand or not: the lockfile's first."""
    entry = session.lockfile.stages.get(stage.name)
    names = {(output.name, output.path) for output in stage.outputs.values()}
    results = [r for r in session.actions.lookup(key) if {(out.name, out.path) for out in r.outs} == names]
    seconds = results[0].seconds if results else None
    if entry is not None and entry.fingerprint == key:
        return Result(outs=entry.outs, metrics=entry.metrics, seconds=seconds)
    return Result(outs=results[0].outs, metrics=results[0].metrics, seconds=seconds) if results else None


def _seconds(session: Session, told: Mapping[str, Forecast]) -> dict[str, float | None]:
    """Return how long each stage takes: as long as that very action took, else as the stage did last time."""
    last = last_seconds(session.workspace.state, told)
    found: dict[str, float | None] = {}
    for name, each in told.items():
        if each.would is not Would.RUN:
            found[name] = 0.0
            continue
        exact = each.known.seconds if each.known is not None else None
        found[name] = exact if exact is not None else last.get(name)
    return found


def _pin_what_is_here(session: Session, stages: Sequence[Stage]) -> Any:
    """Pin, for this answer alone, the datasets that no pin holds for and whose origin is on this machine, as a build
    would. Return whether a stage is given one that is left."""
    datasets = {given.origin.dataset for stage in stages for given in stage.inputs.values() if given.origin.dataset}
    left = {name for name in datasets if session.pins.dataset_pin(name) is None}
    for name in sorted(left):
        if _is_here(session, name):
            session.pins.pin_datasets([name])
            left = left - {name}
    return lambda stage: any(given.origin.dataset in left for given in stage.inputs.values())


def _is_here(session: Session, name: str) -> bool:
    from pipesmith.data.places import scheme_of

    dataset, stores = session.pipeline.datasets[name], session.pipeline.datastores
    return dataset.query is None and all(scheme_of(source, stores) == "file" for source in dataset.sources)


def _refuse(session: Session, told: Mapping[str, Forecast]) -> None:
    """Raise what a build would end with: a missing source or input; a frozen stage whose outputs can't be had."""
    verdicts = {name: each.verdict for name, each in told.items()}
    refuse(session, verdicts)
    for verdict in verdicts.values():
        for _key, text, help in verdict.problems:
            raise StageError(text, help)
