"""Locks between processes: byte ranges of one file, held by the open file description.

The kernel frees them when a process dies, however it dies.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
import time
from _blake2 import blake2b
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from pipesmith.store.modes import make_folders, share

__all__ = ["CACHE", "Hold", "LockTable"]

CACHE = "cache"  # shared by all that store and restore, exclusively held by a collection

_F_OFD_SETLK = 37  # Linux; fcntl has no name for it in Python 3.11
_SPACE = 1 << 62
_NOT_KNOWN = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)


def _try_lock(fd: int, offset: int, *, shared: bool) -> bool:
    """Lock one byte, without blocking. Raises OSError where the system has no such locks."""
    kind = fcntl.F_RDLCK if shared else fcntl.F_WRLCK
    request = struct.pack("hhqqi4x", kind, os.SEEK_SET, offset, 1, 0)
    try:
        fcntl.fcntl(fd, _F_OFD_SETLK, request)
    except (BlockingIOError, PermissionError):
        return False
    return True


class Hold:
    """A lock that is held. Its file is not inherited by the programs that are started meanwhile."""

    def __init__(self, fd: int, note: str | None) -> None:
        self._fd = fd
        self._note = note

    def release(self) -> None:
        """Give the lock back; a second time does nothing."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        if self._note is not None:
            try:
                os.unlink(self._note)
            except OSError:
                pass
        os.close(fd)


class LockTable:
    """Named locks of one clone. folder: where the lock file lies; made when first needed."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._path = os.path.join(folder, "table")

    @staticmethod
    def _offset(name: str) -> int:
        """The byte that stands for a name."""
        return int.from_bytes(blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big") % _SPACE

    def _note(self, name: str) -> str:
        return os.path.join(self._folder, f"{self._offset(name):016x}.holder")

    def try_acquire(self, name: str, *, shared: bool = False) -> Hold | None:
        """Return the lock of a name, None when another holds it. Raises OSError where the folder can't be written.

        shared: any number of processes may hold it so, while none holds it otherwise.
        """
        make_folders(self._folder)
        fd = self._locked(name, shared=shared)
        if fd is None:
            return None
        if shared:
            return Hold(fd, None)
        import json

        note = self._note(name)
        try:
            with open(note, "w", encoding="utf-8", errors="surrogateescape") as file:
                command = " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:]])[:200]
                json.dump({"pid": os.getpid(), "host": os.uname().nodename, "command": command}, file)
            share(note)
        except OSError:
            pass
        return Hold(fd, note)

    def _locked(self, name: str, *, shared: bool) -> int | None:
        """Return the open file that holds the lock of a name, None when another does."""
        fd = self._open(self._path)
        try:
            if _try_lock(fd, self._offset(name), shared=shared):
                return fd
        except OSError as error:
            if error.errno not in _NOT_KNOWN:
                os.close(fd)
                raise
            os.close(fd)
            fd = self._open(os.path.join(self._folder, f"{self._offset(name):016x}.lock"))
            try:
                fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                return fd
            except BlockingIOError:
                pass
        os.close(fd)
        return None

    @staticmethod
    def _open(path: str) -> int:
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            share(path)
            return fd

    def holder(self, name: str) -> str | None:
        """Return who holds a name, for people, None where that is not known."""
        import json

        try:
            with open(self._note(name), encoding="utf-8") as file:
                held = json.load(file)
            return f"pid {held['pid']} on {held['host']} ({held['command']})"
        except (OSError, ValueError, KeyError):
            return None

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """Hold a name for the time of a `with`, waiting for it as long as need be."""
        return self._held(name, shared=False)

    def shared(self, name: str) -> AbstractContextManager[None]:
        """Hold a name together with others for the time of a `with`, waiting for who holds it alone."""
        return self._held(name, shared=True)

    @contextmanager
    def _held(self, name: str, *, shared: bool) -> Iterator[None]:
        pause = 0.001
        while True:
            hold = self.try_acquire(name, shared=shared)
            if hold is not None:
                break
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)
        try:
            yield
        finally:
            hold.release()
