"""Figures as tables, and their place in docs/performance.md."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bench.rows import Growth, Row

__all__ = ["tables", "write_page"]

_MARKED = re.compile(r"(<!-- bench: [^\n]*-->\n).*?(<!-- end of bench -->)", re.DOTALL)


def tables(rows: Sequence[Row], growth: Sequence[Growth], about: str) -> str:
    """Return the figures as Markdown. about: machine and versions, in a line."""
    lines = [about, "", "| what | measured | bound | aim | medians |", "|---|---:|---:|---:|---|"]
    for row in rows:
        sign = "≥" if row.higher_is_better else "≤"
        bound = "" if row.bound is None else f"{sign} {row.bound:g}{row.unit}"
        aim = "" if row.aim is None else f"{sign} {row.aim:g}{row.unit}"
        lines.append(f"| {row.what} | {row.value:.{_places(row.value)}f}{row.unit} | {bound} | {aim} | {row.detail} |")
    lines += ["", "Growth of a no-op:", "", "| stages × files | ms | μs for each more |", "|---|---:|---:|"]
    before: Growth | None = None
    for entry in growth:
        each = ""
        if before is not None and before.per == entry.per:
            step = (entry.milliseconds - before.milliseconds) / (entry.count - before.count)
            each = f"{step * 1000:.1f} a {entry.per}"
        lines.append(f"| {entry.shape} | {entry.milliseconds:.1f} | {each} |")
        before = entry
    return "\n".join(lines) + "\n"


def _places(value: float) -> int:
    return 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0


def write_page(page: Path, text: str) -> None:
    """Put `text` between the markers of a page."""
    before = page.read_text(encoding="utf-8")
    after, found = _MARKED.subn(lambda match: match[1] + text + match[2], before)
    if not found:
        raise ValueError(f"{page} has no place for figures")
    page.write_text(after, encoding="utf-8")
