"""`shell`: the sandbox of a stage with a person in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pipesmith.build.context import BuildContext, Choices
from pipesmith.build.folders import temporary_folder
from pipesmith.build.keep import KeepFolder
from pipesmith.build.sandbox import layout_of
from pipesmith.build.sdk_path import sdk_folder
from pipesmith.build.variables import stage_variables, write_context
from pipesmith.errors import UserError
from pipesmith.executors.base import Job, Mount
from pipesmith.executors.local import LocalExecutor
from pipesmith.pipeline.graph import upstream
from pipesmith.records import replace
from pipesmith.store.modes import make_folders
from pipesmith.store.removal import remove
from pipesmith.workspace.preflight import preflight, preflight_gpus
from pipesmith.workspace.session import select_stages
from pipesmith.workspace.wiring import session_context

if TYPE_CHECKING:
    from pipesmith.executors.gpus import GpuHold
    from pipesmith.pipeline.model import Stage
    from pipesmith.verdict.verdict import Verdict
    from pipesmith.workspace.session import Session
    from pipesmith.workspace.workspace import Workspace

__all__ = ["shell"]

_A_SHELL = ("/bin/sh", "-c", "if command -v bash > /dev/null; then exec bash; else exec sh; fi")  # of an image


def shell(workspace: Workspace, name: str, command: Sequence[str], notice: Callable[[str], None]) -> int:
    """Run a command (a shell without one) in a stage's sandbox and return its exit code. Raises UserError."""
    session = workspace.session()
    pipeline = session.pipeline
    (stage_name, *more) = select_stages(pipeline, [name])
    if more:
        raise UserError(f"`{name}` has {len(more) + 1} cells", f"name one: `pipe shell {stage_name}`")
    stage = pipeline.stages[stage_name]
    preflight(session, [stage])
    preflight_gpus(session, [stage])
    judgement = session.judgement()
    for earlier in pipeline.stages:
        if earlier in upstream(pipeline, [stage_name]):
            judgement.judge(pipeline.stages[earlier])
    if stage.environment:
        session.pins.resolve_environments([stage.environment], notice)
    session.pins.pin_datasets([g.origin.dataset for g in stage.inputs.values() if g.origin.dataset])
    layout_problems = [
        given.path
        for given in stage.inputs.values()
        if not given.origin.dataset
        and not given.origin.cells
        and not os.path.lexists(os.path.join(workspace.root, given.path))
    ]
    if layout_problems:
        raise UserError(f"input `{layout_problems[0]}` is not there", f"run `pipe build --upstream-only {stage_name}`")
    session.cold.tell(notice)
    session.computes.said = notice
    build = session_context(
        session,
        notice,
        run="shell",
        executors={},
        choices=Choices(jobs=1),
        listener=lambda event: None,
        git={"commit": workspace.repo.head(), "branch": workspace.repo.branch()},
    )
    scratch = os.path.join(workspace.pipe_dir, "tmp", f"shell-{os.urandom(8).hex()}")
    make_folders(scratch)
    tmpdir = temporary_folder(build)
    if not command:
        notice(f"the sandbox of `{stage_name}`; leave it with `exit`, nothing that it makes is kept")
    try:
        if pipeline.computes[stage.compute].kind == "docker":
            return _in_a_container(session, build, stage, command, judgement.judge(stage), scratch, tmpdir)
        return _here(session, build, stage, command, judgement.judge(stage), scratch, tmpdir, notice)
    finally:
        session.computes.close()
        remove(scratch)
        shutil.rmtree(tmpdir, ignore_errors=True)


def _in_a_container(
    session: Session,
    build: BuildContext,
    stage: Stage,
    command: Sequence[str],
    verdict: Verdict,
    scratch: str,
    tmpdir: str,
) -> int:
    """Run a command in a container that has what the stage would have."""
    from pipesmith.build.job_of import job_of
    from pipesmith.build.live_log import LiveLog
    from pipesmith.executors.docker_shell import run_interactive

    executor = session.computes.docker(build.pipeline.computes[stage.compute])
    session.computes.capacities([stage])
    key = verdict.fingerprint.key if verdict.fingerprint is not None else ""
    stage = stage if key else replace(stage, keep=None)
    live = LiveLog(os.path.join(tmpdir, "shell.log"), parent=os.path.dirname(tmpdir))
    try:
        job = job_of(
            build,
            stage,
            far=True,
            key=key,
            gpus=(),
            node="",
            log_path=os.devnull,
            scratch=scratch,
            tmpdir=tmpdir,
            keep=KeepFolder(build.pipe_dir, stage, key),
            live=live,
            last=True,
            interactive=True,
        )
        variables = {**job.env, **_of_the_terminal()}
        return run_interactive(executor, replace(job, argv=tuple(command) or _A_SHELL, env=variables, key=""))
    finally:
        live.close()


def _here(
    session: Session,
    build: BuildContext,
    stage: Stage,
    command: Sequence[str],
    verdict: Verdict,
    scratch: str,
    tmpdir: str,
    notice: Callable[[str], None],
) -> int:
    """Run a command in a sandbox on this machine."""
    local = LocalExecutor(build.pipe_dir, os.environ.get("PIPE_SANDBOX", "auto"))
    gpus: GpuHold | None = None
    try:
        gpus = _gpus(session, stage, notice)
        logged = os.path.join(tmpdir, "log.jsonl")
        context_file = write_context(build, stage, tmpdir, live_log=logged, artifacts=os.path.join(tmpdir, "files"))
        kept = _kept(build.pipe_dir, stage, verdict, tmpdir)
        variables = stage_variables(
            build,
            stage,
            tmpdir=tmpdir,
            context_file=context_file,
            sdk=sdk_folder(),
            gpus=gpus.ids if gpus is not None else (),
            keep=kept[0].path if kept else None,
        )
        layout = layout_of(build, stage)
        variables |= _of_the_terminal()
        argv = tuple(command) or (os.environ.get("SHELL") or "/bin/sh",)
        return local.run_interactive(
            Job(
                run="shell",
                stage=stage.name,
                argv=argv,
                cwd=stage.cwd,
                env=variables,
                layout=replace(layout, mounts=(*layout.mounts, *kept)),
                scratch=scratch,
                log_path=os.devnull,
                tmpdir=tmpdir,
                sandboxed=stage.sandbox,
            )
        )
    finally:
        if gpus is not None:
            gpus.release()
        local.close()


def _of_the_terminal() -> dict[str, str]:
    return {name: os.environ[name] for name in ("TERM", "COLORTERM") if name in os.environ}


def _gpus(session: Session, stage: Stage, notice: Callable[[str], None]) -> GpuHold | None:
    """Return the GPUs of this machine that a stage asks for, as long as the shell lasts; None where it does without."""
    pool = session.computes.gpu_pool(stage.compute) if stage.resources.gpus else None
    if pool is None:
        return None
    found = pool.acquire(stage.resources.gpus, stage.resources.gpu_memory_bytes)
    if isinstance(found, str):
        notice(f"no GPU is free now: `{stage.name}` asks for {found}; the shell sees none")
        return None
    for note in found.notes:
        notice(note)
    return found


def _kept(pipe_dir: str, stage: Stage, verdict: Verdict, tmpdir: str) -> tuple[Mount, ...]:
    """Return the `keep` folder that the next try would find, so that a person can look at it, and mend it."""
    if verdict.fingerprint is None:
        return ()
    return KeepFolder(pipe_dir, stage, verdict.fingerprint.key).mounts(tmpdir, sweep=False)
