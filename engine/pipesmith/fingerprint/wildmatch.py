"""Git's wildcards as regular expressions over bytes. Source: wildmatch.c of git."""

from __future__ import annotations

import re

__all__ = ["literal_length", "translate"]

_SPECIAL = b"*?[\\"
_LOWER = "abcdefghijklmnopqrstuvwxyz"  # written out: to import `string` takes as long as to read many a `.gitignore`
_UPPER = _LOWER.upper()
_DIGITS = "0123456789"
_PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
_CLASSES = {
    b"alnum": _LOWER + _UPPER + _DIGITS,
    b"alpha": _LOWER + _UPPER,
    b"blank": " \t",
    b"cntrl": "".join(map(chr, range(32))) + "\x7f",
    b"digit": _DIGITS,
    b"graph": _LOWER + _UPPER + _DIGITS + _PUNCTUATION,
    b"lower": _LOWER,
    b"print": _LOWER + _UPPER + _DIGITS + _PUNCTUATION + " ",
    b"punct": _PUNCTUATION,
    b"space": " \t\n\r\v\f",
    b"upper": _UPPER,
    b"xdigit": _DIGITS + "abcdefABCDEF",
}


def literal_length(pattern: bytes) -> int:
    """Return how many bytes stand before the first wildcard."""
    return next((index for index, byte in enumerate(pattern) if byte in _SPECIAL), len(pattern))


def translate(pattern: bytes, *, pathname: bool) -> re.Pattern[bytes] | None:
    """Return the expression that matches the rest of a text from where it is tried, None for a pattern that never
    matches.

    pathname: `*`, `?` and sets don't match a slash, `**` between slashes does."""
    any_byte, any_bytes = (b"[^/]", b"[^/]*") if pathname else (b".", b".*")
    out = []
    at = 0
    while at < len(pattern):
        char = pattern[at : at + 1]
        if char == b"*":
            end = at
            while pattern[end : end + 1] == b"*":
                end += 1
            opens = at == 0 or pattern[at - 1 : at] == b"/"
            follows = pattern[end : end + 1]
            if pathname and end - at > 1 and opens and (follows in (b"", b"/") or pattern[end : end + 2] == b"\\/"):
                if follows == b"/":
                    out.append(b"(?:.*/)?")
                    end += 1
                else:
                    out.append(b".*")
            else:
                out.append(any_bytes)
            at = end
        elif char == b"?":
            out.append(any_byte)
            at += 1
        elif char == b"[":
            found = _set(pattern, at + 1)
            if found is None:
                return None
            members, at = found
            members -= {0x2F} if pathname else set()
            if not members:
                return None
            out.append(b"[" + b"".join(b"\\x%02x" % byte for byte in sorted(members)) + b"]")
        elif char == b"\\":
            if at + 1 == len(pattern):
                return None
            out.append(re.escape(pattern[at + 1 : at + 2]))
            at += 2
        else:
            out.append(re.escape(char))
            at += 1
    return re.compile(b"".join(out) + rb"\Z", re.DOTALL)


def _set(pattern: bytes, at: int) -> tuple[set[int], int] | None:
    """Return the bytes that a set takes and where it ends, None for one that is not closed or malformed."""
    negated = pattern[at : at + 1] in (b"!", b"^")
    at += 1 if negated else 0
    members: set[int] = set()
    previous = 0
    first = True
    while first or pattern[at : at + 1] != b"]":
        first = False
        if at >= len(pattern):
            return None
        byte = pattern[at]
        if byte == 0x5C:
            at += 1
            if at >= len(pattern):
                return None
            byte = pattern[at]
            members.add(byte)
        elif byte == 0x2D and previous and at + 1 < len(pattern) and pattern[at + 1] != 0x5D:
            at += 1
            if pattern[at] == 0x5C:
                at += 1
                if at >= len(pattern):
                    return None
            members.update(range(previous, pattern[at] + 1))
            byte = 0
        elif byte == 0x5B and pattern[at + 1 : at + 2] == b":":
            end = pattern.find(b"]", at + 2)
            if end < 0:
                return None
            if pattern[end - 1 : end] == b":" and end - 1 >= at + 2:
                named = _CLASSES.get(pattern[at + 2 : end - 1])
                if named is None:
                    return None
                members.update(named.encode())
                at = end
                byte = 0
            else:
                members.add(byte)
        else:
            members.add(byte)
        previous = byte
        at += 1
    return (set(range(1, 256)) - members if negated else members), at + 1
