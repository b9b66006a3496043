"""Several builds at once in one clone: they wait for each other stage by stage, each action runs once, nobody
deadlocks."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from tests.conftest import Repo

from .conftest import STAGES, Bed, eventually, nobody_left

_PATIENCE_S = 90


def ended(*builds: subprocess.Popen[str]) -> list[tuple[str, str]]:
    """Wait for builds that must end well; return what each printed."""
    found = []
    try:
        for build in builds:
            found.append(build.communicate(timeout=_PATIENCE_S))
    except subprocess.TimeoutExpired:
        for build in builds:
            build.kill()
        pytest.fail("builds wait for each other for ever")
    assert [build.returncode for build in builds] == [0] * len(builds), found
    return found


@pytest.mark.parametrize("count", [2, 4])
def test_in_one_worktree(bed: Bed, count: int) -> None:
    ended(*(bed.repo.start("build", f"-j{1 + number % 3}") for number in range(count)))
    assert bed.repo.ran() == sorted(STAGES)
    bed.check_outputs()
    assert bed.repo.pipe("build", "--json").json()["status"] == "up-to-date"
    assert bed.repo.ran() == []
    assert nobody_left(bed.repo.home) == {}


def test_in_several_worktrees(bed: Bed) -> None:
    bed.repo.commit()
    places = [bed.repo, *(bed.repo.worktree(f"tree{number}") for number in range(3))]
    ended(*(place.start("build") for place in places))
    assert bed.repo.ran() == sorted(STAGES)
    locks = {place.read("pipe.lock") for place in places}
    assert len(locks) == 1, "one source, several lockfiles"
    for place in places:
        bed.check_outputs(place)
        assert place.pipe("status", "--json", "--check").json()["stages"]
    assert bed.repo.ran() == []


def test_again_and_again_in_two_worktrees(bed: Bed) -> None:
    """Edits one after the other, built in both at once: each version's stages run once in total."""
    bed.repo.commit()
    other = bed.repo.worktree("other")
    for version in range(1, 4):
        bed.write(version)
        other.write("pipeline.toml", bed.repo.read("pipeline.toml"))
        ended(bed.repo.start("build", "-j2"), other.start("build", "-j1"), bed.repo.start("build", "-j1"))
        assert bed.repo.ran() == sorted(STAGES)
        bed.check_outputs()
        bed.check_outputs(other)


def _two(order: tuple[str, str]) -> str:
    tables = {
        "x": 'run = "echo x >> $HOME/ran; sleep 0.7; echo x > {outputs.o}"\noutputs = { o = "out/x" }',
        "y": 'run = "echo y >> $HOME/ran; sleep 0.7; echo y > {outputs.o}"\noutputs = { o = "out/y" }',
    }
    return "\n".join(f"[stage.{name}]\n{tables[name]}\n" for name in order)


def test_crossed_stages_with_one_job_each(repo: Repo) -> None:
    repo.write("pipeline.toml", _two(("x", "y")))
    repo.commit()
    other = repo.worktree("other")
    other.write("pipeline.toml", _two(("y", "x")))
    ended(repo.start("build", "-j1"), other.start("build", "-j1"))
    assert repo.ran() == ["x", "y"]
    for place in (repo, other):
        assert (place.read("out/x"), place.read("out/y")) == ("x\n", "y\n")


def test_a_waiting_stage_holds_no_slot_and_names_the_holder(repo: Repo) -> None:
    repo.write(
        "pipeline.toml",
        """
        [stage.long]
        run = "echo long >> $HOME/ran; until [ -e $HOME/go ]; do sleep 0.02; done; echo long > {outputs.o}"
        outputs = { o = "out/long" }
        [stage.short]
        run = "echo short >> $HOME/ran; echo short > {outputs.o}"
        outputs = { o = "out/short" }
        """,
    )
    repo.commit()
    other = repo.worktree("other")
    first = repo.start("build", "long")
    assert eventually((repo.home / "ran").exists)
    with open(repo.home / "said", "w") as said:
        second = subprocess.Popen(
            [*map(str, first.args), "short", "-j1"],  # type: ignore[arg-type]
            cwd=other.path,
            env=other.env,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
    assert eventually((other.path / "out/short").exists), "the waiting stage held the only slot"
    assert eventually(lambda: f"pid {first.pid}" in (repo.home / "said").read_text()), (repo.home / "said").read_text()
    assert second.poll() is None
    (repo.home / "go").touch()
    ended(first)
    assert second.wait(timeout=_PATIENCE_S) == 0
    assert repo.ran() == ["long", "short"]
    assert other.read("out/long") == "long\n"


def test_the_holder_is_killed_while_another_waits(repo: Repo) -> None:
    repo.write(
        "pipeline.toml",
        """
        [stage.long]
        run = "echo long >> $HOME/ran; until [ -e $HOME/go ]; do sleep 0.02; done; echo long > {outputs.o}"
        outputs = { o = "out/long" }
        """,
    )
    repo.commit()
    other = repo.worktree("other")
    first = repo.start("build")
    assert eventually((repo.home / "ran").exists)
    second = other.start("build")
    time.sleep(0.5)
    first.kill()
    first.communicate()
    (repo.home / "go").touch()
    ended(second)
    assert repo.ran() == ["long", "long"]
    assert other.read("out/long") == "long\n"


def test_mutex_words_exclude_across_worktrees(repo: Repo, tmp_path: Path) -> None:
    """Different stages of two builds that share a word: their times do not overlap."""

    def text(name: str) -> str:
        return f"""
        [stage.{name}]
        mutex = ["db"]
        run = "mkdir $HOME/held || touch $HOME/overlap; sleep 0.3; rmdir $HOME/held; echo {name} > {{outputs.o}}"
        outputs = {{ o = "out/{name}" }}
        """

    repo.write("pipeline.toml", text("a"))
    repo.commit()
    other = repo.worktree("other")
    other.write("pipeline.toml", text("b"))
    ended(repo.start("build"), other.start("build"))
    assert not (repo.home / "overlap").exists()
