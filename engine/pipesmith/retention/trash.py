"""What was dropped rests in `trash/` for a week. A file's mtime says when it came there."""

from __future__ import annotations

import os
import shutil
import stat
import time

from pipesmith.store.disk import names

__all__ = ["REST_DAYS", "empty"]

REST_DAYS = 7.0
_DAY_S = 86_400.0


def empty(folder: str, *, dry_run: bool, now: float | None = None) -> tuple[int, int]:
    """Remove for good what has rested long enough; return how many files, and their bytes."""
    limit = (time.time() if now is None else now) - REST_DAYS * _DAY_S
    count = size = 0
    for name in names(folder):
        path = os.path.join(folder, name)
        try:
            info = os.lstat(path)
            if info.st_mtime >= limit:
                continue
            if stat.S_ISDIR(info.st_mode):  # logs of a run
                inside = [os.path.join(where, each) for where, _folders, files in os.walk(path) for each in files]
                inner_size = sum(os.lstat(each).st_size for each in inside)
                if not dry_run:
                    shutil.rmtree(path)
                count, size = count + len(inside), size + inner_size
                continue
            if not dry_run:
                shutil.rmtree(path) if stat.S_ISDIR(info.st_mode) else os.unlink(path)
        except OSError:
            continue
        count += 1
        size += info.st_size
    return count, size
