"""What an executor is to run for a stage: command, variables, and what the stage is given, here or on a far side."""

from __future__ import annotations

import os

from pipesmith.build.command import argv_of
from pipesmith.build.context import BuildContext
from pipesmith.build.keep import KeepFolder
from pipesmith.build.live_log import LiveLog
from pipesmith.build.sandbox import layout_of
from pipesmith.build.sdk_path import sdk_folder
from pipesmith.build.variables import stage_variables, write_context
from pipesmith.executors.base import FAR_HOME, FAR_SIDE, FAR_TMPDIR, FAR_WORKSPACE, Job, Mount, Side
from pipesmith.pipeline.model import Stage
from pipesmith.records import replace

__all__ = ["job_of", "secrets_of"]


def secrets_of(stage: Stage) -> tuple[str, ...]:
    """Return the values that are handed through to a stage, and masked in all that it says."""
    return tuple(os.environ[name] for name in stage.pass_env if os.environ.get(name))


def job_of(
    build: BuildContext,
    stage: Stage,
    *,
    far: bool,
    key: str,
    gpus: tuple[str, ...],
    node: str,
    log_path: str,
    scratch: str,
    tmpdir: str,
    keep: KeepFolder,
    live: LiveLog,
    last: bool,
    interactive: bool = False,
) -> Job:
    """Return the job of one try. far: the executor sees none of this machine's files. key: the stage's fingerprint.
    scratch, tmpdir: folders of this try. live: what it logs through the SDK goes there. last: no other try follows.
    interactive: a person sits at it, who drops no `keep` folder of another fingerprint."""
    given = (
        _far(build, stage, tmpdir, keep, live, sweep=not interactive)
        if far
        else _near(build, stage, tmpdir, keep, live, gpus)
    )
    variables, mounts, sides = given
    layout = layout_of(build, stage)
    return Job(
        run=build.run,
        stage=stage.name,
        argv=argv_of(build, stage),
        cwd=stage.cwd,
        env=variables,
        layout=replace(layout, mounts=(*layout.mounts, *mounts)),
        scratch=scratch,
        log_path=log_path,
        tmpdir=tmpdir,
        sandboxed=stage.sandbox,
        timeout_s=stage.timeout_s,
        grace_s=build.choices.grace_s,
        secrets=secrets_of(stage),
        cpus=stage.resources.cpus,
        memory_bytes=stage.resources.memory_bytes,
        gpus=gpus,
        gpu_count=stage.resources.gpus or 0,
        node=node,
        key=key,
        image=stage.environment if far else None,
        sides=sides,
        last=last,
        interactive=interactive,
    )


_Given = tuple[dict[str, str], tuple[Mount, ...], tuple[Side, ...]]


def _near(
    build: BuildContext, stage: Stage, tmpdir: str, keep: KeepFolder, live: LiveLog, gpus: tuple[str, ...]
) -> _Given:
    """Return the variables of a stage on this machine, and what is mounted besides its inputs."""
    kept = keep.mounts(tmpdir)
    variables = stage_variables(
        build,
        stage,
        tmpdir=tmpdir,
        context_file=write_context(build, stage, tmpdir, live_log=live.log, artifacts=live.files),
        sdk=sdk_folder(),
        gpus=gpus,
        keep=kept[0].path if kept else None,
    )
    return variables, kept, ()


def _far(build: BuildContext, stage: Stage, tmpdir: str, keep: KeepFolder, live: LiveLog, *, sweep: bool) -> _Given:
    """Return the variables of a stage on a far side, and what it has there beside its workspace."""
    names = {name: f"{FAR_SIDE}/{name}" for name in ("context.json", "sdk", "log.jsonl", "files", "keep")}
    kept = keep.folder(sweep=sweep)
    context = write_context(
        build, stage, tmpdir, live_log=names["log.jsonl"], artifacts=names["files"], workspace=FAR_WORKSPACE
    )
    variables = stage_variables(
        build,
        stage,
        tmpdir=FAR_TMPDIR,
        context_file=names["context.json"],
        sdk=names["sdk"],
        gpus=(),
        keep=names["keep"] if kept else None,
        home=FAR_HOME,
    )
    sides = [
        Side(origin=context, place=names["context.json"]),
        Side(origin=sdk_folder(), place=names["sdk"]),
        Side(origin=live.log, place=names["log.jsonl"], back=True, live=True),
        Side(origin=live.files, place=names["files"], back=True, live=True),
    ]
    if kept:
        link = os.path.join(tmpdir, "keep")
        os.symlink(names["keep"], link)
        sides.append(Side(origin=kept, place=names["keep"], back=True))
        sides.append(Side(origin=link, place=f"{FAR_WORKSPACE}/{stage.keep}"))
    return variables, (), tuple(sides)
