"""What can be known to fail before anything runs: what this version does not do, what this machine has not, what is not
there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterable, Sequence

from pipesmith.build.place import check_inside
from pipesmith.errors import ConfigError, Finding, UserError
from pipesmith.pipeline.keys import COMPUTE_KINDS
from pipesmith.pipeline.model import Environment, InputMode, OriginKind, Pipeline, Stage
from pipesmith.pipeline.units import memory_text
from pipesmith.workspace.session import Session

__all__ = ["preflight", "preflight_conda", "preflight_gpus", "preflight_notebooks"]


def preflight(
    session: Session,
    stages: Sequence[Stage],
    fresh: Collection[str] = (),
    may_run: Callable[[str], bool] = lambda _name: True,
) -> None:
    """Raise ConfigError with everything that would fail for certain, for the stages that a build looks at.

    fresh: names of those that are, and so ask no compute, whatever has become of it. may_run: whether a stage, by its
    name, is not known to be fresh or restorable; asked of those for which this machine has too little."""
    lacking = {stage.name: found for stage in stages if (found := list(_resources(session, stage)))}
    resources = [each for name, found in lacking.items() if may_run(name) for each in found]
    findings = [*_unsupported(session, stages, fresh), *resources, *_ways(session)]
    if findings:
        raise ConfigError(findings)


def preflight_gpus(session: Session, stages: Iterable[Stage]) -> None:
    """Raise ConfigError where stages that may have to run ask for GPUs that this machine's driver does not count. It is
    asked for no others: waking it can take a second."""
    findings = [each for stage in stages for each in _gpus(session, stage)]
    if findings:
        raise ConfigError(findings)


def _finding(session: Session, key: str, text: str, help: str | None = None) -> Finding:
    return Finding(file=session.pipeline.file, line=session.line(key), key=key, text=text, help=help)


def _unsupported(session: Session, stages: Iterable[Stage], fresh: Collection[str]) -> Iterable[Finding]:
    pipeline = session.pipeline
    said: set[str] = set()

    def once(key: str, text: str, help: str | None = None) -> Iterable[Finding]:
        if key not in said:
            said.add(key)
            yield _finding(session, key, text, help)

    for stage in stages:
        kind = pipeline.computes[stage.compute].kind
        environment = pipeline.environments.get(stage.environment or "")
        if kind == "docker":
            yield from _container(session, stage, environment)
        elif kind != "local":
            if stage.name not in fresh:
                yield from once(
                    f"compute.{stage.compute}.kind",
                    f"this version does not run stages on {_told_kind(kind)} (needed by `{stage.name}`)",
                    'run it here: `compute = "local"`',
                )
        elif environment is not None and (environment.image or environment.dockerfile):
            yield from once(
                f"environment.{environment.name}.{'image' if environment.image else 'dockerfile'}",
                f"an image needs a compute that runs containers, and `{stage.name}` runs on `{stage.compute}`",
                'give it a `compute` of `kind = "docker"`',
            )
        for name, given in stage.inputs.items():
            if given.mode is InputMode.STREAM:
                yield from once(f"stage.{stage.base}.inputs.{name}", 'this version does not do `mode = "stream"`')
            if given.origin.kind is OriginKind.DATASET:
                yield from _dataset(session, given.origin.dataset, stage.name, once)
        for name, output in stage.outputs.items():
            if output.to is not None:
                yield from _place(session, output.to, f"stage.{stage.base}.outputs.{name}", once)
        if stage.transfer is not None:
            yield from _place(session, stage.transfer.source, f"stage.{stage.base}.transfer.from", once)
            yield from _place(session, stage.transfer.target, f"stage.{stage.base}.transfer.to", once)
    if pipeline.cache.remote is not None and pipeline.cache.push == "build":
        yield from once("cache.push", "this version has no shared cache yet: it can't push")
    for key in pipeline.history:
        yield from once(f"history.{key}", f"this version does not mirror runs to `{key}`")


def _container(session: Session, stage: Stage, environment: Environment | None) -> Iterable[Finding]:
    """What a stage lacks to run in a container."""
    key = f"stage.{stage.base}"
    if stage.transfer is not None:
        return
    if environment is None or environment.python == "system":
        yield _finding(
            session,
            f"{key}.environment",
            f"`{stage.name}` runs in a container on `{stage.compute}`, and has no environment to make one of",
            "give it one with `packages` or an `image`",
        )
    if not stage.sandbox:
        yield _finding(
            session, f"{key}.sandbox", "a container has no workspace to run in", "take `sandbox = false` out"
        )


def _told_kind(kind: str) -> str:
    if kind in COMPUTE_KINDS:
        return f"`{kind}`"
    from pipesmith.executors.plugins import installed_kinds

    return f"`{kind}` of the package `{installed_kinds()[kind]}`"


def _place(session: Session, text: str, key: str, once) -> Iterable[Finding]:  # type: ignore[no-untyped-def]
    """A place of data that is not of files."""
    from pipesmith.data.places import place_of

    try:
        place_of(text, session.pipeline.datastores, session.workspace.root)
    except UserError as error:
        yield from once(key, error.text, error.help)


def _dataset(session: Session, name: str, stage: str, once) -> Iterable[Finding]:  # type: ignore[no-untyped-def]
    from pipesmith.data.places import scheme_of

    dataset = session.pipeline.datasets[name]
    if dataset.query is not None:
        yield from once(f"dataset.{name}.query", f"this version does not read SQL datastores (needed by `{stage}`)")
        return
    for source in dataset.sources:
        scheme = scheme_of(source, session.pipeline.datastores)
        if scheme != "file":
            yield from once(f"dataset.{name}.from", f"this version does not read `{scheme}` (needed by `{stage}`)")


def preflight_notebooks(session: Session, stages: Iterable[Stage]) -> None:
    """Raise ConfigError for notebook stages that may run, and lack papermill or a kernel. Environments are resolved by
    now."""
    findings: dict[str, Finding] = {}
    for stage in stages:
        key = f"stage.{stage.base}.notebook"
        if stage.notebook is None or key in findings:
            continue
        fault = _notebook_fault(session, stage, stage.notebook)
        if fault is not None:
            findings[key] = _finding(session, key, *fault)
    if findings:
        raise ConfigError(list(findings.values()))


def preflight_conda(session: Session, stages: Iterable[Stage]) -> None:
    """Raise ConfigError for stages that are to run here in an environment of conda packages which is not built, where
    nothing here could build it. Environments are resolved by now."""
    for stage in stages:
        environment = session.pipeline.environments.get(stage.environment or "")
        if environment is None or not environment.conda or session.pipeline.computes[stage.compute].kind != "local":
            continue
        from pipesmith.environments.conda import need_conda
        from pipesmith.environments.materialise import environment_key, environments_folder, is_whole

        pin = session.pins.environment_pin(environment)
        if pin is None or not is_whole(os.path.join(environments_folder(), environment_key(pin))):
            with session.pins.located(environment.name):
                need_conda(f"environment `{environment.name}`")


def _notebook_fault(session: Session, stage: Stage, notebook: str) -> tuple[str, str] | None:
    """Return what a notebook needs and its environment lacks, and what to do. What an image holds shows when it
    runs."""
    from pipesmith.build.notebook import missing_kernel, missing_packages, path_python

    text = session.read_file(notebook)
    if text is None:
        return None  # told where sources are looked at
    environment = session.pipeline.environments[stage.environment] if stage.environment is not None else None
    pin = python = None
    if environment is None:
        python = path_python()
    elif environment.python == "system":
        python = sys.executable
    else:
        pin = session.pins.environment_pin(environment)
        if pin is None or pin.image:
            return None
    lacking = missing_packages(text, pin=pin, python=python)
    if lacking:
        listed = " and ".join(f"`{name}`" for name in lacking)
        return f"its environment lacks {listed}, and notebooks need that", _remedy(stage.environment, lacking)
    if python is not None:
        from pipesmith.build.variables import inherited_variables

        kernel = missing_kernel(text, python, {**inherited_variables(), **stage.env})
        if kernel is not None:
            help = "`jupyter kernelspec list` shows those that are: install it, or choose another one in Jupyter"
            return f"its kernel `{kernel}` is not installed", help
    return None


def _remedy(environment: str | None, lacking: Sequence[str]) -> str:
    if environment is None:
        return f"run `pip install {' '.join(lacking)}`, or give the stage an environment that has it"
    return f"add it to [environment.{environment}], or run `pip install {' '.join(lacking)}` where that is the system's"


def _resources(session: Session, stage: Stage) -> Iterable[Finding]:
    """What a stage asks for that this machine does not have."""
    asked = stage.resources
    if not asked.raw or session.pipeline.computes[stage.compute].kind != "local":
        return
    from pipesmith.executors.machine import machine_capacity

    capacity = session.computes.here(stage.compute)
    where = "this machine" if capacity == machine_capacity() else f"`{stage.compute}`"
    key = f"stage.{stage.base}.resources"
    if asked.cpus is not None and asked.cpus > capacity.cpus:
        yield _finding(
            session,
            f"{key}.cpus",
            f"`{stage.name}` asks for {asked.cpus:g} CPUs, {where} has {capacity.cpus:g}",
        )
    if asked.memory_bytes and capacity.memory_bytes and asked.memory_bytes > capacity.memory_bytes:
        have = memory_text(capacity.memory_bytes)
        yield _finding(
            session,
            f"{key}.memory",
            f"`{stage.name}` asks for {asked.raw.get('memory')} of memory, {where} has {have}",
        )
    if not session.computes.has_driver:
        yield from _gpus(session, stage)


def _gpus(session: Session, stage: Stage) -> Iterable[Finding]:
    asked = stage.resources
    pool = session.computes.gpu_pool(stage.compute) if asked.gpus else None
    more = pool.too_much(asked.gpus, asked.gpu_memory_bytes) if pool is not None else None
    if more is not None:
        key = f"stage.{stage.base}.resources.{more[0]}"
        yield _finding(session, key, f"`{stage.name}` asks for {more[1]}", more[2])


def _ways(session: Session) -> Iterable[Finding]:
    """Outputs whose folder is, or lies behind, a symbolic link: out of the workspace, or to where git asks by another
    name. What else is named by its path, where it, or a link on the way, leads out."""
    root = session.workspace.root
    for key, path in _named(session.pipeline):
        try:
            check_inside(root, f"{path}/")
        except UserError as error:
            yield _finding(session, key, error.text, error.help)
    straight = {""}  # folders with no link on the way
    for stage in session.pipeline.stages.values():
        for name, output in stage.outputs.items():
            folder = output.path.rpartition("/")[0]
            if folder in straight:
                continue
            if os.path.realpath(os.path.join(root, folder)) == os.path.join(root, folder):
                straight.add(folder)
                continue
            key = f"stage.{stage.base}.outputs.{name}"
            try:
                check_inside(root, output.path)
            except UserError as error:
                yield _finding(session, key, error.text, error.help)
                continue
            real = os.path.relpath(os.path.realpath(os.path.join(root, folder)), os.path.realpath(root))
            if real != folder:
                path = os.path.normpath(os.path.join(real, os.path.basename(output.path)))
                yield _finding(session, key, f"`{output.path}` goes through a symbolic link", f"name it `{path}`")


def _named(pipeline: Pipeline) -> Iterable[tuple[str, str]]:
    """Yield (key, path) of what pipeline.toml names besides sources, inputs and outputs."""
    for path in pipeline.params_files:
        yield "pipeline.params-files", path
    for name, environment in pipeline.environments.items():
        for key, file in (("requirements", environment.requirements), ("dockerfile", environment.dockerfile)):
            if file is not None:
                yield f"environment.{name}.{key}", file
    for stage in pipeline.stages.values():
        for key, place in (("cwd", stage.cwd), ("keep", stage.keep), ("notebook", stage.notebook)):
            if place not in (None, "."):
                yield f"stage.{stage.base}.{key}", place
