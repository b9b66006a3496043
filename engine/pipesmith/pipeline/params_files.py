"""Params files: YAML (as YAML 1.2 reads it, like DVC), JSON or TOML; their keys join `[params]`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import date, time
from typing import Any

from pipesmith.pipeline.limits import beyond
from pipesmith.pipeline.params import ParamError

__all__ = ["check_params", "parse_params_file"]

_PLACE = re.compile(r" \(at line (\d+), column \d+\)$")
_SCALARS = (str, bool, int, float, date, time, type(None))


def parse_params_file(path: str, data: bytes) -> dict[str, Any]:
    """Return the params of a YAML, JSON or TOML file. Raises ParamError, with the line where there is one."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ParamError("is not UTF-8") from None
    parsers: dict[str, Callable[[str], Any]] = {"json": _json, "toml": _toml, "yaml": _yaml, "yml": _yaml}
    parser = parsers.get(path.rpartition(".")[2].lower())
    if parser is None:
        raise ParamError("is neither .yaml, .json nor .toml", "rename it")
    try:
        value = parser(text)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise ParamError("does not hold a table of params", "write `NAME: VALUE` lines")
        odd = beyond(value)
        if odd is not None:
            raise ParamError(f"`{odd[0][0]}` is {odd[1]}")
        check_params(value)
    except RecursionError:
        raise ParamError("is nested too deeply") from None
    except ParamError:
        raise
    except ValueError:  # Python reads no number of so many digits
        raise ParamError("holds a number of too many digits") from None
    return value


def check_params(value: Any, key: str = "") -> None:
    """Raise ParamError for what can't be a param: names that no dotted key can mean, values that are no data."""
    if isinstance(value, dict):
        for name, entry in value.items():
            if not isinstance(name, str):
                raise ParamError(f"the key `{name}` is not a string", f'write `"{name}"`')
            if not name or "." in name or "{" in name or "}" in name:
                where = f" in `{key}`" if key else ""
                raise ParamError(f"`{name}` can't be a param's name{where}", "use no dots and no braces")
            check_params(entry, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for entry in value:
            check_params(entry, key)
    elif not isinstance(value, _SCALARS):
        raise ParamError(f"`{key}` is a {type(value).__name__}, which can't be a param")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ParamError(f"is not JSON: {error.msg[:1].lower()}{error.msg[1:]}", line=error.lineno) from None


def _toml(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        place = _PLACE.search(message)
        said = _PLACE.sub("", message)
        line = int(place[1]) if place else text.count("\n") + 1
        raise ParamError(f"is not TOML: {said[:1].lower()}{said[1:]}", line=line) from None


def _yaml(text: str) -> Any:
    try:
        import yaml

        from pipesmith.pipeline.yaml_reader import load
    except ImportError:
        raise ParamError(
            "YAML can't be read without PyYAML",
            "run `pip install 'pipesmith[yaml]'`, or write the file as JSON or TOML",
        ) from None
    try:
        return load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        said = error.problem or error.context or "broken"
        raise ParamError(f"is not YAML: {said}", line=mark.line + 1 if mark else None) from None
    except (yaml.YAMLError, ValueError) as error:
        raise ParamError(f"is not YAML: {str(error).splitlines()[0]}") from None
