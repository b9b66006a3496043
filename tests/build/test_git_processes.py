"""How many git processes a build starts: as many for many stages as for few."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def _pipeline(stages: int, source: str) -> str:
    return "".join(
        f"""
        [stage.s{number}]
        source = "{source.format(number)}"
        run = "cp src/{number}/a.txt out/{number}.txt"
        outputs = {{ o = "out/{number}.txt" }}
        """
        for number in range(stages)
    )


def _started(repo, tmp_path: Path, *args: str) -> int:
    """Return how many git processes a command starts."""
    log = tmp_path / "git.log"
    log.write_text("")
    real = shutil.which("git")
    wrapper = repo.write("../bin/git", f'#!/bin/sh\necho "$*" >> "{log}"\nexec {real} "$@"\n', executable=True)
    repo.pipe(*args, env={"PATH": f"{wrapper.parent}:{os.environ['PATH']}"})
    return len(log.read_text().splitlines())


@pytest.mark.parametrize("source", ["src/{}", "."], ids=["a folder each", "the whole workspace"])
def test_more_stages_start_no_more_git_processes(repo, tmp_path, source):
    counts = []
    for stages in (2, 12):
        for number in range(stages):
            repo.write(f"src/{number}/a.txt", f"{stages}\n")
        repo.write("pipeline.toml", _pipeline(stages, source))
        repo.commit(f"{stages} stages")
        repo.pipe("build")  # what is ignored from now on, and what git says of it, is known
        repo.pipe("build")
        counts.append(_started(repo, tmp_path, "build", "--force"))
        assert len(repo.pipe("status", "--json").stages(key="state")) == stages
    assert counts[1] <= counts[0]
