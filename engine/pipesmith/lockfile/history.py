"""Reads many texts of one lockfile, as its history has them: a table that was read before is not read again.

Only a shortcut: a text of another shape than the emitter's, or one with a fault, is left to the whole reading.
"""

from __future__ import annotations

from typing import Any

from pipesmith.lockfile.chunks import Memory, Tables, tables_of
from pipesmith.lockfile.escapes import ESCAPE, unescape_all
from pipesmith.lockfile.model import Lockfile
from pipesmith.lockfile.reader import entry_of, parse
from pipesmith.records import replace

__all__ = ["LockHistory"]

_MOST_TABLES = 200_000
_BETWEEN = "\n\n["  # two tables


class LockHistory:
    """memory: where parsed tables are remembered for other processes. The same table of two texts gives the same
    object."""

    def __init__(self, memory: Memory) -> None:
        self._tables = Tables(memory)
        self._entries: dict[str, tuple[str, str, Any]] = {}
        self._last: tuple[str, Lockfile] | None = None

    def parse(self, text: str, *, file: str = "pipe.lock") -> Lockfile:
        """Return the lockfile of a text. Raises what `lockfile.reader.parse` raises."""
        if len(self._entries) > _MOST_TABLES:
            self._entries.clear()
            self._last = None
        found = self._fast(text)
        return parse(text, file=file) if found is None else found

    def flush(self) -> None:
        """Remember the tables of the last text for other processes."""
        self._tables.flush()

    def _fast(self, text: str) -> Lockfile | None:
        last = self._last
        if last is not None:
            start, ends = _differing(last[0], text)
            if start is not None:
                found = self._spliced(last[1], last[0][start : ends[0]], text[start : ends[1]])
                if found is not None:
                    self._last = (text, found)
                    return found
        tables = tables_of(text)
        if tables is None:
            return None
        kinds = self._taken(tables, len(tables))
        if kinds is None or sum(map(len, kinds.values())) != len(tables):
            return None  # two tables of one name
        found = Lockfile(stages=kinds["stage"], environments=kinds["environment"], datasets=kinds["dataset"])
        self._last = (text, found)
        return found

    def _taken(self, tables: list[str], many: int) -> dict[str, dict[str, Any]] | None:
        """Return kind to name to entry; None where a table is not what the emitter writes."""
        entries = self._entries
        unknown = [table for table in tables if table not in entries]
        if unknown and not self._read(unknown, many):
            return None
        kinds: dict[str, dict[str, Any]] = {"stage": {}, "environment": {}, "dataset": {}}
        for table in tables:
            kind, name, entry = entries[table]
            kinds[kind][name] = entry
        return kinds

    def _spliced(self, last: Lockfile, old: str, new: str) -> Lockfile | None:
        """Return a lockfile with some tables replaced by others of the same names; None where it is not so."""
        before, now = old.split(_BETWEEN), new.split(_BETWEEN)
        if len(before) != len(now):
            return None
        many = len(last.stages)
        was, found = self._taken(before, many), self._taken(now, many)
        if was is None or found is None or was["stage"].keys() != found["stage"].keys():
            return None
        if len(found["stage"]) != len(now):
            return None
        return replace(last, stages={**last.stages, **found["stage"]})

    def _read(self, unknown: list[str], many: int) -> bool:
        """Take tables in; return False where one is not what the emitter writes."""
        documents = self._tables.documents(unknown, many)
        if documents is None:
            return False
        for table, document in zip(unknown, documents, strict=True):
            found = entry_of(unescape_all(document) if ESCAPE in table else document)
            if found is None:
                return False
            self._entries[table] = found
        return True


def _differing(old: str, new: str) -> tuple[int | None, tuple[int, int]]:
    """Return where the tables begin that differ between two texts, and where they end in either: begin behind the first
    bracket, end before what follows. None where they differ before the first table."""
    start = old.rfind(_BETWEEN, 0, _common(old, new))
    if start < 0:
        return None, (0, 0)
    start += len(_BETWEEN)
    tail = _common_end(old, new, min(len(old), len(new)) - start)
    end = old.find(_BETWEEN, max(len(old) - tail, start))
    back = len(old) - end if end >= 0 else 1 if old.endswith("\n") and new.endswith("\n") else 0
    return start, (len(old) - back, len(new) - back)


def _common(old: str, new: str) -> int:
    """Return how many characters two texts begin with alike."""
    low, high = 0, min(len(old), len(new))
    while low < high:
        middle = (low + high + 1) // 2
        if old[low:middle] == new[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _common_end(old: str, new: str, most: int) -> int:
    """Return how many characters, `most` at most, two texts end with alike."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if old[len(old) - middle : len(old) - low] == new[len(new) - middle : len(new) - low]:
            low = middle
        else:
            high = middle - 1
    return low
