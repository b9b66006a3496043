"""`{inputs.N}` and the like in commands, paths and delivery URLs. `{{` and `}}` are braces."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Callable, Mapping
from datetime import date, time
from typing import Any

from pipesmith.pipeline.params import lookup

__all__ = [
    "escape",
    "fill",
    "fill_run",
    "joined_text",
    "param_text",
    "relative_to",
    "stray_brace",
    "unescape",
]

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")


def fill(text: str, value: Callable[[str], str | None]) -> str:
    """Return `text` with each placeholder that `value` knows replaced; others, and `{{`, stay as they are."""

    def replace(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0]
        filled = value(match[1])
        return match[0] if filled is None else filled

    return _TOKEN.sub(replace, text)


def unescape(text: str) -> str:
    """Return `text` with `{{` and `}}` as braces; the last step, when all placeholders are filled in."""
    return text.replace("{{", "{").replace("}}", "}")


def escape(text: str) -> str:
    """Return `text` with its braces doubled."""
    return text.replace("{", "{{").replace("}", "}}")


def stray_brace(text: str) -> bool:
    """Return whether `text` has a brace that is neither doubled nor part of a placeholder."""
    rest = _TOKEN.sub("", text)
    return "{" in rest or "}" in rest


def param_text(value: Any) -> str:
    """Return a param as it stands in a command: booleans as true and false, tables as JSON, dates as ISO 8601."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (Mapping, list)):
        import json

        return json.dumps(value, default=str)
    return value.isoformat() if isinstance(value, (date, time)) else str(value)


def joined_text(value: Any) -> str:
    """Return a param as it stands inside a text: the items of a list with spaces between."""
    return " ".join(param_text(item) for item in value) if isinstance(value, list) else param_text(value)


def relative_to(path: str, cwd: str) -> str:
    """Return a workspace path as it is seen from a stage's `cwd`."""
    return path if cwd == "." else posixpath.relpath(path, cwd)


def fill_run(
    run: str | tuple[str, ...], *, inputs: Mapping[str, str], outputs: Mapping[str, str], params: Mapping[str, Any]
) -> str | tuple[str, ...]:
    """Return a command with inputs, outputs and params filled in and braces unescaped.

    In a string, values are quoted for the shell and a list param is its items with spaces between. In a list, a list
    param that is a whole argument is one argument an item; inside an argument its items are joined by spaces.
    """

    def value(name: str) -> Any:
        space, _, key = name.partition(".")
        if space == "inputs":
            return inputs[key]
        if space == "outputs":
            return outputs[key]
        return lookup(params, key)

    if isinstance(run, str):

        def quoted(name: str) -> str:
            found = value(name)
            items = found if isinstance(found, list) else [found]
            return " ".join(shlex.quote(param_text(item)) for item in items)

        return _fill_all(run, quoted)
    filled: list[str] = []
    for argument in run:
        match = _TOKEN.fullmatch(argument)
        if match is not None and match[1] is not None and isinstance(value(match[1]), list):
            filled += [param_text(item) for item in value(match[1])]
        else:
            filled.append(_fill_all(argument, lambda name: joined_text(value(name))))
    return tuple(filled)


def _fill_all(text: str, value: Callable[[str], str]) -> str:
    def replace(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0][0]
        return value(match[1])

    return _TOKEN.sub(replace, text)
