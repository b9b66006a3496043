"""Whether the process that records a run is still there. A pid alone does not tell: pids are given out again."""

from __future__ import annotations

import os

__all__ = ["is_alive", "process_mark"]


def process_mark(pid: int | None = None) -> str:
    """Return what sets a process apart from all others that had its pid: the boot's id and its start in clock ticks.

    Empty where the system does not say (no /proc), or there is no such process.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        with open(f"/proc/{os.getpid() if pid is None else pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (OSError, ValueError):
        return ""
    if fields[0] in (b"Z", b"X"):
        return ""
    return f"{boot} {int(fields[19])}"


def is_alive(pid: int, mark: str) -> bool:
    """Return whether the process with this pid and mark still runs here. Without a mark the pid has to do."""
    if pid <= 0:
        return False
    if mark:
        return process_mark(pid) == mark
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
