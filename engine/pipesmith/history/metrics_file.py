"""Numbers by dotted name out of a metrics file: json, yaml, toml, csv, tsv. Format: docs/formats/metrics.md."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

from pipesmith.errors import StageError

__all__ = ["read_metrics"]

_DEEPEST = 100
_MOST = 100_000


def read_metrics(data: bytes, path: str) -> dict[str, float]:
    """Return the numbers of a metrics file by dotted name.

    Truth values, texts and dates are no numbers; NaN and the infinities are. Entries of lists are named by their index,
    a lone number `value`. A csv or tsv gives column to number of its last row.
    Raises StageError for content that can't be read.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise StageError(f"metrics file `{path}` is not UTF-8") from None
    ending = path.rpartition("/")[2].rpartition(".")[2].lower()
    try:
        if ending in ("csv", "tsv"):
            return _last_row(text, "\t" if ending == "tsv" else ",")
        found: dict[str, float] = {}
        _flatten("", _parse(text, ending, path), found)
        return found
    except StageError:
        raise
    except ImportError:
        raise StageError(f"metrics file `{path}` needs PyYAML", "run `pip install 'pipesmith[yaml]'`") from None
    except Exception as error:  # parsers raise what they like on bad content
        raise StageError(f"metrics file `{path}` can't be read: {_told(error)}") from None


def _told(error: Exception) -> str:
    """Return what a parser says in one line: PyYAML says what and where in attributes, others in their first line."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"{getattr(error, 'problem', None)}, line {mark.line + 1}, column {mark.column + 1}"
    return (str(error).splitlines() or [type(error).__name__])[0]


def _parse(text: str, ending: str, path: str) -> Any:
    if ending == "toml":
        import tomllib

        return tomllib.loads(text)
    if ending in ("yaml", "yml"):
        from pipesmith.pipeline.yaml_reader import load

        return load(text)
    if ending == "json":
        return json.loads(text)
    raise StageError(f"metrics file `{path}` is neither .json, .yaml, .toml nor .csv", "write the numbers as JSON")


def _flatten(prefix: str, value: Any, found: dict[str, float], depth: int = 0) -> None:
    if depth > _DEEPEST or len(found) > _MOST:
        raise ValueError(f"more than {_DEEPEST} levels, or {_MOST} numbers")
    if isinstance(value, bool):
        return
    if isinstance(value, (int, float)):
        found[prefix or "value"] = float(value)
    elif isinstance(value, (Mapping, list)):
        entries = value.items() if isinstance(value, Mapping) else enumerate(value)
        for name, entry in entries:
            _flatten(f"{prefix}.{name}" if prefix else str(name), entry, found, depth + 1)


def _last_row(text: str, delimiter: str) -> dict[str, float]:
    last: Mapping[str | None, Any] = {}
    for row in csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter):
        last = row
    found = {}
    for name, value in last.items():
        if name is None or "_" in (value or ""):  # fields beyond the head; 1_000 is a number to Python alone
            continue
        try:
            found[name.strip()] = float(value)
        except (TypeError, ValueError):
            continue
    return found
