"""A look that trusts an earlier one, and is told which files changed, finds what a new look finds."""

from __future__ import annotations

import os
import random

import pytest

from .conftest import Bed

_FOLDERS = ["", "a", "a/b", "a/b/c", "d"]


@pytest.fixture
def full(bed: Bed) -> Bed:
    for folder in _FOLDERS:
        for name in ("x", "y.txt", "z"):
            bed.repo.write(os.path.join(folder, name), f"{folder} {name}\n")
    bed.repo.write("a/untracked", "not added\n")
    bed.repo.write("ignored/x", "1\n")
    bed.repo.write(".gitignore", "/ignored\n")
    bed.repo.git("add", "a/x", "a/b", "d", "x")
    bed.repo.git("commit", "-qm", "x")
    (bed.path / "d/link").symlink_to("x")
    return bed


@pytest.mark.parametrize("seed", range(12))
def test_it_finds_what_a_new_look_finds(full: Bed, seed: int) -> None:
    dice = random.Random(seed)
    tree = full.tree()
    paths = [os.path.join(folder, name) for folder in _FOLDERS for name in ("x", "y.txt", "z")] + ["a/untracked"]
    for _ in range(4):
        for folder in dice.sample([*_FOLDERS[1:], "."], 3):
            tree.source_id(folder)  # what was never asked for can't be trusted either
        changed = dice.sample(paths, dice.randint(0, 4))
        for path in changed:
            if dice.random() < 0.3:
                (full.path / path).chmod(0o755 if dice.random() < 0.5 else 0o644)
            else:
                (full.path / path).write_text(f"{dice.random()}\n")
        renewed = tree.renewed(changed)
        assert renewed is not None
        new = full.tree()
        for folder in [".", *_FOLDERS[1:]]:
            assert renewed.source_id(folder) == new.source_id(folder) == full.would_commit(folder.strip("."))
            assert renewed.hash_path_id(folder) == new.hash_path_id(folder)
            assert renewed.source_files(folder) == new.source_files(folder)
            assert renewed.input(folder) == new.input(folder)
        for path in paths:
            assert renewed.source_id(path) == new.source_id(path)
            assert renewed.seen_stamp(path) == new.seen_stamp(path)
        tree = renewed


def test_what_was_trusted_is_left_as_it_is(full: Bed) -> None:
    tree = full.tree()
    before = tree.source_id("a")
    (full.path / "a/x").write_text("another\n")
    renewed = tree.renewed(["a/x"])
    assert renewed is not None
    assert renewed.source_id("a") != before
    assert tree.source_id("a") == before
    renewed.flush()
    assert full.tree().source_id("a") == renewed.source_id("a")


def test_what_cannot_be_trusted(full: Bed) -> None:
    """A file that is gone or none any more, one that was not listed; filters; nested repositories."""
    tree = full.tree()
    tree.source_id(".")
    (full.path / "a/x").unlink()
    assert tree.renewed(["a/x"]) is None
    (full.path / "a/x").mkdir()
    assert tree.renewed(["a/x"]) is None
    (full.path / "a/x").rmdir()
    (full.path / "a/x").symlink_to("y.txt")
    assert tree.renewed(["a/x"]) is None
    assert tree.renewed(["a/new"]) is None
    assert tree.renewed([]) is not None
    full.repo.write(".gitattributes", "*.txt text=auto\n")
    filtered = full.tree()
    filtered.source_id(".")
    assert filtered.renewed([]) is None
    (full.path / ".gitattributes").unlink()
    full.repo.run("git", "init", "-q", "nested")
    full.repo.write("nested/x", "1\n")
    full.repo.run("git", "-C", "nested", "add", "-A")
    full.repo.run("git", "-C", "nested", "commit", "-qm", "x")
    nested = full.tree()
    nested.source_id(".")
    assert nested.renewed([]) is None


def test_nothing_was_asked_yet(full: Bed) -> None:
    assert full.tree().renewed([]) is None
