"""What killed processes left behind: unfinished files, sandboxes, private indexes."""

from __future__ import annotations

import os
import shutil
import stat

from pipesmith.store.disk import UNFINISHED

__all__ = ["remove_leftovers"]

_OURS = ("stage-", "object-", "index-", "probe-", "logs-")
_SHELL_S = 7 * 86_400.0


def remove_leftovers(pipe_dir: str, older_than: float, *, live: bool) -> None:
    """Remove what nobody will finish.

    older_than: seconds since the epoch. live: a build goes on, its sandbox stays.
    """
    cache = os.path.join(pipe_dir, "cache")
    for folder, _folders, files in os.walk(cache):
        for name in files:
            if name.startswith(UNFINISHED):
                _remove(os.path.join(folder, name), older_than)
    if live:
        return
    tmp = os.path.join(pipe_dir, "tmp")
    try:
        found = os.listdir(tmp)
    except OSError:
        return
    for name in found:
        if name.startswith(_OURS):
            _remove(os.path.join(tmp, name), older_than)
        elif name.startswith("shell-"):  # a person may sit in it
            _remove(os.path.join(tmp, name), older_than - _SHELL_S)


def _remove(path: str, older_than: float) -> None:
    try:
        info = os.lstat(path)
        if max(info.st_mtime, info.st_ctime) >= older_than:
            return
        if stat.S_ISDIR(info.st_mode):
            shutil.rmtree(path, onerror=_open_up)
        else:
            os.unlink(path)
    except OSError:
        pass


def _open_up(function: object, path: str, _error: object) -> None:
    """Let go what a stage made read-only."""
    try:
        os.chmod(os.path.dirname(path), 0o700)
        os.chmod(path, 0o700)
        if function is os.unlink:
            os.unlink(path)
        else:
            shutil.rmtree(path, ignore_errors=True)
    except OSError:
        pass
