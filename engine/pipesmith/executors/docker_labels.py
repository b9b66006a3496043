"""The labels of containers and volumes that pipesmith makes, and what they tell."""

from __future__ import annotations

import os
import socket

from pipesmith.liveness import is_alive, process_mark

__all__ = ["CLONE", "CONTENT", "OWNER", "RUN", "STAGE", "owner", "owner_is_gone"]

CLONE = "pipesmith.clone"  # of which workspace
RUN = "pipesmith.run"
STAGE = "pipesmith.stage"
OWNER = "pipesmith.owner"  # `HOST PID MARK`: the process that looks after it
CONTENT = "pipesmith.content"  # of a volume: the name of what lies in it


def owner() -> str:
    """Return what names this process among those of all hosts."""
    return f"{socket.gethostname()} {os.getpid()} {process_mark()}"


def owner_is_gone(text: str) -> bool:
    """Return whether the process that an OWNER label names has ended. Another host's can't be asked: False."""
    host, _, rest = text.partition(" ")
    pid, _, mark = rest.partition(" ")
    return host == socket.gethostname() and pid.isdecimal() and not is_alive(int(pid), mark)
