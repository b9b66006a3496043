"""Where the conformance suite runs a stage: this machine in both kinds of sandbox, and Docker daemons of each kind."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.services import docker_services

SERVICES = Path(__file__).resolve().parents[2] / "services" / "docker_services.py"
IMAGE = "pipesmith/python:test"


@dataclass
class Place:
    """A compute. toml: what pipeline.toml says of it and of the environment its stages need. env: for `pipe`."""

    name: str
    toml: str
    env: dict[str, str] = field(default_factory=dict)
    daemon: Path | None = None  # the folder of its Docker daemon

    @property
    def host(self) -> str:
        """Its `host` line, or lines."""
        return self.toml.partition('kind = "docker"\n')[2].partition("\n[environment")[0]

    @property
    def is_far(self) -> bool:
        return self.daemon is not None

    def docker(self, *args: str) -> str:
        """Return what the `docker` command says of its daemon."""
        done = subprocess.run(
            ["docker", *args],
            env={**os.environ, "DOCKER_HOST": f"unix://{self.daemon}/docker.sock", "HOME": str(self.daemon)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout


def service(kind: str) -> Path:
    """Start a service of the session and return its folder. Where it can't be had the test is skipped, with CI it fails."""
    folder = os.environ["PIPESMITH_TEST_SERVICES"]
    if os.geteuid() != 0:
        lacking("Docker daemons are started by root")
    done = subprocess.run(
        [sys.executable, SERVICES, "start", kind, folder], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        lacking(f"no {kind}: {done.stderr[-1500:]}")
    return Path(done.stdout.strip())


def lacking(what: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


def _docker(text: str) -> str:
    return f'[compute.where]\nkind = "docker"\n{text}\n[environment.tools]\nimage = "{IMAGE}"\n'


def tls_url(tls: Path) -> str:
    return f"tcp://127.0.0.1:{(tls / 'port').read_text()}"


def tls_keys(tls: Path) -> str:
    return f'tls = {{ ca = "{tls}/ca.pem", cert = "{tls}/client.pem", key = "{tls}/client-key.pem" }}'


def place_of(kind: str) -> Place:
    if kind in ("namespaces", "copies"):
        toml = '[compute.where]\nkind = "local"\n[environment.tools]\npython = "system"\n'
        return Place(kind, toml, {"PIPE_SANDBOX": kind})
    if kind == "docker":
        unix = service("unix")
        return Place(kind, _docker(f'host = "unix://{unix}/docker.sock"'), daemon=unix)
    if kind == "docker-mapped":
        mapped = service("mapped")
        return Place(kind, _docker(f'host = "unix://{mapped}/docker.sock"'), daemon=mapped)
    if kind == "docker-tls":
        tls = service("tls")
        return Place(kind, _docker(f'host = "{tls_url(tls)}"\n{tls_keys(tls)}'), daemon=tls)
    if kind == "docker-mortal":
        mortal = service("mortal")
        return Place(kind, _docker(f'host = "unix://{mortal}/docker.sock"'), daemon=mortal)
    assert kind == "docker-ssh"
    ssh = service("ssh")
    return Place(kind, _docker('host = "ssh://gpubox"'), daemon=ssh.parent / "tls")


@pytest.fixture(params=["namespaces", "copies", "docker", "docker-tls"])
def place(request: pytest.FixtureRequest, repo: Any) -> Place:
    """Each executor, by its own sandbox."""
    return prepared(place_of(request.param), repo)


@pytest.fixture(params=["namespaces", "copies", "docker"])
def gpu_place(request: pytest.FixtureRequest, repo: Any) -> Place:
    """Each executor, with two GPUs."""
    if request.param == "docker":
        found: Place = request.getfixturevalue("far_gpus")
        return found
    if os.path.exists("/dev/nvidiactl"):
        pytest.skip("this machine's driver counts its GPUs")
    return with_gpus(prepared(place_of(request.param), repo))


@pytest.fixture
def far_gpus(repo: Any) -> Iterator[Place]:
    """A daemon whose machine has two GPUs, as far as it can tell; no other test is given one of them meanwhile."""
    place = prepared(place_of("docker-tls"), repo)
    with open(f"{place.daemon}.gpus", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield with_gpus(place)


def with_gpus(place: Place) -> Place:
    place.toml = place.toml.replace("\n[environment", "\ngpus = 2\n[environment")
    return place


@pytest.fixture(params=["docker", "docker-tls", "docker-ssh"])
def far_place(request: pytest.FixtureRequest, repo: Any) -> Place:
    """Each way to a far side."""
    return prepared(place_of(request.param), repo)


@pytest.fixture(params=["docker", "docker-tls"])
def container_place(request: pytest.FixtureRequest, repo: Any) -> Place:
    """A daemon that shares files with this machine, and one that does not."""
    return prepared(place_of(request.param), repo)


@pytest.fixture
def docker_place(repo: Any) -> Place:
    return prepared(place_of("docker"), repo)


@pytest.fixture
def tls_place(repo: Any) -> Place:
    return prepared(place_of("docker-tls"), repo)


@pytest.fixture(params=["near", "elsewhere"])
def mortal_place(request: pytest.FixtureRequest, repo: Any) -> Iterator[Place]:
    """A daemon for this test alone, on a small disk, which it may kill; it is alive again afterwards. Elsewhere: it
    takes its machine for another one, with which no files are shared."""
    place = prepared(place_of("docker-mortal"), repo)
    assert place.daemon is not None
    with open(f"{place.daemon}.alone", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        docker_services.move(place.daemon, "elsewhere" if request.param == "elsewhere" else None)
        yield place
        if subprocess.run(
            ["docker", "-H", f"unix://{place.daemon}/docker.sock", "version"], capture_output=True
        ).returncode:
            docker_services.revive(place.daemon)
        if left := place.docker("ps", "-aq").split():
            place.docker("rm", "-f", *left)
        if left := place.docker("volume", "ls", "-q").split():  # its disk is small
            place.docker("volume", "rm", "-f", *left)


@pytest.fixture
def registry() -> str:
    """A registry of container images, as HOST:PORT."""
    return f"127.0.0.1:{(service('registry') / 'port').read_text()}"


def prepared(place: Place, repo: Any) -> Place:
    """See to it that `pipe` in a repository can use a place: its ssh reads the configuration of the service."""
    repo.env |= place.env
    if place.name == "docker-ssh":
        wrapper = repo.home / "bin" / "ssh"
        wrapper.parent.mkdir(exist_ok=True)
        config = place.daemon.parent / "ssh" / "config" if place.daemon else ""
        wrapper.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F "{config}" "$@"\n')
        wrapper.chmod(0o755)
        repo.env["PATH"] = f"{wrapper.parent}:{repo.env['PATH']}"
    return place


@pytest.fixture
def pipeline(repo: Any) -> Callable[[Place, str], None]:
    """Writes pipeline.toml: the place's tables, then stages, each of which runs there."""

    def write(place: Place, text: str) -> None:
        stages = textwrap.dedent(text)
        repo.write("pipeline.toml", f'[pipeline]\ncompute = "where"\nenvironment = "tools"\n{place.toml}\n{stages}')

    return write
