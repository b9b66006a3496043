"""`build`: bring stages up to date."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pipesmith.build.context import Outcome
from pipesmith.build.control import Control
from pipesmith.build.deliveries import Deliveries
from pipesmith.build.interrupts import Interrupts
from pipesmith.build.job import JobRunner
from pipesmith.build.place import remove_unfinished
from pipesmith.build.scheduler import Scheduler
from pipesmith.errors import EnvironmentFailure, StageError, UserError
from pipesmith.events import BuildFinished, BuildStarted, Event, Notice
from pipesmith.executors.local import LocalExecutor
from pipesmith.history.run_id import new_run_id
from pipesmith.history.timings import last_seconds, remember_seconds
from pipesmith.pipeline.graph import edges, followers
from pipesmith.retention.places import sweep_places
from pipesmith.store.locks import CACHE
from pipesmith.store.modes import make_folders, prepare
from pipesmith.verdict.expectations import unknown_revisions
from pipesmith.workspace.lock_keeper import LockKeeper
from pipesmith.workspace.pins import user_and_host
from pipesmith.workspace.plan import BuildOptions, Plan, make_plan, planned_result
from pipesmith.workspace.recording import Recorder
from pipesmith.workspace.remarks import remark
from pipesmith.workspace.results import BuildResult, StageResult
from pipesmith.workspace.session import Session
from pipesmith.workspace.wiring import context_of, limits_of, runner_of

if TYPE_CHECKING:
    from pipesmith.workspace.workspace import Workspace

__all__ = ["build", "refuse_inside_a_stage"]


def build(
    workspace: Workspace,
    options: BuildOptions,
    on_event: Callable[[Event], None] | None = None,
    *,
    control: Control | None = None,
    session: Session | None = None,
) -> BuildResult:
    """Bring stages up to date. A failed build returns its result.

    control: by which it can be ended from another thread. session: a look at the workspace of this very moment.
    Raises ConfigError and UserError before anything runs; EnvironmentFailure where nothing could be begun.
    """
    refuse_inside_a_stage("pipe build")
    listener, control = on_event or (lambda event: None), control or Control()
    if options.rev is not None or options.experiment is not None:
        from pipesmith.workspace.build_elsewhere import build_elsewhere

        return build_elsewhere(workspace, options, listener, control)
    return _Build(workspace, options, listener, control).run(session)


def refuse_inside_a_stage(command: str) -> None:
    """Raise UserError where a stage is what calls."""
    if os.environ.get("PIPE_RUN") and os.environ.get("PIPE_STAGE"):
        raise UserError(
            f"`{command}` does not start inside a stage (here `{os.environ['PIPE_STAGE']}`)",
            "make it a stage of its own, and let `inputs` give the order",
        )


class _Build:
    def __init__(
        self, workspace: Workspace, options: BuildOptions, listener: Callable[[Event], None], control: Control
    ) -> None:
        self.workspace = workspace
        self.options = options
        self.listener = listener
        self.control = control
        self.started = time.time()
        self.run_id = options.run_id or new_run_id()

    def _damaged(self, hex: str) -> None:
        self.notice(
            f"object {hex[:8]} in the cache was damaged, and is in the trash now: what needs it is made again",
            level="warning",
            help="`pipe verify` reads every object",
        )

    def notice(self, text: str, *, level: str = "info", help: str | None = None) -> None:
        self.listener(Notice(time=time.time(), level=level, text=text, help=help))

    def run(self, session: Session | None = None) -> BuildResult:
        session = session or self.workspace.session(self.options.overrides, self.options.compute)
        _ = session.pipeline  # what is wrong with it is told first
        session.store.on_damage = self._damaged
        for text in self.workspace.state.notices:
            self.notice(text, level="warning")
        if not self.options.dry_run:
            self._sweep(session)
        plan = make_plan(session, self.options, self.notice)
        for revision in unknown_revisions(plan.stages, session.has_revision):
            self.notice(
                f"`{revision}` of `vs` is no revision of this repository: no metric is compared with it",
                level="warning",
                help="`git fetch` it, or mend `vs` in pipeline.toml",
            )
        if self.options.dry_run:
            return planned_result(plan)
        remark(plan, self.notice)
        fresh = [name for name, verdict in plan.verdicts.items() if verdict.fresh]
        undelivered = self._deliver_owed(session, fresh) if self.options.deliver else None
        result = self._build(plan)
        if undelivered is not None and result.status in ("succeeded", "up-to-date"):
            raise undelivered
        return result

    def _sweep(self, session: Session) -> None:
        """Take away what killed builds left behind, before anything is fingerprinted."""
        outputs = [out.path for stage in session.pipeline.stages.values() for out in stage.outputs.values()]
        if self.workspace.place is not None:
            return
        sweep_places(self.workspace.pipe_dir, self.workspace.repo.common_dir, self.workspace.locks)
        try:
            remove_unfinished(self.workspace.root, outputs, self.workspace.guard)
        except OSError:
            pass  # a read-only work tree: it does no harm

    def _deliver_owed(self, session: Session, fresh: Sequence[str]) -> StageError | None:
        """Make up for deliveries of fresh stages that an earlier build could not make; return the first that fails
        again."""
        place = self.workspace.place
        deliveries = Deliveries.of(
            self.workspace.pipe_dir,
            self.workspace.home.root,
            session.pipeline.datastores,
            session.store,
            owner=place.owner if place is not None else None,
        )
        failure: StageError | None = None
        for name in deliveries.owed(fresh):
            try:
                for target in deliveries.pay(name):
                    self.notice(f"`{name}` delivered to {target}")
            except StageError as error:
                failure = failure or error
        return failure

    def _build(self, plan: Plan) -> BuildResult:
        if plan.all_fresh and not self._temps_to_remove(plan):
            return self._up_to_date(plan)
        self._make_folders()
        # While the cache is held, a collection waits, or keeps what is young.
        with self.workspace.locks.shared(CACHE), Interrupts() as interrupts:
            result = self._execute(plan, interrupts)
        self._keep_small(plan.session)
        return result

    # -- nothing to do ------------------------------------------------------------------------------------------------

    def _up_to_date(self, plan: Plan) -> BuildResult:
        session = plan.session
        lock = LockKeeper(session)
        for name, verdict in plan.verdicts.items():
            if verdict.seen is not None and verdict.fingerprint is not None:
                lock.trace(name, verdict.fingerprint.key, verdict.seen.deps)
        lock.write()
        session.tree.flush()
        session.stat_cache.flush()
        if session.lender is not None:
            session.lender.flush()
        self.workspace.all_fresh = (session, plan.stages)
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
                for verdict in plan.verdicts.values()
                if verdict.stage not in plan.left_alone
            ),
        )

    # -- doing --------------------------------------------------------------------------------------------------------

    def _execute(self, plan: Plan, interrupts: Interrupts) -> BuildResult:
        session, workspace = plan.session, self.workspace
        session.computes.said = self.notice
        session.cold.listener = self.listener
        session.computes.look_ahead(plan.to_run)
        user, host = user_and_host()
        recorder = Recorder(session, self.run_id, self.options, user=user, host=host, notice=self.notice)
        local = LocalExecutor(workspace.pipe_dir, os.environ.get("PIPE_SANDBOX", "auto"))
        try:
            if any(session.pipeline.computes[stage.compute].kind == "local" for stage in plan.to_run):
                local.start()  # now: it takes a moment until it is ready
            context = context_of(plan, self.options, local, recorder, self.listener, self.notice)
            lock = LockKeeper(session)
            runner = runner_of(context, session, lock)
            seconds = last_seconds(workspace.state, plan.wanted)
            among = set(plan.wanted)
            before = edges(session.pipeline)
            scheduler = Scheduler(
                context,
                plan.judgement,
                runner,
                limits_of(plan, context, local),
                order=plan.wanted,
                before={name: [earlier for earlier in before[name] if earlier in among] for name in plan.wanted},
                verdicts=plan.verdicts,
                first=recorder.begin,
                seconds=seconds,
            )
            self._announce(plan, seconds)
            interrupts.call(scheduler.cancel)
            self.control.attach(scheduler)
            scheduler.run()
            outcomes = scheduler.outcomes
            told = [each for each in outcomes.values() if each.status != "fresh" or each.stage not in plan.left_alone]
            for name, outcome in outcomes.items():
                if outcome.status in ("fresh", "restored") and outcome.fingerprint:
                    lock.trace(name, outcome.fingerprint, outcome.deps)
            failure = self._finish(plan, lock, runner, outcomes)
            status = self._status(outcomes, scheduler.cancelled)
            if failure is not None and status not in ("failed", "cancelled"):
                status = "failed"
            remember_seconds(workspace.state, {o.stage: o.seconds for o in outcomes.values() if o.status == "ran"})
            recorder.finish(status, told)
            if failure is not None:
                raise failure
            self.listener(BuildFinished(time=time.time(), run=self.run_id, status=status))
            return BuildResult(
                run=self.run_id if recorder.begun else None,
                status=status,
                seconds=time.time() - self.started,
                stages=tuple(_stage_result(outcome) for outcome in told),
            )
        finally:
            recorder.settle()
            session.computes.close()
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

    def _announce(self, plan: Plan, seconds: Mapping[str, float]) -> None:
        to_run = {stage.name: seconds.get(stage.name) for stage in plan.to_run}
        self.listener(BuildStarted(time=time.time(), run=self.run_id, total=len(plan.wanted), to_run=to_run))

    def _finish(
        self, plan: Plan, lock: LockKeeper, runner: JobRunner, outcomes: Mapping[str, Outcome]
    ) -> EnvironmentFailure | None:
        """Write the lockfile, take away temporary outputs that are no longer needed. Returns what went wrong, if
        anything."""
        try:
            lock.write()
        except EnvironmentFailure as error:
            return error
        for stage, path, known in self._temps_to_remove(plan, outcomes):
            with self.workspace.guard():
                runner.placer.take_out(stage, path, [known])
        plan.session.tree.flush()
        plan.session.stat_cache.flush()
        if plan.session.lender is not None:
            plan.session.lender.flush()
        return None

    def _temps_to_remove(self, plan: Plan, outcomes: Mapping[str, Outcome] | None = None) -> list[tuple[str, str, str]]:
        """Return (stage, path, digest text) of temporary outputs in the workspace whose consumers are all up to
        date."""
        session, pipeline = plan.session, plan.session.pipeline
        good = ("fresh", "restored", "ran")
        found = []
        among = set(plan.wanted)
        after: dict[str, list[str]] | None = None
        for name in plan.wanted:
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
        if "skipped" in statuses and statuses <= {"fresh", "skipped"}:  # what failed before is not tried again: held
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
