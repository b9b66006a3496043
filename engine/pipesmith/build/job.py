"""The life of one stage in a build: prepare, run, collect, record, place."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from pipesmith.build.aside import Aside
from pipesmith.build.context import BuildContext, Outcome
from pipesmith.build.deliveries import Deliveries
from pipesmith.build.evidence import Evidence, Stamper
from pipesmith.build.folders import temporary_folder
from pipesmith.build.given_links import check_given_links
from pipesmith.build.hints import missing_file_hint
from pipesmith.build.job_of import job_of, secrets_of
from pipesmith.build.keep import KeepFolder
from pipesmith.build.live_log import LiveLog
from pipesmith.build.lock_writer import LockWriter
from pipesmith.build.overuse import overuse
from pipesmith.build.place import Placer
from pipesmith.errors import Cancelled, PipeError, StageError
from pipesmith.events import StageOutput
from pipesmith.executors.base import Attempt, JobResult
from pipesmith.executors.copying import copy_any
from pipesmith.fingerprint.items import input_parts, run_item
from pipesmith.history.logs import log_path
from pipesmith.history.metrics_file import read_metrics
from pipesmith.lockfile.model import LockedOut, StageLock
from pipesmith.pipeline.model import Stage, Transfer
from pipesmith.records import record, replace
from pipesmith.store.action_cache import ActionResult
from pipesmith.store.modes import make_folders
from pipesmith.store.object_store import ObjectDamaged, ObjectMissing
from pipesmith.store.removal import make_writable, remove
from pipesmith.verdict.expectations import broken_expectations
from pipesmith.verdict.verdict import Seen, Verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pipesmith.executors.gpu import GpuUsage
    from pipesmith.executors.gpus import GpuHold

__all__ = ["CHANGED", "REJUDGE", "JobRunner", "StageJob", "lock_entry"]

CHANGED = "changed while the stage ran"  # how the error ends
REJUDGE = "rejudge"  # what the stage was judged by is not what lies there now: nothing was run


@record(frozen=False)
class JobRunner:
    """What all jobs of a build share besides the context."""

    build: BuildContext
    placer: Placer
    lock_writer: LockWriter
    workspace_lock: Callable[[], AbstractContextManager[None]]
    metric_at: Callable[[str, str, str], float | None]
    locked: Callable[[str], StageLock | None]
    stamper: Stamper


class StageJob:
    """One stage, restored or run. `execute` is called once, in a thread of its own; `cancel` from any thread."""

    def __init__(
        self, runner: JobRunner, stage: Stage, verdict: Verdict, gpus: GpuHold | None = None, node: str = ""
    ) -> None:
        self._runner = runner
        self._build = runner.build
        self._stage = stage
        self._verdict = verdict
        self._gpus = gpus
        self._node = node
        self._attempt: Attempt | None = None
        self._cancelled = False
        self._guard = threading.Lock()
        self._recorded: Callable[[], object] = lambda: None

    @property
    def key(self) -> str | None:
        """The key of the fingerprint that it was judged by."""
        return self._verdict.fingerprint.key if self._verdict.fingerprint else None

    def cancel(self) -> None:
        """End what runs, or keep it from starting."""
        with self._guard:
            self._cancelled = True
            if self._attempt is not None:
                self._attempt.cancel()

    def execute(self, *, restore: bool, recorded: Callable[[], object]) -> Outcome:
        """Return how the stage ended; never raises. recorded(): blocks until the run is recorded: no command is started
        and nothing placed before; raises where that failed."""
        self._recorded = recorded
        started = time.time()
        outcome = Outcome(
            stage=self._stage.name,
            status="failed",
            why=self._verdict.reasons,
            fingerprint=self._verdict.fingerprint.key if self._verdict.fingerprint else None,
            started=started,
            notes=self._verdict.notes,
            compute=self._stage.compute,
        )
        if self._verdict.seen is not None:
            outcome.deps = self._verdict.seen.deps
            outcome.source = self._verdict.seen.source
            outcome.params = dict(self._verdict.seen.params)
            outcome.environment = self._verdict.seen.environment
        try:
            if restore:
                self._restore(outcome)
            else:
                self._run(outcome)
        except PipeError as error:
            outcome.status, outcome.error, outcome.help = "failed", error.headline, error.help
        except OSError as error:
            outcome.status = "failed"
            outcome.error = f"`{error.filename}`: {error.strerror}" if error.filename else str(error)
        outcome.ended = time.time()
        outcome.started += 0.0 if restore else self._cold_s(outcome)
        outcome.seconds = outcome.ended - outcome.started
        return outcome

    def _cold_s(self, outcome: Outcome) -> float:
        """Return how long its environment was being made, which is no time of the stage's."""
        return min(self._build.cold_s(self._stage, outcome.started), time.time() - outcome.started)

    # -- restored -------------------------------------------------------------------------------------------------

    def _restore(self, outcome: Outcome) -> None:
        result = self._verdict.result
        assert result is not None
        if self._verdict.broken:
            raise StageError("; ".join(self._verdict.broken), "change the stage, or its `expect`")
        self._recorded()
        self._owe(result.outs)
        try:
            self._place(result.outs, result.metrics, restored=True)
        except (ObjectDamaged, ObjectMissing):
            if all(self._build.store.has(out.digest) for out in result.outs):
                raise
            outcome.status = REJUDGE  # the result is not at hand after all: another one may be, or it runs
            return
        outcome.status, outcome.outs, outcome.metrics = "restored", result.outs, result.metrics
        if result.origin:
            outcome.notes = (*outcome.notes, f"result of {result.origin}")
        if result.instead:
            self._build.notice(
                "warning",
                f"`{self._stage.name}`: the locked result could not be had; "
                f"another known one was restored ({result.origin})",
                stage=self._stage.name,
            )
        self._deliver()

    def _place(self, outs: tuple[LockedOut, ...], metrics: Mapping[str, float], *, restored: bool = False) -> None:
        """Place outputs and lock them, in one hold of the workspace lock."""
        stage = self._stage
        entry = self._runner.locked(stage.name)
        with self._runner.workspace_lock():
            self._runner.placer.place(stage.name, outs, entry.outs if entry else ())
        self._lock(outs, metrics, restored=restored)

    def _lock(self, outs: tuple[LockedOut, ...], metrics: Mapping[str, float], *, restored: bool = False) -> None:
        fingerprint, seen = self._verdict.fingerprint, self._verdict.seen
        assert fingerprint is not None and seen is not None
        if self._stage.frozen:
            return
        old = self._runner.locked(self._stage.name)
        if restored and old is not None:
            same = {out.path: out.digest for out in old.outs} == {out.path: out.digest for out in outs}
            accepted = old.accepted.fingerprint if old.accepted is not None else None
            if same and fingerprint.key in (old.fingerprint, accepted):
                return  # it says so already, with what was known of git then
        self._runner.lock_writer.set_stage(
            self._stage.name, lock_entry(self._stage, fingerprint.key, seen, outs, metrics)
        )

    # -- run ------------------------------------------------------------------------------------------------------

    def _run(self, outcome: Outcome) -> None:
        build, stage, verdict = self._build, self._stage, self._verdict
        assert verdict.fingerprint is not None and verdict.seen is not None
        evidence = Evidence(build, stage, verdict.seen, self._runner.stamper)
        if evidence.changed(at_end=False):
            outcome.status = REJUDGE
            return
        check_given_links(build, stage, verdict.seen.deps)
        outcome.log = log_path(build.pipe_dir, build.run, stage.name)
        if self._gpus is not None:
            outcome.gpus = self._gpus.ids
            for note in self._gpus.notes:
                build.notice("warning", f"`{stage.name}`: {note}", stage=stage.name)
        if stage.transfer is not None or not stage.sandbox:
            self._recorded()  # they change the work tree at once
        if stage.transfer is not None:
            self._transfer(outcome, stage.transfer)
            return
        keep = KeepFolder(build.pipe_dir, stage, verdict.fingerprint.key, alone=build.elsewhere is None)
        self._drop_failed()
        for attempt in range(stage.retries + 1):
            outcome.attempts = attempt + 1
            scratch = os.path.join(build.pipe_dir, "tmp", f"stage-{os.urandom(8).hex()}")
            with self._workspace_outputs_aside(scratch) as aside:
                result = self._try(outcome, scratch, keep, attempt)
                outcome.exit_code, outcome.signal = result.exit_code, result.signal
                outcome.cpu_s, outcome.peak_bytes = result.usage.cpu_s, result.usage.peak_bytes
                outcome.tail = result.tail
                self._tell_overuse(outcome, result)
                self._note_gpus(outcome, result.gpu)
                if self._cancelled or result.cancelled:
                    outcome.status = "cancelled"
                    remove(scratch)
                    return
                if result.ok:
                    changed = evidence.changed(at_end=True)
                    if changed:
                        remove(scratch)
                        raise StageError(f"{', '.join(changed)} {CHANGED}", "build again")
                    try:
                        self._finish(outcome, result)
                    except BaseException:
                        self._keep_failed(scratch)
                        raise
                    aside.commit()
            if result.ok:
                keep.drop()
                remove(scratch)
                return
            if attempt < stage.retries:
                build.notice("warning", f"`{stage.name}` {_failure(result, stage)}; trying again", stage=stage.name)
                remove(scratch)
                continue
            outcome.error = _failure(result, stage)
            outcome.help = result.help or missing_file_hint(build, stage, result.tail)
            self._keep_failed(scratch)

    def _tell_overuse(self, outcome: Outcome, result: JobResult) -> None:
        """Say that it used far more than it asked for, here and in the record."""
        for text, instead in overuse(self._stage.resources, result.usage, result.gpu):
            if text not in outcome.notes:
                outcome.notes = (*outcome.notes, text)
                self._build.notice(
                    "warning",
                    f"`{self._stage.name}` {text}: what runs beside it may run short",
                    help=f"ask for it: `resources = {{ {instead} }}`",
                    stage=self._stage.name,
                )

    def _transfer(self, outcome: Outcome, asked: Transfer) -> None:
        """Move data between datastores, in this process: nothing of it is in the workspace."""
        from pipesmith.data.transfer import transfer

        build = self._build
        assert outcome.log is not None
        if self._deliveries().is_spared(asked.target):
            raise StageError(
                f"a transfer to `{asked.target}` would change the work tree, which this build leaves alone",
                "build it in the workspace, or move the data somewhere else",
            )
        make_folders(os.path.dirname(outcome.log))
        with open(outcome.log, "a", encoding="utf-8", errors="surrogateescape") as log:

            def said(text: str) -> None:
                log.write(f"{text}\n")
                self._on_line("stdout", text)

            try:
                moved = transfer(
                    asked.source,
                    asked.target,
                    build.pipeline.datastores,
                    build.data_root,
                    said=said,
                    cancelled=lambda: self._cancelled,
                )
            except Cancelled:
                outcome.status = "cancelled"
                return
            said(f"{moved.copied} copied, {moved.skipped} there already, {moved.bytes} bytes")
        outcome.exit_code = 0
        scratch = os.path.join(build.pipe_dir, "tmp", f"stage-{os.urandom(8).hex()}")
        os.makedirs(scratch)
        try:
            self._finish(outcome, JobResult(exit_code=0, root=scratch))
        finally:
            remove(scratch)

    def _try(self, outcome: Outcome, scratch: str, keep: KeepFolder, attempt: int) -> JobResult:
        build, stage = self._build, self._stage
        os.makedirs(scratch)
        if not stage.sandbox and build.elsewhere is not None:
            self._bring_inputs()
        tmpdir = temporary_folder(build)
        live = LiveLog(outcome.log or "", secrets_of(stage), os.path.dirname(tmpdir))
        try:
            executor = build.executors.get(stage.compute)
            if executor is None:  # it was fresh when the build began, and so asked for none
                raise StageError(f"nothing here runs stages on `{stage.compute}`", "build again")
            job = job_of(
                build,
                stage,
                far=executor.is_far,
                key=outcome.fingerprint or "",
                gpus=self._gpus.ids if self._gpus is not None else (),
                node=self._node,
                log_path=outcome.log or "",
                scratch=scratch,
                tmpdir=tmpdir,
                keep=keep,
                live=live,
                last=attempt == stage.retries,
            )
            with self._guard:
                if self._cancelled:
                    return JobResult(exit_code=None, root=scratch, cancelled=True)
                self._attempt = executor.submit(job, self._on_line, self._recorded)
            meter = self._gpus.meter(build.run, stage.name) if self._gpus is not None else None
            result = self._attempt.wait()
            self._attempt = None
            return replace(result, gpu=meter.end()) if meter is not None else result
        finally:
            live.close()
            shutil.rmtree(tmpdir, ignore_errors=True)

    def _note_gpus(self, outcome: Outcome, used: GpuUsage | None) -> None:
        """Add what one try had of GPUs to what those before it had."""
        if used is None:
            return
        build, stage = self._build, self._stage
        if used.percent is not None:
            before = outcome.gpu_s if outcome.gpu_percent is not None else 0.0
            all_s = before + used.seconds or 1.0
            outcome.gpu_percent = ((outcome.gpu_percent or 0.0) * before + used.percent * used.seconds) / all_s
        outcome.gpus = used.ids
        outcome.gpu_s += used.seconds
        if used.peak_bytes is not None:
            outcome.gpu_peak_bytes = max(outcome.gpu_peak_bytes or 0, used.peak_bytes)
        if used.problem is not None:
            build.notice("warning", f"`{stage.name}`: {used.problem}", stage=stage.name)

    def _bring_inputs(self) -> None:
        """Copy the inputs that a place of its own lacks, for a stage that runs in the place itself."""
        for part in input_parts(self._stage, self._build.pipeline.stages):
            if part.stage or part.dataset:
                continue
            origin = self._build.input_at(part.place)
            target = os.path.join(self._build.root, part.place)
            if origin != target:
                remove(target)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                copy_any(origin, target, read_only=False, stop=lambda: self._cancelled)

    def _on_line(self, stream: str, text: str) -> None:
        self._build.emit(StageOutput(time=time.time(), stage=self._stage.name, stream=stream, text=text))

    def _finish(self, outcome: Outcome, result: JobResult) -> None:
        """Collect, judge the metrics, record, place, lock."""
        build, stage, verdict = self._build, self._stage, self._verdict
        assert verdict.fingerprint is not None and verdict.seen is not None
        outs = self._collect(result.root)
        metrics = self._metrics(outs)
        outcome.outs, outcome.metrics = outs, metrics
        build.actions.record(
            ActionResult(
                key=verdict.fingerprint.key,
                stage=stage.name,
                workspace=str(build.git.get("workspace", ".")),
                outs=outs,
                metrics=metrics,
                items=tuple((item.kind, item.item, item.value) for item in verdict.fingerprint.items),
                seconds=time.time() - outcome.started - self._cold_s(outcome),
                peak_bytes=result.usage.peak_bytes,
                created=time.time(),
                run=build.run,
                user=build.user,
                host=build.host,
                commit=build.git.get("commit"),
                branch=build.git.get("branch"),
            )
        )
        broken = broken_expectations(stage, metrics, self._runner.metric_at)
        if broken:
            raise StageError("; ".join(broken), "its outputs are in the cache, not in the workspace")
        self._owe(outs)
        if stage.sandbox:
            self._place(outs, metrics)
        else:
            self._lock(outs, metrics)
        self._deliver()
        outcome.status = "ran"

    def _deliveries(self) -> Deliveries:
        build = self._build
        away = build.elsewhere
        return Deliveries.of(
            build.pipe_dir,
            build.data_root,
            build.pipeline.datastores,
            build.store,
            owner=away.owner if away is not None else None,
            spared=away.spared if away is not None else None,
        )

    def _owe(self, outs: tuple[LockedOut, ...]) -> None:
        """Note what `to` asks for before the stage counts as done, so that a kill after it loses no delivery."""
        if not self._build.choices.deliver:
            return
        for to in self._deliveries().owe(self._stage, outs, run=self._build.run, git=self._build.git):
            self._build.notice(
                "warning",
                f"`{self._stage.name}` is not delivered to `{to}`: that is in the work tree, which is left alone",
                stage=self._stage.name,
            )

    def _deliver(self) -> None:
        if not self._build.choices.deliver:
            return
        for place in self._deliveries().pay(self._stage.name):
            self._build.notice("info", f"`{self._stage.name}` delivered to {place}", stage=self._stage.name)

    def _collect(self, root: str) -> tuple[LockedOut, ...]:
        stage, store = self._stage, self._build.store
        outs = []
        for name, output in stage.outputs.items():  # all, before any is moved out of what a person will look at
            made = os.path.join(root, output.path)
            if not os.path.lexists(made):
                raise StageError(
                    f"the command ended well but did not make output `{name}` (`{output.path}`)",
                    f"write it to {{outputs.{name}}}, or take it out of stage.{stage.base}.outputs",
                )
            if os.path.islink(made):
                raise StageError(
                    f"output `{name}` (`{output.path}`) is a symbolic link", "write a file or a folder there"
                )
        for name, output in stage.outputs.items():
            made = os.path.join(root, output.path)
            if stage.sandbox and os.geteuid() != 0 and os.path.isdir(made):
                make_writable(made)  # nothing can be moved out of a folder that the stage made read-only
            digest = store.add_tree(made, move=stage.sandbox)
            outs.append(LockedOut(name=name, path=output.path, digest=digest, cache=output.cache))
        return tuple(outs)

    def _metrics(self, outs: tuple[LockedOut, ...]) -> dict[str, float]:
        by_name = {out.name: out for out in outs}
        metrics: dict[str, float] = {}
        for name in self._stage.metrics:
            out = by_name[name]
            if out.digest.is_folder:
                raise StageError(f"metrics output `{name}` (`{out.path}`) is a folder", "name a file")
            numbers = read_metrics(self._build.store.read(out.digest), out.path)
            metrics |= {f"{name}:{key}": value for key, value in numbers.items()}
        return metrics

    def _workspace_outputs_aside(self, scratch: str) -> Aside:
        entry = self._runner.locked(self._stage.name)
        folder = f"{scratch}-aside" if not self._stage.sandbox else None
        return Aside(self._runner.placer, self._build.root, self._stage, entry.outs if entry else (), folder)

    def _failed_place(self) -> str:
        build = self._build
        folder = build.elsewhere.failed if build.elsewhere is not None else f"{build.pipe_dir}/tmp/failed"
        return os.path.join(folder, self._stage.name.replace("/", "%2F"))

    def _drop_failed(self) -> None:
        """Remove what the last failed try of the stage left."""
        try:
            remove(self._failed_place())
        except OSError:
            pass

    def _keep_failed(self, scratch: str) -> None:
        """Leave the sandbox of a failed stage where a person can look at it, until the next try."""
        kept = self._failed_place()
        try:
            make_folders(os.path.dirname(kept))
            os.rename(scratch, kept)
        except OSError:
            remove(scratch)


def _failure(result: JobResult, stage: Stage) -> str:
    if result.problem:
        return result.problem
    if result.timed_out:
        return f"timed out after {stage.timeout_s:g} s"
    if result.out_of_memory:
        return "was killed for using too much memory"
    if result.signal is not None:
        return f"was killed by signal {result.signal}"
    return f"exited with {result.exit_code}"


def lock_entry(
    stage: Stage, key: str, seen: Seen, outs: tuple[LockedOut, ...], metrics: Mapping[str, float]
) -> StageLock:
    """Return the lockfile's entry of a stage that has these outputs now."""
    return StageLock(
        fingerprint=key,
        run=run_item(stage),
        kind=stage.kind.value,
        cwd=stage.cwd,
        source=seen.source,
        deps=seen.deps,
        params=seen.params,
        env=dict(stage.env),
        environment=seen.environment,
        hash_paths=seen.hash_paths,
        outs=tuple(replace(out, cache=stage.outputs[out.name].cache) for out in outs),
        metrics=dict(metrics),
    )
