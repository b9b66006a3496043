"""`build --rev` and `--experiment`: what is known already, else a build in a place of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipesmith.records import replace
from pipesmith.workspace.elsewhere import Place, commit_elsewhere, work_tree_elsewhere

if TYPE_CHECKING:
    from pipesmith.build.control import Control
    from pipesmith.events import Event
    from pipesmith.workspace.plan import BuildOptions
    from pipesmith.workspace.results import BuildResult
    from pipesmith.workspace.workspace import Workspace

__all__ = ["build_elsewhere"]


def build_elsewhere(
    workspace: Workspace, options: BuildOptions, on_event: Callable[[Event], None], control: Control
) -> BuildResult:
    """Build a commit (`rev`), or the work tree as it is with `overrides`, in a place of its own. Raises as `build`."""
    from pipesmith.workspace.build import build

    inner = replace(options, rev=None, experiment=None)
    if options.rev is None:
        assert options.experiment is not None
        with work_tree_elsewhere(workspace, options.experiment, options.overrides) as other:
            return build(other, inner, on_event, control=control)
    commit = workspace.repo.resolve(options.rev)
    known = _fresh_already(workspace, commit, options)
    if known is not None:
        return replace(known, revision=commit)
    with commit_elsewhere(workspace, options.rev, experiment=options.experiment) as other:
        result = build(other, inner, on_event, control=control)
        return replace(result, revision=commit, not_locked=_not_locked(workspace, other, commit, result))


def _fresh_already(workspace: Workspace, commit: str, options: BuildOptions) -> BuildResult | None:
    """Return the answer where a commit's own lockfile and the cache give it, without a place; else None."""
    if options.overrides or options.force or options.since or options.compute or options.experiment:
        return None
    if any(name.startswith("PIPE_PARAM_") for name in os.environ):
        return None
    from pipesmith.build.deliveries import Deliveries
    from pipesmith.store.object_store import ObjectStore
    from pipesmith.workspace.at_commit import verdicts_at
    from pipesmith.workspace.plan import wanted_stages
    from pipesmith.workspace.results import BuildResult, StageResult
    from pipesmith.workspace.session import select_stages

    pipeline, verdicts = verdicts_at(workspace, commit)
    folder = workspace.pipe_dir
    store = ObjectStore(os.path.join(folder, "cache"), os.path.join(folder, "tmp"), workspace.state, pipeline.cache)
    named = select_stages(pipeline, options.stages) if options.stages else pipeline.targets
    wanted = wanted_stages(pipeline, named, options)
    owner = Place(folder="", of=workspace, seen_at="", tree="", revision=commit).owner
    deliveries = Deliveries.of(folder, workspace.root, pipeline.datastores, store, owner=owner)
    if options.deliver and deliveries.owed(wanted):
        return None
    stages = []
    for name in wanted:
        stage, verdict = pipeline.stages[name], verdicts[name]
        environment = pipeline.environments[stage.environment] if stage.environment else None
        if not verdict.fresh or verdict.broken or verdict.result is None or not stage.reuse:
            return None
        if environment is not None and environment.python == "system":
            return None  # only asking the running interpreter tells
        for out in verdict.result.outs:
            declared = stage.outputs.get(out.name)
            spared = options.allow_missing or (declared is not None and declared.temp)
            if not spared and not store.has(out.digest):
                return None
        stages.append(
            StageResult(
                name=name,
                status="fresh",
                fingerprint=verdict.fingerprint.key if verdict.fingerprint else None,
                outputs=verdict.result.outs,
                metrics=verdict.result.metrics,
                notes=verdict.notes,
            )
        )
    return BuildResult(run=None, status="up-to-date", stages=tuple(stages))


def _not_locked(workspace: Workspace, other: Workspace, commit: str, result: BuildResult) -> tuple[str, ...]:
    """Return the stages that are built now, and that the commit's own lockfile does not have so."""
    from pipesmith.workspace.revisions import lockfile_at

    if result.status == "planned":
        return ()
    theirs = lockfile_at(workspace, commit)
    ours = other.session().lockfile
    found = []
    for stage in result.stages:
        now = ours.stages.get(stage.name)
        then = theirs.stages.get(stage.name) if theirs is not None else None
        if now is not None and stage.status in ("ran", "restored", "fresh"):
            same = then is not None and then.fingerprint == now.fingerprint
            if (
                not same
                or then is None
                or {o.path: o.digest for o in then.outs} != {o.path: o.digest for o in now.outs}
            ):
                found.append(stage.name)
    return tuple(found)
