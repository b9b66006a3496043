"""Containers whose workspace lies on this machine: where a daemon sees the same files, nothing is packed or sent back.

Source, and what a job has beside its workspace, are copied to a folder of its own, which its container has mounted;
what it makes is here then. Whether a daemon sees that folder is found out by asking for it: its name is a random one,
and a daemon refuses to mount what it does not find (https://docs.docker.com/engine/storage/bind-mounts). Inputs lie in
volumes all the same: a container that its pipe did not outlive goes on with them, whatever becomes of the workspace.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

from pipesmith.errors import Cancelled, EnvironmentFailure
from pipesmith.executors.base import FAR_HOME, FAR_SIDE, FAR_TMPDIR, FAR_WORKSPACE, Job, Mount, Side
from pipesmith.executors.copying import copy_any
from pipesmith.executors.docker_inputs import Unit, is_inside
from pipesmith.executors.docker_watch import ContainerLost
from pipesmith.executors.materialise import Sandbox, materialise
from pipesmith.records import replace
from pipesmith.store.removal import remove

__all__ = ["PREFIX", "SharedFolder", "SharedResults"]

PREFIX = "container-"


class SharedFolder:
    """What one container has of this machine. path: absolute; another build finds it by the container's label."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._sandbox: Sandbox | None = None
        self._bound: list[Side] = []

    @classmethod
    def for_job(cls, job: Job) -> SharedFolder:
        """Return one that is not there yet, on the file system of a job's outputs."""
        return cls(os.path.join(os.path.dirname(job.scratch), f"{PREFIX}{os.urandom(16).hex()}"))

    @property
    def workspace(self) -> str:
        return os.path.join(self.path, "workspace")

    @property
    def is_there(self) -> bool:
        return os.path.isdir(self.workspace)

    def here(self, place: str) -> str:
        """Return where a path of the container's lies, one in its workspace or beside it."""
        for far, near in ((FAR_SIDE, "side"), (FAR_WORKSPACE, "workspace")):
            if place == far or place.startswith(f"{far}/"):
                return os.path.join(self.path, near, *place[len(far) + 1 :].split("/"))
        raise ValueError(place)

    def fill(self, job: Job, units: Sequence[Unit], copied: Sequence[Mount], stop: Callable[[], bool]) -> None:
        """Make it, with all that a job is given but `units`, for which there are mount points. copied: inputs that no
        volume can hold. Raises StageError for what can't be read, OSError where nothing can be written, Cancelled."""
        os.makedirs(self.path)
        inputs = {id(mount) for mount in copied}
        given = tuple(mount for mount in job.layout.mounts if mount.copy or id(mount) in inputs)
        withheld = tuple(
            path
            for path in job.layout.withheld
            if any(is_inside(os.path.normpath(path), os.path.normpath(mount.path)) for mount in copied)
        )
        layout = replace(job.layout, mounts=given, visible=(), withheld=withheld)
        self._sandbox = materialise(layout, self.workspace, mounted=False, stop=stop)
        for unit in units:
            self._mount_point(os.path.join(self.workspace, unit.path), folder=_is_folder(unit))
        for place in (FAR_HOME, FAR_TMPDIR):
            os.makedirs(self.here(place))
        for side in job.sides:
            if not os.path.lexists(side.origin):
                continue
            target = self.here(side.place)
            if side.back and not side.live:
                self._mount_point(target, folder=os.path.isdir(side.origin))
                self._bound.append(side)
                continue
            os.makedirs(os.path.dirname(target), exist_ok=True)
            remove(target)
            copy_any(side.origin, target, read_only=False, stop=stop)
        if stop():
            raise Cancelled()

    @staticmethod
    def _mount_point(target: str, *, folder: bool) -> None:
        """Make what something is mounted on: Docker would make it too, and it would be root's."""
        if folder:
            os.makedirs(target, exist_ok=True)
        elif not os.path.lexists(target):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            open(target, "xb").close()

    def remove_mount_point(self, path: str) -> None:
        """Remove what an input was mounted on, unless the job has put a link in its way, which may lead out."""
        place = os.path.join(os.path.realpath(self.workspace), path)
        if os.path.realpath(os.path.dirname(place)) == os.path.dirname(place):
            remove(place)

    def mounts(self) -> list[dict[str, Any]]:
        """Return what a container is made with, as Docker's API has it."""
        found = [(self.here(far), far) for far in (FAR_WORKSPACE, FAR_SIDE)]
        found += [(side.origin, side.place) for side in self._bound]
        return [{"Type": "bind", "Source": origin, "Target": place} for origin, place in found]

    def written_input(self) -> str | None:
        """Return the path of a copied input that is no longer what it was, None where all are."""
        return self._sandbox.written_input() if self._sandbox is not None else None

    def unlock(self) -> None:
        """Let copied inputs be removed."""
        if self._sandbox is not None:
            self._sandbox.unlock()

    def stamp(self, place: str) -> str | None:
        """Return what tells that the file or folder at a path of the container's has changed; None for nothing."""
        try:
            info = os.lstat(self.here(place))
        except OSError:
            return None
        return f"{info.st_ino} {info.st_size} {info.st_mtime_ns}"

    def copy(self, place: str, target: str) -> bool:
        """Copy what lies at a path of the container's, while it runs; False where nothing does."""
        try:
            copy_any(self.here(place), target, read_only=False, stop=lambda: False)
        except FileNotFoundError:
            return False
        return True

    def remove(self) -> None:
        """Remove it, with all that was made in it. What can't be removed is left to `pipe gc`."""
        try:
            remove(self.path)
        except OSError:
            pass


class SharedResults:
    """What comes of a container that has ended: it is here, and has only to be moved to where it is looked for."""

    def __init__(self, folder: SharedFolder, job: Job, units: Sequence[Unit]) -> None:
        self.heard = time.monotonic()
        self._folder = folder
        self._job = job
        self._units = units

    def bring_sides(self) -> None:
        """Put what it left beside its workspace where the job has it. Raises ContainerLost where that can't be written:
        the next build takes the container up."""
        for side in self._job.sides:
            left = self._folder.here(side.place)
            if not (side.back and side.live and os.path.lexists(left)):
                continue
            try:
                remove(side.origin)
                shutil.move(left, side.origin)
            except OSError as error:
                raise ContainerLost(
                    f"its results can't be written: `{error.filename or side.origin}`: {error.strerror}; its container "
                    "keeps them, and the next build takes it up"
                ) from None

    def bring_outputs(self) -> bool:
        """Put what is in its workspace where outputs are looked for; return whether all are there.

        Raises EnvironmentFailure where it wrote to an input."""
        written = self._folder.written_input()
        if written is not None:
            raise EnvironmentFailure(f"it wrote to its input `{written}`, which is read-only")
        root = self._take()
        return all(os.path.lexists(os.path.join(root, output.path)) for output in self._job.layout.outputs)

    def bring_sandbox(self, _inputs: Sequence[str]) -> list[str]:
        """Let people look at its workspace."""
        self._take()
        return []

    def _take(self) -> str:
        root = os.path.join(self._job.scratch, "sandbox")
        if self._folder.is_there:
            self._folder.unlock()
            for unit in self._units:  # inputs are here anyway
                self._folder.remove_mount_point(unit.path)
            remove(root)
            os.rename(self._folder.workspace, root)
        return root


def _is_folder(unit: Unit) -> bool:
    return not (len(unit.entries) == 1 and unit.entries[0][0] == "" and not os.path.isdir(unit.entries[0][1]))
