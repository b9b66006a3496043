"""The scheduler: decides when. Topological, parallel within limits, early cutoff by judging each stage when those
before it ended."""

from __future__ import annotations

import heapq
import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping

from pipesmith.build.context import BuildContext, Outcome
from pipesmith.build.job import REJUDGE, JobRunner, StageJob
from pipesmith.build.later import Later
from pipesmith.build.limits import Grant, Limits
from pipesmith.errors import PipeError
from pipesmith.events import StageFinished, StageStarted, StageWaiting
from pipesmith.fingerprint.items import input_parts
from pipesmith.pipeline.model import Stage
from pipesmith.records import replace
from pipesmith.verdict.judgement import Judgement
from pipesmith.verdict.reasons import Reason
from pipesmith.verdict.verdict import Result, State, Verdict

__all__ = ["Scheduler"]

_HELD = "failed before, and is what it was"
_LISTEN_S = 0.2  # a signal that another thread was given does not end a wait of the main thread's
_RETRY_S = 0.05  # how often a stage that waits for another process asks again


class Scheduler:
    """Brings stages up to date. `run` blocks until all have ended; outcomes come in the order they ended.

    order: the wanted stages, topological. before: stage to the wanted stages that must end before it.
    first: told once, before the first stage runs or is restored (the run is recorded then), while that is prepared.
    seconds: how long a stage took last time, for choosing the longest path first.
    """

    def __init__(
        self,
        build: BuildContext,
        judgement: Judgement,
        runner: JobRunner,
        limits: Limits,
        *,
        order: tuple[str, ...],
        before: Mapping[str, Collection[str]],
        verdicts: Mapping[str, Verdict],
        first: Callable[[], None],
        seconds: Mapping[str, float],
    ) -> None:
        self._build = build
        self._judgement = judgement
        self._runner = runner
        self._limits = limits
        self._order = order
        self._before = before
        self._first = first
        self._seconds = seconds
        self._verdicts = dict(verdicts)
        self._after: dict[str, list[str]] = {name: [] for name in order}
        for name in order:
            for earlier in before[name]:
                self._after[earlier].append(name)
        self._priority = self._critical_path()
        self._left = {name: len(before[name]) for name in order}
        self._ready: list[tuple[float, int, str]] = []
        self._queued: list[tuple[float, int, str]] = []  # judged, and to be started when there is room
        self._index = {name: index for index, name in enumerate(order)}
        self._waiting_for: dict[str, str] = {}
        self._running: dict[str, tuple[StageJob, Grant]] = {}
        self._done: queue.SimpleQueue[tuple[str, Outcome] | None] = queue.SimpleQueue()
        self._needed: set[str] = set()  # stages whose absent outputs are wanted after all
        self._ended_before: dict[str, Outcome] = {}  # how stages ended whose outputs are put back
        self._failed = False
        self._cancelled = False
        self._ending: set[str] | None = set()  # what runs and is to be ended; None: all
        self._recording: Later | None = None
        self._bugs: list[Exception] = []
        self.outcomes: dict[str, Outcome] = {}

    def _critical_path(self) -> dict[str, float]:
        longest: dict[str, float] = {}
        for name in reversed(self._order):
            below = max((longest[later] for later in self._after[name]), default=0.0)
            longest[name] = below + self._seconds.get(name, 0.0) + 1e-6
        return longest

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        """Start nothing more and end what runs. Safe from signal handlers and other threads."""
        self._ending = None
        self._cancelled = True
        self._done.put(None)

    def stop(self, stages: Collection[str]) -> None:
        """Start nothing more and end these stages; others that run are let finish. Safe from other threads."""
        if self._ending is not None:
            self._ending = self._ending | set(stages)
        self._cancelled = True
        self._done.put(None)

    def running(self) -> dict[str, str | None]:
        """Return what runs or is restored now, each with the key of its fingerprint. Safe from other threads."""
        return {name: job.key for name, (job, _grant) in self._running.copy().items()}

    def run(self) -> None:
        """Bring all stages up to date; `outcomes` holds how each ended."""
        for name in self._order:
            if self._left[name] == 0:
                self._push(name)
        while len(self.outcomes) < len(self._order):
            self._start_what_can()
            if len(self.outcomes) == len(self._order):
                break
            if not self._running and not self._ready and not self._queued:
                self._skip_rest()
                break
            self._await_one()
        if self._recording is not None:
            self._recording.result()
        if self._bugs:
            raise self._bugs[0]

    def _push(self, name: str) -> None:
        heapq.heappush(self._ready, (-self._priority[name], self._index[name], name))

    def _start_what_can(self) -> None:
        """Judge all that is ready, so that what is fresh ends at once; start of the rest what the limits allow."""
        while self._ready:
            entry = heapq.heappop(self._ready)
            name = entry[2]
            if name in self.outcomes or self._left[name]:
                continue  # an output that was absent is being made for another reader first: pushed again when it is
            if self._cancelled or (self._failed and not self._build.choices.keep_going):
                self._end(name, Outcome(stage=name, status="cancelled" if self._cancelled else "skipped"))
            elif why := self._failed_before(name):
                self._end(name, Outcome(stage=name, status="skipped", why=why))
            elif not self._settled(self._build.pipeline.stages[name]):
                heapq.heappush(self._queued, entry)
        postponed: list[tuple[float, int, str]] = []
        while self._queued and self._limits.free_slot():
            entry = heapq.heappop(self._queued)
            if self._left[entry[2]] or entry[2] in self._running:
                continue
            if self._cancelled or (self._failed and not self._build.choices.keep_going):
                self._push(entry[2])
                continue
            if not self._advance(entry[2]):
                postponed.append(entry)
        for entry in postponed:
            heapq.heappush(self._queued, entry)
        if self._queued and (self._cancelled or (self._failed and not self._build.choices.keep_going)):
            self._ready, self._queued = self._queued, []
            self._start_what_can()
        elif self._ready:
            self._start_what_can()

    def _settled(self, stage: Stage) -> bool:
        """Judge a ready stage; True where that already ends it: fresh, or not to be run at all."""
        verdict = self._verdict(stage)
        if self._is_held(verdict):
            key = verdict.fingerprint.key if verdict.fingerprint else None
            outcome = Outcome(stage=stage.name, status="skipped", why=verdict.reasons, fingerprint=key, notes=(_HELD,))
            self._end(stage.name, outcome)
            return True
        if verdict.state is State.FRESH:
            self._end(stage.name, self._fresh(verdict))
            return True
        if verdict.problems:
            _key, text, help = verdict.problems[0]
            self._end(
                stage.name,
                Outcome(
                    stage=stage.name, status="failed", why=verdict.reasons, error=text, help=help, notes=verdict.notes
                ),
            )
            return True
        return False

    def _is_held(self, verdict: Verdict) -> bool:
        held = self._build.choices.held
        if verdict.stage not in held or verdict.fingerprint is None or held[verdict.stage] != verdict.fingerprint.key:
            return False
        return verdict.state is State.STALE or bool(verdict.broken)

    def _failed_before(self, name: str) -> tuple[Reason, ...]:
        return tuple(
            Reason("upstream", earlier)
            for earlier in self._before[name]
            if self.outcomes[earlier].status in ("failed", "skipped", "cancelled")
        )

    def _advance(self, name: str) -> bool:
        """Take a ready stage as far as it can go now. False: try again later."""
        stage = self._build.pipeline.stages[name]
        if name in self.outcomes or self._settled(stage):
            return True
        verdict = self._verdict(stage)
        if verdict.state is State.STALE and self._make_absent_inputs(stage):
            return True
        must_run = verdict.state is State.STALE
        key = verdict.fingerprint.key if must_run and verdict.fingerprint else None
        try:
            grant = self._limits.acquire(stage, key)
        except PipeError as error:
            self._end(
                name,
                Outcome(
                    stage=name,
                    status="failed",
                    why=verdict.reasons,
                    error=error.text,
                    help=error.help,
                    compute=stage.compute,
                ),
            )
            return True
        if isinstance(grant, str):
            if grant and self._waiting_for.get(name) != grant:
                self._waiting_for[name] = grant
                self._build.emit(StageWaiting(time=time.time(), stage=name, for_=grant))
            return False
        if self._waiting_for.pop(name, None) is not None or must_run:
            # Somebody else may have made it meanwhile; judged again under the locks, an action is never run twice.
            again = self._judge(stage)
            if again.state is not verdict.state or again.fingerprint != verdict.fingerprint:
                self._limits.release(grant)
                self._verdicts[name] = again
                return self._advance(name)
            verdict = again
        self._begin(stage, verdict, grant)
        return True

    def _verdict(self, stage: Stage) -> Verdict:
        known = self._verdicts.get(stage.name)
        if known is not None and known.state is not State.PENDING:
            return known
        verdict = self._judge(stage)
        self._verdicts[stage.name] = verdict
        return verdict

    def _judge(self, stage: Stage) -> Verdict:
        forced = stage.name in self._build.choices.force
        return self._judgement.judge(stage, forced=forced, needed=stage.name in self._needed)

    def _make_absent_inputs(self, stage: Stage) -> bool:
        """See to it that outputs that may be absent are there for a stage that runs. True: the stage must wait for
        that."""
        waits = False
        for part in input_parts(stage, self._build.pipeline.stages):
            maker = part.stage
            if not maker or maker in self._needed:
                continue
            outcome = self.outcomes.get(maker)
            absent = self._verdicts[maker].absent if maker in self._verdicts else ()
            if outcome is None or outcome.status != "fresh" or part.output not in absent:
                continue
            self._needed.add(maker)
            self._verdicts.pop(maker, None)
            self._reopen(maker)
            waits = True
        if waits:
            return True
        return any(earlier not in self.outcomes for earlier in self._before[stage.name])

    def _begin(self, stage: Stage, verdict: Verdict, grant: Grant) -> None:
        if self._recording is None:
            self._recording = Later(self._first, "record")
        recorded = self._recording.result
        restore = verdict.state is State.RESTORABLE
        job = StageJob(self._runner, stage, verdict, grant.gpus, grant.node)
        self._running[stage.name] = (job, grant)
        if not restore:
            self._judgement.unsettle(stage.name)
            self._build.emit(
                StageStarted(
                    time=time.time(),
                    stage=stage.name,
                    why=verdict.reasons,
                    last_seconds=self._seconds.get(stage.name),
                )
            )

        def work() -> None:
            try:
                outcome = job.execute(restore=restore, recorded=recorded)
            except Exception as error:  # a bug: the build ends with it instead of waiting for ever
                self._bugs.append(error)
                outcome = Outcome(stage=stage.name, status="failed", error=f"a bug of pipesmith: {error!r}")
            self._done.put((stage.name, outcome))

        threading.Thread(target=work, name=f"stage {stage.name}", daemon=True).start()

    def _await_one(self) -> None:
        """Wait for a stage to end, or for the moment to ask again for what another process holds."""
        asks_again = bool(self._waiting_for) or not self._running
        while True:
            try:
                ended = self._done.get(timeout=_RETRY_S if asks_again else _LISTEN_S)
                break
            except queue.Empty:
                if asks_again:
                    self._runner.lock_writer.tick()
                    return
        if ended is None:
            for name, (job, _grant) in self._running.items():
                if self._ending is None or name in self._ending:
                    job.cancel()
            return
        if self._recording is not None and self._recording.failed is not None:
            raise self._recording.failed  # nothing was started, and nothing will be
        name, outcome = ended
        _job, grant = self._running.pop(name)
        self._limits.release(grant)
        if outcome.status == REJUDGE:
            self._judgement.tree = self._build.tree = self._build.fresh_tree()
            self._verdicts.pop(name, None)
            self._put_back_inputs(name)
            self._push(name)
            return
        earlier = self._ended_before.pop(name, None)
        self._end(name, outcome)
        if earlier is not None and outcome.status == "restored":
            self.outcomes[name] = earlier  # what it did in this build
        self._runner.lock_writer.tick()

    def _end(self, name: str, outcome: Outcome) -> None:
        if outcome.status in ("ran", "restored", "fresh"):
            self._judgement.settle(name, outcome.outs, outcome.metrics)
        elif outcome.status == "failed":
            self._failed = True
        self.outcomes.pop(name, None)
        self.outcomes[name] = outcome
        self._build.emit(StageFinished(time=time.time(), stage=name, result=outcome))
        for later in self._after[name]:
            self._left[later] -= 1
            if self._left[later] == 0 and later not in self.outcomes:
                self._push(later)

    def _fresh(self, verdict: Verdict) -> Outcome:
        assert verdict.result is not None
        outcome = Outcome(
            stage=verdict.stage,
            status="failed" if verdict.broken else "fresh",
            fingerprint=verdict.fingerprint.key if verdict.fingerprint else None,
            outs=verdict.result.outs,
            metrics=verdict.result.metrics,
            notes=verdict.notes,
        )
        if verdict.seen is not None:
            outcome.deps, outcome.source = verdict.seen.deps, verdict.seen.source
            outcome.params, outcome.environment = verdict.seen.params, verdict.seen.environment
        if verdict.broken:
            outcome.error = "; ".join(verdict.broken)
            outcome.help = "change the stage, or its `expect`"
        return outcome

    def _put_back_inputs(self, name: str) -> None:
        """See to it that what earlier stages of this build made, and something else changed since, is there again for a
        stage that reads it."""
        for part in input_parts(self._build.pipeline.stages[name], self._build.pipeline.stages):
            outcome = self.outcomes.get(part.stage)
            if outcome is None or all(
                self._build.digest_now(out.path, out.digest.algorithm) == out.digest for out in outcome.outs
            ):
                continue
            result = Result(outs=outcome.outs, metrics=outcome.metrics)
            self._verdicts[part.stage] = replace(
                self._verdicts[part.stage], state=State.RESTORABLE, result=result, absent=()
            )
            self._ended_before[part.stage] = outcome
            self._reopen(part.stage)

    def _reopen(self, maker: str) -> None:
        """Have a stage that has ended end once more, before those after it that have not."""
        del self.outcomes[maker]
        for other in self._after[maker]:
            if other not in self.outcomes:
                self._left[other] += 1
        self._push(maker)

    def _skip_rest(self) -> None:
        for name in self._order:
            if name not in self.outcomes:
                status = "cancelled" if self._cancelled else "skipped"
                self._end(name, Outcome(stage=name, status=status))
