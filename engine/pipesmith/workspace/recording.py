"""A build as a recorded run: snapshot before the first stage, record when it ends."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from pipesmith import __version__
from pipesmith.build.context import Outcome
from pipesmith.errors import EnvironmentFailure
from pipesmith.fingerprint.pipeignore import NAME, PipeIgnore
from pipesmith.git.snapshot import write_snapshot
from pipesmith.history.record import RunRecord, StageRecord
from pipesmith.pipeline.model import OriginKind
from pipesmith.workspace.session import Session, output_paths

if TYPE_CHECKING:
    from pipesmith.workspace.build import BuildOptions

__all__ = ["Recorder"]


class Recorder:
    """Records one build. begun: whether anything was run or restored, so that there is a run at all."""

    def __init__(
        self, session: Session, run: str, options: BuildOptions, *, user: str, host: str, notice: Callable[..., None]
    ) -> None:
        self._session = session
        self._notice = notice
        self._tree: str | None = None
        self.begun = False
        repo = session.workspace.repo
        self.record = RunRecord(
            id=run,
            time=time.time(),
            user=user,
            host=host,
            pid=os.getpid(),
            command=list(options.command_line),
            pipesmith=__version__,
            pipeline=session.pipeline.name,
            workspace=session.workspace.prefix,
            tags=dict(options.tags),
            message=options.message,
            commit=repo.head(),
            branch=repo.branch(),
        )
        self.git: dict[str, Any] = {
            "commit": self.record.commit,
            "branch": self.record.branch,
            "workspace": session.workspace.prefix,
        }

    def begin(self) -> None:
        """Make the snapshot and the record, before the first stage starts."""
        self.begun = True
        repo, record = self._session.workspace.repo, self.record
        record.remote = repo.remote_url()
        record.dirty = repo.is_dirty()
        self.git |= {"dirty": record.dirty, "remote": record.remote}
        try:
            self._tree, record.left_out = self._snapshot()
            record.snapshot = self._tree
            self._session.workspace.run_store.write(record, self._tree)
        except (EnvironmentFailure, OSError) as error:
            self._tree = None
            self._notice(f"no snapshot of this run: {error}", level="warning")

    def _snapshot(self) -> tuple[str, dict[str, str]]:
        workspace, pipeline = self._session.workspace, self._session.pipeline
        prefix = "" if workspace.prefix == "." else f"{workspace.prefix}/"
        out = {f"{prefix}{path}" for path in output_paths(pipeline)}
        uncached = {
            f"{prefix}{o.path}" for stage in pipeline.stages.values() for o in stage.outputs.values() if not o.cache
        }
        data = {
            f"{prefix}{given.path}"
            for stage in pipeline.stages.values()
            for given in stage.inputs.values()
            if given.origin.kind is OriginKind.PATH
        }
        ignore = self._pipeignore()

        def ignores(path: str) -> bool:
            return path.startswith(prefix) and ignore.ignores(path[len(prefix) :])

        name = blake2b(workspace.repo.git_dir.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
        return write_snapshot(
            workspace.repo,
            os.path.join(workspace.pipe_dir, "tmp", f"index-{name}-{os.getpid()}"),
            left_out=(out - uncached) | data,
            max_file_bytes=pipeline.snapshot.max_file_bytes,
            ignores=ignores,
        )

    def _pipeignore(self) -> PipeIgnore:
        data = self._session.read_file(NAME)
        return PipeIgnore({NAME: data.decode("utf-8", "surrogateescape")} if data else {})

    def finish(self, status: str, outcomes: Sequence[Outcome]) -> None:
        """Replace the record by the finished one."""
        if not self.begun:
            return
        self.record.status = status
        self.record.end = time.time()
        self.record.stages = [_stage_record(outcome) for outcome in outcomes]
        try:
            self._session.workspace.run_store.write(self.record, self._tree)
        except (EnvironmentFailure, OSError) as error:
            self._notice(f"the run could not be recorded: {error}", level="warning")
        index = os.path.join(self._session.workspace.pipe_dir, "tmp")
        for name in os.listdir(index):
            if name.startswith("index-") and name.endswith(f"-{os.getpid()}"):
                os.unlink(os.path.join(index, name))


def _stage_record(outcome: Outcome) -> StageRecord:
    return StageRecord(
        name=outcome.stage,
        status=outcome.status,
        why=[reason.as_json() for reason in outcome.why],
        fingerprint=outcome.fingerprint,
        inputs={dep.path: dep.digest.text for dep in outcome.deps},
        outputs={out.path: out.digest.text for out in outcome.outs},
        params=dict(outcome.params),
        metrics=dict(outcome.metrics),
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        error=outcome.error,
        start=outcome.started,
        end=outcome.ended,
        peak_bytes=outcome.peak_bytes,
        cpu_s=outcome.cpu_s,
        gpus=list(outcome.gpus),
        compute=outcome.compute,
        environment=outcome.environment,
        log=os.path.basename(outcome.log) if outcome.log else None,
        attempts=outcome.attempts,
        notes=list(outcome.notes),
    )
