"""How a command speaks: text for people, one JSON document for programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import Any

from pipesmith.errors import PipeError

__all__ = ["Output", "printable", "reason_text", "seconds_text", "short"]

_STYLES = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36", "dim": "2", "bold": "1"}

_SOON = 0.1  # seconds that a line may wait for others


class Output:
    """json_mode: standard output is one JSON document, everything else goes to standard error."""

    def __init__(self, *, json_mode: bool, quiet: bool, verbose: bool, color: bool) -> None:
        self.json_mode = json_mode
        self.quiet = quiet
        self.verbose = verbose
        self.printed: list[str] = []  # what went to standard output, for the witness
        self.said_more = False  # whether standard error got anything
        self.color = color and sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not json_mode

    def style(self, text: str, *styles: str) -> str:
        if not self.color or not styles:
            return text
        codes = ";".join(_STYLES[style] for style in styles)
        return f"\x1b[{codes}m{text}\x1b[0m"

    def line(self, text: str = "") -> None:
        """Print a line for people."""
        if self.quiet:
            return
        if self.json_mode:
            self.said_more = True
            print(printable(text), file=sys.stderr, flush=True)
        else:
            self.printed.append(f"{printable(text)}\n")
            print(printable(text), flush=True)

    def lines(self, texts: Iterable[str]) -> None:
        """Print many lines for people, as they come, some at once."""
        waiting: list[str] = []
        began = monotonic()
        for text in texts:
            waiting.append(text)
            if monotonic() - began > _SOON:
                self._together(waiting)
                began = monotonic()
        self._together(waiting)

    def _together(self, waiting: list[str]) -> None:
        if waiting:
            self.line("\n".join(waiting))
            waiting.clear()

    def note(self, text: str) -> None:
        """Print a line that is not the answer."""
        self.said_more = True
        if not self.quiet:
            print(printable(text), file=sys.stderr, flush=True)

    def alert(self, text: str) -> None:
        """Print a line on standard error that is told even where all else is left out."""
        self.said_more = True
        print(printable(text), file=sys.stderr, flush=True)

    def warn(self, text: str, help: str | None = None) -> None:
        self.said_more = True
        print(printable(f"warning: {text}"), file=sys.stderr, flush=True)
        if help:
            print(printable(f"help: {help}"), file=sys.stderr, flush=True)

    def json(self, document: Any) -> None:
        """Print the answer for programs."""
        text = _json_text(document, indent=2)
        self.printed.append(f"{text}\n")
        print(text, flush=True)

    def json_line(self, document: Any) -> None:
        """Print one of many answers for programs, a line each."""
        print(_json_text(document), flush=True)

    def raw(self, text: str) -> None:
        """Print a piece of an answer for programs that is too long to be made as a whole."""
        sys.stdout.write(text)

    def error(self, error: PipeError, *, as_line: bool = False) -> None:
        findings = error.findings()
        try:
            if self.json_mode:
                messages = [finding.as_json() for finding in findings]
                document = {"error": {"kind": error.kind, "messages": messages}}
                if as_line:
                    self.json_line(document)
                else:
                    self.json(document)
        finally:  # a disk that is full takes no document
            for finding in findings:
                print(printable(finding.render()), file=sys.stderr, flush=True)

    def table(self, rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> None:
        """Print rows in columns."""
        listed = [[" ".join(cell.splitlines()) for cell in row] for row in ([head] if head else [])]
        listed += [[" ".join(cell.splitlines()) for cell in row] for row in rows]
        if not listed:
            return
        widths = [max(len(row[column]) for row in listed) for column in range(len(listed[0]))]
        for index, row in enumerate(listed):
            text = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            self.line(self.style(text, "bold") if head and index == 0 else text)


def printable(text: str) -> str:
    """Return a text that can be written as UTF-8: bytes of odd file names are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def _json_text(document: Any, indent: int | None = None) -> str:
    """Return JSON as every reader takes it: numbers that are none are texts (`nan`, `inf`), as in a run's record."""
    import json

    try:
        return json.dumps(document, indent=indent, default=str, allow_nan=False)
    except ValueError:
        from pipesmith.history.record import plain

        return json.dumps(plain(document), indent=indent)


def short(value: str | None) -> str:
    """Return a value for a line: hashes by their first eight digits, long texts cut, line breaks and the like as
    escapes."""
    if value is None:
        return "none"
    head, colon, hex = value.partition(":")
    if colon and head in ("blake3", "md5", "system", "cells") and len(hex) > 16:
        return f"{hex[:8]}{'.dir' if hex.endswith('.dir') else ''}"
    if len(value) in (40, 64) and all(char in "0123456789abcdef" for char in value):
        return value[:8]
    cut = value if len(value) <= 60 else f"{value[:57]}..."
    return cut if cut.isprintable() else "".join(char if char.isprintable() else repr(char)[1:-1] for char in cut)


_MOST_PACKAGES = 6  # named in one line

_KINDS = {
    "new": "never built",
    "run": "command changed",
    "source": "source",
    "input": "input",
    "param": "param",
    "env": "variable",
    "environment": "environment",
    "hash-path": "hash-path",
    "output-missing": "output missing:",
    "output-changed": "output",
    "reuse-off": "reuse = false",
    "forced": "forced",
    "upstream": "after",
}


def reason_text(reason: Any) -> str:
    """Return a reason as a line. reason: a Reason, or its JSON form."""
    body = reason if isinstance(reason, dict) else reason.as_json()
    kind, item, old, new = body["kind"], body["item"], body["old"], body["new"]
    if kind in ("new", "forced", "reuse-off"):
        return _KINDS[kind]
    if kind == "output-missing":
        return f"{_KINDS[kind]} `{item}`"
    if kind == "upstream":
        return f"after `{item}`, which is not up to date"
    if kind == "run":
        if item == "":
            return f"command changed: {short(old)} -> {short(new)}"
        return f"`{item}` changed: {short(old)} -> {short(new)}"
    if kind == "environment" and item and new is None:
        return (
            f"{_KINDS[kind]} `{item}` asks for something else: the next build resolves it"
            if old
            else (f"{_KINDS[kind]} `{item}` is not resolved yet")
        )
    if kind == "environment" and old is not None and new is not None:
        packages = _packages(old, new)
        if packages:
            return f"{_KINDS[kind]} `{item}` changed: {packages}"
    what = f"{_KINDS[kind]} `{item}`" if item else _KINDS[kind]
    if old is None and new is not None:
        return f"{what} is new: {short(new)}"
    if new is None:
        return f"{what} is gone: was {short(old)}"
    return f"{what} changed: {short(old)} -> {short(new)}"


def _packages(old: str, new: str) -> str:
    """Return the packages of a reason, `NAME OLD -> NEW, …`; empty where its sides name none."""
    import re

    package = re.compile(r"([\w.-]+)(?:==| \(|(?=[<>=!~]))(.*?)\)?")
    told = []
    for before, after in zip(old.split(", "), new.split(", "), strict=False):
        was, now = package.fullmatch(before), package.fullmatch(after)
        if was is None or now is None or was[1] != now[1]:
            return ""
        told.append(f"{was[1]} {short(was[2])} -> {short(now[2])}")
    more = f" and {len(told) - _MOST_PACKAGES} more" if len(told) > _MOST_PACKAGES else ""
    return f"{', '.join(told[:_MOST_PACKAGES])}{more}"


def seconds_text(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
