"""Taking away what stages made, whatever they did to its permissions."""

from __future__ import annotations

import os
import shutil
import stat

__all__ = ["make_writable", "remove"]


def remove(path: str) -> None:
    """Remove a file, link or folder, read-only ones included; nothing there is fine."""
    try:
        is_folder = stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return
    if not is_folder:
        os.unlink(path)
        return
    try:
        shutil.rmtree(path)
    except PermissionError:
        make_writable(path)
        shutil.rmtree(path)


def make_writable(folder: str) -> None:
    """Let the owner list and change a folder and all folders below it, as far as that is allowed."""
    waiting = [folder]
    while waiting:
        where = waiting.pop()
        try:
            mode = stat.S_IMODE(os.lstat(where).st_mode)
            if mode & stat.S_IRWXU != stat.S_IRWXU:
                os.chmod(where, mode | stat.S_IRWXU)
            with os.scandir(where) as entries:
                waiting += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue
