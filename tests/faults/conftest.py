"""What the fault tests share: a pipeline with every kind of output, what it must make, and who of its processes still
runs."""

from __future__ import annotations

import hashlib
import json
import os
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Repo

pytest.register_assert_rewrite("faults.conftest")

_TOML = """
    [params]
    v = {version}

    [stage.file]
    source = "src"
    run = "echo file >> $HOME/ran; sleep {pause}; cat src/code > {{outputs.o}}; echo {{params.v}} >> {{outputs.o}}"
    outputs = {{ o = "out/file.txt" }}

    [stage.folder]
    inputs = {{ i = "stage:file.o" }}
    run = '''echo folder >> $HOME/ran; mkdir -p {{outputs.o}}/deep; cat {{inputs.i}} > {{outputs.o}}/deep/a; sleep {pause}
    for n in 1 2 3 4 5 6 7 8; do echo $n {{params.v}} > {{outputs.o}}/$n; done'''
    outputs = {{ o = "out/folder" }}

    [stage.big]
    run = '''echo big >> $HOME/ran; (yes {{params.v}} | head -c {big}) > {{outputs.o}}; sleep {pause}'''
    outputs = {{ o = "out/big.bin" }}

    [stage.plain]
    sandbox = false
    params = ["v"]
    inputs = {{ i = "stage:file.o" }}
    run = '''echo plain >> $HOME/ran; mkdir -p out; echo half > {{outputs.o}}; sleep {pause}; cat {{inputs.i}} {{inputs.i}} > {{outputs.o}}'''
    outputs = {{ o = "out/plain.txt" }}

    [stage.open]
    inputs = {{ d = "stage:folder.o", p = "stage:plain.o" }}
    run = '''echo open >> $HOME/ran; sleep {pause}; cat {{inputs.d}}/* {{inputs.p}} > {{outputs.o}} 2>/dev/null; echo {{params.v}} >> {{outputs.o}}'''
    outputs = {{ o = {{ path = "kept/open.txt", cache = false }} }}
"""
STAGES = ("big", "file", "folder", "open", "plain")
BIG = 1_500_000


class Bed:
    """A repository with the pipeline. version: the param that every stage's fingerprint hangs on."""

    def __init__(self, repo: Repo, *, pause: float = 0.03, big: int = BIG) -> None:
        self.repo = repo
        self.pause = pause
        self.big = big
        self.version = 0

    def write(self, version: int) -> None:
        self.version = version
        self.repo.write("src/code", "code\n")
        self.repo.write("pipeline.toml", _TOML.format(version=version, pause=self.pause, big=self.big))

    def expected(self) -> dict[str, bytes]:
        """Return what each output file must hold."""
        v = f"{self.version}\n"
        file = f"code\n{v}"
        numbers = {f"out/folder/{n}": f"{n} {v}" for n in range(1, 9)}
        plain = file + file
        texts = {
            "out/file.txt": file,
            "out/folder/deep/a": file,
            **numbers,
            "out/plain.txt": plain,
            "kept/open.txt": "".join(numbers.values()) + plain + v,
        }
        found = {path: text.encode() for path, text in texts.items()}
        found["out/big.bin"] = (v.encode() * self.big)[: self.big]
        return found

    def check_outputs(self, repo: Repo | None = None) -> None:
        """Hold that the workspace has the right outputs, and no strangers in their folders."""
        root = (repo or self.repo).path
        expected = self.expected()
        found = {
            str(path.relative_to(root)): path.read_bytes()
            for folder in ("out", "kept")
            for path in (root / folder).rglob("*")
            if not path.is_dir()
        }
        assert sorted(found) == sorted(expected)
        assert [path for path, data in found.items() if data != expected[path]] == []

    def recorded(self) -> set[str]:
        """Return the stages whose result for this version is in the action cache, by the records themselves."""
        found = set[str]()
        for path in (self.repo.pipe_dir / "cache/actions").rglob("*.json"):
            if path.name.startswith("."):
                continue
            body = json.loads(path.read_text())
            if ["param", "v", str(self.version)] in body["items"]:
                found.add(body["stage"])
        return found

    def check_cache(self) -> None:
        """Hold that every object is what its name says."""
        from blake3 import blake3

        for path in (self.repo.pipe_dir / "cache/files/blake3").rglob("*"):
            if path.is_file() and not path.name.startswith(".tmp-"):
                name = f"{path.parent.name}{path.name}".partition(".")[0]
                assert blake3(path.read_bytes()).hexdigest() == name, path

    def check_lock(self) -> None:
        """Hold that pipe.lock is absent or whole."""
        path = self.repo.path / "pipe.lock"
        if path.exists():
            tomllib.loads(path.read_text())


def processes_of(home: Path) -> dict[int, str]:
    """Return the living processes whose HOME is this one: `pipe` itself, its supervisor, and all that stages
    started."""
    mark = f"HOME={home}".encode()
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            environ = Path("/proc", name, "environ").read_bytes()
            if mark in environ.split(b"\0"):
                found[int(name)] = Path("/proc", name, "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


def nobody_left(home: Path, within_s: float = 5.0) -> dict[int, str]:
    """Wait until no process of this HOME is left; return those that are all the same."""
    until = time.monotonic() + within_s
    while (left := processes_of(home)) and time.monotonic() < until:
        time.sleep(0.02)
    return left


def eventually(condition: Callable[[], object], within_s: float = 20.0) -> bool:
    until = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def bed(repo: Repo) -> Bed:
    made = Bed(repo)
    made.write(0)
    return made
