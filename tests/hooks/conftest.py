"""A built pipeline, a bare repository to push to, and hooks of somebody's own."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Repo, Result, new_repo

PIPELINE = """
[params]
lr = 1

[stage.prepare]
source = "src"
run = "cat src/a.txt > {outputs.clean}; echo prepare >> $HOME/ran"
outputs = { clean = "data/clean.txt" }

[stage.train]
run = "cat {inputs.clean} > {outputs.model}; echo {params.lr} >> {outputs.model}; echo train >> $HOME/ran"
inputs = { clean = "stage:prepare.clean" }
outputs = { model = "data/model.txt" }
"""


@pytest.fixture(scope="session")
def _built_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repo = new_repo(tmp_path_factory.mktemp("hooks"))
    repo.write("pipeline.toml", PIPELINE)
    repo.write("src/a.txt", "1\n")
    repo.pipe("build")
    repo.commit("built")
    repo.git("init", "-q", "--bare", str(repo.path.parent / "remote.git"))
    repo.git("remote", "add", "origin", "../remote.git")
    repo.ran()
    return repo.path.parent


@pytest.fixture
def project(_built_once: Path, tmp_path: Path) -> Repo:
    """A built and committed pipeline (prepare, train) with an empty bare remote, `origin`."""
    shutil.copytree(_built_once, tmp_path / "copy", symlinks=True)
    return Repo(tmp_path / "copy" / "work", tmp_path / "copy" / "home")


@pytest.fixture
def gated(project: Repo) -> Repo:
    """The same with the pre-push hook installed."""
    project.pipe("hooks", "install")
    return project


def make_stale(repo: Repo, text: str = "2\n") -> str:
    """Commit a changed source without building, and return the commit."""
    repo.write("src/a.txt", text)
    return repo.commit("stale")


def push(repo: Repo, *args: str, env: dict[str, str] | None = None) -> Result:
    return repo.git("push", *(args or ("origin", "main")), check=False, env=env)


def refused(done: Result, *words: str) -> str:
    """Assert that the hook refused a push, in our form and with these words; return what was said."""
    assert done.returncode != 0, done.stderr
    assert "error: pre-push: " in done.stderr and "help: " in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    return done.stderr


def passed(done: Result) -> None:
    assert done.returncode == 0, done.stderr
    assert "pre-push" not in done.stderr, done.stderr


def remote_refs(repo: Repo) -> dict[str, str]:
    """Return name to id of what the remote has."""
    lines = repo.git("ls-remote", "origin").stdout.splitlines()
    return {name: identity for identity, name in (line.split("\t") for line in lines) if name != "HEAD"}


@pytest.fixture
def own_hook(project: Repo) -> Callable[..., Path]:
    """Writes a hook of somebody's own that notes that it ran, its arguments and what it is told."""

    def write(path: str | Path, *, code: int = 0, mode: int = 0o755, first: str = "#!/bin/sh") -> Path:
        target = project.path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(
            f'{first}\n# ü, no newline at the end\necho "$@" >> $HOME/theirs\ncat >> $HOME/theirs\nexit {code}'
        )
        target.chmod(mode)
        return target

    return write


def theirs_ran(repo: Repo) -> list[str]:
    """Return the lines that somebody's own hook noted since this was last asked."""
    log = repo.home / "theirs"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


PIPE = Path(sys.executable).parent / "pipe"
