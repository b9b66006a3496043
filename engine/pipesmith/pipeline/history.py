"""Reads many texts of one pipeline.toml, as its history has them: one that differs from the last in the values of
params alone is not checked anew.

Only a shortcut: whatever else differs, and every fault, is left to the whole reading.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipesmith.pipeline.faults import Faults
from pipesmith.pipeline.limits import beyond
from pipesmith.pipeline.model import Pipeline
from pipesmith.pipeline.params_reader import read_params
from pipesmith.records import record, replace

__all__ = ["PipelineHistory"]

_BEGIN = re.compile(r"^\[params(?:\.[^\[\]\n]*)?\][ \t]*(?:#[^\n]*)?$", re.MULTILINE)
_OTHER = re.compile(r"^\[(?!params[.\]])", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\{params\.([^{}]+)\}")
_Files = Callable[[str], bytes | None]


@record
class _Read:
    """A text that was read. head, tail: what stands before its params and after them. asked: the files that were read.
    said: params whose values became part of something else, None where that was not asked yet, or can't be told."""

    head: str
    tail: str
    asked: Mapping[str, bytes | None]
    pipeline: Pipeline


class PipelineHistory:
    def __init__(self) -> None:
        self._last: _Read | None = None
        self._said: tuple[str, str, frozenset[str] | None] | None = None  # head, tail, params that others name

    def take(self, text: str, asked: Mapping[str, bytes | None], pipeline: Pipeline) -> None:
        """Take in what a text was read as. asked: the files that it was read with."""
        head, _params, tail = _parts(text)
        self._last = _Read(head=head, tail=tail, asked=dict(asked), pipeline=pipeline)

    def read(self, text: str, files: _Files, file: str) -> Pipeline | None:
        """Return the pipeline of a text, its stages the same objects as those of the last, None where it must be read
        as a whole. Arguments are those of `read_pipeline`."""
        last = self._last
        head, params, tail = _parts(text)
        if last is None or head != last.head or tail != last.tail:
            return None
        names = last.pipeline.params_files
        if any(files(path) != data for path, data in last.asked.items() if path not in names):
            return None
        try:
            defaults = tomllib.loads(params)
        except (ValueError, RecursionError):
            return None
        if defaults.keys() - {"params"} or not isinstance(defaults.get("params", {}), dict) or beyond(defaults):
            return None
        faults = Faults(text, file)
        found = read_params(defaults.get("params", {}), names, files, {}, {}, faults)
        if faults.any or faults.params_lost or _shape(found) != _shape(last.pipeline.params):
            return None
        if any("\0" in value for value in _texts(found, ())):
            return None  # what a command that names it can't hold
        said = self._named_elsewhere(head, tail)
        if said is None or any(_meets(key, said) for key in _changed(last.pipeline.params, found)):
            return None
        pipeline = replace(last.pipeline, params=found, file=file)
        asked = {path: files(path) for path in last.asked}
        self._last = replace(last, asked=asked, pipeline=pipeline)
        return pipeline

    def _named_elsewhere(self, head: str, tail: str) -> frozenset[str] | None:
        """Return the params that texts other than commands name, None where the parts are not whole by themselves."""
        if self._said is None or self._said[:2] != (head, tail):
            self._said = (head, tail, _named(head, tail))
        return self._said[2]


def _parts(text: str) -> tuple[str, str, str]:
    """Return what stands before the tables of params, these, and what stands after them. Without any the whole is the
    first."""
    begin = _BEGIN.search(text)
    if begin is None:
        return text, "", ""
    end = _OTHER.search(text, begin.end())
    at = end.start() if end is not None else len(text)
    return text[: begin.start()], text[begin.start() : at], text[at:]


def _named(head: str, tail: str) -> frozenset[str] | None:
    named: set[str] = set()
    for part in (head, tail):
        try:
            document = tomllib.loads(part)
        except (ValueError, RecursionError):
            return None
        if "params" in document:
            return None
        for text in _texts(document, ()):
            named.update(_PLACEHOLDER.findall(text))
    return frozenset(named)


def _texts(value: object, path: tuple[str, ...]) -> Iterator[str]:
    """Yield all texts of a document but those of commands, whose params are filled in when they are run."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, below in value.items():
            if not (name == "run" and len(path) == 2 and path[0] == "stage"):
                yield from _texts(below, (*path, name))
    elif isinstance(value, list):
        for below in value:
            yield from _texts(below, path)


def _shape(value: Any) -> object:
    """Return what of a value a check may ask, other than the value itself."""
    if isinstance(value, Mapping):
        return {name: _shape(below) for name, below in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shape(below) for below in value]
    return type(value)


def _changed(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of values that differ between two tables of one shape."""
    for name, value in now.items():
        if isinstance(value, Mapping):
            yield from _changed(before[name], value, f"{prefix}{name}.")
        elif repr(value) != repr(before[name]):
            yield prefix + name


def _meets(key: str, names: frozenset[str]) -> bool:
    return any(name == key or key.startswith(f"{name}.") or name.startswith(f"{key}.") for name in names)
