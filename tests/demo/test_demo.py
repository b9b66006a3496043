"""This repository's own pipeline: what is committed is what a build of a fresh clone makes."""

from __future__ import annotations

import importlib.util
import json
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHOWN = ("pipeline.toml", ".pipeignore", "pipe.lock", "metrics.json", ".gitignore")
MODELS = ("bayes-0.001", "bayes-0.1", "neighbours-1", "neighbours-5", "tree-12", "tree-6")


@pytest.fixture
def fresh(repo: Any) -> Any:
    """A repository with the pipeline's own files and nothing built."""
    for name in SHOWN:
        shutil.copy(ROOT / name, repo.path / name)
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(ROOT / "stages", repo.path / "stages", ignore=ignored)
    repo.commit("the pipeline")
    return repo


def test_the_committed_lockfile_is_fresh_by_git_alone(fresh: Any) -> None:
    """Nobody changed a stage or a param without building: judged at the commit, with nothing built."""
    result = fresh.pipe("status", "--rev", "HEAD", "--check", check=False)
    assert result.returncode == 0, result.stdout


def test_a_fresh_clone_makes_what_is_committed(fresh: Any) -> None:
    """The lockfile and the metrics come out byte for byte, the second build has nothing to do."""
    first = fresh.pipe("build", "--json")
    stages = ["prepare", "evaluate", "report", *(f"train@{model}" for model in MODELS)]
    assert first.stages() == dict.fromkeys(stages, "ran")
    assert fresh.git("status", "--porcelain").stdout == ""
    assert fresh.pipe("build", "--json").json()["status"] == "up-to-date"
    metrics = json.loads(fresh.read("metrics.json"))
    assert set(metrics["models"]) == set(MODELS)
    assert f"**{metrics['best']}**" in fresh.read("reports/report.md")


@pytest.fixture(scope="module")
def picture() -> ModuleType:
    spec = importlib.util.spec_from_file_location("picture", ROOT / "stages/evaluate/picture.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_is_a_png_of_the_counts(picture: ModuleType, tmp_path: Path) -> None:
    counts = [[0] * 10 for _ in range(10)]
    counts[3][3], counts[3][5] = 100, 25
    picture.write_confusion(tmp_path / "c.png", counts)
    side, rows = _grey_png((tmp_path / "c.png").read_bytes())
    assert side == 10 * picture.CELL
    middle = picture.CELL // 2

    def shade(true: int, said: int) -> int:
        return rows[true * picture.CELL + middle][said * picture.CELL + middle]

    assert (shade(3, 3), shade(3, 5), shade(5, 3)) == (0, 127, 255)


def _grey_png(data: bytes) -> tuple[int, list[bytes]]:
    """Return the side and the rows of a square 8-bit grey PNG, its checksums checked."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, at = {}, 8
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack_from(">I", data, at + 8 + size) == (zlib.crc32(kind + body),)
        chunks[kind] = body
        at += 12 + size
    width, height, depth, colour = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    assert (width == height, depth, colour) == (True, 8, 0)
    raw = zlib.decompress(chunks[b"IDAT"])
    return width, [raw[row * (width + 1) + 1 : (row + 1) * (width + 1)] for row in range(height)]


# -- hooks/pre-push ------------------------------------------------------------------------------------------


@pytest.fixture
def push(repo: Any) -> Callable[[], subprocess.CompletedProcess[str]]:
    """Runs hooks/pre-push as git does when the current commit is pushed, with the `pipe` of this checkout on PATH."""
    repo.write("pipeline.toml", '[stage.a]\nrun = "echo 1 > {outputs.o}"\noutputs = { o = "o.txt" }\n')

    def run() -> subprocess.CompletedProcess[str]:
        commit = repo.git("rev-parse", "HEAD").stdout.strip()
        return subprocess.run(
            [str(ROOT / "hooks/pre-push"), "origin", "git@example.com:x"],
            cwd=repo.path,
            env=repo.env,
            input=f"refs/heads/main {commit} refs/heads/main {'0' * 40}\n",
            capture_output=True,
            text=True,
        )

    return run


def test_pre_push_lets_a_built_pipeline_through(repo: Any, push: Callable[[], Any]) -> None:
    repo.pipe("build")
    repo.commit()
    assert push().returncode == 0


def test_pre_push_refuses_a_stale_lockfile(repo: Any, push: Callable[[], Any]) -> None:
    repo.pipe("build")
    repo.write("pipeline.toml", '[stage.a]\nrun = "echo 2 > {outputs.o}"\noutputs = { o = "o.txt" }\n')
    repo.commit()
    refused = push()
    assert refused.returncode == 1
    assert "is stale" in refused.stderr


def test_pre_push_asks_nothing_of_a_repository_that_was_never_built(repo: Any, push: Callable[[], Any]) -> None:
    repo.commit()
    assert push().returncode == 0


def test_pre_push_says_when_there_is_no_pipe(repo: Any, push: Callable[[], Any]) -> None:
    repo.commit()
    repo.env["PATH"] = "/usr/bin:/bin"
    passed = push()
    assert (passed.returncode, "nothing was checked" in passed.stderr) == (0, True)
