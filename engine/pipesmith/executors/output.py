"""A job's output on its way: whole to the log, masked, line by line to whoever listens, without filling memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

__all__ = ["MIN_SECRET", "Masker", "OutputPump", "usable_secrets"]

MIN_SECRET = 6
_LINE_LIMIT = 16384
_LINES_PER_SECOND = 2000
_TAIL_BYTES = 16384
_TAIL_LINES = 40


def usable_secrets(values: Iterable[str]) -> list[bytes]:
    """Return what is masked: each line of each value that is long enough, longest first."""
    lines = {line.strip() for value in values for line in (value.splitlines() or [value])}
    return sorted((line.encode("utf-8", "surrogateescape") for line in lines if len(line) >= MIN_SECRET), key=len, reverse=True)


class Masker:
    """Replaces secrets in a stream of bytes, also those that come in pieces."""

    def __init__(self, secrets: list[bytes]) -> None:
        self._secrets = secrets
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Return what can be shown now; what may be the beginning of a secret is held back."""
        if not self._secrets:
            return data
        data = self._held + data
        for secret in self._secrets:
            data = data.replace(secret, b"***")
        keep = 0
        for secret in self._secrets:
            for length in range(min(len(secret) - 1, len(data)), keep, -1):
                if data.endswith(secret[:length]):
                    keep = length
                    break
        self._held = data[len(data) - keep :] if keep else b""
        return data[: len(data) - keep] if keep else data

    def end(self) -> bytes:
        held, self._held = self._held, b""
        return held


class OutputPump:
    """One stream of a job. write: appends to the log. on_line(stream, text): as each line comes, at most so many a second."""

    def __init__(
        self, stream: str, secrets: list[bytes], write: Callable[[bytes], object], on_line: Callable[[str, str], None]
    ) -> None:
        self._stream = stream
        self._masker = Masker(secrets)
        self._write = write
        self._on_line = on_line
        self._partial = b""
        self._budget = _LINES_PER_SECOND
        self._window = time.monotonic()
        self._dropped = 0
        self.tail = b""

    def feed(self, data: bytes) -> None:
        """Take bytes as they came."""
        self._show(self._masker.feed(data))

    def _show(self, data: bytes) -> None:
        if not data:
            return
        self._write(data)
        self.tail = (self.tail + data)[-_TAIL_BYTES:] if len(data) < _TAIL_BYTES else data[-_TAIL_BYTES:]
        now = time.monotonic()
        if now - self._window >= 1.0:
            self._window, self._budget = now, _LINES_PER_SECOND
            self._say_dropped()
        if self._budget <= 0:
            self._dropped += data.count(b"\n")
            self._partial = data[data.rfind(b"\n") + 1 :][-_LINE_LIMIT:]
            return
        lines = (self._partial + data).split(b"\n")
        self._partial = lines.pop()[-_LINE_LIMIT:]
        for index, line in enumerate(lines):
            if self._budget <= 0:
                self._dropped += len(lines) - index
                break
            self._budget -= 1
            self._line(line)

    def _line(self, line: bytes) -> None:
        text = line.rstrip(b"\r").rpartition(b"\r")[2]
        if len(text) > _LINE_LIMIT:
            text = text[:_LINE_LIMIT] + b" ..."
        self._on_line(self._stream, text.decode("utf-8", "replace"))

    def _say_dropped(self) -> None:
        if self._dropped:
            self._on_line(self._stream, f"... {self._dropped} lines not shown; the log has all of them")
            self._dropped = 0

    def end(self) -> None:
        """The stream has ended."""
        self._show(self._masker.end())
        self._say_dropped()
        if self._partial:
            self._line(self._partial)
            self._partial = b""

    def tail_lines(self) -> list[str]:
        """Return the last lines."""
        lines = self.tail.decode("utf-8", "replace").splitlines()
        return [line.rpartition("\r")[2] for line in lines[-_TAIL_LINES:]]
