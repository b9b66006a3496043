"""Durations (`30s` `5m` `2h` `7d`) and sizes (`64K` `8M` `2G` `20GB`) as people write them."""

from __future__ import annotations

import re

__all__ = ["MOST_BYTES", "memory_text", "parse_duration_s", "parse_size_bytes", "size_text"]

_DURATION = r"([0-9]+(?:\.[0-9]+)?)\s*(s|m|h|d)"
_SIZE = r"(?ia)([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(B?)"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
MOST_BYTES = (1 << 63) - 1


def parse_duration_s(text: str) -> float:
    """Return seconds. Raises ValueError with a text for people."""
    match = re.fullmatch(_DURATION, text.strip())
    if match is None:
        raise ValueError(f"`{text}` is not a duration: write `30s`, `5m`, `2h` or `7d`")
    return float(match[1]) * _SECONDS[match[2]]


def parse_size_bytes(text: str) -> int:
    """Return bytes: `K`, `M`, `G`, `T` are powers of 1024, `KB`, `MB`, `GB`, `TB` of 1000. Raises ValueError."""
    match = re.fullmatch(_SIZE, text.strip())
    if match is None:
        raise ValueError(f"`{text}` is not a size: write `64K`, `8M`, `2G` or `20GB`")
    base = 1000 if match[3] and match[2] else 1024
    size = float(match[1]) * base ** _POWERS[match[2].upper()]
    if size > MOST_BYTES:
        raise ValueError(f"`{text if len(text) <= 60 else f'{text[:60]}…'}` is more than any machine has")
    return int(size)


def memory_text(size: int) -> str:
    """Return bytes of memory as people write them: `1.5G`, and `512.0K` where there is so little."""
    power = next((power for power in (3, 2, 1) if size >= 1024**power / 10), 1)
    return f"{size / 1024**power:.1f}{' KMG'[power]}"


def size_text(size: float) -> str:
    """Return bytes as people read them: `1.5 MB`."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
