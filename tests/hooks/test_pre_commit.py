"""The pre-commit framework: our hook in its configuration, and both installed beside each other. The real program."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import ROOT, Repo

from .conftest import make_stale, passed, push, refused, theirs_ran


@pytest.fixture
def hooks_repo(project: Repo) -> Path:
    """A repository with what pre-commit takes from ours: its manifest."""
    there = Repo(project.path.parent / "pipesmith", project.home)
    there.path.mkdir()
    there.git("init", "-q", "-b", "main")
    shutil.copy(ROOT / ".pre-commit-hooks.yaml", there.path)
    there.commit("manifest")
    return there.path


def configure(repo: Repo, hooks_repo: Path, more: str = "language: system") -> None:
    rev = repo.git("-C", str(hooks_repo), "rev-parse", "HEAD").stdout.strip()
    repo.write(
        ".pre-commit-config.yaml",
        f"repos:\n- repo: {hooks_repo}\n  rev: {rev}\n  hooks:\n  - id: pipe-pre-push\n    {more}\n",
    )
    repo.commit("pre-commit")


def pre_commit(repo: Repo, *args: str, check: bool = True) -> subprocess.CompletedProcess[str] | object:
    return repo.run("pre-commit", *args, check=check)


def test_a_push_with_pre_commit(project: Repo, hooks_repo: Path) -> None:
    """The first push with a root commit, later ones, and a stale tip."""
    configure(project, hooks_repo)
    pre_commit(project, "install", "--hook-type", "pre-push")
    assert push(project).returncode == 0
    project.write("note.txt", "x")
    project.commit("unrelated")
    done = push(project)
    assert done.returncode == 0 and "Passed" in done.stderr + done.stdout
    bad = make_stale(project)
    done = push(project)
    said = done.stdout + done.stderr
    assert done.returncode != 0 and "error: pre-push: refs/heads/main: pipe.lock of " in said and bad[:10] in said
    assert "source `src` changed" in said and "--no-verify" in said
    project.git("switch", "-q", "-c", "topic")
    assert push(project, "origin", "topic").returncode != 0
    assert push(project, "origin", "HEAD~1:refs/heads/x").returncode == 0
    assert push(project, "origin", ":x").returncode == 0
    assert push(project, "--no-verify", "origin", "topic").returncode == 0


def test_a_first_push_that_is_stale(project: Repo, hooks_repo: Path) -> None:
    """Of a push that begins with a root commit, pre-commit tells no ids, only the branch."""
    configure(project, hooks_repo)
    make_stale(project)
    pre_commit(project, "install", "--hook-type", "pre-push")
    done = push(project)
    assert done.returncode != 0 and "error: pre-push: refs/heads/main" in done.stdout + done.stderr


@pytest.mark.parametrize("first", ["pipe", "pre-commit"])
def test_beside_each_other(project: Repo, hooks_repo: Path, own_hook: Callable[..., Path], first: str) -> None:
    """Installed in either order, and again: both run, somebody's own hook as well; each comes off cleanly."""
    own = own_hook(".git/hooks/pre-push")
    before = own.read_bytes()
    configure(project, hooks_repo)
    installs = {
        "pipe": lambda: project.pipe("hooks", "install"),
        "pre-commit": lambda: pre_commit(project, "install", "--hook-type", "pre-push"),
    }
    second = "pre-commit" if first == "pipe" else "pipe"
    for name in (first, second, second, first):
        installs[name]()
    done = push(project)
    assert done.returncode == 0, done.stderr
    assert theirs_ran(project)[0] == "origin ../remote.git"
    assert "bug" not in done.stdout + done.stderr
    make_stale(project)
    done = push(project)
    assert done.returncode != 0
    assert (done.stdout + done.stderr).count("source `src` changed") >= 2  # told by both
    assert theirs_ran(project)[0] == "origin ../remote.git"
    assert "pre-push" in {hook["name"] for hook in project.pipe("hooks", "install", "--json").json()["hooks"]}
    if first == "pipe":
        pre_commit(project, "uninstall", "--hook-type", "pre-push")
        refused(push(project))
        project.pipe("hooks", "uninstall")
    else:
        project.pipe("hooks", "uninstall")
        pre_commit(project, "uninstall", "--hook-type", "pre-push")
    assert own.read_bytes() == before
    passed(push(project))
    left = {path.name for path in (project.path / ".git/hooks").iterdir()}
    assert left == {"pre-push"}


@pytest.mark.slow
def test_as_pre_commit_installs_it(project: Repo, tmp_path: Path) -> None:
    """With an environment that pre-commit makes from this project, as `try-repo` and a real push run it."""
    there = Repo(tmp_path / "pipesmith", project.home)
    there.path.mkdir()
    for name in ("engine", "pyproject.toml", "README.md", "LICENSE", "constraints.txt", ".pre-commit-hooks.yaml"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, there.path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, there.path / name)
    there.git("init", "-q", "-b", "main")
    there.commit("all")
    project.env["PATH"] = f"{tmp_path / 'bin'}:/usr/bin:/bin"
    (tmp_path / "bin").mkdir()
    for name in ("pre-commit", "python3"):
        found = shutil.which(name, path=Repo(project.path, project.home).env["PATH"])
        assert found is not None
        (tmp_path / "bin" / name).symlink_to(found)
    bad = make_stale(project)
    refs = ("--from-ref", "HEAD~1", "--to-ref", bad)
    done = project.run(
        "pre-commit", "try-repo", str(there.path), "pipe-pre-push", "--hook-stage", "pre-push", *refs, check=False
    )
    assert done.returncode == 1 and "source `src` changed" in done.stdout, done.stdout + done.stderr
    configure(project, there.path, "verbose: false")
    project.run("pre-commit", "install", "--hook-type", "pre-push")
    done = push(project)
    assert done.returncode != 0 and "source `src` changed" in done.stdout + done.stderr
    assert push(project, "origin", "HEAD~2:refs/heads/good").returncode == 0
