"""What of a workspace is to be watched: what its stages are given and make, what says so, and git's own signs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pipesmith.errors import UserError
from pipesmith.fingerprint.items import input_parts
from pipesmith.git.activity import GitActivity
from pipesmith.git.deciding import ignored_folders
from pipesmith.pipeline.model import Stage
from pipesmith.watching.coverage import Coverage

if TYPE_CHECKING:
    from pipesmith.workspace.session import Session
    from pipesmith.workspace.workspace import Workspace

__all__ = ["IGNORING", "bare_coverage", "coverage_of"]

IGNORING = (".gitignore", ".gitattributes", ".pipeignore")


def bare_coverage(workspace: Workspace, asked: Iterable[str] = ()) -> Coverage:
    """Return what is watched while no pipeline can be read. asked: workspace files that reading it looked at."""
    root = workspace.root
    git = GitActivity(workspace.repo.git_dir, workspace.repo.common_dir)
    exact = {os.path.join(root, path) for path in ("pipeline.toml", "pipe.lock", *asked)}
    exact |= {os.path.join(folder, name) for folder in _up(root, workspace.repo.top) for name in IGNORING}
    return Coverage(root=root, exact=frozenset(exact | set(git.places())))


def coverage_of(session: Session, stages: Iterable[Stage]) -> Coverage:
    """Return what is watched for these stages. Symbolic links on the way to a path are followed."""
    workspace, pipeline, root = session.workspace, session.pipeline, session.workspace.root
    sources: set[str] = set()
    whole: set[str] = set()
    exact = set(bare_coverage(workspace, [*session.asked, *pipeline.params_files]).exact)
    for stage in stages:
        sources.update(stage.source)
        whole.update(part.place for part in input_parts(stage, pipeline.stages) if part.place)
        whole.update(output.path for output in stage.outputs.values())
        whole.update(stage.hash_paths)
        if stage.notebook is not None:
            whole.add(stage.notebook)
        environment = pipeline.environments.get(stage.environment or "")
        if environment is not None and environment.requirements:
            exact.add(os.path.join(root, environment.requirements))
        if environment is not None and environment.context:
            sources.add(environment.context)
    for source in sources:
        for folder in _up(os.path.dirname(os.path.join(root, source)), root):
            exact |= {os.path.join(folder, name) for name in IGNORING}
    listed = _there(root, sources)
    skipped = ignored_folders(workspace.repo, root) if any(os.path.isdir(path) for path in listed) else set()
    return Coverage(
        root=root,
        exact=frozenset(exact),
        whole=frozenset(_there(root, whole) | _unpinned(session, stages)),
        listed=frozenset(listed),
        skipped=frozenset({*skipped, workspace.pipe_dir}),
    )


def _there(root: str, paths: Iterable[str]) -> set[str]:
    """Return where paths of the workspace lie: by their own name, and by that of what links on the way lead to."""
    found = set()
    for path in paths:
        there = os.path.normpath(os.path.join(root, path))
        found.add(there)
        if there != root:
            found.add(os.path.join(os.path.realpath(os.path.dirname(there)), os.path.basename(there)))
    return found


def _unpinned(session: Session, stages: Iterable[Stage]) -> set[str]:
    """Return where datasets lie that could not be pinned yet. A pinned one stays what it is, whatever its origin."""
    from pipesmith.data.places import place_of

    found = set()
    for name in {given.origin.dataset for stage in stages for given in stage.inputs.values() if given.origin.dataset}:
        try:
            if session.pins.dataset_pin(name) is not None:
                continue
            dataset = session.pipeline.datasets[name]
            found |= {
                place_of(source, session.pipeline.datastores, session.workspace.root).base for source in dataset.sources
            }
        except UserError:
            continue  # a lockfile that can't be read, or a place that is none of files: told by the build
    return found


def _up(folder: str, top: str) -> list[str]:
    """Return a folder and those above it, up to and with `top`."""
    found = [folder]
    while folder != top and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
        found.append(folder)
    return found
