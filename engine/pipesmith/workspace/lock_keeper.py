"""The lockfile of a workspace as one build leaves it: entries, pins, and what can't be written told for people."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from pipesmith.build.lock_writer import LockWriter
from pipesmith.errors import EnvironmentFailure
from pipesmith.lockfile.model import LockedDep
from pipesmith.records import replace
from pipesmith.workspace.session import Session

__all__ = ["LockKeeper"]


class LockKeeper:
    """writer: takes the entries of stages as they end."""

    def __init__(self, session: Session) -> None:
        workspace = session.workspace
        self._session = session
        self.writer = LockWriter(
            workspace.lock_path, workspace.guard, session.lock_text, session.lockfile, session.store.sync
        )
        for name, environment in session.pins.new_environments.items():
            self.writer.set_environment(name, environment)
        for name, dataset in session.pins.new_datasets.items():
            self.writer.set_dataset(name, dataset)

    def trace(self, name: str, key: str, deps: Sequence[LockedDep]) -> None:
        """Keep an entry true that reads inside a folder output: the folder may be another, though the part is not."""
        entry = self._session.lockfile.stages.get(name)
        if entry is None or entry.fingerprint != key:
            return
        now = {dep.name: dep.of for dep in deps if dep.of}
        if any(dep.of != now.get(dep.name, dep.of) for dep in entry.deps):
            traced = tuple(replace(dep, of=now.get(dep.name, dep.of)) for dep in entry.deps)
            self.writer.set_stage(name, replace(entry, deps=traced))

    def write(self) -> None:
        """Write what is new; what the pipeline no longer has goes. Raises EnvironmentFailure."""
        pipeline = self._session.pipeline
        try:
            self.writer.write(keep=(pipeline.stages, pipeline.environments, pipeline.datasets))
        except OSError as error:
            if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) and not self.writer.pending():
                return
            raise EnvironmentFailure(
                f"pipe.lock can't be written: {error.strerror}",
                "free some space or mend its permissions, then build again",
            ) from None
