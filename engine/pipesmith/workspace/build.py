"""`build`: bring stages up to date."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pipesmith.build.context import BuildContext, Choices, Outcome
from pipesmith.build.deliveries import Deliveries
from pipesmith.build.evidence import Stamper
from pipesmith.build.interrupts import Interrupts
from pipesmith.build.job import JobRunner
from pipesmith.build.limits import Limits
from pipesmith.build.lock_writer import LockWriter
from pipesmith.build.place import Placer, remove_unfinished
from pipesmith.build.scheduler import Scheduler
from pipesmith.digest import Digest
from pipesmith.errors import ConfigError, EnvironmentFailure, Finding, StageError, UserError
from pipesmith.events import BuildFinished, BuildStarted, Event, Notice
from pipesmith.executors.gpus import GpuPool, driver_gpus
from pipesmith.executors.local import LocalExecutor
from pipesmith.executors.output import MIN_SECRET
from pipesmith.history.run_id import new_run_id
from pipesmith.history.timings import last_seconds, remember_seconds
from pipesmith.lockfile.model import LockedDep
from pipesmith.pipeline.graph import downstream, edges, followers, upstream
from pipesmith.pipeline.graph import order as topological
from pipesmith.pipeline.model import Stage
from pipesmith.store.locks import CACHE
from pipesmith.store.modes import make_folders, prepare
from pipesmith.verdict.verdict import State, Verdict
from pipesmith.workspace.ignores import ignore_outputs
from pipesmith.workspace.pins import user_and_host
from pipesmith.workspace.preflight import preflight, preflight_notebooks
from pipesmith.workspace.recording import Recorder
from pipesmith.workspace.results import BuildResult, StageResult
from pipesmith.workspace.session import Session, select_stages

if TYPE_CHECKING:
    from pipesmith.workspace.workspace import Workspace

__all__ = ["BuildOptions", "build"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What `pipe build` takes. jobs None: the cores. overrides: `--set` texts by dotted key."""

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
    tags: Mapping[str, str] = field(default_factory=dict)
    message: str | None = None
    command_line: tuple[str, ...] = ()


def build(workspace: Workspace, options: BuildOptions, on_event: Callable[[Event], None] | None = None) -> BuildResult:
    """Bring stages up to date. A failed build returns its result.

    Raises ConfigError and UserError before anything runs; EnvironmentFailure where nothing could be begun.
    """
    if os.environ.get("PIPE_RUN") and os.environ.get("PIPE_STAGE"):
        raise UserError(
            f"`pipe build` does not start inside a stage (here `{os.environ['PIPE_STAGE']}`)",
            "make it a stage of its own, and let `inputs` give the order",
        )
    return _Build(workspace, options, on_event or (lambda event: None)).run()


class _Build:
    def __init__(self, workspace: Workspace, options: BuildOptions, listener: Callable[[Event], None]) -> None:
        self.workspace = workspace
        self.options = options
        self.listener = listener
        self.started = time.time()
        self.run_id = new_run_id()

    def notice(self, text: str, *, level: str = "info", help: str | None = None) -> None:
        self.listener(Notice(time=time.time(), level=level, text=text, help=help))

    def run(self) -> BuildResult:
        options, workspace = self.options, self.workspace
        session = workspace.session(options.overrides)
        self.session = session
        pipeline = session.pipeline
        wanted = self._wanted(session)
        for text in workspace.state.notices:
            self.notice(text, level="warning")
        stages = [pipeline.stages[name] for name in wanted]
        preflight(session, stages, compute=options.compute)
        if not options.dry_run:
            self._sweep(session)
            for line in ignore_outputs(session):
                self.notice(f"added `{line}` to .gitignore")
        if not options.dry_run:
            used = dict.fromkeys(stage.environment for stage in stages if stage.environment)
            session.pins.resolve_environments([name for name in used if name], self.notice)
            preflight_notebooks(session, stages)
            data = {given.origin.dataset: None for stage in stages for given in stage.inputs.values()}
            session.pins.pin_datasets([name for name in data if name])
        judgement = session.judgement(
            building=True,
            lenient=options.allow_missing,
            restore=options.restore,
        )
        force = self._forced(session, wanted)
        verdicts: dict[str, Verdict] = {}
        for name in wanted:
            verdicts[name] = judgement.judge(pipeline.stages[name], forced=name in force)
        self._refuse(session, verdicts)
        if options.dry_run:
            return self._planned(verdicts)
        self._remarks(session, stages)
        undelivered = self._deliver_owed(session, [name for name, verdict in verdicts.items() if verdict.fresh])
        result = self._build(session, judgement, wanted, force, verdicts)
        if undelivered is not None and result.status in ("succeeded", "up-to-date"):
            raise undelivered
        return result

    def _remarks(self, session: Session, stages: Sequence[Stage]) -> None:
        """Say what a person may not expect: once a clone that GPUs lie idle, always that the shared cache is not
        used."""
        short = {name for stage in stages for name in stage.pass_env if 0 < len(os.environ.get(name, "")) < MIN_SECRET}
        for name in sorted(short):
            if self._once(session, f"short-{name}"):
                self.notice(
                    f"the value of `{name}` has under {MIN_SECRET} characters: it is not masked in logs",
                    level="warning",
                )
        if not any(stage.resources.gpus for stage in session.pipeline.stages.values()):
            gpus = driver_gpus()
            if gpus and self._once(session, "idle-gpus"):
                self.notice(
                    f"this machine has {len(gpus)} GPU{'s' if len(gpus) > 1 else ''} and no stage asks for one",
                    help="a stage that wants one says so: `resources = { gpus = 1 }`",
                )

    def _once(self, session: Session, name: str) -> bool:
        """Return whether something is to be said for the first time in this clone."""
        state, key = session.workspace.state, f"said-{session.workspace.root}-{name}"
        if state.query("SELECT 1 FROM parsed WHERE key = ?", (key,)):
            return False
        state.write([("INSERT OR REPLACE INTO parsed VALUES (?, ?)", (key, b""))])
        return True

    def _sweep(self, session: Session) -> None:
        """Take away what a killed build left behind in the workspace, before anything is fingerprinted."""
        outputs = [out.path for stage in session.pipeline.stages.values() for out in stage.outputs.values()]
        try:
            remove_unfinished(self.workspace.root, outputs, self.workspace.guard)
        except OSError:
            pass  # a read-only work tree: it does no harm

    def _deliver_owed(self, session: Session, fresh: Sequence[str]) -> StageError | None:
        """Make up for deliveries of fresh stages that an earlier build could not make; return the first that fails
        again."""
        deliveries = Deliveries.of(
            self.workspace.pipe_dir, self.workspace.root, session.pipeline.datastores, session.store
        )
        failure: StageError | None = None
        for name in deliveries.owed(fresh):
            try:
                for place in deliveries.pay(name):
                    self.notice(f"`{name}` delivered to {place}")
            except StageError as error:
                failure = failure or error
        return failure

    def _build(
        self,
        session: Session,
        judgement: Any,
        wanted: tuple[str, ...],
        force: frozenset[str],
        verdicts: Mapping[str, Verdict],
    ) -> BuildResult:
        if all(verdict.fresh and not verdict.broken for verdict in verdicts.values()) and not self._temps_to_remove(
            session, wanted
        ):
            return self._up_to_date(session, verdicts)
        self._make_folders()
        # While the cache is held, a collection waits, or keeps what is young.
        with self.workspace.locks.shared(CACHE), Interrupts() as interrupts:
            result = self._execute(session, judgement, wanted, force, verdicts, interrupts)
        self._keep_small(session)
        return result

    # -- what is wanted -----------------------------------------------------------------------------------------------

    def _wanted(self, session: Session) -> tuple[str, ...]:
        pipeline, options = session.pipeline, self.options
        named = select_stages(pipeline, options.stages) if options.stages else pipeline.targets
        self.named = named
        chosen = set(upstream(pipeline, named))
        if options.upstream_only:
            chosen -= set(named)
        elif options.downstream:
            chosen |= set(downstream(pipeline, named))
            chosen = set(upstream(pipeline, chosen))
        return tuple(name for name in topological(pipeline) if name in chosen)

    def _forced(self, session: Session, wanted: Sequence[str]) -> frozenset[str]:
        if not self.options.force:
            return frozenset()
        frozen = {name for name in wanted if session.pipeline.stages[name].frozen}
        return frozenset(self.named) - frozen

    def _refuse(self, session: Session, verdicts: Mapping[str, Verdict]) -> None:
        """Raise ConfigError for what can't be run at all: a missing source or input, seen before anything runs."""
        findings = [
            Finding(file=session.pipeline.file, line=session.line(key), key=key, text=text, help=help)
            for verdict in verdicts.values()
            if "frozen" not in verdict.notes
            for key, text, help in verdict.problems
        ]
        if findings:
            unique = {finding.render(): finding for finding in findings}
            raise ConfigError(list(unique.values()))

    # -- nothing to do ------------------------------------------------------------------------------------------------

    def _planned(self, verdicts: Mapping[str, Verdict]) -> BuildResult:
        status = {State.FRESH: "fresh", State.RESTORABLE: "restored", State.STALE: "ran", State.PENDING: "pending"}
        return BuildResult(
            run=None,
            status="up-to-date" if all(v.fresh for v in verdicts.values()) else "planned",
            stages=tuple(
                StageResult(
                    name=verdict.stage,
                    status=status[verdict.state],
                    why=verdict.reasons,
                    fingerprint=verdict.fingerprint.key if verdict.fingerprint else None,
                    notes=verdict.notes,
                )
                for verdict in verdicts.values()
            ),
        )

    def _up_to_date(self, session: Session, verdicts: Mapping[str, Verdict]) -> BuildResult:
        writer = self._lock_writer(session)
        for name, verdict in verdicts.items():
            if verdict.seen is not None and verdict.fingerprint is not None:
                self._trace(session, writer, name, verdict.fingerprint.key, verdict.seen.deps)
        self._write_lock(session, writer)
        session.tree.flush()
        session.stat_cache.flush()
        self.workspace.all_fresh = (session, tuple(session.pipeline.stages[name] for name in verdicts))
        return BuildResult(
            run=None,
            status="up-to-date",
            seconds=time.time() - self.started,
            stages=tuple(
                StageResult(
                    name=verdict.stage,
                    status="fresh",
                    fingerprint=verdict.fingerprint.key if verdict.fingerprint else None,
                    outputs=verdict.result.outs if verdict.result else (),
                    metrics=verdict.result.metrics if verdict.result else {},
                    notes=verdict.notes,
                )
                for verdict in verdicts.values()
            ),
        )

    @staticmethod
    def _trace(session: Session, writer: LockWriter, name: str, key: str, deps: Sequence[LockedDep]) -> None:
        """Keep an entry true that reads inside a folder output: the folder may be another, though the part is not."""
        entry = session.lockfile.stages.get(name)
        if entry is None or entry.fingerprint != key:
            return
        now = {dep.name: dep.of for dep in deps if dep.of}
        if any(dep.of != now.get(dep.name, dep.of) for dep in entry.deps):
            traced = tuple(replace(dep, of=now.get(dep.name, dep.of)) for dep in entry.deps)
            writer.set_stage(name, replace(entry, deps=traced))

    def _lock_writer(self, session: Session) -> LockWriter:
        writer = LockWriter(
            self.workspace.lock_path, self.workspace.guard, session.lock_text, session.lockfile, session.store.sync
        )
        for name, environment in session.pins.new_environments.items():
            writer.set_environment(name, environment)
        for name, dataset in session.pins.new_datasets.items():
            writer.set_dataset(name, dataset)
        return writer

    def _write_lock(self, session: Session, writer: LockWriter) -> None:
        pipeline = session.pipeline
        try:
            writer.write(keep=(pipeline.stages, pipeline.environments, pipeline.datasets))
        except OSError as error:
            if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) and not writer.pending():
                return
            raise EnvironmentFailure(
                f"pipe.lock can't be written: {error.strerror}",
                "free some space or mend its permissions, then build again",
            ) from None

    # -- doing --------------------------------------------------------------------------------------------------------

    def _execute(
        self,
        session: Session,
        judgement: Any,
        wanted: tuple[str, ...],
        force: frozenset[str],
        verdicts: Mapping[str, Verdict],
        interrupts: Interrupts,
    ) -> BuildResult:
        workspace, options, pipeline = self.workspace, self.options, session.pipeline
        local = LocalExecutor(workspace.pipe_dir, os.environ.get("PIPE_SANDBOX", "auto"))
        try:
            local.start()
            user, host = user_and_host()
            recorder = Recorder(session, self.run_id, options, user=user, host=host, notice=self.notice)
            context = BuildContext(
                repo=workspace.repo,
                root=workspace.root,
                pipe_dir=workspace.pipe_dir,
                pipeline=pipeline,
                run=self.run_id,
                tree=session.tree,
                fresh_tree=session.fresh_tree,
                digest_now=session.output_now,
                state=workspace.state,
                store=session.store,
                actions=session.actions,
                executors=dict.fromkeys(pipeline.computes, local) | {"local": local},
                choices=Choices(
                    jobs=options.jobs or max(1, int(local.capacity().cpus)),
                    keep_going=options.keep_going,
                    force=force,
                    restore=options.restore,
                    allow_missing=options.allow_missing,
                ),
                listener=self.listener,
                environment=lambda stage: session.pins.materialise(stage, self.notice),
                dataset_files=session.pins.dataset_files,
                git=recorder.git,
                user=user,
                host=host,
            )
            writer = self._lock_writer(session)

            def said(path: str, digest: Digest) -> None:
                context.notice(
                    "warning",
                    f"`{path}` was not what the lockfile says; what lay there is kept as {digest.hex}",
                    f"`pipe cat {digest.hex[:12]}` shows it, `pipe checkout --to DIR` puts other states elsewhere",
                )

            runner = JobRunner(
                build=context,
                placer=Placer(workspace.root, session.store, session.output_now, said),
                lock_writer=writer,
                workspace_lock=workspace.guard,
                metric_at=session.metric_at,
                locked=session.lockfile.stages.get,
                stamper=Stamper(),
            )
            gpu_count = pipeline.computes["local"].gpus if "local" in pipeline.computes else None
            needs_gpu = any(pipeline.stages[name].resources.gpus for name in wanted)
            limits = Limits(
                context.choices.jobs,
                {"local": local.capacity()},
                {name: compute.max_jobs for name, compute in pipeline.computes.items()},
                workspace.locks,
                GpuPool(gpu_count) if needs_gpu else None,
            )
            among = set(wanted)
            before = {name: [n for n in earlier if n in among] for name, earlier in edges(pipeline).items()}
            seconds = last_seconds(workspace.state, wanted)
            scheduler = Scheduler(
                context,
                judgement,
                runner,
                limits,
                order=wanted,
                before={name: before[name] for name in wanted},
                verdicts=verdicts,
                first=recorder.begin,
                seconds=seconds,
            )
            self._announce(verdicts, wanted, seconds)
            interrupts.call(scheduler.cancel)
            scheduler.run()
            outcomes = scheduler.outcomes
            for name, outcome in outcomes.items():
                if outcome.status in ("fresh", "restored") and outcome.fingerprint:
                    self._trace(session, writer, name, outcome.fingerprint, outcome.deps)
            failure = self._finish(session, writer, runner, wanted, outcomes)
            status = self._status(outcomes, scheduler.cancelled)
            if failure is not None and status not in ("failed", "cancelled"):
                status = "failed"
            remember_seconds(workspace.state, {o.stage: o.seconds for o in outcomes.values() if o.status == "ran"})
            recorder.finish(status, list(outcomes.values()))
            if failure is not None:
                raise failure
            self.listener(BuildFinished(time=time.time(), run=self.run_id, status=status))
            return BuildResult(
                run=self.run_id if recorder.begun else None,
                status=status,
                seconds=time.time() - self.started,
                stages=tuple(_stage_result(outcome) for outcome in outcomes.values()),
            )
        finally:
            local.close()

    def _keep_small(self, session: Session) -> None:
        """Keep the cache under `[cache] max-size`."""
        most = session.pipeline.cache.max_size_bytes
        if most is None:
            return
        from pipesmith.workspace.collecting import collect_garbage

        try:
            report = collect_garbage(session, max_size_bytes=most, only_over_size=True)
        except (UserError, EnvironmentFailure) as error:
            self.notice(f"the cache was not kept under `[cache] max-size`: {error.text}", level="warning")
            return
        for text in report.notes:
            self.notice(text, level="warning")

    def _make_folders(self) -> None:
        prepare(self.workspace.pipe_dir, self.workspace.repo.config.get("core.sharedrepository"))
        for name in ("cache", "tmp", "logs", "locks"):
            folder = os.path.join(self.workspace.pipe_dir, name)
            try:
                make_folders(folder)
            except OSError as error:
                raise EnvironmentFailure(
                    f"`{folder}` can't be made: {error.strerror}",
                    "a build needs to write into the repository's git folder",
                ) from None

    def _announce(self, verdicts: Mapping[str, Verdict], wanted: Sequence[str], seconds: Mapping[str, float]) -> None:
        to_run = {name: seconds.get(name) for name in wanted if verdicts[name].state in (State.STALE, State.PENDING)}
        self.listener(BuildStarted(time=time.time(), run=self.run_id, total=len(wanted), to_run=to_run))

    def _finish(
        self,
        session: Session,
        writer: LockWriter,
        runner: JobRunner,
        wanted: Sequence[str],
        outcomes: Mapping[str, Outcome],
    ) -> EnvironmentFailure | None:
        """Write the lockfile, take away temporary outputs that are no longer needed. Returns what went wrong, if
        anything."""
        try:
            self._write_lock(session, writer)
        except EnvironmentFailure as error:
            return error
        for stage, path, known in self._temps_to_remove(session, wanted, outcomes):
            with self.workspace.guard():
                runner.placer.take_out(stage, path, [known])
        session.tree.flush()
        session.stat_cache.flush()
        return None

    def _temps_to_remove(
        self, session: Session, wanted: Sequence[str], outcomes: Mapping[str, Outcome] | None = None
    ) -> list[tuple[str, str, str]]:
        """Return (stage, path, digest text) of temporary outputs in the workspace whose consumers are all up to
        date."""
        pipeline = session.pipeline
        good = ("fresh", "restored", "ran")
        found = []
        among = set(wanted)
        after: dict[str, list[str]] | None = None
        for name in wanted:
            stage = pipeline.stages[name]
            for output in stage.outputs.values():
                if not output.temp or not os.path.lexists(os.path.join(self.workspace.root, output.path)):
                    continue
                if after is None:
                    after = followers(pipeline)
                consumers = after[name]
                if outcomes is not None and any(
                    other not in outcomes or outcomes[other].status not in good for other in (name, *consumers)
                ):
                    continue
                if outcomes is None and any(other not in among for other in consumers):
                    continue
                outs = outcomes[name].outs if outcomes else session.lockfile.stages[name].outs
                known = next((out.digest.text for out in outs if out.name == output.name), "")
                found.append((name, output.path, known))
        return found

    @staticmethod
    def _status(outcomes: Mapping[str, Outcome], cancelled: bool) -> str:
        statuses = {outcome.status for outcome in outcomes.values()}
        if cancelled and "cancelled" in statuses:  # one that came when all was done changes nothing
            return "cancelled"
        if "failed" in statuses:
            return "failed"
        return "up-to-date" if statuses <= {"fresh"} else "succeeded"


def _stage_result(outcome: Outcome) -> StageResult:
    return StageResult(
        name=outcome.stage,
        status=outcome.status,
        why=outcome.why,
        fingerprint=outcome.fingerprint,
        seconds=outcome.seconds,
        outputs=outcome.outs,
        metrics=outcome.metrics,
        notes=outcome.notes,
        error=outcome.error,
        help=outcome.help,
        exit_code=outcome.exit_code,
        tail=outcome.tail,
    )
