"""Environments that come with pipesmith, for `extends = "curated:NAME"`: data, in curated.toml beside this module."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

__all__ = ["curated"]


@cache
def curated() -> Mapping[str, Mapping[str, Any]]:
    """Return name to table, as an `[environment.NAME]` has it."""
    import tomllib

    with open(os.path.join(os.path.dirname(__file__), "curated.toml"), "rb") as file:
        return tomllib.load(file)
