"""Logs of stages: where they lie, and following one that grows."""

from __future__ import annotations

import os
import time
from _blake2 import blake2b
from collections.abc import Callable, Iterator

from pipesmith.percent import quote

__all__ = ["follow", "log_path"]

_LONGEST = 200  # bytes of a name; file systems take 255, and the live log adds an ending
_POLL_S = 0.1


def log_path(pipe_dir: str, run: str, stage: str) -> str:
    """Return the path of a stage's log in a run: its name percent-encoded, a very long one cut and with a hash."""
    name = quote(stage, safe="@+")
    if len(name) > _LONGEST:
        name = f"{name[: _LONGEST - 17]}-{blake2b(stage.encode('utf-8', 'surrogateescape'), digest_size=8).hexdigest()}"
    return os.path.join(pipe_dir, "logs", run, f"{name}.log")


def follow(path: str, done: Callable[[], bool]) -> Iterator[bytes]:
    """Yield what is in a file and what comes, until `done` and all is read. A file that was begun anew is read anew."""
    at = 0
    while True:
        finished = done()
        try:
            with open(path, "rb") as file:
                if os.fstat(file.fileno()).st_size < at:
                    at = 0
                file.seek(at)
                while data := file.read(1 << 16):
                    at += len(data)
                    yield data
        except FileNotFoundError:
            pass
        if finished:
            return
        time.sleep(_POLL_S)
