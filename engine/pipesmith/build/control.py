"""What may be asked of a build from outside while it goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

__all__ = ["Control"]


class _Running(Protocol):
    def cancel(self) -> None: ...
    def stop(self, stages: Collection[str]) -> None: ...
    def running(self) -> Mapping[str, str | None]: ...


class Control:
    """Of one build; thread-safe. What is asked before the build has begun is done when it begins."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._build: _Running | None = None
        self._asked: list[Callable[[_Running], None]] = []

    def attach(self, build: _Running) -> None:
        """Say what is controlled."""
        with self._guard:
            self._build = build
            asked, self._asked = self._asked, []
        for ask in asked:
            ask(build)

    @property
    def attached(self) -> bool:
        """Whether the build has come to where stages can run."""
        return self._build is not None

    def cancel(self) -> None:
        """Start nothing more, and end what runs."""
        self._ask(lambda build: build.cancel())

    def stop(self, stages: Collection[str]) -> None:
        """Start nothing more and end these stages; others that run are let finish."""
        self._ask(lambda build: build.stop(stages))

    def running(self) -> Mapping[str, str | None]:
        """Return the stages that run or are restored now, each with the key of its fingerprint."""
        with self._guard:
            build = self._build
        return build.running() if build is not None else {}

    def _ask(self, ask: Callable[[_Running], None]) -> None:
        with self._guard:
            build = self._build
            if build is None:
                self._asked.append(ask)
        if build is not None:
            ask(build)
