"""A person in a container: a job with this process's own terminal, by the `docker` command."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from pipesmith.errors import UserError
from pipesmith.executors.base import Job
from pipesmith.executors.docker_attempt import DockerAttempt
from pipesmith.executors.terminal import keys_for_others

if TYPE_CHECKING:
    from pipesmith.executors.docker import DockerExecutor

__all__ = ["run_interactive"]


def run_interactive(executor: DockerExecutor, job: Job) -> int:
    """Run a job with this process's own terminal and return its exit code, 128 + N after signal N.

    Raises UserError without a `docker` command here; EnvironmentFailure where no daemon can be reached."""
    docker = shutil.which("docker")
    if docker is None:
        raise UserError(
            f"`{job.stage}` runs on `{executor.name}`: a shell there takes the `docker` command, which is not on PATH",
            "install it; what a failed stage left lies in `tmp/failed` of pipe's folder as well",
        )
    host = executor.take_host(job, "", lambda: False)
    assert host is not None
    try:
        with DockerAttempt(executor, job, lambda _stream, _line: None).prepared(host) as container:
            return _attached([docker, *host.daemon.flags(), "start", "--attach", "--interactive", container])
    finally:
        executor.give_host(host, job)


def _attached(words: list[str]) -> int:
    """Run a command that has the terminal to itself, Ctrl-C included, and return its exit code."""
    process = subprocess.Popen(words)  # first: it would inherit what is ignored
    with keys_for_others():
        return process.wait()
