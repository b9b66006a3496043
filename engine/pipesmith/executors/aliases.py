"""Other paths to the same folder: a disk that is mounted twice, a folder above it that is bound elsewhere."""

from __future__ import annotations

import os
import re

__all__ = ["aliases"]

_ESCAPED = re.compile(r"\\([0-7]{3})")


def aliases(folder: str, mountinfo: str | None = None) -> tuple[str, ...]:
    """Return the other absolute paths by which a folder can be reached.

    mountinfo: the text of /proc/self/mountinfo, read if None.
    Source: proc_pid_mountinfo(5): fields 3 to 5 are device, root within the file system, mount point.
    """
    if mountinfo is None:
        try:
            with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
                mountinfo = file.read()
        except OSError:
            return ()
    mounts = [tuple(_plain(word) for word in line.split(" ", 5)[2:5]) for line in mountinfo.splitlines()]
    folder = os.path.realpath(folder)
    home: tuple[str, ...] | None = None
    for mount in mounts:
        if _holds(mount[2], folder) and (home is None or len(mount[2]) >= len(home[2])):
            home = mount
    if home is None:
        return ()
    inner = _join(home[1], os.path.relpath(folder, home[2]))
    found: set[str] = set()
    for device, root, point in mounts:
        if device == home[0] and _holds(root, inner):
            other = _join(point, os.path.relpath(inner, root))
            if other != folder and _same(other, folder):
                found.add(other)
    return tuple(sorted(found))


def _plain(word: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), word)


def _holds(folder: str, path: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _join(folder: str, path: str) -> str:
    return os.path.normpath(os.path.join(folder, path))


def _same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
