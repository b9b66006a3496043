"""Environments that were cold: not where a stage needed them. Making one is told, timed, and kept for the record."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipesmith.events import EnvironmentFinished, EnvironmentStarted, Event
from pipesmith.history.record import EnvironmentRecord

__all__ = ["ColdEnvironments"]


class ColdEnvironments:
    """Those of one session. listener: told when one begins and ends. made: all that ended. Thread-safe."""

    def __init__(self) -> None:
        self.listener: Callable[[Event], None] = lambda _event: None
        self.made: list[EnvironmentRecord] = []
        self._under_way: dict[int, EnvironmentRecord] = {}
        self._guard = threading.Lock()

    def tell(self, notice: Callable[[str], None]) -> None:
        """Have what is made told as plain lines."""

        def listener(event: Event) -> None:
            if isinstance(event, EnvironmentStarted):
                notice(event.text)

        self.listener = listener

    @contextmanager
    def making(self, name: str, where: str, how: str, text: str) -> Iterator[None]:
        """Have an environment told and noted that is made during a `with`."""
        record = EnvironmentRecord(name=name, where=where, how=how, start=time.time())
        with self._guard:
            self._under_way[id(record)] = record
        self.listener(EnvironmentStarted(time=record.start, environment=name, where=where, text=text))
        try:
            yield
        except BaseException:
            record.how = "failed"
            raise
        finally:
            record.end = time.time()
            with self._guard:
                del self._under_way[id(record)]
                self.made.append(record)
            took = record.end - record.start
            self.listener(
                EnvironmentFinished(time=record.end, environment=name, where=where, how=record.how, seconds=took)
            )

    def seconds(self, name: str, since: float) -> float:
        """Return how many seconds after a moment an environment of this name was being made."""
        now = time.time()
        with self._guard:
            spans = [(each.start, each.end) for each in self.made if each.name == name]
            spans += [(each.start, now) for each in self._under_way.values() if each.name == name]
        total, until = 0.0, since
        for start, end in sorted(spans):  # on several daemons at once they overlap
            total += max(0.0, end - max(start, until))
            until = max(until, end)
        return total
