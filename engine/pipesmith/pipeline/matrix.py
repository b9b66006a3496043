"""`matrix`: a table with lists of values becomes one stage a cell; `include` and `exclude` as in GitHub Actions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, time
from itertools import product
from typing import Any

__all__ = ["cell_name", "cells", "value_text"]

_ODD = re.compile(r"[^A-Za-z0-9_.+-]")


def value_text(value: Any) -> str:
    """Return a matrix value as it stands in names and commands."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        import json

        return json.dumps(value, separators=(",", ":"), default=str)
    return value.isoformat() if isinstance(value, (date, time)) else str(value)


def cell_name(cell: Mapping[str, Any]) -> str:
    """Return a cell's values in key order as written, joined by `-`; what is not [A-Za-z0-9_.+-] percent-encoded."""
    return "-".join(_ODD.sub(_percent, value_text(value)) for value in cell.values())


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogateescape"))


def cells(matrix: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the cells of a checked matrix, in order.

    exclude: entries whose pairs a cell all has take the cell out. include: an entry joins every cell whose original
    values it does not overwrite; one that joins none is a cell of its own.
    """
    axes = {key: values for key, values in matrix.items() if key not in ("include", "exclude")}
    found = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())] if axes else []
    excluded = matrix.get("exclude", [])
    found = [cell for cell in found if not any(_has(cell, entry) for entry in excluded)]
    originals = [dict(cell) for cell in found]
    own: list[dict[str, Any]] = []
    for entry in matrix.get("include", []):
        joined = False
        for cell, original in zip(found, originals, strict=True):
            if all(key not in original or _same(original[key], value) for key, value in entry.items()):
                cell.update(entry)
                joined = True
        if not joined:
            own.append(dict(entry))
    return found + own


def _has(cell: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    return all(key in cell and _same(cell[key], value) for key, value in entry.items())


def _same(one: Any, other: Any) -> bool:
    """Return whether two values are the same: 1 and 1.0 are, 1 and true are not."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
