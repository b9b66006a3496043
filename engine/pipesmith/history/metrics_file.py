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
        return _flatten(_parse(text, ending, path))
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


def _flatten(document: Any) -> dict[str, float]:
    """Raises ValueError for what unfolds too deep or too wide: YAML's aliases may, in a file of a few lines."""
    found: dict[str, float] = {}
    stack: list[tuple[str, Any, int]] = [("", document, 0)]
    seen = 0
    while stack:
        name, value, depth = stack.pop()
        seen += 1
        if depth > _DEEPEST or seen > _MOST:
            raise ValueError(f"more than {_DEEPEST} levels, or {_MOST} entries")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            found[name or "value"] = float(value)
        elif isinstance(value, (Mapping, list)):
            entries = list(value.items() if isinstance(value, Mapping) else enumerate(value))
            stack += [(f"{name}.{key}" if name else str(key), entry, depth + 1) for key, entry in reversed(entries)]
    return found


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
