"""System calls that the standard library of Python 3.11 lacks, by ctypes. Each raises OSError, naming the path.

The library is opened as PyDLL: the interpreter's lock stays held, so that a raw `clone` leaves a child that can go on.
"""

from __future__ import annotations

import ctypes
import os

__all__ = [
    "CLONE_NEWNS",
    "CLONE_NEWPID",
    "CLONE_NEWUSER",
    "MS_BIND",
    "MS_NODEV",
    "MS_NOEXEC",
    "MS_NOSUID",
    "MS_PRIVATE",
    "MS_REC",
    "call",
    "clear_inheritable",
    "clone",
    "close_from",
    "mount",
    "prctl",
    "read_only",
]

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000

MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18

_MOUNT_SETATTR, _CLOSE_RANGE = 442, 436
_CLONE = {"x86_64": 56, "aarch64": 220}.get(os.uname().machine)
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_MOUNT_ATTR_RDONLY = 1
_SIGCHLD = 17
_ENOSYS = 38
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]


class _MountAttr(ctypes.Structure):
    _fields_ = [
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns", ctypes.c_uint64),
    ]


def _raise(path: str | bytes | None) -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), path)


def call(number: int, *args: object, path: str | None = None) -> int:
    """Return what system call `number` returns. Integers go as longs, the rest as ctypes takes it."""
    result: int = _libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in args))
    if result == -1:
        _raise(path)
    return result


def clone(flags: int) -> int:
    """Return 0 in a child that is in the new namespaces of `flags`, its pid in the parent. For one thread only."""
    if _CLONE is None:
        raise OSError(_ENOSYS, f"namespaces are not known on {os.uname().machine}")
    return call(_CLONE, flags | _SIGCHLD, 0, 0, 0, 0)


def mount(source: str | None, target: str, kind: str | None, flags: int) -> None:
    """Mount as mount(2) does."""
    if _libc.mount(
        os.fsencode(source) if source is not None else None,
        os.fsencode(target),
        kind.encode() if kind is not None else None,
        flags,
        None,
    ):
        _raise(source if source is not None and flags & MS_BIND else target)


def read_only(path: str) -> None:
    """Make the mount at a path, and all mounts below it, read-only. Needs Linux 5.12."""
    attributes = _MountAttr(set=_MOUNT_ATTR_RDONLY)
    size = ctypes.sizeof(attributes)
    call(_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(path), _AT_RECURSIVE, ctypes.byref(attributes), size, path=path)


def prctl(option: int, value: int) -> None:
    """Call prctl(2) with one argument."""
    if _libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)):
        _raise(None)


def close_from(fd: int) -> None:
    """Close every file descriptor from `fd` on."""
    try:
        call(_CLOSE_RANGE, fd, 0x7FFFFFFF, 0)
    except OSError:
        os.closerange(fd, os.sysconf("SC_OPEN_MAX"))


def clear_inheritable() -> None:
    """Empty the inheritable capabilities: they would bring back, at an exec by root, what the bounding set has lost."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)()
    if _libc.capget(header, data):
        _raise(None)
    data[2] = data[5] = 0
    if _libc.capset(header, data):
        _raise(None)
