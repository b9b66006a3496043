"""Ctrl-C and its like while a build goes on: asked to stop in an orderly way, whenever they come."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ["Interrupts"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Holds the signals that end a program, for the time of a `with`. Does nothing outside the main thread.

    One that comes before there is something to stop is not lost: `call` then calls at once.
    """

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._came = False
        self._stop: Callable[[], None] | None = None

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def call(self, stop: Callable[[], None]) -> None:
        """Say what is to be called when a signal comes: something that is safe in a signal handler."""
        self._stop = stop
        if self._came:
            stop()

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        self._came = True
        if self._stop is not None:
            self._stop()
