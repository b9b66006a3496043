"""Git's conflict markers in a lockfile's text, in each of its styles: where they are, and the versions between them."""

from __future__ import annotations

import re

from pipesmith.records import record

__all__ = ["Versions", "first_marker", "versions"]

_BEGIN = re.compile(r"^<{7,}(?: [^\n]*)?\r?$", re.MULTILINE)
_LINE = re.compile(r"(<{7,}|\|{7,}|>{7,})(?: .*)?|(={7,})", re.DOTALL)


@record
class Versions:
    """The texts that a conflicted one was made of. base: None where the markers don't show it."""

    ours: str
    theirs: str
    base: str | None


def first_marker(text: str) -> int | None:
    """Return the line, from 1, of the first conflict; None where there is none. No line of a lockfile begins so."""
    if "<<<<<<<" not in text:
        return None
    found = _BEGIN.search(text)
    return text.count("\n", 0, found.start()) + 1 if found else None


def versions(text: str) -> Versions | None:
    """Return what the outermost conflicts of a text are made of; those inside stay in it, as a criss-cross merge and
    markers that were committed leave them. None where markers don't match.

    Markers may be longer than seven signs; those of one conflict are equally long.
    """
    parts: dict[str, list[str]] = {"ours": [], "base": [], "theirs": []}
    part = ""
    open_sizes: list[int] = []
    shown, based = False, True
    for line in _lines(text):
        sign, size = _marker(line)
        if sign == "<":
            open_sizes.append(size)
            if len(open_sizes) == 1:
                part, shown = "ours", False
                continue
        elif sign and open_sizes and size == open_sizes[-1]:
            outermost = len(open_sizes) == 1
            if outermost and sign == "|" and part == "ours":
                part, shown = "base", True
                continue
            if outermost and sign == "=" and part in ("ours", "base"):
                part = "theirs"
                continue
            if sign == ">":
                if outermost and part != "theirs":
                    return None
                open_sizes.pop()
                if outermost:
                    part, based = "", based and shown
                    continue
        for name in (part,) if part else parts:
            parts[name].append(line)
    if open_sizes:
        return None
    ours, base, theirs = ("".join(parts[name]) for name in ("ours", "base", "theirs"))
    return Versions(ours=ours, theirs=theirs, base=base if based else None)


def _lines(text: str) -> list[str]:
    """Return lines with their ends; unlike for str.splitlines, only a line feed ends one."""
    return [f"{line}\n" for line in text.split("\n")[:-1]] + [text.rpartition("\n")[2]]


def _marker(line: str) -> tuple[str, int]:
    """Return the sign and length of a marker line, ("", 0) for any other."""
    if not line.startswith(("<<<<<<<", "|||||||", "=======", ">>>>>>>")):
        return "", 0
    found = _LINE.fullmatch(line.rstrip("\r\n"))
    if found is None:
        return "", 0
    signs = found[1] or found[2]
    return signs[0], len(signs)
