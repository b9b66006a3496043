"""Processes that a job has started: finding and ending them where no pid namespace does it."""

from __future__ import annotations

import os
import time

__all__ = ["descendants", "end_descendants", "signal_all"]

_SIGKILL = 9


def descendants(pid: int) -> list[int]:
    """Return the pids of all processes below one, parents first."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        try:
            threads = os.listdir(f"/proc/{parent}/task")
        except OSError:
            continue
        for thread in threads:
            try:
                with open(f"/proc/{parent}/task/{thread}/children", "rb") as file:
                    children = [int(word) for word in file.read().split()]
            except FileNotFoundError:
                if os.path.isdir(f"/proc/{parent}/task/{thread}"):
                    return _by_walk(pid)  # a kernel without CONFIG_PROC_CHILDREN
                continue
            except OSError:
                continue
            found += children
            waiting += children
    return found


def _by_walk(pid: int) -> list[int]:
    below: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
            below.setdefault(parent, []).append(int(name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        children = below.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def signal_all(pids: list[int], number: int) -> None:
    """Send a signal to each that is still there and may be sent one."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            pass


def end_descendants(patience_s: float = 5.0) -> None:
    """Kill all below this process, their subreaper, until none is left. Gives up on what can't be killed."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        signal_all(descendants(os.getpid()), _SIGKILL)
        time.sleep(0.001)
