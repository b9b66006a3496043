"""What a source of changes says."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple, Protocol

from pipesmith.watching.coverage import Coverage

__all__ = ["Change", "Kind", "Listener", "Source"]


class Kind(Enum):
    """What happened to a path, as far as its source can tell."""

    WRITTEN = "written"  # made, moved here, or its bytes were written
    TOUCHED = "touched"  # its mode or times, or it was closed after being open for writing
    GONE = "gone"  # removed, or moved away
    LOST = "lost"  # changes were lost: anything may have changed; the path says nothing
    FULL = "full"  # no more folders can be watched by events; the path says nothing


class Change(NamedTuple):
    """path: absolute."""

    path: str
    kind: Kind


Listener = Callable[[Change], None]


class Source(Protocol):
    """Tells its listener, from a thread of its own, of changes to what a coverage names.

    A change is told once or often, never not at all, unless LOST is told instead. What is made in a folder that is new
    itself may be told as that folder alone.
    """

    def cover(self, coverage: Coverage) -> None:
        """Watch this from now on. Raises OSError where the system won't."""

    def close(self) -> None:
        """Tell nothing more."""
