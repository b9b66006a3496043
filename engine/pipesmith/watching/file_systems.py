"""Which file systems tell nothing of what others change on them. Source: proc(5), inotify(7)."""

from __future__ import annotations

import os

__all__ = ["silent_file_system"]

_SILENT = frozenset(
    (
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "drvfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "prl_fs",
        "smb3",
        "smbfs",
        "vboxsf",
        "virtiofs",
        "vmhgfs",
        "v9fs",
    )
)


def silent_file_system(path: str, mounts: str = "/proc/self/mountinfo") -> str | None:
    """Return the name of the file system that a path lies on, if it is one without events; else None.

    mounts: where the system lists what is mounted.
    """
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
            rows = file.read().splitlines()
    except OSError:
        return None
    real = os.path.realpath(path)
    best, kind = "", ""
    for row in rows:
        before, _, after = row.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        point = _plain(fields[4])
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # of two at one place the later one covers the earlier
            best, kind = point, after.split(" ")[0]
    return kind if kind in _SILENT or kind.startswith("fuse.") else None


def _plain(point: str) -> str:
    r"""Return a mount point without the escapes of mountinfo: `\040` is a space."""
    for code in ("\\040", "\\011", "\\012", "\\134"):
        point = point.replace(code, chr(int(code[1:], 8)))
    return point
