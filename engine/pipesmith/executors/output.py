"""A job's output on its way: masked, whole to the log, line by line to whoever listens, in little memory."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable

__all__ = ["MIN_SECRET", "JobOutput", "Masker", "usable_secrets"]

MIN_SECRET = 6
_MIN_LINE = 4  # of a longer value: a brace or a word between hides nothing, and is everywhere
_MASK = b"***"
_LINE_LIMIT = 16384  # characters of a line that listeners are shown
_PARTIAL_LIMIT = 4 * _LINE_LIMIT  # bytes
_TAIL_BYTES = 65536
_TAIL_LINES = 40
_TAIL_ERRORS = 10  # of which stderr's last are this many at least, though a flood on stdout was read after them
# What listeners are shown: this much at once, then this much a second; the log has the rest.
_BURST_LINES, _LINES_PER_S = 10_000, 2_000
_BURST_BYTES, _BYTES_PER_S = 4 << 20, 1 << 20
_PROGRESS_S = 0.1  # a progress bar (lines that end in a carriage return) is shown this often


def usable_secrets(values: Iterable[str]) -> list[bytes]:
    """Return what is masked: each line of each value that is long enough, longest first."""
    lines = {line.strip() for value in values if len(value) >= MIN_SECRET for line in value.splitlines()}
    usable = (line.encode("utf-8", "surrogateescape") for line in lines if len(line) >= _MIN_LINE)
    return sorted(usable, key=lambda secret: (-len(secret), secret))


class Masker:
    """Replaces secrets in a stream of bytes, also those that come in pieces."""

    def __init__(self, secrets: list[bytes]) -> None:
        self._secrets = secrets
        self._pattern = re.compile(b"|".join(re.escape(secret) for secret in secrets)) if secrets else None
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Return what can be shown now; what may be the beginning of a secret is held back."""
        if self._pattern is None:
            return data
        data = self._held + data
        hold = self._beginning(data, 0)
        shown: list[bytes] = []
        done = 0
        if any(secret in data for secret in self._secrets):
            for match in self._pattern.finditer(data):
                if match.start() >= hold:
                    break
                shown += (data[done : match.start()], _MASK)
                done = match.end()
                if done > hold:
                    hold = self._beginning(data, done)
        shown.append(data[done:hold])
        self._held = data[hold:]
        return b"".join(shown)

    def _beginning(self, data: bytes, start: int) -> int:
        """Return where, from `start` on, the rest of the data is the beginning of a secret; its length if nowhere."""
        first = len(data)
        for secret in self._secrets:
            at = data.find(secret[:1], max(start, len(data) - len(secret) + 1), first)
            while at >= 0:
                if secret.startswith(data[at:]):
                    first = at
                    break
                at = data.find(secret[:1], at + 1, first)
        return first

    def end(self) -> bytes:
        """Return what was held back."""
        held, self._held = self._held, b""
        return self._pattern.sub(_MASK, held) if self._pattern is not None else held


class JobOutput:
    """All output of one job. log: a file descriptor, or None. on_line(stream, text): each line, within a budget.

    Not thread-safe. problem: why the log is not whole, or a listener failed; else None.
    """

    def __init__(self, log: int | None, secrets: Iterable[str], on_line: Callable[[str, str], None]) -> None:
        self._log = log
        self._secrets = usable_secrets(secrets)
        self._on_line: Callable[[str, str], None] | None = on_line
        self._streams: dict[str, _Lines] = {}
        self._maskers: dict[str, Masker] = {}
        self._tail = bytearray()
        self._errors = bytearray()
        self._lines_left: float = _BURST_LINES
        self._bytes_left: float = _BURST_BYTES
        self._filled = time.monotonic()
        self._unseen = 0
        self.problem: str | None = None

    def feed(self, stream: str, data: bytes) -> None:
        """Take bytes of a stream as they came."""
        masker = self._maskers.get(stream)
        if masker is None:
            masker = self._maskers[stream] = Masker(self._secrets)
            self._streams[stream] = _Lines(lambda text: self._show(stream, text))
        self._take(stream, masker.feed(data))

    def end(self) -> tuple[str, ...]:
        """Both streams have ended. Returns the last lines, in order of arrival; stderr's last are among them."""
        for stream, masker in self._maskers.items():
            self._take(stream, masker.end())
            self._streams[stream].end()
        self._say_unseen()
        lines = _last_lines(self._tail, _TAIL_LINES)
        errors = _last_lines(self._errors, _TAIL_ERRORS)
        if errors and errors[-1] not in lines:
            lines = lines[len(lines) + len(errors) - _TAIL_LINES :] if len(lines) + len(errors) > _TAIL_LINES else lines
            lines += errors
        return tuple(lines)

    def _take(self, stream: str, data: bytes) -> None:
        if not data:
            return
        self._write(data)
        for tail in (self._tail, self._errors) if stream == "stderr" else (self._tail,):
            tail += data[-_TAIL_BYTES:]
            if len(tail) > 2 * _TAIL_BYTES:
                del tail[:-_TAIL_BYTES]
        self._refill()
        lines = self._streams[stream]
        if self._unseen or self._lines_left < 1 or self._bytes_left < 1 or self._on_line is None:
            self._unseen += lines.skip(data)
        else:
            lines.feed(data)

    def _write(self, data: bytes) -> None:
        if self._log is None:
            return
        view = memoryview(data)
        try:
            while len(view):
                view = view[os.write(self._log, view) :]
        except OSError as error:
            self._log = None
            self.problem = f"its log can't be written: {error.strerror}"

    def _refill(self) -> None:
        now = time.monotonic()
        passed, self._filled = now - self._filled, now
        self._lines_left = min(_BURST_LINES, self._lines_left + passed * _LINES_PER_S)
        self._bytes_left = min(_BURST_BYTES, self._bytes_left + passed * _BYTES_PER_S)
        if self._unseen and self._lines_left >= _LINES_PER_S / 2 and self._bytes_left >= _BYTES_PER_S / 2:
            self._say_unseen()

    def _show(self, stream: str, line: bytes) -> None:
        if self._unseen or self._lines_left < 1 or self._bytes_left < 1:
            self._unseen += 1
            return
        self._lines_left -= 1
        self._bytes_left -= len(line)
        self._tell(stream, _cut(line.decode("utf-8", "replace")))

    def _say_unseen(self) -> None:
        if self._unseen:
            count, self._unseen = self._unseen, 0
            self._tell("stdout", f"… {count} lines not shown (whole in the log)")

    def _tell(self, stream: str, text: str) -> None:
        if self._on_line is None:
            return
        try:
            self._on_line(stream, text)
        except Exception as error:  # a listener's fault must not stop the reading of everybody's output
            self._on_line = None
            self.problem = f"a listener to its output failed: {error!r}"


def _last_lines(data: bytearray, count: int) -> list[str]:
    text = data[-_TAIL_BYTES:].decode("utf-8", "replace").replace("\r\n", "\n")
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    if lines and not lines[-1]:
        lines.pop()
    return [_cut(line) for line in lines[-count:]]


def _cut(line: str) -> str:
    return line if len(line) <= _LINE_LIMIT else f"{line[:_LINE_LIMIT]} …"


class _Lines:
    """Splits one stream into lines. What ends in a carriage return is progress: shown now and then, its last always."""

    def __init__(self, show: Callable[[bytes], None]) -> None:
        self._show = show
        self._partial = b""
        self._progress: tuple[bytes, bool] | None = None  # the last of it since the last line, and whether it was shown
        self._progress_at = 0.0

    def feed(self, data: bytes) -> None:
        """Take what came; show each line that ends in it."""
        *whole, last = (self._partial + data).split(b"\n")
        for line in whole:
            self._line(line)
        if b"\r" in last:
            updates, _, last = last.rpartition(b"\r")
            self._update(updates.rpartition(b"\r")[2])
        self._partial = last[:_PARTIAL_LIMIT]

    def skip(self, data: bytes) -> int:
        """Take what is not to be shown. Returns how many lines end in it."""
        self._progress = None
        last = data.rfind(b"\n")
        self._partial = (data[last + 1 :] if last >= 0 else self._partial + data)[:_PARTIAL_LIMIT]
        return data.count(b"\n")

    def _line(self, line: bytes) -> None:
        text = line.rstrip(b"\r").rpartition(b"\r")[2]
        progress, self._progress = self._progress, None
        if not text and progress is not None:
            text, shown = progress
            if shown:
                return
        self._show(text)

    def _update(self, text: bytes) -> None:
        if not text:
            return
        now = time.monotonic()
        due = now - self._progress_at >= _PROGRESS_S
        self._progress = (text, due)
        if due:
            self._progress_at = now
            self._show(text)

    def end(self) -> None:
        """The stream has ended, perhaps within a line."""
        if self._partial or self._progress is not None:
            self._line(self._partial)
            self._partial = b""
