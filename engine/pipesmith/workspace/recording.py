"""A build as a recorded run: snapshot before the first stage, record when it ends."""

from __future__ import annotations

import os
import time
from _blake2 import blake2b
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pipesmith import __version__
from pipesmith.build.context import Outcome
from pipesmith.build.later import Later
from pipesmith.errors import EnvironmentFailure, UserError
from pipesmith.executors.output import usable_secrets
from pipesmith.fingerprint.pipeignore import NAME, PipeIgnore
from pipesmith.git.snapshot import write_snapshot
from pipesmith.history.record import RunRecord, StageRecord
from pipesmith.liveness import process_mark
from pipesmith.pipeline.model import OriginKind
from pipesmith.workspace.session import Session

if TYPE_CHECKING:
    from pipesmith.workspace.plan import BuildOptions

__all__ = ["Recorder", "snapshot_of"]


class Recorder:
    """Records one build. begun: whether anything was run or restored, so that there is a run at all. dirty(): whether
    the work tree differs from its commit. Git is asked for that, and for the snapshot, at once: stages wait for it."""

    def __init__(
        self, session: Session, run: str, options: BuildOptions, *, user: str, host: str, notice: Callable[..., None]
    ) -> None:
        self._session = session
        self._notice = notice
        self._tree: str | None = None
        self.begun = False
        self._secrets = _secrets(session)
        repo, place = session.workspace.repo, session.workspace.place
        self.record = RunRecord(
            id=run,
            time=time.time(),
            user=user,
            host=host,
            pid=os.getpid(),
            process=process_mark(),
            command=[self._masked(word) for word in options.command_line],
            pipesmith=__version__,
            pipeline=session.pipeline.name,
            workspace=session.workspace.prefix,
            tags={key: self._masked(value) for key, value in options.tags.items()},
            message=self._masked(options.message) if options.message else None,
            experiment=place.experiment if place is not None else None,
            commit=place.commit if place is not None else repo.head(),
            branch=place.branch if place is not None else repo.branch(),
            remote=repo.remote_url(),
        )
        self._asked = Later(self._is_dirty, "git status")
        self.dirty: Callable[[], bool] = self._asked.result
        self._snapshot = Later(self._take, "snapshot")
        self.git: dict[str, Any] = {
            "commit": self.record.commit,
            "branch": self.record.branch,
            "workspace": session.workspace.prefix,
            "remote": self.record.remote,
        }

    def _is_dirty(self) -> bool:
        workspace = self._session.workspace
        try:
            return workspace.place.dirty if workspace.place is not None else workspace.repo.is_dirty()
        except (EnvironmentFailure, OSError):
            return True  # as where git can't say

    def _take(self) -> tuple[str, dict[str, str]]:
        place = self._session.workspace.place
        return (place.tree, dict(place.left_out)) if place is not None else snapshot_of(self._session)

    def begin(self) -> None:
        """Make the record, with the snapshot, before the first stage starts."""
        self.begun = True
        record = self.record
        try:
            self._tree, record.left_out = self._snapshot.result()
            record.snapshot, record.dirty = self._tree, self.dirty()
            self._session.workspace.run_store.write(record, self._tree)
        except (EnvironmentFailure, OSError) as error:
            self._tree = record.snapshot = None
            record.dirty = self.dirty()
            self._notice(f"no snapshot of this run: {error}", level="warning")
            self._session.workspace.run_store.write(record, None)

    def settle(self) -> None:
        """Wait until git was asked, of a build that nothing came of."""
        for later in (self._asked, self._snapshot):
            later.wait()

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def finish(self, status: str, outcomes: Sequence[Outcome]) -> None:
        """Replace the record by the finished one. A build that failed before it started a stage is a run as well."""
        if not self.begun:
            if all(outcome.status != "failed" for outcome in outcomes):
                return
            self.begin()
        self.record.status = status
        self.record.end = time.time()
        self.record.environments = list(self._session.cold.made)
        self.record.stages = [_stage_record(outcome) for outcome in outcomes]
        try:
            self._session.workspace.run_store.write(self.record, self._tree)
        except (EnvironmentFailure, OSError) as error:
            self._notice(f"the run could not be recorded: {error}", level="warning")


def snapshot_of(session: Session) -> tuple[str, dict[str, str]]:
    """Write the exact source of this moment to git and return (tree id, left-out path to reason).

    Raises EnvironmentFailure or OSError where nothing can be written."""
    workspace, pipeline = session.workspace, session.pipeline
    prefix = workspace.in_repo("")
    left_out = {
        f"{prefix}{given.lies or given.path}": "a data input"
        for stage in pipeline.stages.values()
        for given in stage.inputs.values()
        if given.origin.kind is OriginKind.PATH
    }
    for stage in pipeline.stages.values():
        left_out |= {f"{prefix}{out.path}": "a cached output" for out in stage.outputs.values() if out.cache}
    ignore = _LazyIgnore(session)

    def ignores(path: str) -> bool:
        return path.startswith(prefix) and ignore.ignores(path[len(prefix) :])

    def digest(path: str) -> str:
        found = session.stat_cache.digest(path)
        return found.text if found else "gone"

    name = blake2b(workspace.repo.git_dir.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    return write_snapshot(
        workspace.repo,
        os.path.join(workspace.pipe_dir, "tmp", f"index-{name}-{os.getpid()}"),
        left_out=left_out,
        max_file_bytes=pipeline.snapshot.max_file_bytes,
        ignores=ignores,
        digest=digest,
        data=_dataset_files(session),
    )


def _dataset_files(session: Session) -> Callable[[str], str | None]:
    """Return what tells, of a path from the top, which `from` of a dataset finds it, if any."""
    workspace, pipeline = session.workspace, session.pipeline
    places = []
    if pipeline.datasets:
        from pipesmith.data.places import place_of

        for text in {text for dataset in pipeline.datasets.values() for text in dataset.sources}:
            try:
                place = place_of(text, pipeline.datastores, workspace.root)
            except UserError:
                continue  # it lies elsewhere
            if place.base == workspace.repo.top or place.base.startswith(workspace.repo.top + os.sep):
                places.append((os.path.relpath(place.base, workspace.repo.top), place))

    def found(path: str) -> str | None:
        for base, place in places:
            within = path if base == "." else path.removeprefix(f"{base}/")
            if path == base or ((base == "." or within != path) and (not place.pattern or place.matches(within))):
                return place.text if place.pattern else base
        return None

    return found


class _LazyIgnore:
    """`.pipeignore` of a workspace, the file of each folder read when a path in it is asked for."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._texts: dict[str, str] = {}
        self._seen: set[str] = set()
        self._rules = PipeIgnore({})

    def ignores(self, path: str) -> bool:
        folder = path
        while folder:
            folder = folder.rpartition("/")[0]
            if folder in self._seen:
                break
            self._seen.add(folder)
            name = f"{folder}/{NAME}" if folder else NAME
            data = self._session.read_file(name)
            if data is not None:
                self._texts[name] = data.decode("utf-8", "surrogateescape")
                self._rules = PipeIgnore(self._texts)
        return self._rules.ignores(path)


def _secrets(session: Session) -> list[str]:
    """Return the values that `pass-env` hands through: they are masked in the record as they are in logs."""
    names = {name for stage in session.pipeline.stages.values() for name in stage.pass_env}
    return [
        secret.decode("utf-8", "surrogateescape")
        for secret in usable_secrets(os.environ.get(name, "") for name in names)
    ]


def _stage_record(outcome: Outcome) -> StageRecord:
    return StageRecord(
        name=outcome.stage,
        status=outcome.status,
        why=[reason.as_json() for reason in outcome.why],
        fingerprint=outcome.fingerprint,
        source=dict(outcome.source),
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
        gpu_s=outcome.gpu_s,
        gpu_peak_bytes=outcome.gpu_peak_bytes,
        gpu_percent=outcome.gpu_percent,
        compute=outcome.compute,
        environment=outcome.environment,
        log=os.path.basename(outcome.log) if outcome.log else None,
        attempts=outcome.attempts,
        notes=list(outcome.notes),
    )
