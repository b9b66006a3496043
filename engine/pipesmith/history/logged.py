"""What stages logged through the SDK: numbers, images and tables as lines of JSON (docs/formats/context.md)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["Followed", "files_of", "follow_logged", "line_text", "lines_of", "read_logged"]

_POLL_S = 0.1


def lines_of(log_path: str) -> str:
    """Return the path of the logged lines that belong to a stage's log."""
    return f"{log_path}.jsonl"


def files_of(log_path: str) -> str:
    """Return the folder of the images and tables that the lines name."""
    return f"{log_path}.files"


def read_logged(log_path: str) -> list[dict[str, Any]]:
    """Return what was logged beside a stage's log, in order. A line that can't be read is passed over."""
    try:
        with open(lines_of(log_path), "rb") as file:
            return _parsed(file.read())
    except FileNotFoundError:
        return []


def _parsed(data: bytes) -> list[dict[str, Any]]:
    entries = []
    for line in data.splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict) and "name" in entry:
            entries.append(entry)
    return entries


def line_text(entry: dict[str, Any]) -> str:
    """Return what was logged, for people: `loss = 0.31 (step 7)`."""
    value = entry.get("value")
    if value is None:
        kind = "image" if "image" in entry else "table"
        value = f"{kind} {entry.get(kind, '')}"
    step = entry.get("step")
    return f"{entry['name']} = {value}" if step is None else f"{entry['name']} = {value} (step {step})"


def follow_logged(log_path: str, done: Callable[[], bool]) -> Iterator[bytes]:
    """Yield what a stage prints and, as lines of text between, what it logs, until `done` and all is read."""
    followed = Followed(log_path)
    while True:
        finished = done()
        if data := followed.more():
            yield data
        if finished:
            return
        time.sleep(_POLL_S)


class Followed:
    """A stage's log with what it logs, both growing."""

    def __init__(self, log_path: str) -> None:
        self._printed, self._logged = _Growing(log_path), _Growing(lines_of(log_path))
        self._rest = b""
        self._at_line_start = True

    def more(self) -> bytes:
        """Return what was printed and logged since the last time."""
        data = self._printed.more()
        if data:
            self._at_line_start = data.endswith(b"\n")
        whole, newline, self._rest = (self._rest + self._logged.more()).rpartition(b"\n")
        for entry in _parsed(whole) if newline else ():
            data += b"" if self._at_line_start else b"\n"
            data += f"{line_text(entry)}\n".encode("utf-8", "surrogateescape")
            self._at_line_start = True
        return data


class _Growing:
    """A file that grows, or that is not there yet."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._at = 0

    def more(self) -> bytes:
        """Return what has come since the last time."""
        try:
            with open(self._path, "rb") as file:
                if os.fstat(file.fileno()).st_size < self._at:
                    self._at = 0  # begun anew, by another try
                file.seek(self._at)
                data = file.read()
        except FileNotFoundError:
            return b""
        self._at += len(data)
        return data
