"""How the bytes of one object get to another name: by reflink, hard link or copy."""

from __future__ import annotations

import errno
import os

from pipesmith.digest import new_hasher
from pipesmith.store.hashing import read_small

__all__ = ["HARDLINK_ABOVE_BYTES", "copy_hashing", "reflink", "write_all"]

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
    read = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        write = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
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
    """Copy a file and return the hex hash of what was copied. `target` must not exist, nor does it after an error."""
    hasher = new_hasher(algorithm)
    read = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(read).st_size
        write = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            if size < _CHUNK:
                data = read_small(read, size)
                hasher.update(data)
                write_all(write, data)
            else:
                buffer = bytearray(_CHUNK)
                view = memoryview(buffer)
                while count := os.readv(read, [buffer]):
                    hasher.update(view[:count])
                    write_all(write, view[:count])
        except BaseException:
            os.unlink(target)
            raise
        finally:
            os.close(write)
    finally:
        os.close(read)
    return hasher.hexdigest()


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all bytes. Raises OSError."""
    written = os.write(fd, data)
    if written < len(data):
        view = memoryview(data)[written:]
        while len(view):
            view = view[os.write(fd, view) :]
