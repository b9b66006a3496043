"""How long stages took last time: for progress and for starting the longest path first."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from pipesmith.store.state_db import StateDB

__all__ = ["last_seconds", "remember_seconds"]


def last_seconds(state: StateDB, stages: Iterable[str]) -> dict[str, float]:
    """Return stage to wall seconds of its last good run; stages that never ran have none."""
    wanted = set(stages)
    return {stage: seconds for stage, seconds in state.query("SELECT stage, seconds FROM timings") if stage in wanted}


def remember_seconds(state: StateDB, seconds: Mapping[str, float]) -> None:
    now = time.time()
    if seconds:
        state.write_many("INSERT OR REPLACE INTO timings VALUES (?, ?, ?)", [(s, v, now) for s, v in seconds.items()])
