"""Ids of runs: random, and sorting by time."""

from __future__ import annotations

import os
import re
import time

__all__ = ["is_run_id", "new_run_id"]

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's, in the order of their codes
_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def new_run_id(now: float | None = None) -> str:
    """Return an id such as `20261124-213055-k3f9xq2a`: UTC time, its fraction in three characters, five random ones.

    Ids of one machine sort as they were made, down to 31 µs. They are valid parts of a ref's name."""
    at = time.time() if now is None else now
    seconds = int(at)
    fraction = min(int((at - seconds) * 32768), 32767)
    order = "".join(_ALPHABET[fraction >> shift & 31] for shift in (10, 5, 0))
    moment = time.strftime("%Y%m%d-%H%M%S", time.gmtime(seconds))
    return f"{moment}-{order}{''.join(_ALPHABET[byte & 31] for byte in os.urandom(5))}"


def is_run_id(text: str) -> bool:
    """Return whether a text can be the id of a run: of this version's form, or of another one's."""
    return _FORM.fullmatch(text) is not None and ".." not in text and not text.endswith((".", ".lock"))
