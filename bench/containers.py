"""Stages in containers against what the `docker` command does with the same bytes.

Daemons of the bench's own, those of the tests: one on a unix socket, one over TCP with TLS. They need root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.graphs import commit
from bench.measure import Command, Figures, alternate, environment, run_once
from bench.tools import ROOT, Tools

__all__ = ["Daemons", "Load", "Sent", "bytes_sent", "daemons", "results_back", "sending", "trivial_stage"]

_SERVICES = ROOT / "tests/services/docker_services.py"
_RELAY = ROOT / "bench/relay.py"
_IMAGE = "pipesmith/python:test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemons:
    """unix: a socket. tls: a folder with `port` and keys."""

    unix: str
    tls: Path

    def far(self, *words: str) -> list[str]:
        """Return a `docker` command for the daemon over TLS."""
        keys = [f"--tlscacert={self.tls}/ca.pem", f"--tlscert={self.tls}/client.pem"]
        return ["docker", "-H", self.far_url, "--tlsverify", *keys, f"--tlskey={self.tls}/client-key.pem", *words]

    @property
    def far_url(self) -> str:
        return f"tcp://127.0.0.1:{(self.tls / 'port').read_text()}"

    @property
    def far_toml(self) -> str:
        keys = f'ca = "{self.tls}/ca.pem", cert = "{self.tls}/client.pem", key = "{self.tls}/client-key.pem"'
        return f'host = "{self.far_url}"\ntls = {{ {keys} }}\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is sent: one large file and many of a kilobyte."""

    bytes: int
    files: int

    def __str__(self) -> str:
        return f"{self.bytes / 1e6:g} MB and {self.files:,} files"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """Bytes to the daemon of a stage whose input is new to it, and of a second one with the same input."""

    first: int
    second: int


@contextmanager
def daemons(work: Path) -> Iterator[Daemons | None]:
    """Start the daemons for the time of a `with`; None, and a line that says why, where they can't be had."""
    folder = work / "services"
    try:
        if os.geteuid() != 0:
            raise RuntimeError("Docker daemons are started by root")
        found = [_started(kind, folder) for kind in ("unix", "tls")]
    except RuntimeError as error:
        print(f"bench: stages in containers are left out: {error}", file=sys.stderr)
        yield None
        return
    try:
        yield Daemons(unix=f"unix://{found[0]}/docker.sock", tls=found[1])
    finally:
        subprocess.run([sys.executable, _SERVICES, "stop", folder], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _started(kind: str, folder: Path) -> Path:
    done = subprocess.run(
        [sys.executable, str(_SERVICES), "start", kind, str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise RuntimeError(lines[-1] if lines else f"no {kind}")
    return Path(done.stdout.strip())


def trivial_stage(tools: Tools, found: Daemons, rounds: int) -> dict[str, Figures]:
    """A stage that writes a word, and a bare `docker run` of its image that does, also with the network that the stage
    has, its machine's, which costs less than one of its own."""
    repo = _repo(
        tools, "container", f'host = "{found.unix}"\n', 'run = "echo 1 > {outputs.o}"\noutputs = { o = "o" }\n'
    )
    run_once(tools.command("pipe", repo), environment())
    run, what = ["docker", "-H", found.unix, "run", "--rm"], [_IMAGE, "/bin/sh", "-c", "echo 1 > o"]
    figures = alternate(
        {
            "pipe": tools.command("pipe", repo, "--force", "-q"),
            "docker run": Command(args=[*run, *what], cwd=repo),
            "docker run --network host": Command(args=[*run, "--network", "host", *what], cwd=repo),
        },
        rounds=rounds,
    )
    shutil.rmtree(repo)
    return figures


def sending(tools: Tools, found: Daemons, load: Load, rounds: int) -> dict[str, Figures]:
    """A build whose input is new to the far daemon, the same build when it has it, and `docker cp` of the input."""
    repo = _repo(tools, "sending", found.far_toml, _READS)
    _lay_out(repo / "data", load)
    run_once(tools.command("pipe", repo), environment())
    edits = iter(range(1000))

    def edit() -> None:
        (repo / "data/0").write_text(f"{next(edits)}\n")

    def empty() -> None:
        subprocess.run(found.far("rm", "-f", "bench-copy"), capture_output=True, check=False)
        subprocess.run(found.far("create", "--name", "bench-copy", _IMAGE, "none"), capture_output=True, check=True)

    build = tools.command("pipe", repo, "--force", "-q")
    figures = alternate(
        {
            "first": Command(args=build.args, cwd=repo, before=edit),
            "again": build,
            "docker cp": Command(args=found.far("cp", "data", "bench-copy:/data"), cwd=repo, before=empty),
        },
        rounds=rounds,
    )
    subprocess.run(found.far("rm", "-f", "bench-copy"), capture_output=True, check=False)
    shutil.rmtree(repo)
    return figures


def bytes_sent(tools: Tools, found: Daemons, load: Load) -> Sent:
    """Count what goes to a daemon: of a build whose input is new to it, then of another stage that reads the same."""
    repo = _repo(tools, "counted", "", _READS)
    _lay_out(repo / "data", load)
    socket, counted = tools.work / "relay.sock", tools.work / "relay.count"
    relay = subprocess.Popen([sys.executable, str(_RELAY), str(socket), found.unix, str(counted)])
    try:
        host = f'host = "unix://{socket}"\n'
        _write(repo, host, _READS)
        run_once(tools.command("pipe", repo), environment())
        first = int(counted.read_text())
        _write(repo, host, _READS.replace("ls", "ls -l"))
        run_once(tools.command("pipe", repo), environment())
        return Sent(first=first, second=int(counted.read_text()) - first)
    finally:
        relay.terminate()
        relay.wait()
        shutil.rmtree(repo)


def results_back(tools: Tools, found: Daemons, load: Load, rounds: int) -> dict[str, Figures]:
    """A build whose output is large, one that makes as much but keeps it, and `docker cp` of the output."""
    repos = {}
    for name, place in (("out", "{outputs.o}"), ("kept", "/tmp/kept")):
        text = _MAKES % {"place": place, "bytes": load.bytes, "files": load.files}
        repos[name] = _repo(tools, f"results-{name}", found.far_toml, text)
        run_once(tools.command("pipe", repos[name]), environment())
    made = subprocess.run(
        found.far("create", "--name", "bench-made", _IMAGE, "none"), capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        raise RuntimeError(made.stderr)
    subprocess.run(found.far("cp", str(repos["out"] / "out"), "bench-made:/out"), capture_output=True, check=True)

    def remove() -> None:
        shutil.rmtree(repos["out"] / "copy", ignore_errors=True)

    figures = alternate(
        {
            "out": tools.command("pipe", repos["out"], "--force", "-q"),
            "kept": tools.command("pipe", repos["kept"], "--force", "-q"),
            "docker cp": Command(args=found.far("cp", "bench-made:/out", "copy"), cwd=repos["out"], before=remove),
        },
        rounds=rounds,
    )
    subprocess.run(found.far("rm", "-f", "bench-made"), capture_output=True, check=False)
    for repo in repos.values():
        shutil.rmtree(repo)
    return figures


_READS = 'run = "ls data > {outputs.o}"\ninputs = { d = "data" }\noutputs = { o = "o" }\n'
_MAKES = (
    'run = "mkdir -p %(place)s out && cd %(place)s && head -c %(bytes)d /dev/urandom > large && '
    'for n in $(seq %(files)d); do echo $n > $n; done"\noutputs = { o = "out" }\n'
)


def _repo(tools: Tools, name: str, host: str, stage: str) -> Path:
    repo = tools.work / name
    shutil.rmtree(repo, ignore_errors=True)
    repo.mkdir()
    (repo / ".gitignore").write_text("/o\n/out/\n/data/\n/copy/\n")
    _write(repo, host, stage)
    commit(repo)
    return repo


def _write(repo: Path, host: str, stage: str) -> None:
    head = f'[pipeline]\ncompute = "there"\nenvironment = "tools"\n[environment.tools]\nimage = "{_IMAGE}"\n'
    (repo / "pipeline.toml").write_text(f'{head}[compute.there]\nkind = "docker"\n{host}[stage.a]\n{stage}')


def _lay_out(folder: Path, load: Load) -> None:
    folder.mkdir()
    (folder / "large").write_bytes(os.urandom(load.bytes))
    for number in range(load.files - 1):
        (folder / str(number)).write_bytes(os.urandom(1024))
