"""Text that TOML can't hold: file names that are no UTF-8, and lone surrogates, written with private code points.

U+F8FF begins an escape. A surrogate U+D800 … U+DFFF (among them Python's form of a byte that is no UTF-8) is U+F8FF
and U+E000 … U+E7FF; U+F8FF itself is doubled. So every text comes back as it was, also one that holds such code points
by itself. A JSON or YAML null is U+F8FF and U+E800.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["ESCAPE", "NULL", "escape", "unescape", "unescape_all"]

ESCAPE = "\uf8ff"
NULL = "\uf8ff\ue800"
_TO_ESCAPE = "[\ud800-\udfff\uf8ff]"
_ESCAPED = "\uf8ff([\ue000-\ue7ff\uf8ff])"
_SHIFT = 0xE000 - 0xD800


def escape(text: str) -> str:
    """Return a text that can be encoded as UTF-8."""
    return text if text.isascii() else re.sub(_TO_ESCAPE, _one, text)


def _one(match: re.Match[str]) -> str:
    char = match[0]
    return ESCAPE + (char if char == ESCAPE else chr(ord(char) + _SHIFT))


def unescape(text: str) -> str:
    """Return what `escape` was given."""
    if ESCAPE not in text:
        return text
    return re.sub(_ESCAPED, lambda m: m[1] if m[1] == ESCAPE else chr(ord(m[1]) - _SHIFT), text)


def unescape_all(value: Any) -> Any:
    """Return a TOML document with every key and text unescaped."""
    if isinstance(value, str):
        return None if value == NULL else unescape(value)
    if isinstance(value, list):
        return [unescape_all(each) for each in value]
    if isinstance(value, dict):
        return {unescape(key): unescape_all(each) for key, each in value.items()}
    return value
