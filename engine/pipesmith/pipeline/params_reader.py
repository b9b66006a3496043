"""What a pipeline's params are: defaults of `[params]`, then params files, then PIPE_PARAM_*, then `--set`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipesmith.pipeline.faults import Faults
from pipesmith.pipeline.params import ParamError, merge, override, variable_key
from pipesmith.pipeline.params_files import check_params, parse_params_file

__all__ = ["read_params"]


def read_params(
    defaults: Mapping[str, Any],
    paths: Sequence[str],
    files: Callable[[str], bytes | None],
    overrides: Mapping[str, str],
    environ: Mapping[str, str],
    faults: Faults,
) -> dict[str, Any]:
    """Return the params, nested. Faults of a params file, a variable or `--set` are told under its own name."""
    params: dict[str, Any] = dict(defaults)
    for name, value in defaults.items():
        try:
            check_params({name: value})
        except ParamError as error:
            faults.add(("params", name), str(error), error.help)
    for index, path in enumerate(paths):
        found = _file(path, ("pipeline", "params-files", index), files, faults)
        faults.params_lost = faults.params_lost or found is None
        params = merge(params, found or {})
    if faults.params_lost:
        return params
    for name in sorted(environ):
        key = variable_key(name, params)
        if key is not None:
            params = _override(params, key, environ[name], name, faults)
    for key, text in overrides.items():
        params = _override(params, key, text, f"--set {key}", faults)
    return params


def _file(
    path: str, where: tuple[str | int, ...], files: Callable[[str], bytes | None], faults: Faults
) -> dict[str, Any] | None:
    """Return the params of a file, None where it can't be read, which is told."""
    clean = faults.path(path, where)
    if clean is None:
        return None
    data = files(clean)
    if data is None:
        faults.add(where, f"`{path}` does not exist", "create it, or take it out")
        return None
    try:
        return parse_params_file(clean, data)
    except ParamError as error:
        faults.other(clean, error.line, str(error), error.help)
        return None


def _override(params: dict[str, Any], key: str, text: str, where: str, faults: Faults) -> dict[str, Any]:
    try:
        return override(params, key, text)
    except ParamError as error:
        faults.other(where, None, str(error), error.help)
        return params
