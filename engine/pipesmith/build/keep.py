"""The `keep` folder of a stage: what one try leaves for the next try of the same fingerprint (checkpoints). Never counts."""

from __future__ import annotations

import os
import shutil

from pipesmith.pipeline.model import Stage

__all__ = ["KeepFolder"]


class KeepFolder:
    """A folder outside the workspace, named by stage and fingerprint, that the stage finds as PIPE_KEEP."""

    def __init__(self, pipe_dir: str, stage: Stage, key: str) -> None:
        self._stage = stage
        self._parent = os.path.join(pipe_dir, "keep", stage.name.replace("/", "%2F"))
        self._folder = os.path.join(self._parent, key)

    def path(self) -> str | None:
        """Return the folder, made if need be, None for a stage without `keep`. Those of other fingerprints are dropped."""
        if self._stage.keep is None:
            return None
        if os.path.isdir(self._parent):
            for name in os.listdir(self._parent):
                if name != os.path.basename(self._folder):
                    shutil.rmtree(os.path.join(self._parent, name), ignore_errors=True)
        os.makedirs(self._folder, exist_ok=True)
        return self._folder

    def drop(self) -> None:
        """Remove the folder: the stage has succeeded."""
        if self._stage.keep is not None:
            shutil.rmtree(self._parent, ignore_errors=True)
