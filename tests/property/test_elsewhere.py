"""Random pipelines, each commit built by `--rev`: outputs and lock entries are, byte for byte, those that a new clone
makes with a checkout and a build; and nothing of the user's changes.

PIPESMITH_SEEDS="7 8 9" runs these seeds only; a failure prints its seed and all that was done.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Repo

from .history import History

_SEEDS = [int(word) for word in os.environ.get("PIPESMITH_SEEDS", "").split()]
_EDITS = (
    "write_source",
    "drop_source",
    "flip_mode",
    "link_source",
    "write_data",
    "change_param",
    "add_stage",
    "remove_stage",
    "change_stage",
    "fail_stage",
    "mend_stages",
    "forget_lock",
)


def _content(root: Path, outputs: list[str]) -> dict[str, Any]:
    """Return path to content of all that lies at outputs' paths."""
    found: dict[str, Any] = {}
    for path in outputs:
        top = root / path
        for each in [top, *sorted(top.rglob("*"))] if top.is_dir() else [top]:
            name = str(each.relative_to(root))
            if each.is_symlink():
                found[name] = ("link", os.readlink(each))
            elif each.is_file():
                found[name] = ("file", each.read_bytes(), bool(each.stat().st_mode & 0o100) and each != top)
    return found


def _build(repo: Repo, history: History, *args: str) -> dict[str, tuple[str, Any]]:
    done = repo.pipe("build", "-k", *args, "--json", check=False, env=history.env)
    assert done.returncode in (0, 1), done.stderr
    return {
        stage["name"]: (stage["status"], sorted((out["path"], out["hash"]) for out in stage["outputs"]))
        for stage in done.json()["stages"]
    }


def _same(repo: Repo, history: History, number: int, commit: str) -> None:
    history.told.append(f"build {commit[:8]} by --rev, in a clone, and in a work tree")
    before = repo.git("status", "--porcelain", "--ignored").stdout, _content(repo.path, ["out", "kept", "pipe.lock"])
    elsewhere = _build(repo, history, "--rev", commit)
    after = repo.git("status", "--porcelain", "--ignored").stdout, _content(repo.path, ["out", "kept", "pipe.lock"])
    assert before == after
    repo.ran()
    clone = repo.clone(f"clone-{number}")
    clone.git("checkout", "-q", "--detach", commit)
    built = _build(clone, history)
    for name, (status, outs) in built.items():
        there, those = elsewhere[name]
        assert (there in ("ran", "restored", "fresh")) == (status in ("ran", "restored", "fresh")), (
            name,
            there,
            status,
        )
        if status in ("ran", "restored", "fresh"):
            assert those == outs, name
    repo.ran()
    work = repo.worktree(f"tree-{number}", commit)
    again = _build(work, history)
    assert {name: outs for name, (status, outs) in again.items() if status != "failed"} == {
        name: outs for name, (status, outs) in built.items() if status != "failed"
    }
    good = {name for name, (status, _outs) in built.items() if status in ("ran", "restored", "fresh")}
    failed = {name for name, (status, _outs) in again.items() if status == "failed"}
    assert set(repo.ran()) <= failed, "what --rev built runs again"
    assert {name for name, (status, _outs) in again.items() if status in ("ran", "restored", "fresh")} == good
    assert (work.path / "pipe.lock").exists() == (clone.path / "pipe.lock").exists()
    if (clone.path / "pipe.lock").exists():
        assert work.read("pipe.lock") == clone.read("pipe.lock")
    outputs = [path for name in good for path, _hash in built[name][1]]
    assert _content(work.path, outputs) == _content(clone.path, outputs)
    repo.git("worktree", "remove", "--force", str(work.path))
    shutil.rmtree(clone.path)
    assert len(repo.git("worktree", "list").stdout.splitlines()) == 1


def live(repo: Repo, seed: int, steps: int) -> None:
    history = History(repo, seed)
    rng = history.rng
    try:
        for number in range(steps):
            for _ in range(rng.randint(1, 4)):
                told = getattr(history, rng.choice(_EDITS))()
                history.told.append(str(told))
            repo.commit(f"edit {number}")
            history.commits.append(repo.git("rev-parse", "HEAD").stdout.strip())
            if rng.random() < 0.4:
                _build(repo, history)
                repo.git("add", "-f", "pipe.lock", ".gitignore") if repo.exists("pipe.lock") else None
                history.told.append("build, commit the lock")
                repo.commit(f"lock {number}")
                history.commits.append(repo.git("rev-parse", "HEAD").stdout.strip())
            repo.ran()
            _same(repo, history, number, rng.choice(history.commits[-3:]))
    except AssertionError as error:
        pytest.fail("\n".join([*history.told, "", str(error)]), pytrace=True)


@pytest.mark.parametrize("seed", _SEEDS or range(3))
def test_commits_elsewhere(repo: Repo, seed: int) -> None:
    live(repo, seed, 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2000, 2100))
def test_many_commits_elsewhere(repo: Repo, seed: int) -> None:
    live(repo, seed, 5)
