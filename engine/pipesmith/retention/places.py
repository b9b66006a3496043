"""Places of their own: folders below `tmp/` in which commits are built, each with a work tree of git's.

Who builds in one holds its lock; the kernel frees that when a process dies, and what it left is swept.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from pipesmith.git.detached import work_tree_folders
from pipesmith.store.locks import LockTable
from pipesmith.store.modes import make_folders
from pipesmith.store.removal import remove

__all__ = ["REGISTERING", "place", "sweep_places"]

REGISTERING = "work trees"  # shared by who registers one with git, alone held by who removes the folder of all

_PREFIX = "place-"


@contextmanager
def place(pipe_dir: str, common_dir: str, locks: LockTable) -> Iterator[str]:
    """Make a folder for the time of a `with`; then it is removed, and git's record of a work tree in it."""
    name = f"{_PREFIX}{os.urandom(6).hex()}"
    tmp = os.path.join(pipe_dir, "tmp")
    make_folders(tmp)
    hold = locks.try_acquire(_lock(name))
    assert hold is not None  # the name is new
    folder = os.path.join(tmp, name)
    try:
        os.mkdir(folder)
        yield folder
    finally:
        _remove(folder, common_dir, locks)
        hold.release()


def sweep_places(pipe_dir: str, common_dir: str, locks: LockTable) -> None:
    """Take away places whose builds were killed."""
    tmp = os.path.join(pipe_dir, "tmp")
    for name in _left(tmp, common_dir):
        try:
            hold = locks.try_acquire(_lock(name))
        except OSError:
            return  # nothing can be written here
        if hold is not None:
            _remove(os.path.join(tmp, name), common_dir, locks)
            hold.release()


def _lock(name: str) -> str:
    return f"place {name}"


def _left(tmp: str, common_dir: str) -> set[str]:
    try:
        found = {name for name in os.listdir(tmp) if name.startswith(_PREFIX)}
    except OSError:
        return set()
    for _admin, path in work_tree_folders(common_dir):
        name = os.path.relpath(path, tmp).split(os.sep)[0]
        if name.startswith(_PREFIX):
            found.add(name)
    return found


def _remove(folder: str, common_dir: str, locks: LockTable) -> None:
    """The folder goes first: as long as it is there it is found again."""
    remove(folder)
    for admin, path in work_tree_folders(common_dir):
        if path.startswith(f"{folder}{os.sep}"):
            shutil.rmtree(admin, ignore_errors=True)
    with locks.exclusive(REGISTERING):
        try:
            os.rmdir(os.path.join(common_dir, "worktrees"))
        except OSError:
            pass  # the user's own are in it, or there never was one
