"""`doctor`: what is here, what is not, and what that means."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

from pipesmith import __version__
from pipesmith.errors import PipeError
from pipesmith.executors.gpu import driver_may_be_there, gib
from pipesmith.executors.probe import machine_capacity, probe_namespaces
from pipesmith.git.repository import Repository
from pipesmith.records import as_dict, record
from pipesmith.workspace.workspace import Workspace

__all__ = ["Check", "examine", "sandbox_text"]


@record(kw_only=False)
class Check:
    """ok False: something is less than it could be; the text says what follows."""

    name: str
    ok: bool
    text: str

    def as_json(self) -> dict[str, Any]:
        return as_dict(self)


def examine(folder: str) -> list[Check]:
    """Return what was found, for the machine and for the repository that holds `folder`."""
    return [*_machine(), *_repository(folder)]


def _machine() -> list[Check]:
    found = [Check("pipesmith", True, f"{__version__} on Python {sys.version.split()[0]}, {sys.prefix}")]
    git = shutil.which("git")
    if git is None:
        found.append(Check("git", False, "not on PATH: nothing works without it"))
    else:
        import subprocess

        version = subprocess.run([git, "--version"], capture_output=True, text=True).stdout.split()[2]
        numbers = tuple(int(part) for part in version.split(".")[:2])
        found.append(
            Check("git", numbers >= (2, 30), version if numbers >= (2, 30) else f"{version}: 2.30 or newer is needed")
        )
    found.append(Check("sandbox", probe_namespaces() is None, sandbox_text()))
    capacity = machine_capacity()
    memory = f"{capacity.memory_bytes / 1024**3:.1f}G" if capacity.memory_bytes else "unknown"
    found.append(Check("machine", True, f"{capacity.cpus:g} CPUs, {memory} of memory"))
    found.append(_gpus())
    try:
        from pipesmith.environments.uv import uv_binary

        found.append(Check("uv", True, uv_binary()))
    except PipeError as error:
        found.append(Check("uv", False, f"{error.text}: environments can't be made"))
    from pipesmith.environments.conda import find_conda
    from pipesmith.environments.dockerfiles import buildkit_command

    conda, docker = find_conda(), buildkit_command()
    nothing = "neither micromamba nor mamba nor conda: environments of conda packages can't be made"
    found.append(Check("conda", True, conda.path if conda is not None else nothing))
    classic = "no `docker` command that speaks to BuildKit: a daemon's classic builder is used"
    found.append(Check("dockerfiles", True, f"BuildKit, by {docker[0]}" if docker is not None else classic))
    return found


def _gpus() -> Check:
    if not driver_may_be_there():
        return Check("GPUs", True, "no NVIDIA driver; `[compute.local] gpus = N` declares them")
    from pipesmith.executors.nvml import ask_driver

    driver = ask_driver()
    if driver.gpus is None:
        return Check("GPUs", False, f"{driver.problem}; `[compute.local] gpus = N` declares them")
    told = [f"{gpu.id}: {gpu.name}" + (f", {gib(gpu.memory_bytes)}" if gpu.memory_bytes else "") for gpu in driver.gpus]
    return Check("GPUs", driver.problem is None, "; ".join([*told, *([driver.problem] if driver.problem else [])]))


def sandbox_text() -> str:
    """Return which sandbox stages of a build get here, and why."""
    wanted = os.environ.get("PIPE_SANDBOX", "auto")
    if wanted == "copies":
        return "copies, since PIPE_SANDBOX asks for them"
    problem = probe_namespaces()
    return "namespaces: inputs are mounted read-only" if problem is None else f"copies, since {problem}"


def _repository(folder: str) -> list[Check]:
    try:
        repo = Repository.discover(os.path.realpath(folder))
    except PipeError as error:
        return [Check("repository", False, error.text)]
    kind = "bare" if repo.is_bare else "worktree" if repo.git_dir != repo.common_dir else "clone"
    found = [Check("repository", True, f"{repo.top} ({kind}, {repo.object_format})")]
    pipe = os.path.join(repo.common_dir, "pipe")
    writable = os.access(pipe if os.path.isdir(pipe) else repo.common_dir, os.W_OK)
    found.append(
        Check("cache", writable, pipe if writable else f"`{pipe}` can't be written: nothing can be built here")
    )
    if os.path.isdir(pipe):
        free = shutil.disk_usage(pipe).free
        found.append(Check("disk", free > 1 << 30, f"{free / 1e9:.1f} GB free"))
        found.append(_links(pipe))
    found.append(_hooks(repo))
    try:
        workspace = Workspace.open(folder)
        pipeline = workspace.session().pipeline
        count = len(pipeline.stages)
        found.append(Check("pipeline", True, f"`{pipeline.name}`: {count} stage{'s' if count != 1 else ''}"))
        for notice in workspace.state.notices:
            found.append(Check("state.db", False, notice))
    except PipeError as error:
        first, *others = error.findings()
        where = f"{first.file}:{first.line}: " if first.line else f"{first.file}: " if first.file else ""
        more = f" (and {len(others)} more: `pipe status` tells all)" if others else ""
        found.append(Check("pipeline", False, f"{where}{first.text}{more}"))
    return found


def _hooks(repo: Repository) -> Check:
    from pipesmith.git.drivers import installed_drivers
    from pipesmith.git.hook_scripts import program_of
    from pipesmith.workspace.hooks import installed_hooks

    drivers = installed_drivers(repo)
    with_drivers = f"; drivers of pipe.lock: {', '.join(drivers)}" if drivers else ""
    hooks = installed_hooks(repo)
    if not hooks:
        return Check(
            "hooks", True, f"none installed; `pipe hooks install` has stale lockfiles refused at a push{with_drivers}"
        )
    programs = (program_of(hook.path) for hook in hooks if not hook.by_itself)
    gone = [program for program in programs if program is not None and not os.access(program, os.X_OK)]
    if gone:
        return Check("hooks", False, f"they start `{gone[0]}`, which is gone: run `pipe hooks install`")
    folders = dict.fromkeys(os.path.dirname(hook.path) for hook in hooks)
    return Check("hooks", True, f"{', '.join(hook.name for hook in hooks)} in {', '.join(folders)}{with_drivers}")


def _links(pipe: str) -> Check:
    from pipesmith.store.links import reflink
    from pipesmith.store.modes import make_folders

    tmp = os.path.join(pipe, "tmp")
    make_folders(tmp)
    one, other = os.path.join(tmp, "probe-1"), os.path.join(tmp, "probe-2")
    try:
        with open(one, "wb") as file:
            file.write(b"x")
        if reflink(one, other, 0o600):
            return Check("links", True, "reflinks")
        os.link(one, other)
        return Check("links", True, "hard links (no reflinks on this file system)")
    except OSError:
        return Check("links", False, "neither reflinks nor hard links: outputs are copied")
    finally:
        for path in (one, other):
            if os.path.lexists(path):
                os.unlink(path)
