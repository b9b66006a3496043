"""What the SDK gets outside a build: the same as inside one, from pipeline.toml."""

from __future__ import annotations

import os
from typing import Any

from pipesmith.build.variables import counting_params
from pipesmith.errors import PipeError
from pipesmith.pipeline.model import Stage
from pipesmith.pipeline.params import dotted_keys
from pipesmith.sdk import SdkError
from pipesmith.workspace.workspace import Workspace

__all__ = ["outside_context"]


def outside_context(named: str | None, script: str) -> dict[str, Any]:
    """Return the context of a stage: the one that PIPE_STAGE names, else the only one whose source holds the script.

    Raises SdkError where that is none or several, and where pipeline.toml can't be read.
    """
    folder = os.path.dirname(os.path.realpath(script)) if script and os.path.exists(script) else os.getcwd()
    try:
        workspace = Workspace.open(folder)
        pipeline = workspace.session().pipeline
    except PipeError as error:
        raise SdkError(str(error)) from None
    stage = _stage(pipeline.stages, named, os.path.relpath(os.path.realpath(script or "."), workspace.root))
    root = workspace.root
    return {
        "version": 1,
        "run": None,
        "stage": stage.name,
        "inputs": {name: {"path": os.path.join(root, given.path)} for name, given in stage.inputs.items()},
        "outputs": {name: {"path": os.path.join(root, output.path)} for name, output in stage.outputs.items()},
        "params": counting_params(stage, pipeline.params),
        "all_params": dotted_keys(pipeline.params),
        "git": {"commit": workspace.repo.head(), "branch": workspace.repo.branch(), "dirty": workspace.repo.is_dirty()},
    }


def _stage(stages: Any, named: str | None, script: str) -> Stage:
    if named:
        if named not in stages:
            raise SdkError(f"PIPE_STAGE names `{named}`, which is no stage of pipeline.toml")
        return stages[named]  # type: ignore[no-any-return]
    holders = [
        stage
        for stage in stages.values()
        if any(path in (".", script) or script.startswith(f"{path}/") for path in stage.source)
    ]
    if len(holders) == 1:
        return holders[0]  # type: ignore[no-any-return]
    if not holders:
        raise SdkError(f"no stage's source holds `{script}`: set PIPE_STAGE to one of {', '.join(stages)}")
    raise SdkError(f"several stages hold `{script}`: set PIPE_STAGE to one of {', '.join(s.name for s in holders)}")
