"""Locks between processes: byte ranges of one file, held by the open file description, freed by the kernel when a process dies."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

__all__ = ["Hold", "LockTable"]

_F_OFD_SETLK = 37
_SPACE = 1 << 62


def _try_lock(fd: int, kind: int, offset: int) -> bool:
    """Lock one byte without blocking. The byte's offset stands for the name."""
    request = struct.pack("hhqqi4x", kind, os.SEEK_SET, offset, 1, 0)
    try:
        fcntl.fcntl(fd, _F_OFD_SETLK, request)
    except (BlockingIOError, PermissionError):
        return False
    return True


class Hold:
    """A lock that is held. Its file is not inherited by children."""

    def __init__(self, fd: int, offset: int, note: str) -> None:
        self._fd = fd
        self._offset = offset
        self._note = note

    def release(self) -> None:
        """Give the lock back; once."""
        try:
            os.unlink(self._note)
        except OSError:
            pass
        os.close(self._fd)


class LockTable:
    """Named locks of one clone. folder: where the lock file lies; made when first needed."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._path = os.path.join(folder, "table")

    @staticmethod
    def _offset(name: str) -> int:
        return int.from_bytes(blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big") % _SPACE

    def _note(self, name: str) -> str:
        return os.path.join(self._folder, f"{self._offset(name):016x}.holder")

    def try_acquire(self, name: str) -> Hold | None:
        """Return the lock of a name, None when another holds it. Raises OSError where the folder can't be written."""
        os.makedirs(self._folder, exist_ok=True)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        if not _try_lock(fd, fcntl.F_WRLCK, self._offset(name)):
            os.close(fd)
            return None
        note = self._note(name)
        try:
            with open(note, "w", encoding="utf-8") as file:
                command = " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:]])[:200]
                json.dump({"pid": os.getpid(), "host": socket.gethostname(), "command": command}, file)
        except OSError:
            pass
        return Hold(fd, self._offset(name), note)

    def holder(self, name: str) -> str | None:
        """Return who holds a name, for people, None where that is not known."""
        try:
            with open(self._note(name), encoding="utf-8") as file:
                held = json.load(file)
            return f"pid {held['pid']} on {held['host']} ({held['command']})"
        except (OSError, ValueError, KeyError):
            return None

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Hold a name for the time of a `with`, waiting for it as long as need be."""
        pause = 0.001
        while True:
            hold = self.try_acquire(name)
            if hold is not None:
                break
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)
        try:
            yield
        finally:
            hold.release()
