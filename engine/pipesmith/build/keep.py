"""The `keep` folder of a stage: what a try leaves for the next of the same fingerprint (checkpoints). Never counts."""

from __future__ import annotations

import os
import shutil

from pipesmith.executors.base import Mount
from pipesmith.pipeline.model import Stage

__all__ = ["KeepFolder"]


class KeepFolder:
    """A folder of the repository's own, named by stage and fingerprint, that the stage finds as PIPE_KEEP."""

    def __init__(self, pipe_dir: str, stage: Stage, key: str) -> None:
        self._stage = stage
        self._parent = os.path.join(pipe_dir, "keep", stage.name.replace("/", "%2F"))
        self._folder = os.path.join(self._parent, key)

    def mount(self, tmpdir: str) -> Mount | None:
        """Return where a stage finds the folder: below its TMPDIR, since a sandbox hides the repository's own folders.
        None for a stage without `keep`. Makes it if need be, and drops those of other fingerprints."""
        if self._stage.keep is None:
            return None
        if os.path.isdir(self._parent):
            for name in os.listdir(self._parent):
                if name != os.path.basename(self._folder):
                    shutil.rmtree(os.path.join(self._parent, name), ignore_errors=True)
        os.makedirs(self._folder, exist_ok=True)
        return Mount(origin=self._folder, path=os.path.join(tmpdir, "keep"), writable=True)

    def drop(self) -> None:
        """Remove the folder: the stage has succeeded."""
        if self._stage.keep is not None:
            shutil.rmtree(self._parent, ignore_errors=True)
