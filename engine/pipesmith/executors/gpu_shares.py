"""The lock file of one GPU, which every pipe on the machine shares, whoever started it.

A GPU is cut into 1024 shares of its memory; a share is one byte of the file. Who has the whole GPU has all of them. The
kernel frees those of a process that died. Beside the locked bytes the file holds who has each share, and how much
memory was in use when nobody had any: both only mean something while a share is held.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from collections.abc import Iterator

from pipesmith.errors import EnvironmentFailure
from pipesmith.percent import quote

__all__ = ["SHARES", "ShareFile"]

SHARES = 1024
_IDLE_AT = 2048  # how many bytes of the GPU were in use before the first share was given out
_PIDS_AT = 4096  # of each share: the pid that has it
_GUARD_AT = 1 << 20  # held while shares are looked at and taken
_F_OFD_GETLK, _F_OFD_SETLK = 36, 37  # Linux; fcntl has no names for them in Python 3.11
_LOCK = "hhqqi4x"
_FOLDERS = ("/run/lock", "/var/lock", "/tmp")


class ShareFile:
    """Opened for one look at a GPU, and kept open by who takes shares of it."""

    def __init__(self, gpu_id: str, folder: str | None) -> None:
        """folder: where the files lie; None for the place that all users share. Raises EnvironmentFailure."""
        self._fd = _open(os.path.join(folder or _shared_folder(), quote(gpu_id, safe="")))

    def guard(self) -> bool:
        """See to it that nobody else looks at the shares meanwhile, without waiting. False: somebody does."""
        return self._lock(_GUARD_AT, _GUARD_AT + 1)

    def unguard(self) -> None:
        fcntl.fcntl(self._fd, _F_OFD_SETLK, _packed(fcntl.F_UNLCK, _GUARD_AT, _GUARD_AT + 1))

    def taken(self) -> list[tuple[int, int]]:
        """Return the ranges of shares that others have: (first, end) in order."""
        return list(self._conflicts(0, SHARES))

    def pids(self, taken: list[tuple[int, int]]) -> frozenset[int]:
        """Return which processes have those ranges."""
        found: set[int] = set()
        for first, end in taken:
            data = os.pread(self._fd, 4 * (end - first), _PIDS_AT + 4 * first)
            found |= {pid for (pid,) in struct.iter_unpack("=I", data[: len(data) // 4 * 4])}
        return frozenset(found - {0})

    @property
    def idle_bytes(self) -> int:
        """How much of the GPU was in use before the first share was given out."""
        data = os.pread(self._fd, 8, _IDLE_AT)
        return int(struct.unpack("=Q", data)[0]) if len(data) == 8 else 0

    def take(self, count: int, taken: list[tuple[int, int]], used_bytes: int) -> None:
        """Take shares that are free, under the guard. used_bytes: in use on the GPU now."""
        if not taken:
            os.pwrite(self._fd, struct.pack("=Q", used_bytes), _IDLE_AT)
        at = 0
        for first, end in (*taken, (SHARES, SHARES)):
            gap = min(count, first - at)
            if gap > 0 and self._lock(at, at + gap):
                os.pwrite(self._fd, struct.pack("=I", os.getpid()) * gap, _PIDS_AT + 4 * at)
                count -= gap
            at = end
        assert count <= 0, "shares are taken under the guard"

    def close(self) -> None:
        """Give back what was taken."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _conflicts(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        if first >= end:
            return
        answer = fcntl.fcntl(self._fd, _F_OFD_GETLK, _packed(fcntl.F_WRLCK, first, end))
        kind, _whence, start, length, _pid = struct.unpack(_LOCK, answer)
        if kind == fcntl.F_UNLCK:
            return
        stop = start + length if length else end
        yield from self._conflicts(first, start)  # the kernel names any of several
        yield max(start, first), min(stop, end)
        yield from self._conflicts(stop, end)

    def _lock(self, first: int, end: int) -> bool:
        """Lock a range for this open file description, without waiting."""
        try:
            fcntl.fcntl(self._fd, _F_OFD_SETLK, _packed(fcntl.F_WRLCK, first, end))
        except (BlockingIOError, PermissionError):
            return False
        return True


def _packed(kind: int, first: int, end: int) -> bytes:
    return struct.pack(_LOCK, kind, os.SEEK_SET, first, end - first, 0)


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


def _open(path: str) -> int:
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
