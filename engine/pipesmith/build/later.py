"""What is done in a thread of its own while other things go on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

__all__ = ["Later"]


class Later:
    """Begins `work` at once. name: of its thread. failed: what it raised, None as long as it has raised nothing."""

    def __init__(self, work: Callable[[], Any], name: str) -> None:
        self._work = work
        self._value: Any = None
        self.failed: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._work()
        except Exception as error:
            self.failed = error

    def wait(self) -> None:
        """Block until it is done."""
        self._thread.join()

    def result(self) -> Any:
        """Wait until it is done, then return what it returned, or raise what it raised."""
        self.wait()
        if self.failed is not None:
            raise self.failed
        return self._value
