"""The view of a sandboxed command: its own mounts, where it can be had its own processes, and no power to undo either.

The uid stays what it was. Root needs no user namespace, and gets one only where it lacks CAP_SYS_ADMIN.
Sources: mount_namespaces(7), user_namespaces(7), pid_namespaces(7), mount_setattr(2), capabilities(7).
"""

from __future__ import annotations

import os

from .syscalls import (
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    clear_inheritable,
    clone,
    mount,
    prctl,
    read_only,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["build_view", "clone_flags", "drop_powers", "map_ids", "probe"]

_PR_CAPBSET_DROP = 24
_CAP_DAC_READ_SEARCH = 2  # open_by_handle_at reaches files that no path leads to
_CAP_SYS_MODULE = 16
_CAP_SYS_RAWIO = 17
_CAP_SYS_PTRACE = 19  # /proc/PID/root of processes outside
_CAP_SYS_ADMIN = 21  # umount, remount, setns
_CAP_MKNOD = 27  # the disk itself
_DROPPED = (_CAP_DAC_READ_SEARCH, _CAP_SYS_MODULE, _CAP_SYS_RAWIO, _CAP_SYS_PTRACE, _CAP_SYS_ADMIN, _CAP_MKNOD)


def clone_flags(*, user: bool, pid: bool) -> int:
    """Return the flags of `clone` for a command's namespaces."""
    return CLONE_NEWNS | (CLONE_NEWUSER if user else 0) | (CLONE_NEWPID if pid else 0)


def map_ids(uid: int, gid: int) -> None:
    """Keep uid and gid what they were, in a user namespace just made."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        fd = os.open(f"/proc/self/{name}", os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def build_view(view: dict[str, Any], *, pid: bool) -> None:
    """Mount what a command sees.

    view: `binds` (origin, target, writable), made first, since `root`, which is then mounted over `workspace`, hides
    the origins; last `hidden`: folders that appear as the empty folder `empty`. All paths are absolute.
    Raises OSError with the path.
    """
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    if pid:
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for origin, target, writable in view["binds"]:
        mount(origin, target, None, MS_BIND | MS_REC)
        if not writable:
            read_only(target)
    # By their descriptors: each of these mounts may hide the path of what is mounted next.
    root = os.open(view["root"], os.O_PATH | os.O_CLOEXEC)
    empty = os.open(view["empty"], os.O_PATH | os.O_CLOEXEC) if view["hidden"] else root
    mount(f"/proc/self/fd/{root}", view["workspace"], None, MS_BIND | MS_REC)
    for path in view["hidden"]:
        mount(f"/proc/self/fd/{empty}", path, None, MS_BIND)
        read_only(path)
    for fd in {root, empty}:
        os.close(fd)


def drop_powers() -> None:
    """Give up, for good, the capabilities that could undo the view. Other powers of root stay."""
    for capability in _DROPPED:
        prctl(_PR_CAPBSET_DROP, capability)
    clear_inheritable()


def probe() -> dict[str, Any]:
    """Return what this machine allows: `private` (are there mount namespaces), `user` and `pid` (which besides), `why`
    (for people). Tried for real, in a child: about 3 ms."""
    refused = ""
    for user in (False, True) if os.geteuid() == 0 else (True,):
        for pid in (True, False):
            failure = _try(user=user, pid=pid)
            if failure is None:
                kinds = [name for name, used in (("user", user), ("mount", True), ("pid", pid)) if used]
                why = f"{', '.join(kinds)} namespaces" + ("" if pid else f"; no pid namespace: {refused}")
                return {"private": True, "user": user, "pid": pid, "why": why}
            refused = failure
    return {"private": False, "user": False, "pid": False, "why": f"no namespaces: {refused}"}


def _try(*, user: bool, pid: bool) -> str | None:
    """Return None where a child could do all that a view needs, else what failed."""
    reader, writer = os.pipe()
    uid, gid = os.geteuid(), os.getegid()
    try:
        try:
            child = clone(clone_flags(user=user, pid=pid))
        except OSError as error:
            return f"clone: {error.strerror}"
        if child == 0:
            _rehearse(writer, uid, gid, user=user, pid=pid)
        os.close(writer)
        writer = -1
        said = os.read(reader, 1000).decode()
        os.waitpid(child, 0)
        return None if said == "ok" else said or "the probe died"
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)


def _rehearse(writer: int, uid: int, gid: int, *, user: bool, pid: bool) -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    view = {"binds": [(here, here, False)], "root": here, "workspace": here, "empty": here, "hidden": [here]}
    step = "id map"
    try:
        if user:
            map_ids(uid, gid)
        step = "mount"
        build_view(view, pid=pid)
        step = "capabilities"
        drop_powers()
        os.write(writer, b"ok")
    except OSError as error:
        os.write(writer, f"{step}: {error.strerror}".encode())
    finally:
        os._exit(0)
