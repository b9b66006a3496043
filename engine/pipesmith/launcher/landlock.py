"""Landlock: forbid a command, and all it starts, to write below some folders. Linux 5.19 (ABI 2) and later.

Landlock only allows: what lies beside the way to a protected folder is allowed entry by entry. So a new entry made
directly in a folder *above* a protected one is refused as well. It covers neither chmod nor utime.
"""

from __future__ import annotations

import ctypes
import os
import stat

from .syscalls import call, prctl

__all__ = ["abi", "forbid_writes"]

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_VERSION = 1
_RULE_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

_WRITE_FILE, _REFER, _TRUNCATE = 1 << 1, 1 << 13, 1 << 14
_REMOVE_AND_MAKE = sum(
    1 << bit for bit in range(4, 13)
)  # remove dir, file; make char, dir, reg, sock, fifo, block, sym


class _RulesetAttr(ctypes.Structure):
    _fields_ = [("handled_access_fs", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


def abi() -> int:
    """Return the version of Landlock here, 0 where there is none of use (ABI 1 forbids every move between folders)."""
    try:
        version = call(_CREATE_RULESET, None, 0, _CREATE_VERSION)
    except OSError:
        return 0
    return version if version >= 2 else 0


def forbid_writes(protected: list[str], allowed: list[str]) -> None:
    """From now on, forbid this process to write below `protected` folders, but for `allowed` ones inside them."""
    version = abi()
    if not version:
        return
    for_files = _WRITE_FILE | (_TRUNCATE if version >= 3 else 0)
    for_folders = for_files | _REMOVE_AND_MAKE | _REFER
    attributes = _RulesetAttr(handled_access_fs=for_folders)
    ruleset = call(_CREATE_RULESET, ctypes.byref(attributes), ctypes.sizeof(attributes), 0)
    try:
        for path in (*_beside(protected), *allowed):
            try:
                fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                mode = os.fstat(fd).st_mode
                if stat.S_ISLNK(mode):
                    continue
                rule = _PathBeneath(allowed_access=for_folders if stat.S_ISDIR(mode) else for_files, parent_fd=fd)
                call(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0)
            finally:
                os.close(fd)
        prctl(_PR_SET_NO_NEW_PRIVS, 1)
        call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _beside(protected: list[str]) -> list[str]:
    """Return the entries of all folders above the protected ones that do not lead to one."""
    closed = {os.path.realpath(path) for path in protected}
    above: set[str] = set()
    for path in closed:
        while path != "/":
            path = os.path.dirname(path)
            above.add(path)
    entries: list[str] = []
    for folder in above:
        if any(folder == path or folder.startswith(f"{path}/") for path in closed):
            continue
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        paths = [f"{folder.rstrip('/')}/{name}" for name in names]
        entries += [path for path in paths if path not in closed and path not in above]
    return entries
