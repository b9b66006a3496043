"""What the SDK gets outside a build: the same as inside one, from pipeline.toml and what lies there now."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

from pipesmith.build.variables import counting_params
from pipesmith.errors import PipeError, nearest
from pipesmith.pipeline.model import Input, OriginKind, Pipeline, Stage
from pipesmith.pipeline.params import dotted_keys
from pipesmith.sdk import SdkError
from pipesmith.workspace.workspace import Workspace

__all__ = ["outside_context"]


def outside_context(named: str | None, script: str) -> dict[str, Any]:
    """Return the context of a stage: the one that PIPE_STAGE names, else the only one whose source holds the script.

    named: PIPE_STAGE. script: absolute path of the script or notebook, empty where there is none.
    Data is what lies there now, neither made nor compared with the lock. Raises SdkError where the stage is none or
    several, and where pipeline.toml can't be read.
    """
    try:
        workspace = _workspace(script)
        pipeline = workspace.session().pipeline
        stage = _stage(pipeline, named, script, workspace.root)
        inputs = {name: _input(given, pipeline, workspace.root) for name, given in stage.inputs.items()}
    except PipeError as error:
        raise SdkError("\n".join(finding.render() for finding in error.findings())) from None
    for output in stage.outputs.values():
        _make_writable(os.path.join(workspace.root, output.path))
    return {
        "version": 1,
        "run": None,
        "stage": stage.name,
        "inputs": inputs,
        "outputs": {
            name: {"path": os.path.join(workspace.root, output.path)} for name, output in stage.outputs.items()
        },
        "params": counting_params(stage, pipeline.params),
        "all_params": dotted_keys(pipeline.params),
        "git": {
            "commit": workspace.repo.head(),
            "branch": workspace.repo.branch(),
            "dirty": workspace.repo.is_dirty(),
        },
    }


def _workspace(script: str) -> Workspace:
    """Return the script's workspace; of one outside any (an interpreter's own start script), the current folder's."""
    if script:
        try:
            return Workspace.open(os.path.dirname(os.path.realpath(script)))
        except PipeError:
            pass
    return Workspace.open(os.getcwd())


def _stage(pipeline: Pipeline, named: str | None, script: str, root: str) -> Stage:
    stages = pipeline.stages
    if named:
        cells = pipeline.groups.get(named, ())
        if named in stages or len(cells) == 1:
            return stages[named if named in stages else cells[0]]
        if cells:
            raise SdkError(f"PIPE_STAGE names `{named}`, which has a matrix: set it to one of {_listed(cells)}")
        near = nearest(named, stages)
        raise SdkError(
            f"PIPE_STAGE names `{named}`, which is no stage of pipeline.toml"
            + (f": did you mean `{near}`?" if near else "")
        )
    path = os.path.relpath(os.path.realpath(script), root) if script else ""
    holders = [stage.name for stage in stages.values() if path and _holds(stage, path)]
    if len(holders) == 1:
        return stages[holders[0]]
    if holders:
        raise SdkError(f"several stages hold `{path}`: set PIPE_STAGE to one of {_listed(holders)}")
    what = f"no stage's source holds `{path}`" if path else "it can't be told which stage this is"
    raise SdkError(f"{what}: set PIPE_STAGE to one of {_listed(stages)}")


def _holds(stage: Stage, path: str) -> bool:
    if path.startswith("../"):
        return False
    return path == stage.notebook or any(each in (".", path) or path.startswith(f"{each}/") for each in stage.source)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _input(given: Input, pipeline: Pipeline, root: str) -> dict[str, Any]:
    origin = given.origin
    if origin.kind is OriginKind.CELLS:
        made = {cell: pipeline.stages[maker].outputs[origin.output].path for cell, maker in origin.cells.items()}
        return {"path": _farm({cell: os.path.join(root, path) for cell, path in made.items()})}
    if origin.kind is OriginKind.STAGE:
        path = pipeline.stages[origin.stage].outputs[origin.output].path
        return {"path": os.path.join(root, path, given.within) if given.within else os.path.join(root, path)}
    if origin.kind is OriginKind.DATASET:
        from pipesmith.data.datasets import objects_now

        dataset = pipeline.datasets[origin.dataset]
        objects = objects_now(dataset, pipeline.datastores, root)
        path = objects[0][0] if not objects[0][1] else _farm({name: place for place, name in objects})
        return {"path": path, "format": dataset.table_format, "options": dict(dataset.options)}
    return {"path": os.path.join(root, given.path)}


def _farm(links: Mapping[str, str]) -> str:
    """Return a folder of links to what lies elsewhere; gone when the process ends."""
    folder = tempfile.mkdtemp(prefix="pipe-input-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name, place in links.items():
        link = os.path.join(folder, name)
        os.makedirs(os.path.dirname(link), exist_ok=True)
        os.symlink(place, link)
    return folder


def _make_writable(path: str) -> None:
    """Make an output's folder; a file there that is one with the cache's by a hard link becomes a copy of its own."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    shared = [path]
    if os.path.isdir(path) and not os.path.islink(path):
        shared = [os.path.join(where, name) for where, _folders, files in os.walk(path) for name in files]
    for file in shared:
        if os.path.isfile(file) and not os.path.islink(file) and os.lstat(file).st_nlink > 1:
            copy = f"{file}.pipe-tmp-{os.getpid()}"
            shutil.copyfile(file, copy)
            os.chmod(copy, 0o644 | os.lstat(file).st_mode & 0o111)
            os.rename(copy, file)
