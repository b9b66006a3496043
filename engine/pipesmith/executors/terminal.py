"""The terminal of this process, lent to a command that a person works with."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["keys_for_others"]


@contextmanager
def keys_for_others() -> Iterator[None]:
    """Leave Ctrl-C and Ctrl-\\ to the command that has the terminal."""
    handled = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGQUIT)}
    try:
        yield
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)
