"""Numbers by dotted name out of a metrics file: json, yaml, toml, csv."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

from pipesmith.errors import StageError

__all__ = ["read_metrics"]


def read_metrics(data: bytes, path: str) -> dict[str, float]:
    """Return the numbers of a metrics file. Entries of lists are named by their index; truth values are no numbers.

    A csv or tsv gives column to number of its last row. Raises StageError for content that can't be read.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise StageError(f"metrics file `{path}` is not UTF-8") from None
    ending = path.rpartition(".")[2].lower()
    found: dict[str, float] = {}
    if ending in ("csv", "tsv"):
        _last_row(text, "\t" if ending == "tsv" else ",", found)
    else:
        _flatten("", _parse(text, ending, path), found)
    return found


def _parse(text: str, ending: str, path: str) -> Any:
    try:
        if ending == "toml":
            import tomllib

            return tomllib.loads(text)
        if ending in ("yaml", "yml"):
            import yaml

            return yaml.safe_load(text)
        if ending == "json":
            return json.loads(text)
    except ImportError:
        raise StageError(f"metrics file `{path}` needs PyYAML", "run `pip install 'pipesmith[yaml]'`") from None
    except Exception as error:
        first = str(error).splitlines()[0]
        raise StageError(f"metrics file `{path}` can't be read: {first}") from None
    raise StageError(f"metrics file `{path}` is neither .json, .yaml, .toml nor .csv", "write the numbers as JSON")


def _flatten(prefix: str, value: Any, found: dict[str, float]) -> None:
    if isinstance(value, bool):
        return
    if isinstance(value, (int, float)):
        found[prefix or "value"] = float(value)
    elif isinstance(value, Mapping):
        for name, entry in value.items():
            _flatten(f"{prefix}.{name}" if prefix else str(name), entry, found)
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            _flatten(f"{prefix}.{index}" if prefix else str(index), entry, found)


def _last_row(text: str, delimiter: str, found: dict[str, float]) -> None:
    rows = list(csv.DictReader(io.StringIO(text), delimiter=delimiter))
    for name, value in (rows[-1] if rows else {}).items():
        try:
            found[str(name)] = float(value)
        except (TypeError, ValueError):
            continue
