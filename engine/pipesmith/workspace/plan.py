"""What a build is asked to do: which stages, which of them whatever is known, what each one's verdict is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pipesmith.errors import ConfigError, Finding
from pipesmith.pipeline.graph import downstream, upstream
from pipesmith.pipeline.graph import order as topological
from pipesmith.pipeline.model import Stage
from pipesmith.records import field, record
from pipesmith.verdict.judgement import Judgement
from pipesmith.verdict.verdict import State, Verdict
from pipesmith.workspace.ignores import ignore_outputs
from pipesmith.workspace.preflight import preflight, preflight_conda, preflight_gpus, preflight_notebooks
from pipesmith.workspace.results import BuildResult, StageResult
from pipesmith.workspace.session import Session, select_stages

if TYPE_CHECKING:
    from pipesmith.pipeline.model import Pipeline

__all__ = ["BuildOptions", "Plan", "make_plan", "planned_result", "refuse", "refuse_unrunnable", "wanted_stages"]

Notice = Callable[[str], None]


@record
class BuildOptions:
    """What `pipe build` takes. jobs None: the cores. overrides: `--set` texts by dotted key. rev, experiment:
    built in a place of its own. by_fingerprint: a stage with `reuse = false` is judged as any other. held: stages that
    are not tried again while their fingerprint has this key. deliver: outputs go where `to` says."""

    stages: tuple[str, ...] = ()
    jobs: int | None = None
    keep_going: bool = False
    force: bool = False
    dry_run: bool = False
    overrides: Mapping[str, str] = field(default_factory=dict)
    compute: str | None = None
    upstream_only: bool = False
    downstream: bool = False
    restore: bool = True
    allow_missing: bool = False
    rev: str | None = None
    since: str | None = None
    experiment: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    message: str | None = None
    run_id: str | None = None
    command_line: tuple[str, ...] = ()
    by_fingerprint: bool = False
    held: Mapping[str, str | None] = field(default_factory=dict)
    deliver: bool = True


@record
class Plan:
    """What is to be done. wanted: the stages that are looked at, in topological order, each with a verdict. forced:
    those that run whatever is known. left_alone: those that are only there for what they made: with `--since`, what the
    difference does not reach."""

    session: Session
    judgement: Judgement
    wanted: tuple[str, ...]
    forced: frozenset[str]
    verdicts: Mapping[str, Verdict]
    left_alone: frozenset[str] = frozenset()

    @property
    def stages(self) -> tuple[Stage, ...]:
        return tuple(self.session.pipeline.stages[name] for name in self.wanted)

    @property
    def to_run(self) -> tuple[Stage, ...]:
        """The stages that run, unless those before them make what was there already."""
        may_run = (State.STALE, State.PENDING)
        return tuple(stage for stage in self.stages if self.verdicts[stage.name].state in may_run)

    @property
    def all_fresh(self) -> bool:
        """Whether no stage has anything to do, and every expectation is met."""
        return all(verdict.fresh and not verdict.broken for verdict in self.verdicts.values())


def make_plan(session: Session, options: BuildOptions, notice: Notice) -> Plan:
    """Decide what a build is to do. Unless it is a dry run, ignore lines are written and pins resolved on the way.

    Raises ConfigError with all that can't be run at all, UserError, EnvironmentFailure.
    """
    pipeline = session.pipeline
    named = select_stages(pipeline, options.stages) if options.stages else pipeline.targets
    wanted = wanted_stages(pipeline, named, options)
    if session.lender is not None:  # a place of its own: nobody minds what is written there
        if ignore_outputs(session):
            session.look_again()
        session.lender.lend([pipeline.stages[name] for name in wanted], notice)
    left_alone: frozenset[str] = frozenset()
    if options.since is not None:
        from pipesmith.workspace.since import reached_since

        reach = reached_since(session, options.since, notice).intersection(wanted)
        needed = upstream(pipeline, reach)
        left_alone = frozenset(needed - reach)
        named = tuple(name for name in named if name in reach)
        wanted = tuple(name for name in topological(pipeline) if name in needed)
    stages = [pipeline.stages[name] for name in wanted]
    refuse_unrunnable(session, stages, options)
    if not options.dry_run:
        done = ignore_outputs(session)
        for said in done:
            notice(said)
        if done:
            session.look_again()
        _pin(session, stages, notice)
    judgement = session.judgement(
        building=not options.by_fingerprint, lenient=options.allow_missing, restore=options.restore
    )
    judgement.left_alone = left_alone
    forced = frozenset(name for name in named if not pipeline.stages[name].frozen) if options.force else frozenset()
    verdicts = {stage.name: judgement.judge(stage, forced=stage.name in forced) for stage in stages}
    refuse(session, verdicts)
    may_run = [each for each in stages if verdicts[each.name].state in (State.STALE, State.PENDING)]
    preflight_gpus(session, may_run)
    if not options.dry_run:
        preflight_notebooks(session, may_run)
        preflight_conda(session, [stage for stage in stages if verdicts[stage.name].state is State.STALE])
    return Plan(
        session=session, judgement=judgement, wanted=wanted, forced=forced, verdicts=verdicts, left_alone=left_alone
    )


def refuse_unrunnable(session: Session, stages: Sequence[Stage], options: BuildOptions) -> None:
    """Raise ConfigError with everything that would fail for certain; what is fresh asks no compute."""
    preflight(session, stages, _fresh_far_away(session, stages, options), _may_run(session, stages, options))


def _may_run(session: Session, stages: Sequence[Stage], options: BuildOptions) -> Callable[[str], bool]:
    """Return what tells whether a stage may have to run. Nothing is judged before it is asked."""
    asleep: set[str] | None = None

    def may_run(name: str) -> bool:
        nonlocal asleep
        if asleep is None and not options.force:
            judgement = session.judgement(
                building=not options.by_fingerprint, lenient=options.allow_missing, restore=options.restore
            )
            states = {stage.name: judgement.judge(stage).state for stage in stages}
            asleep = {name for name, state in states.items() if state in (State.FRESH, State.RESTORABLE)}
            session.look_again()
        return asleep is None or name not in asleep

    return may_run


def _fresh_far_away(session: Session, stages: Sequence[Stage], options: BuildOptions) -> frozenset[str]:
    """Return which stages are fresh, where one has a compute of a kind that no stage can run on; else none."""
    kinds = {session.pipeline.computes[stage.compute].kind for stage in stages}
    if kinds <= {"local", "docker"} or options.force:
        return frozenset()
    judgement = session.judgement(building=not options.by_fingerprint, lenient=options.allow_missing)
    fresh = frozenset(stage.name for stage in stages if judgement.judge(stage).fresh)
    session.look_again()
    return fresh


def wanted_stages(pipeline: Pipeline, named: Sequence[str], options: BuildOptions) -> tuple[str, ...]:
    """Return the stages that are looked at, in topological order."""
    chosen = set(upstream(pipeline, named))
    if options.upstream_only:
        chosen -= set(named)
    elif options.downstream:
        chosen |= set(downstream(pipeline, named))
        chosen = set(upstream(pipeline, chosen))
    return tuple(name for name in topological(pipeline) if name in chosen)


def _pin(session: Session, stages: Sequence[Stage], notice: Notice) -> None:
    """Resolve the environments and datasets of stages that have no pin that holds."""
    used = dict.fromkeys(stage.environment for stage in stages if stage.environment)
    session.pins.resolve_environments([name for name in used if name], notice)
    data = {given.origin.dataset: None for stage in stages for given in stage.inputs.values()}
    session.pins.pin_datasets([name for name in data if name])


def refuse(session: Session, verdicts: Mapping[str, Verdict]) -> None:
    """Raise ConfigError for what can't be run at all: a missing source or input, seen before anything runs."""
    findings = [
        Finding(file=session.pipeline.file, line=session.line(key), key=key, text=text, help=help)
        for verdict in verdicts.values()
        if "frozen" not in verdict.notes
        for key, text, help in verdict.problems
    ]
    if session.lender is not None:
        findings += session.lender.findings(verdicts)
    if findings:
        unique = {finding.render(): finding for finding in findings}
        raise ConfigError(list(unique.values()))


def planned_result(plan: Plan) -> BuildResult:
    """Return what a dry run answers."""
    status = {State.FRESH: "fresh", State.RESTORABLE: "restored", State.STALE: "ran", State.PENDING: "pending"}
    return BuildResult(
        run=None,
        status="up-to-date" if all(v.fresh for v in plan.verdicts.values()) else "planned",
        stages=tuple(
            StageResult(
                name=verdict.stage,
                status=status[verdict.state],
                why=verdict.reasons,
                fingerprint=verdict.fingerprint.key if verdict.fingerprint else None,
                notes=verdict.notes,
            )
            for verdict in plan.verdicts.values()
            if not (verdict.fresh and verdict.stage in plan.left_alone)
        ),
    )
