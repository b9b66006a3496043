"""Params: dotted keys into nested tables, and overriding one of them by a text typed as the default is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pipesmith.errors import nearest

__all__ = ["ParamError", "dotted_keys", "lookup", "merge", "override", "variable_key"]

_PREFIX = "PIPE_PARAM_"


class ParamError(ValueError):
    """A param can't be read or set; the text is for people. help: what to type. line: of a params file, from 1."""

    def __init__(self, text: str, help: str | None = None, line: int | None = None) -> None:
        super().__init__(text)
        self.help = help
        self.line = line


def lookup(params: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key: a whole table where it names one. Raises KeyError."""
    value: Any = params
    for part in key.split("."):
        if not isinstance(value, Mapping):
            raise KeyError(key)
        value = value[part]
    return value


def dotted_keys(params: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return all dotted keys, tables included."""
    keys = []
    for name, value in params.items():
        keys.append(prefix + name)
        if isinstance(value, Mapping):
            keys += dotted_keys(value, f"{prefix}{name}.")
    return keys


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `over` laid on it, table by table."""
    merged = dict(base)
    for name, value in over.items():
        mine = merged.get(name)
        merged[name] = merge(mine, value) if isinstance(mine, Mapping) and isinstance(value, Mapping) else value
    return merged


def variable_key(name: str, params: Mapping[str, Any]) -> str | None:
    """Return the dotted key that a variable such as `PIPE_PARAM_train__lr` overrides, None for another variable.

    `__` is a dot; a `-` of a param's name is written `_`.
    """
    if not name.startswith(_PREFIX):
        return None
    said = name.removeprefix(_PREFIX)
    by_variable = {key.replace("-", "_").replace(".", "__"): key for key in reversed(dotted_keys(params))}
    return by_variable.get(said, said.replace("__", "."))


def override(params: Mapping[str, Any], key: str, text: str) -> dict[str, Any]:
    """Return `params` with one dotted key set to a text, typed as the default is. Raises ParamError."""
    try:
        default = lookup(params, key)
    except KeyError:
        near = nearest(key, dotted_keys(params))
        raise ParamError(
            f"no param `{key}`", f"did you mean `{near}`?" if near else "add it to [params] with a default"
        ) from None
    from pipesmith.pipeline.limits import beyond

    value = _typed(key, default, text)
    odd = beyond(value)
    if odd is not None:
        raise ParamError(f"what is given for param `{key}` is {odd[1]}")
    *parents, last = key.split(".")
    changed = dict(params)
    table = changed
    for parent in parents:
        table[parent] = dict(table[parent])
        table = table[parent]
    table[last] = value
    return changed


def _typed(key: str, default: Any, text: str) -> Any:
    """Return a text as a value of the default's type. Lists, tables and dates are read as TOML, else as JSON."""
    if isinstance(default, str):
        return text
    wanted = _TYPE_NAMES.get(type(default), f"a {type(default).__name__}")
    wrong = ParamError(f"param `{key}` is {wanted}, `{text}` is not", f"write `{key}={_example(default)}`")
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise wrong
        return text.lower() == "true"
    try:
        if isinstance(default, int):
            return int(text)
        if isinstance(default, float):
            return float(text)
    except ValueError:
        raise wrong from None
    value = _literal(text)
    if default is None:  # of a YAML or JSON file: nothing says what it should be
        return text if value is None else value
    if type(value) is not type(default):
        raise wrong
    return value


def _literal(text: str) -> Any:
    """Return a text read as a TOML value, else as JSON; None where it is neither."""
    import tomllib

    try:
        return tomllib.loads(f"v = {text}")["v"]
    except (ValueError, RecursionError):
        pass
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


_TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", list: "a list", dict: "a table"}


def _example(default: Any) -> str:
    if isinstance(default, (list, Mapping)):
        return "[…]" if isinstance(default, list) else "{ … }"
    return json.dumps(default, default=str).strip('"')
