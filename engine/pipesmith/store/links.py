"""How the bytes of one object get to another name: by reflink, hard link or copy."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from pipesmith.digest import new_hasher

__all__ = ["HARDLINK_ABOVE_BYTES", "copy_hashing", "reflink"]

HARDLINK_ABOVE_BYTES = 1_000_000
_FICLONE = 0x40049409
_CHUNK = 1 << 20
_no_reflink: set[int] = set()


def reflink(source: str, target: str, mode: int) -> bool:
    """Make `target` share the blocks of `source`. False where the file system can't; nothing is left then."""
    import fcntl

    device = os.stat(source).st_dev
    if device in _no_reflink:
        return False
    read = os.open(source, os.O_RDONLY)
    try:
        write = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            fcntl.ioctl(write, _FICLONE, read)
            return True
        except OSError as error:
            os.unlink(target)
            if error.errno in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS):
                _no_reflink.add(device)
            return False
        finally:
            os.close(write)
    finally:
        os.close(read)


def copy_hashing(source: str, target: str, mode: int, algorithm: str) -> str:
    """Copy a file and return the hex hash of what was copied. `target` must not exist."""
    hasher = new_hasher(algorithm)
    read = os.open(source, os.O_RDONLY)
    try:
        write = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            while True:
                chunk = os.read(read, _CHUNK)
                if not chunk:
                    break
                hasher.update(chunk)
                _write_all(write, chunk)
        finally:
            os.close(write)
    finally:
        os.close(read)
    return hasher.hexdigest()


def _write_all(fd: int, data: bytes) -> None:
    view: Sequence[int] | memoryview = memoryview(data)
    while len(view):
        view = view[os.write(fd, view) :]  # type: ignore[arg-type]
