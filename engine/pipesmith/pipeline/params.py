"""Params: defaults of pipeline.toml, then params files, then PIPE_PARAM_*, then `--set`, each typed as the default is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from pipesmith.errors import nearest

__all__ = ["ParamError", "dotted_keys", "lookup", "merge", "override", "parse_params_file", "variable_key"]

_PREFIX = "PIPE_PARAM_"


class ParamError(ValueError):
    """A param can't be read or set; the text is for people. help: what to type."""

    def __init__(self, text: str, help: str | None = None) -> None:
        super().__init__(text)
        self.help = help


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


def parse_params_file(path: str, data: bytes) -> dict[str, Any]:
    """Return the params of a YAML, JSON or TOML file. Raises ParamError."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ParamError("is not UTF-8") from None
    parsers: dict[str, Callable[[str], Any]] = {"json": _json, "toml": _toml, "yaml": _yaml, "yml": _yaml}
    parser = parsers.get(path.rpartition(".")[2].lower())
    if parser is None:
        raise ParamError("is neither .yaml, .json nor .toml")
    value = parser(text)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ParamError("does not hold a table of params")
    return value


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ParamError(f"is not JSON: {error}") from None


def _toml(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ParamError(f"is not TOML: {error}") from None


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise ParamError(
            "YAML can't be read without PyYAML",
            "run `pip install 'pipesmith[yaml]'`, or write the file as JSON or TOML",
        ) from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        first = str(error).replace("\n", " ")
        raise ParamError(f"is not YAML: {first}") from None


def variable_key(name: str) -> str | None:
    """Return the dotted key that an environment variable `PIPE_PARAM_train__lr` overrides, None for another variable."""
    return name.removeprefix(_PREFIX).replace("__", ".") if name.startswith(_PREFIX) else None


def override(params: Mapping[str, Any], key: str, text: str) -> dict[str, Any]:
    """Return `params` with one dotted key set to a text, typed as the default is. Raises ParamError."""
    try:
        default = lookup(params, key)
    except KeyError:
        near = nearest(key, dotted_keys(params))
        raise ParamError(
            f"no param `{key}`", f"did you mean `{near}`?" if near else "add it to [params] with a default"
        ) from None
    value = _typed(key, default, text)
    *parents, last = key.split(".")
    changed = dict(params)
    table = changed
    for parent in parents:
        table[parent] = dict(table[parent])
        table = table[parent]
    table[last] = value
    return changed


def _typed(key: str, default: Any, text: str) -> Any:
    if isinstance(default, str):
        return text
    wanted = _type_name(default)
    if isinstance(default, bool):
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise ParamError(f"param `{key}` is {wanted}, `{text}` is not", f"write `{key}=true` or `{key}=false`")
    try:
        if isinstance(default, int):
            return int(text)
        if isinstance(default, float):
            return float(text)
        value = _toml(f"v = {text}")["v"]
    except (ValueError, ParamError):
        try:
            value = json.loads(text)
        except ValueError:
            raise ParamError(f"param `{key}` is {wanted}, `{text}` is not") from None
    if isinstance(default, (list, dict)) and not isinstance(value, type(default)):
        raise ParamError(f"param `{key}` is {wanted}, `{text}` is not")
    if type(value) is not type(default):
        raise ParamError(f"param `{key}` is {wanted}, `{text}` is not")
    return value


def _type_name(value: Any) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", list: "a list", dict: "a table"}
    return names.get(type(value), f"a {type(value).__name__}")
