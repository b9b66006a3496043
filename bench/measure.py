"""Commands timed in turn, and what the operating system says of their memory.

This process stays small: a child's peak memory is never reported below that of the process that started it.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Command", "Figures", "alternate", "run_once"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What is timed. before: done ahead of each round, untimed. good: exit codes that are no mistake."""

    args: Sequence[str]
    cwd: Path
    before: Callable[[], None] | None = None
    good: tuple[int, ...] = (0,)


@dataclass(slots=True)
class Figures:
    """What rounds came to. seconds: wall clock, one a round. peak_bytes: the largest process of any round."""

    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def median_ms(self) -> float:
        return statistics.median(self.seconds) * 1000

    def over(self, other: Figures) -> Figures:
        """Return what this took more than another, round by round."""
        return Figures([mine - theirs for mine, theirs in zip(self.seconds, other.seconds, strict=True)])

    def ratio(self, other: Figures) -> float:
        """Return the median of the rounds' ratios, this over other."""
        return statistics.median(mine / theirs for mine, theirs in zip(self.seconds, other.seconds, strict=True))


def environment() -> dict[str, str]:
    """Return what commands are started with: nothing that changes how Python or git work."""
    kept = {name: os.environ[name] for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR") if name in os.environ}
    path = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if "shims" not in part)
    return {**kept, "PATH": path, "LANG": "C.UTF-8", "DVC_NO_ANALYTICS": "1"}


def run_once(command: Command, environ: Mapping[str, str]) -> tuple[float, int]:
    """Run a command, its output thrown away. Returns seconds and the peak memory of its largest process in bytes."""
    if command.before is not None:
        command.before()
    null = os.open(os.devnull, os.O_RDWR)
    here = os.getcwd()
    os.chdir(command.cwd)
    try:
        began = time.perf_counter()
        child = os.posix_spawnp(
            command.args[0],
            list(command.args),
            dict(environ),
            file_actions=[(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1)],
        )
        _, status, usage = os.wait4(child, 0)
        took = time.perf_counter() - began
    finally:
        os.chdir(here)
        os.close(null)
    code = os.waitstatus_to_exitcode(status)
    if code not in command.good:
        sys.exit(f"bench: `{' '.join(command.args)}` in {command.cwd} ended with {code}")
    return took, usage.ru_maxrss * 1024


def alternate(commands: Mapping[str, Command], *, rounds: int, warm_up: int = 1) -> dict[str, Figures]:
    """Run the commands in turn, round by round. Rounds of warm_up do not count."""
    environ = environment()
    found = {name: Figures() for name in commands}
    os.sync()  # what was laid out, or removed, before these is no concern of theirs
    for number in range(warm_up + rounds):
        for name, command in commands.items():
            seconds, peak_bytes = run_once(command, environ)
            if number >= warm_up:
                found[name].seconds.append(seconds)
                found[name].peak_bytes = max(found[name].peak_bytes, peak_bytes)
    return found
