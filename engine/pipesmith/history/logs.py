"""Logs of stages: where they lie, and following one that grows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote

__all__ = ["follow", "log_path"]


def log_path(pipe_dir: str, run: str, stage: str) -> str:
    """Return the path of a stage's log in a run."""
    return os.path.join(pipe_dir, "logs", run, f"{quote(stage, safe='@+')}.log")


def follow(path: str, done: Callable[[], bool]) -> Iterator[bytes]:
    """Yield what is in a file and what comes, until `done` and all is read."""
    at = 0
    while True:
        finished = done()
        try:
            with open(path, "rb") as file:
                file.seek(at)
                while data := file.read(1 << 16):
                    at += len(data)
                    yield data
        except FileNotFoundError:
            pass
        if finished:
            return
        time.sleep(0.1)
