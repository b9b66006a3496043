"""The environment variables that a stage is started with, and the JSON file beside them (docs/formats/context.md)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from pipesmith.build.context import BuildContext
from pipesmith.pipeline.model import OriginKind, Stage
from pipesmith.pipeline.params import lookup
from pipesmith.pipeline.placeholders import relative_to

__all__ = [
    "context_document",
    "counting_params",
    "inherited_variables",
    "stage_variables",
    "variable_name",
    "write_context",
]

CONTEXT_VERSION = 1
_SETTLED = {"LANG": "C.UTF-8", "TZ": "UTC"}


def variable_name(name: str) -> str:
    """Return an input's or output's name as it stands in `PIPE_INPUT_<NAME>`."""
    return name.upper().replace("-", "_")


def counting_params(stage: Stage, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the params that count for a stage, nested as in pipeline.toml."""
    counting: dict[str, Any] = {}
    for key in stage.params:
        *parents, last = key.split(".")
        table = counting
        for parent in parents:
            table = table.setdefault(parent, {})
        value = lookup(params, key)
        if isinstance(table.get(last), dict) and isinstance(value, Mapping):
            table[last] = {**table[last], **value}
        else:
            table[last] = value
    return counting


def _dotted(params: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, value in params.items():
        keys.append(prefix + name)
        if isinstance(value, Mapping):
            keys += _dotted(value, f"{prefix}{name}.")
    return keys


def context_document(
    build: BuildContext, stage: Stage, *, live_log: str, artifacts: str, workspace: str | None = None
) -> dict[str, Any]:
    """Return what PIPE_CONTEXT holds: all that the SDK knows of the stage. Paths are relative to the stage's `cwd`."""
    inputs: dict[str, dict[str, Any]] = {}
    for name, given in stage.inputs.items():
        entry: dict[str, Any] = {"path": relative_to(given.path, stage.cwd)}
        if given.origin.kind is OriginKind.DATASET:
            dataset = build.pipeline.datasets[given.origin.dataset]
            entry |= {"format": dataset.table_format, "options": dict(dataset.options)}
        inputs[name] = entry
    counting = set(stage.params)
    return {
        "version": CONTEXT_VERSION,
        "run": build.run,
        "stage": stage.name,
        "inputs": inputs,
        "outputs": {name: {"path": relative_to(out.path, stage.cwd)} for name, out in stage.outputs.items()},
        "params": counting_params(stage, build.pipeline.params),
        "all_params": [key for key in _dotted(build.pipeline.params) if key not in counting],
        "resources": dict(stage.resources.raw),
        "git": {**build.git, **({"dirty": build.dirty()} if build.dirty is not None else {})},
        "workspace": workspace or (build.seen_at if stage.sandbox else build.root),
        "log": live_log,
        "artifacts": artifacts,
    }


def write_context(
    build: BuildContext, stage: Stage, tmpdir: str, *, live_log: str, artifacts: str, workspace: str | None = None
) -> str:
    """Write the context file into a stage's TMPDIR and return its path. workspace: where the stage sees it, if
    elsewhere than here."""
    path = os.path.join(tmpdir, "pipe-context.json")
    document = context_document(build, stage, live_log=live_log, artifacts=artifacts, workspace=workspace)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(document, file, default=str)
    return path


def inherited_variables() -> dict[str, str]:
    """Return what every stage has of the user's own environment, and what it has instead of the rest."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "USER", "LOGNAME") if name in os.environ}
    return {"PATH": os.defpath, **kept, **_SETTLED}


def stage_variables(
    build: BuildContext,
    stage: Stage,
    *,
    tmpdir: str,
    context_file: str,
    sdk: str,
    gpus: tuple[str, ...],
    keep: str | None,
    home: str | None = None,
) -> dict[str, str]:
    """Return the whole environment of a stage, in the order of precedence: user's, pipe's, `env`, `pass-env`.

    home: of a stage on a far side, which has its own PATH and users."""
    given = build.environment(stage)
    variables = inherited_variables() if home is None else {"HOME": home, **_SETTLED}
    if given.path:
        variables["PATH"] = os.pathsep.join((*given.path, variables["PATH"]))
    variables |= given.variables
    if given.prefix and not given.variables:
        variables["VIRTUAL_ENV"] = given.prefix
    variables["TMPDIR"] = tmpdir
    variables["PYTHONPATH"] = sdk
    variables["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    variables["PIPE_RUN"] = build.run
    variables["PIPE_STAGE"] = stage.name
    variables["PIPE_CONTEXT"] = context_file
    variables["PIPE_PARAMS"] = json.dumps(counting_params(stage, build.pipeline.params), default=str)
    if keep is not None:
        variables["PIPE_KEEP"] = keep
    for name, given_input in stage.inputs.items():
        variables[f"PIPE_INPUT_{variable_name(name)}"] = relative_to(given_input.path, stage.cwd)
    for name, output in stage.outputs.items():
        variables[f"PIPE_OUTPUT_{variable_name(name)}"] = relative_to(output.path, stage.cwd)
    variables |= stage.env
    variables |= {name: os.environ[name] for name in stage.pass_env if name in os.environ}
    if variables["PYTHONPATH"] != sdk:  # the stage's own comes first
        variables["PYTHONPATH"] = os.pathsep.join(part for part in (variables["PYTHONPATH"], sdk) if part)
    return variables
