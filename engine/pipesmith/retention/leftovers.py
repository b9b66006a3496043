"""What killed processes left behind: unfinished files, sandboxes, private indexes."""

from __future__ import annotations

import os

from pipesmith.store.disk import UNFINISHED
from pipesmith.store.removal import remove

__all__ = ["remove_leftovers"]

_OURS = ("stage-", "object-", "index-", "probe-", "logs-")
_WEEK_S = 7 * 86_400.0
_MONTH_S = 30 * 86_400.0


def remove_leftovers(pipe_dir: str, older_than: float, *, live: bool) -> None:
    """Remove what nobody will finish.

    older_than: seconds since the epoch. live: a build goes on, its sandbox stays.
    """
    cache = os.path.join(pipe_dir, "cache")
    for folder, folders, files in os.walk(cache):
        for name in (*folders, *files):
            if name.startswith(UNFINISHED):
                _remove(os.path.join(folder, name), older_than)
    # What failed builds in places of their own leave for people, and for their next try.
    for folder in (os.path.join(pipe_dir, "tmp", "failed-elsewhere"), os.path.join(pipe_dir, "keep-elsewhere")):
        for name in _names(folder):
            _remove(os.path.join(folder, name), older_than - _WEEK_S)
    if live:
        return
    tmp = os.path.join(pipe_dir, "tmp")
    for name in _names(tmp):
        if name.startswith(_OURS):
            _remove(os.path.join(tmp, name), older_than)
        elif name.startswith("shell-"):  # a person may sit in it
            _remove(os.path.join(tmp, name), older_than - _WEEK_S)
        elif name.startswith("container-"):  # of a container that may still run, its pipe being gone
            _remove(os.path.join(tmp, name), older_than - _MONTH_S)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _remove(path: str, older_than: float) -> None:
    try:
        info = os.lstat(path)
        if max(info.st_mtime, info.st_ctime) >= older_than:
            return
        remove(path)
    except OSError:
        pass
