"""What a stage is given: its source, inputs and output folders, as a Layout that any executor can make real."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from pipesmith.build.context import BuildContext
from pipesmith.build.sdk_path import sdk_folder
from pipesmith.executors.base import Layout, Mount, OutputSpec
from pipesmith.pipeline.model import OriginKind, Stage

__all__ = ["layout_of"]


def layout_of(build: BuildContext, stage: Stage) -> Layout:
    """Return the layout of a stage's sandbox. Source files are private copies, inputs read-only."""
    mounts: list[Mount] = []
    folders: set[str] = set()
    withheld: list[str] = []
    for source in stage.source:
        if source != "." and os.path.isdir(os.path.join(build.root, source)):
            folders.add(source)
        files = build.tree.source_files(source)
        build.tree.check_fetched(path for path, _mode in files)
        for path, _mode in files:
            mounts.append(Mount(origin=os.path.join(build.root, path), path=path, copy=True))
    if stage.notebook:
        mounts.append(Mount(origin=os.path.join(build.root, stage.notebook), path=stage.notebook, copy=True))
    for given in stage.inputs.values():
        origin = given.origin
        if origin.kind is OriginKind.CELLS:
            folders.add(given.path)
            for cell, maker in origin.cells.items():
                made = build.pipeline.stages[maker].outputs[origin.output]
                lies = os.path.join(build.root, made.path)
                mounts.append(Mount(origin=lies, path=f"{given.path}/{cell}", unit=given.path))
        elif origin.kind is OriginKind.DATASET:
            for there, name in build.dataset_files(origin.dataset):
                path = f"{given.path}/{name}" if name else given.path
                mounts.append(Mount(origin=there, path=path, unit=given.path))
        elif origin.kind is OriginKind.STAGE:
            mounts.append(Mount(origin=os.path.join(build.root, given.lies), path=given.path))
        else:
            build.tree.check_given(given.lies)
            mounts.append(Mount(origin=build.input_at(given.lies), path=given.path))
            withheld += [f"{given.path}/{inner}" for inner in build.tree.git_places(given.lies)]
    if stage.cwd != ".":
        folders.add(stage.cwd)
    return Layout(
        workspace=build.seen_at if stage.sandbox else build.root,
        mounts=tuple(mounts),
        folders=tuple(sorted(folders)),
        outputs=tuple(OutputSpec(name=name, path=output.path) for name, output in stage.outputs.items()),
        visible=_visible(build, stage),
        hidden=_hidden(build),
        withheld=tuple(withheld),
    )


def _visible(build: BuildContext, stage: Stage) -> tuple[str, ...]:
    """Return folders in the workspace that stay readable: the interpreter's prefix, the environment's, those of
    PATH."""
    given = build.environment(stage)
    wanted = [sys.prefix, sys.base_prefix, sdk_folder(), *given.path, *os.environ.get("PATH", "").split(os.pathsep)]
    if given.prefix:
        wanted.append(given.prefix)
    return tuple(sorted({_whole(path) for path in _inside(build.seen_at, wanted)}))


def _inside(root: str, paths: Iterable[str]) -> Iterable[str]:
    for path in paths:
        clean = os.path.normpath(path) if path else ""
        if clean.startswith(root + os.sep) and os.path.isdir(path):
            yield clean


def _whole(path: str) -> str:
    """Return the virtual environment that a `bin` folder belongs to, else the folder itself."""
    parent = os.path.dirname(path)
    return parent if os.path.exists(os.path.join(parent, "pyvenv.cfg")) else path


def _hidden(build: BuildContext) -> tuple[str, ...]:
    """Return the repository's git folders, where they lie outside the workspace: a stage sees no `.git`."""
    folders = {os.path.realpath(build.repo.git_dir), os.path.realpath(build.repo.common_dir)}
    return tuple(sorted(f for f in folders if not f.startswith(os.path.realpath(build.seen_at) + os.sep)))
