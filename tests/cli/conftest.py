"""What tests of commands share: a small pipeline, built and committed once, and copied for each test."""

from __future__ import annotations

import json
import os
import select
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Repo, Result, new_repo

PIPELINE = """
[pipeline]
name = "small"

[params]
seed = 1
train = { lr = 0.1 }

[stage.prepare]
source = "src"
run = "echo preparing; cat src/numbers.txt > {outputs.clean}; echo {params.seed} >> {outputs.clean}; echo prepare >> $HOME/ran"
outputs = { clean = "data/clean.txt" }

[stage.train]
matrix = { k = ["1", "two words"] }
run = "mkdir {outputs.model} && cat {inputs.clean} > {outputs.model}/all && echo {matrix.k} {params.train.lr} > {outputs.model}/k; echo train >> $HOME/ran"
inputs = { clean = "stage:prepare.clean" }
outputs = { model = "models/{matrix.k}" }

[stage.report]
run = "ls -R {inputs.models}/ > {outputs.list}; echo '{{\\"auc\\": 0.75, \\"n\\": 2}}' > {outputs.numbers}; echo report >> $HOME/ran"
inputs = { models = "stage:train@*.model" }
metrics = ["numbers"]
[stage.report.outputs]
list = "list.txt"
numbers = { path = "numbers.json", cache = false }
"""


@pytest.fixture(scope="session")
def _built_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repo = new_repo(tmp_path_factory.mktemp("built"))
    repo.write("pipeline.toml", PIPELINE)
    repo.write("src/numbers.txt", "10\n20\n")
    repo.commit("first")
    repo.pipe("build")
    repo.commit("built")
    repo.ran()
    return repo.path.parent


@pytest.fixture
def project(_built_once: Path, tmp_path: Path) -> Repo:
    """A built and committed pipeline: prepare, train (two cells), report."""
    shutil.copytree(_built_once, tmp_path / "copy", symlinks=True)
    return Repo(tmp_path / "copy" / "work", tmp_path / "copy" / "home")


def failed(result: Result, code: int = 2) -> str:
    """Return what a command said on stderr that ended as it should, with a message in our form and no traceback."""
    assert result.returncode == code, (result.stdout, result.stderr)
    assert "Traceback" not in result.stdout + result.stderr
    lines = result.stderr.splitlines()
    assert lines, "it says nothing"
    return result.stderr


def refused(repo: Repo, *args: str, env: dict[str, str] | None = None) -> str:
    """Run a command that is wrong use: exit 2, nothing on stdout, a lower-case line and a line of help, and as JSON the
    same.

    Returns what it said.
    """
    done = repo.pipe(*args, check=False, env=env)
    said = failed(done)
    assert done.stdout == ""
    lines = said.splitlines()
    text = lines[0].rpartition(": ")[2] if not lines[0].startswith("error: ") else lines[0].removeprefix("error: ")
    assert not text[:1].isupper() and not lines[0].endswith("."), said
    assert any(line.startswith("help: ") for line in lines), said
    told = repo.pipe("--json", *args, check=False, env=env)
    assert told.returncode == 2
    error = told.json()["error"]
    assert set(error) == {"kind", "messages"} and error["kind"] in ("user", "config")
    for message in error["messages"]:
        assert set(message) == {"file", "line", "key", "text", "help"}
    assert any(message["text"] in said for message in error["messages"])
    return said


def on_terminal(repo: Repo, *args: str, env: dict[str, str] | None = None, timeout_s: float = 60.0) -> tuple[int, str]:
    """Run `pipe` on a terminal of its own and return its exit code and all that it wrote."""
    import pty

    environment = {**repo.env, "TERM": "xterm-256color", "PIPE_TEST": "1", **(env or {})}
    if "NO_COLOR" not in (env or {}):
        environment.pop("NO_COLOR", None)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(repo.path)
        os.execve(sys.executable, [sys.executable, "-m", "pipesmith", *args], environment)
    written = b""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        ready, _, _ = select.select([terminal], [], [], 0.2)
        if ready:
            try:
                data = os.read(terminal, 1 << 16)
            except OSError:
                break
            if not data:
                break
            written += data
    os.close(terminal)
    _pid, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), written.decode(errors="replace")


def one_document(text: str) -> Any:
    """Return the JSON of a text that holds one document and nothing else."""
    return json.loads(text)
