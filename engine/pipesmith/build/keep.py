"""The `keep` folder of a stage: what a try leaves for the next of the same fingerprint (checkpoints). Never counts."""

from __future__ import annotations

import os
import shutil

from pipesmith.executors.base import Mount
from pipesmith.pipeline.model import Stage
from pipesmith.store.modes import make_folders

__all__ = ["KeepFolder"]


class KeepFolder:
    """A folder of the repository's own, named by stage and fingerprint, that the stage finds as PIPE_KEEP.

    alone: one fingerprint of the stage is tried at a time, so that what others left goes. Builds in places of their own
    may try many at once, and have folders apart.
    """

    def __init__(self, pipe_dir: str, stage: Stage, key: str, *, alone: bool = True) -> None:
        self._stage = stage
        name = stage.name.replace("/", "%2F")
        self._parent = os.path.join(pipe_dir, "keep", name) if alone else ""
        self._folder = os.path.join(self._parent, key) if alone else f"{pipe_dir}/keep-elsewhere/{key} {name}"

    def mounts(self, tmpdir: str, *, sweep: bool = True) -> tuple[Mount, ...]:
        """Return where a stage finds the folder: below its TMPDIR (that is PIPE_KEEP, the same with every kind of
        sandbox), and at the path that `keep` names in the sandbox. Empty without `keep`. sweep: as `folder`."""
        folder = self.folder(sweep=sweep)
        places = (os.path.join(tmpdir, "keep"), self._stage.keep or "")
        return tuple(Mount(origin=folder, path=place, writable=True) for place in places) if folder else ()

    def folder(self, *, sweep: bool = True) -> str | None:
        """Return the folder, made if need be; None without `keep`. sweep: those of other fingerprints are dropped."""
        if self._stage.keep is None:
            return None
        if sweep and self._parent and os.path.isdir(self._parent):
            for name in os.listdir(self._parent):
                if name != os.path.basename(self._folder):
                    shutil.rmtree(os.path.join(self._parent, name), ignore_errors=True)
        make_folders(self._folder)
        return self._folder

    def drop(self) -> None:
        """Remove the folder: the stage has succeeded."""
        if self._stage.keep is not None:
            shutil.rmtree(self._parent or self._folder, ignore_errors=True)
