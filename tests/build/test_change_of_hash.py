"""`[cache] hash` is changed in a workspace that was built: what stays under the other hash is as good as ever."""

from __future__ import annotations

import os
import shutil

import pytest
from tests.conftest import Repo

PIPELINE = """
    [cache]
    hash = "HASH"
    [stage.a]
    run = "NOTE(a) && mkdir {outputs.d} && echo 1 > {outputs.d}/x && echo 2 > {outputs.o}"
    outputs = { o = "o", d = "d" }
    KEYS
    [stage.b]
    run = "NOTE(b) && cat {inputs.d}/x {inputs.o} {inputs.i} > {outputs.x}"
    inputs = { d = "stage:a.d", o = "stage:a.o", i = "in" }
    outputs = { x = "x" }
"""
FRESH = {"a": "fresh", "b": "fresh"}
CHANGES = pytest.mark.parametrize(("before", "after"), [("blake3", "md5"), ("md5", "blake3")])


@pytest.fixture
def built(repo, toml, before: str) -> Repo:
    repo.write("in", "i\n")
    toml(PIPELINE.replace("HASH", before).replace("KEYS", ""))
    repo.pipe("build")
    repo.commit()
    assert repo.ran() == ["a", "b"]
    return repo


def states(repo: Repo) -> dict[str, str]:
    return repo.pipe("status", "--json").stages(key="state")


@CHANGES
def test_a_frozen_stage_keeps_its_result_and_feeds_others(built, toml, after: str) -> None:
    """frozen: never runs; its locked outputs are used, restored, and put right, whatever the hash is by now."""
    toml(PIPELINE.replace("HASH", after).replace("KEYS", "frozen = true"))
    assert built.pipe("build", "--json").stages() == {"a": "fresh", "b": "ran"}
    assert built.ran() == ["b"] and states(built) == FRESH
    assert built.pipe("build", "--json").json()["status"] == "up-to-date"
    assert built.pipe("verify", "--full").returncode == 0
    shutil.rmtree(built.path / "d")
    built.write("o", "mine\n")
    built.write("in", "j\n")
    done = built.pipe("build", "--json")
    assert done.stages() == {"a": "restored", "b": "ran"} and built.read("x") == "1\n2\nj\n"
    (kept,) = [line for line in done.stderr.splitlines() if "is kept as" in line]
    assert built.pipe("cat", kept.rpartition(" ")[2]).stdout == "mine\n"
    shutil.rmtree(built.path / "d")
    built.pipe("checkout")
    assert built.read("d/x") == "1\n" and states(built) == FRESH


@CHANGES
def test_a_stage_that_is_left_alone_feeds_others(built, toml, after: str) -> None:
    """--since limits to what differs from REV."""
    toml(PIPELINE.replace("HASH", after).replace("KEYS", ""))
    built.write("in", "j\n")
    assert built.pipe("build", "--since", "HEAD", "--json").stages()["b"] == "ran"
    assert built.ran() == ["b"] and built.read("x") == "1\n2\nj\n"


@CHANGES
def test_what_the_lock_has_is_no_edit(repo, toml, before: str, after: str) -> None:
    """An output edited by hand is put away and named; one that is as locked is not."""
    text = """
        [cache]
        hash = "HASH"
        [stage.a]
        run = "date +%s.%N > {outputs.o}"
        outputs = { o = "o" }
    """
    toml(text.replace("HASH", before))
    repo.pipe("build")
    first = repo.read("o")
    toml(text.replace("HASH", after))
    done = repo.pipe("build")
    assert repo.read("o") != first and "is kept as" not in done.stdout + done.stderr


@CHANGES
def test_a_pinned_dataset_is_still_what_it_was(repo, toml, before: str, after: str) -> None:
    """A pin that holds is read by the hash by which it was made."""
    repo.write("../outside/1", "1\n")
    text = """
        [cache]
        hash = "HASH"
        [dataset.numbers]
        from = "../outside/*"
        [stage.a]
        run = "NOTE(a) && cat {inputs.n}/* > {outputs.o}"
        inputs = { n = "dataset:numbers" }
        outputs = { o = "o" }
    """
    toml(text.replace("HASH", before))
    repo.pipe("build")
    toml(text.replace("HASH", after))
    repo.pipe("build")
    assert repo.ran() == ["a", "a"] and states(repo) == {"a": "fresh"}


@pytest.mark.parametrize("before", ["md5"])
@pytest.mark.parametrize("edit", ["link", "folder"])
def test_an_edit_that_dvcs_format_can_not_hold(built, edit: str) -> None:
    """Content that only exists in the workspace is never destroyed, and hinders nobody."""
    if edit == "link":
        os.symlink("x", built.path / "d/new")
    else:
        (built.path / "d/new").mkdir()
    assert states(built) == {"a": "restorable", "b": "fresh"}
    done = built.pipe("build", "--json")
    assert done.stages() == {"a": "restored", "b": "fresh"} and built.ran() == []
    (kept,) = [line for line in done.stderr.splitlines() if "is kept as" in line]
    assert "new" in built.pipe("cat", kept.rpartition(" ")[2]).stdout
    assert os.listdir(built.path / "d") == ["x"]
