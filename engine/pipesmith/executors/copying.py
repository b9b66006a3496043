"""Private copies of files and folders: by reflink where the file system can, else byte by byte. Never by hard link."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from pipesmith.store.links import reflink

__all__ = ["copy_any", "copy_file", "copy_link", "tree_stamps"]

_CHUNK = 1 << 20
_WRITE_BITS = 0o222


def copy_any(origin: str, target: str, *, read_only: bool, stop: Callable[[], bool]) -> None:
    """Copy a file, a folder with all in it, or a link. target: must not exist.

    Times, executable bits and links are kept; what is neither file, folder nor link is left out. stop: asked now and
    then; True ends the copying, half done.
    """
    info = os.lstat(origin)
    if stat.S_ISLNK(info.st_mode):
        copy_link(origin, target)
    elif stat.S_ISDIR(info.st_mode):
        os.mkdir(target)
        with os.scandir(origin) as entries:
            for entry in entries:
                if stop():
                    return
                copy_any(entry.path, f"{target}/{entry.name}", read_only=read_only, stop=stop)
        os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))
        if read_only:
            os.chmod(target, 0o777 & ~_WRITE_BITS)
    elif stat.S_ISREG(info.st_mode):
        copy_file(origin, target, info, read_only=read_only)


def copy_link(origin: str, target: str) -> None:
    """Make a link with the same text."""
    os.symlink(os.readlink(origin), target)


def copy_file(origin: str, target: str, info: os.stat_result, *, read_only: bool) -> None:
    """Copy one file. info: the origin's."""
    mode = stat.S_IMODE(info.st_mode) & 0o777 | 0o600
    if info.st_size == 0 or not reflink(origin, target, mode):
        read = os.open(origin, os.O_RDONLY | os.O_CLOEXEC)
        try:
            write = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            try:
                while chunk := os.read(read, _CHUNK if info.st_size >= _CHUNK else info.st_size + 1):
                    view = memoryview(chunk)
                    while len(view):
                        view = view[os.write(write, view) :]
            finally:
                os.close(write)
        finally:
            os.close(read)
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))
    if read_only:
        os.chmod(target, mode & ~_WRITE_BITS)


def tree_stamps(path: str) -> dict[str, tuple[int, ...]]:
    """Return each path at and below one, with what changes when it is written: inode, mode, size, mtime."""
    stamps: dict[str, tuple[int, ...]] = {}
    waiting = [path]
    while waiting:
        place = waiting.pop()
        try:
            info = os.lstat(place)
        except OSError:
            continue
        stamps[place] = (info.st_ino, info.st_mode, info.st_size, info.st_mtime_ns)
        if stat.S_ISDIR(info.st_mode):
            waiting += [f"{place}/{name}" for name in os.listdir(place)]
    return stamps
