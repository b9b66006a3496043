"""How long stages took last time: for progress and for starting the longest path first."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable, Mapping, Sequence

from pipesmith.store.state_db import StateDB

__all__ = ["last_seconds", "makespan", "remember_seconds"]


def last_seconds(state: StateDB, stages: Iterable[str]) -> dict[str, float]:
    """Return stage to wall seconds of its last good run; stages that never ran have none."""
    wanted = set(stages)
    return {stage: seconds for stage, seconds in state.query("SELECT stage, seconds FROM timings") if stage in wanted}


def remember_seconds(state: StateDB, seconds: Mapping[str, float]) -> None:
    now = time.time()
    if seconds:
        state.write_many("INSERT OR REPLACE INTO timings VALUES (?, ?, ?)", [(s, v, now) for s, v in seconds.items()])


def makespan(seconds: Mapping[str, float], before: Mapping[str, Sequence[str]], jobs: int) -> float:
    """Return how long stages take with so many at once, the longest path first, as the scheduler starts them.

    seconds: stage to its duration, in topological order. before: stage to those that must end before it."""
    after: dict[str, list[str]] = {name: [] for name in seconds}
    for name in seconds:
        for earlier in before[name]:
            after[earlier].append(name)
    longest: dict[str, float] = {}
    for name in reversed(list(seconds)):
        longest[name] = seconds[name] + max((longest[later] for later in after[name]), default=0.0)
    left = {name: len(before[name]) for name in seconds}
    ready = [(-longest[name], name) for name in seconds if not left[name]]
    heapq.heapify(ready)
    running: list[tuple[float, str]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < jobs:
            _longest, name = heapq.heappop(ready)
            heapq.heappush(running, (now + seconds[name], name))
        now, ended = heapq.heappop(running)
        for later in after[ended]:
            left[later] -= 1
            if not left[later]:
                heapq.heappush(ready, (-longest[later], later))
    return now
