"""Values that TOML, YAML and JSON can write, and that are no data: nested too deeply, numbers of too many digits, and
what a few lines of YAML say a thousand million times."""

from __future__ import annotations

from typing import Any

Path = tuple[str | int, ...]

__all__ = ["beyond"]

_MOST_LEVELS = 100
_MOST_VALUES = 1_000_000
_MOST_BITS = 1023  # of whole numbers: what a floating-point number can be compared with


def beyond(value: Any) -> tuple[Path, str] | None:
    """Return where the first such value stands inside `value`, and what it is; None where there is none."""
    left: list[tuple[Path, Any]] = [((), value)]
    seen = 0
    while left:
        path, found = left.pop()
        if isinstance(found, (dict, list)):
            seen += len(found)
            if seen > _MOST_VALUES:
                return path, "part of too many values"
            if len(path) == _MOST_LEVELS:
                return path, "nested too deeply"
            entries = found.items() if isinstance(found, dict) else enumerate(found)
            left += [((*path, key), entry) for key, entry in entries]
        elif isinstance(found, int) and found.bit_length() > _MOST_BITS:
            return path, "a number of too many digits"
    return None
