"""GPUs of this machine, given out by locks that every pipe on the machine shares, whoever started it.

A GPU is cut into 64 shares of its memory; a share is one byte of a lock file of the GPU's own. A job that asks for a
whole GPU takes all, one that says how much memory it needs takes as many as that is. The kernel frees what a dead
process held.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from collections.abc import Sequence
from urllib.parse import quote

from pipesmith.errors import EnvironmentFailure
from pipesmith.executors.nvml import Gpu, driver_gpus

__all__ = ["Gpu", "GpuHold", "GpuPool", "driver_gpus"]

_SHARES = 64
_F_OFD_SETLK = 37
_FOLDERS = ("/run/lock", "/var/lock", "/tmp")


class GpuHold:
    """GPUs that were given to one stage. ids: as CUDA_VISIBLE_DEVICES names them."""

    def __init__(self, ids: tuple[str, ...], files: list[int]) -> None:
        self.ids = ids
        self._files = files

    def release(self) -> None:
        """Give them back; once or more often."""
        files, self._files = self._files, []
        for file in files:
            os.close(file)


class GpuPool:
    """The GPUs that this process may give out.

    declared: `[compute.local] gpus`, used where no driver counts them. folder: where the lock files lie; for tests.
    Where pipe itself was started with CUDA_VISIBLE_DEVICES, only those that it names of the driver's are given out.
    """

    def __init__(self, declared: int | None, folder: str | None = None) -> None:
        counted = driver_gpus()
        if counted is not None:
            self.gpus = _allowed(counted, os.environ.get("CUDA_VISIBLE_DEVICES"))
        else:
            numbers = range(declared or 0)
            self.gpus = [Gpu(id=str(number), index=number, name="declared", memory_bytes=0) for number in numbers]
        self._folder = folder

    def acquire(self, count: int, memory_bytes: int | None = None) -> GpuHold | None:
        """Return `count` GPUs, whole or with that much memory on each; None when they are not free now.

        Raises EnvironmentFailure where the lock files can't be had."""
        ids: list[str] = []
        files: list[int] = []
        for gpu in self.gpus:
            if len(ids) == count:
                break
            file = self._take(gpu, memory_bytes)
            if file is not None:
                ids.append(gpu.id)
                files.append(file)
        hold = GpuHold(tuple(ids), files)
        if len(ids) == count:
            return hold
        hold.release()
        return None

    def _take(self, gpu: Gpu, memory_bytes: int | None) -> int | None:
        """Return an open lock file that holds shares of a GPU, None when too few are free."""
        wanted = _SHARES
        if memory_bytes is not None and gpu.memory_bytes:
            wanted = max(1, -(-memory_bytes * _SHARES // gpu.memory_bytes))
            if wanted > _SHARES:
                return None
        file = self._open(gpu)
        if wanted == _SHARES:
            held = _SHARES if _try_lock(file, 0, _SHARES) else 0
        else:
            held = 0
            for share in range(_SHARES):
                held += _try_lock(file, share, 1)
                if held == wanted:
                    break
        if held < wanted:
            os.close(file)
            return None
        return file

    def _open(self, gpu: Gpu) -> int:
        if self._folder is None:
            self._folder = _shared_folder()
        return _open_shared(os.path.join(self._folder, quote(gpu.id, safe="")))


def _allowed(gpus: Sequence[Gpu], visible: str | None) -> list[Gpu]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES names, by index or the beginning of an id; the empty text names none.
    As for CUDA, the list ends at a name that is none."""
    if visible is None:
        return list(gpus)
    found: list[Gpu] = []
    for word in (word.strip() for word in visible.split(",")):
        named = [gpu for gpu in gpus if word and (str(gpu.index) == word or gpu.id.startswith(word))]
        if len(named) != 1:
            break
        if named[0] not in found:
            found.append(named[0])
    return found


def _try_lock(file: int, start: int, length: int) -> bool:
    """Lock a range of an open file, for this open file description, without waiting."""
    try:
        fcntl.fcntl(file, _F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, start, length, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True


def _shared_folder() -> str:
    """Return a folder that all users of the machine share, made if need be."""
    for parent in _FOLDERS:
        folder = os.path.join(parent, "pipesmith-gpus")
        try:
            os.mkdir(folder)
            os.chmod(folder, 0o1777)
        except FileExistsError:
            pass
        except OSError:
            continue
        info = os.lstat(folder)
        if stat.S_ISDIR(info.st_mode) and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise EnvironmentFailure(f"no folder for the locks of GPUs: none of {', '.join(_FOLDERS)} can be written")


def _open_shared(path: str) -> int:
    """Open a lock file that any user may lock; first without O_CREAT, which is refused for others' files in /tmp."""
    try:
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            pass
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except FileExistsError:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        os.fchmod(file, 0o666)
        return file
    except OSError as error:
        raise EnvironmentFailure(f"the lock file of a GPU can't be opened: `{path}`: {error.strerror}") from None
