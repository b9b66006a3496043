"""A checked pipeline as bytes and back: reading what was read before takes a tenth of checking it again.

Only a shortcut, for the same program on the same machine: `SHAPE` must be part of what the bytes are remembered under.
"""

from __future__ import annotations

import marshal
from collections.abc import Mapping
from enum import Enum
from typing import Any

from pipesmith.pipeline import model

__all__ = ["SHAPE", "freeze", "thaw"]

_RECORDS: tuple[Any, ...] = tuple(kind for name in model.__all__ if not issubclass(kind := getattr(model, name), Enum))
_ENUMS: tuple[Any, ...] = tuple(kind for name in model.__all__ if issubclass(kind := getattr(model, name), Enum))
_FIELDS: tuple[tuple[str, ...], ...] = tuple(tuple(kind.__slots__) for kind in _RECORDS)
_MAPPING, _TUPLE, _ENUM = -1, -2, -3  # what is no record, but holds or is one of ours
SHAPE = (tuple(kind.__name__ for kind in _RECORDS), _FIELDS, tuple(kind.__name__ for kind in _ENUMS))
_set = object.__setattr__


def freeze(pipeline: model.Pipeline) -> bytes | None:
    """Return bytes that `thaw` makes an equal pipeline of, None where it holds what can't be written so (dates)."""
    try:
        return marshal.dumps(_frozen(pipeline))
    except ValueError:
        return None


def thaw(data: bytes) -> model.Pipeline | None:
    """Return the pipeline that was frozen, None where the bytes are damaged."""
    try:
        found = _thawed(marshal.loads(data))
    except (ValueError, EOFError, TypeError, IndexError, KeyError):
        return None
    return found if isinstance(found, model.Pipeline) else None


def _frozen(value: Any) -> Any:
    """Return a value as it is where marshal can write it, else (kind, its parts, where in them there are such)."""
    kind = type(value)
    if kind in _RECORDS:
        number = _RECORDS.index(kind)
        return (number, *_parts([getattr(value, name) for name in _FIELDS[number]]))
    if kind in _ENUMS:
        return (_ENUM, [_ENUMS.index(kind), value.value], ())
    if isinstance(value, Mapping):
        parts, marked = _parts(list(value.values()))
        return (_MAPPING, parts, marked, list(value)) if marked else dict(value)
    if kind is tuple:
        parts, marked = _parts(list(value))
        return (_TUPLE, parts, marked) if marked else value
    return value


def _parts(values: list[Any]) -> tuple[list[Any], tuple[int, ...]]:
    parts = []
    marked = []
    for index, value in enumerate(values):
        frozen = _frozen(value)
        if type(frozen) is tuple and frozen is not value:
            marked.append(index)
        parts.append(frozen)
    return parts, tuple(marked)


def _thawed(frozen: Any) -> Any:
    number, parts, marked = frozen[:3]
    if number == _ENUM:
        return _ENUMS[parts[0]](parts[1])
    for index in marked:
        parts[index] = _thawed(parts[index])
    if number >= 0:
        kind = _RECORDS[number]
        made = kind.__new__(kind)
        for name, part in zip(_FIELDS[number], parts, strict=True):
            _set(made, name, part)
        return made
    return tuple(parts) if number == _TUPLE else dict(zip(frozen[3], parts, strict=True))
