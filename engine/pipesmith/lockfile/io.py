"""Puts a lockfile, or another small file of the workspace, on the disk in one step."""

from __future__ import annotations

import os

from pipesmith.lockfile.emitter import render
from pipesmith.lockfile.model import Lockfile

__all__ = ["put", "write"]


def write(path: str, lockfile: Lockfile) -> str:
    """Write a lockfile and return its text. Raises OSError."""
    text = render(lockfile)
    put(path, text.encode())
    return text


def put(path: str, data: bytes) -> None:
    """Let a file hold these bytes. Raises OSError, with the file as it was.

    Equal bytes are not written again; a link stays a link; the mode stays.
    """
    real = os.path.realpath(path)
    mode = None
    try:
        with open(real, "rb") as file:
            if file.read() == data:
                return
            mode = os.fstat(file.fileno()).st_mode & 0o7777
    except FileNotFoundError:
        pass
    ready = os.path.join(os.path.dirname(real), f".pipe-tmp-{os.urandom(6).hex()}")
    try:
        fd = os.open(ready, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            view = memoryview(data)
            while len(view):
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        if mode is not None:
            os.chmod(ready, mode)
        os.rename(ready, real)
    except OSError:
        if os.path.lexists(ready):
            os.unlink(ready)
        raise
