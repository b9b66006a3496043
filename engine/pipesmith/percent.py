"""Percent-encoding of names and queries, as `urllib.parse.quote` does it, whose import takes longer than what asks for
it (RFC 3986, section 2.1)."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["query", "quote"]

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~")


def quote(text: str, safe: str = "/") -> str:
    """Return a text with all but letters, digits, `_.-~` and what is safe (ASCII) as `%XX` of its UTF-8; bytes that are
    none, as surrogates, too."""
    plain = _PLAIN.union(safe.encode())
    data = text.encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if byte in plain else f"%{byte:02X}" for byte in data)


def query(values: Mapping[str, str]) -> str:
    """Return the query of a URL, without its `?`."""
    return "&".join(f"{quote(name, '')}={quote(value, '')}" for name, value in values.items())
