"""Ids of runs: random, and sorting by time."""

from __future__ import annotations

import secrets
import time

__all__ = ["new_run_id"]

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_run_id(now: float | None = None) -> str:
    """Return an id such as `20261124-213055-k3f9xq`: UTC time, then six random characters."""
    moment = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    return f"{moment}-{''.join(secrets.choice(_ALPHABET) for _ in range(6))}"
