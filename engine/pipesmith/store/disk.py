"""What all writers below the pipe folder have in common: files in one step, and what a full disk is called."""

from __future__ import annotations

import errno
import os
import pwd
import stat

from pipesmith.errors import EnvironmentFailure
from pipesmith.store.modes import make_folders, share

__all__ = ["UNFINISHED", "disk_failure", "names", "permission_help", "sync_disk", "unfinished", "write_whole"]

UNFINISHED = ".tmp-"


def unfinished() -> str:
    """Return a name for a file that is being written: no reader takes it for one that is whole."""
    return f"{UNFINISHED}{os.urandom(8).hex()}"


def write_whole(path: str, data: bytes) -> None:
    """Write a small file in one step. Raises OSError, with nothing left behind."""
    folder = os.path.dirname(path)
    make_folders(folder)
    ready = os.path.join(folder, unfinished())
    try:
        with open(ready, "wb") as file:
            file.write(data)
        share(ready)
        try:
            os.rename(ready, path)
        except IsADirectoryError:  # no record of ours: put where leftovers are swept
            os.rename(path, os.path.join(folder, unfinished()))
            os.rename(ready, path)
    except BaseException:
        if os.path.lexists(ready):
            os.unlink(ready)
        raise


def names(folder: str) -> list[str]:
    """Return the names in a folder, sorted, without those of unfinished files; none where it can't be read."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith(UNFINISHED))
    except OSError:
        return []


def sync_disk(folder: str) -> None:
    """Bring to the disk what was written on the file system of a folder. Raises EnvironmentFailure."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return  # nothing was written there
    try:
        import ctypes  # dear, and only needed where something was made

        libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(libc, "syncfs"):
            os.sync()
        elif libc.syncfs(fd) != 0:
            code = ctypes.get_errno()
            raise disk_failure(OSError(code, os.strerror(code), folder), folder)
    finally:
        os.close(fd)


def disk_failure(error: OSError, root: str, path: str | None = None) -> EnvironmentFailure:
    """Return what to tell people of an error while something was written below `root`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return EnvironmentFailure(
            f"no space left on the disk of `{root}`", "free some space (`pipe gc`), then build again"
        )
    failed = os.fspath(error.filename or path or root)
    return EnvironmentFailure(f"`{failed}`: {(error.strerror or str(error)).lower()}", permission_help(error, failed))


def permission_help(error: OSError, path: str) -> str | None:
    """Return what to do where somebody else's file or folder is in the way, else None."""
    if error.errno not in (errno.EACCES, errno.EPERM):
        return None
    there = os.path.abspath(path)
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    info = os.lstat(there)
    if info.st_uid == os.geteuid():
        return f"let yourself in: `chmod u+rwX {there}`"
    owner, me = _user(info.st_uid), _user(os.geteuid())
    ours, found, _rest = f"{there}/".partition(".git/pipe/")
    if not found:
        return f"it belongs to `{owner}`: `sudo chown -R {me} {there}`"
    if info.st_mode & stat.S_ISGID or info.st_mode & 0o020:
        return f"it belongs to `{owner}` and a group that shares this clone: join the group, or use a clone of your own"
    return (
        f"it belongs to `{owner}`: `sudo chown -R {me} {ours}.git/pipe`, or share the clone: "
        "`git config core.sharedRepository group`"
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
