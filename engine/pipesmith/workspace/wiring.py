"""The rooms below, wired together for one build."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from pipesmith.build.context import BuildContext, Choices, Elsewhere
from pipesmith.build.evidence import Stamper
from pipesmith.build.job import JobRunner
from pipesmith.build.limits import Limits
from pipesmith.build.place import Placer
from pipesmith.digest import Digest
from pipesmith.events import Event
from pipesmith.executors.local import LocalExecutor
from pipesmith.workspace.lock_keeper import LockKeeper
from pipesmith.workspace.plan import BuildOptions, Plan
from pipesmith.workspace.recording import Recorder
from pipesmith.workspace.session import Session

__all__ = ["context_of", "limits_of", "runner_of", "session_context"]


def context_of(
    plan: Plan,
    options: BuildOptions,
    local: LocalExecutor,
    recorder: Recorder,
    listener: Callable[[Event], None],
    notice: Callable[..., None],
) -> BuildContext:
    """Return what all jobs of a build share."""
    session, run = plan.session, recorder.record.id
    return session_context(
        session,
        notice,
        run=run,
        executors=session.computes.executors(local),
        choices=Choices(
            jobs=options.jobs or max(1, int(session.computes.here().cpus)),
            keep_going=options.keep_going,
            force=plan.forced,
            held=options.held,
            restore=options.restore,
            allow_missing=options.allow_missing,
            deliver=options.deliver,
        ),
        listener=listener,
        git=recorder.git,
        dirty=recorder.dirty,
        user=recorder.record.user,
        host=recorder.record.host,
        elsewhere=_elsewhere(session, run),
        cold_s=lambda stage, since: session.cold.seconds(stage.environment or "", since),
    )


def session_context(session: Session, notice: Callable[..., None], **own: Any) -> BuildContext:
    """Return the context of what is done with stages of a session. own: the fields that are not the session's."""
    workspace = session.workspace
    return BuildContext(
        repo=workspace.repo,
        root=workspace.root,
        pipe_dir=workspace.pipe_dir,
        pipeline=session.pipeline,
        tree=session.tree,
        fresh_tree=session.fresh_tree,
        digest_now=session.output_now,
        state=workspace.state,
        store=session.store,
        actions=session.actions,
        environment=lambda stage: session.pins.materialise(stage, notice),
        dataset_files=session.pins.dataset_files,
        **own,
    )


def _elsewhere(session: Session, run: str) -> Elsewhere | None:
    place, lender = session.workspace.place, session.lender
    if place is None or lender is None:
        return None
    return Elsewhere(
        seen_at=place.seen_at,
        data_root=place.of.root,
        spared=None if place.of.repo.is_bare else place.of.repo.top,
        owner=place.owner,
        failed=os.path.join(session.workspace.pipe_dir, "tmp", "failed-elsewhere", run),
        input_at=lender.input_at,
    )


def runner_of(context: BuildContext, session: Session, lock: LockKeeper) -> JobRunner:
    """Return what runs and restores stages."""

    def said(path: str, digest: Digest) -> None:
        context.notice(
            "warning",
            f"`{path}` was not what the lockfile says; what lay there is kept as {digest.hex}",
            f"`pipe cat {digest.hex[:12]}` shows it, `pipe checkout --to DIR` puts other states elsewhere",
        )

    return JobRunner(
        build=context,
        placer=Placer(session.workspace.root, session.store, session.output_now, said),
        lock_writer=lock.writer,
        workspace_lock=session.workspace.guard,
        metric_at=session.metric_at,
        locked=session.lockfile.stages.get,
        stamper=Stamper(),
    )


def limits_of(plan: Plan, context: BuildContext, local: LocalExecutor) -> Limits:
    """Return what may run at once."""
    computes = plan.session.pipeline.computes
    return Limits(
        context.choices.jobs,
        plan.session.computes.capacities(plan.to_run),
        {name: "local" for name, compute in computes.items() if compute.kind == "local"},
        {name: compute.max_jobs for name, compute in computes.items()},
        plan.session.workspace.locks,
        plan.session.computes.gpu_pool,
    )
