"""Submodules and nested repositories count by the tree that their work tree would commit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipesmith.errors import UserError


@pytest.fixture
def outer(bed, make_repo):
    """A repository with a submodule at `libs/sub`, which has one of its own at `deep`."""
    allow = ["-c", "protocol.file.allow=always"]
    deep = make_repo("deep")
    deep.write("d.py", "deep\n")
    deep.commit()
    sub = make_repo("sub")
    sub.write("s.py", "sub\n")
    sub.write("data/x", "x\n")
    sub.git(*allow, "submodule", "add", "-q", str(deep.path), "deep")
    sub.commit()
    bed.repo.write("libs/own.py", "own\n")
    bed.repo.git(*allow, "submodule", "add", "-q", "--name", "other-name", str(sub.path), "libs/sub")
    bed.repo.git(*allow, "submodule", "update", "-q", "--init", "--recursive")
    bed.repo.commit()
    return bed


def flat_tree(bed, folder: Path, path: str, *without: str) -> str:
    """Return the id of a copy of a folder with nothing of git's in it."""
    copy = bed.repo.home / "flat"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy, symlinks=True, ignore=shutil.ignore_patterns(".git", *without))
    bed.repo.run("git", "init", "-q", str(copy))
    bed.repo.run("git", "-C", str(copy), "add", "-A")
    top = bed.repo.run("git", "-C", str(copy), "write-tree").stdout.strip()
    return bed.repo.run("git", "-C", str(copy), "rev-parse", f"{top}:{path}").stdout.strip()


def test_clean_submodule_is_a_tree_and_the_same_at_the_commit(outer):
    assert outer.source("libs") == flat_tree(outer, outer.path, "libs")
    assert outer.source("libs/sub/data") == flat_tree(outer, outer.path, "libs/sub/data")
    revision = outer.revision()
    for path in (".", "libs", "libs/sub", "libs/sub/deep", "libs/sub/data", "libs/sub/s.py"):
        assert revision.source_id(path) == outer.source(path), path


def test_dirt_in_a_submodule_counts(outer):
    before = outer.source("libs")
    (outer.path / "libs/sub/new.py").write_text("new\n")
    changed = outer.source("libs")
    assert changed == flat_tree(outer, outer.path, "libs") != before
    (outer.path / "libs/sub/deep/d.py").write_text("dirt\n")
    assert outer.source("libs") == flat_tree(outer, outer.path, "libs") != changed


def test_submodule_files_are_given_to_a_stage(outer):
    files = [path for path, _mode in outer.tree().source_files("libs")]
    assert files == [
        "libs/own.py", "libs/sub/.gitmodules", "libs/sub/data/x", "libs/sub/deep/d.py", "libs/sub/s.py",
    ]  # fmt: skip


def test_what_is_left_out_reaches_into_submodules(outer):
    outer.repo.write(".pipeignore", "libs/sub/data\n")
    outer.excluded = frozenset({"libs/sub/deep/d.py"})
    assert outer.source("libs") == flat_tree(outer, outer.path, "libs", "data", "d.py")
    outer.repo.commit()
    assert outer.revision().source_id("libs") == outer.source("libs")


def test_pipeignore_of_a_submodule_counts(outer):
    sub = outer.path / "libs/sub"
    (sub / ".pipeignore").write_text("/data\n")
    expected = flat_tree(outer, outer.path, "libs", "data")
    assert outer.source("libs") == expected
    outer.repo.run("git", "-C", str(sub), "add", "-A")
    outer.repo.run("git", "-C", str(sub), "commit", "-q", "-m", "x")
    outer.repo.commit()
    assert outer.revision().source_id("libs") == expected


def test_submodule_that_is_not_checked_out_is_told(outer, make_bed):
    clone = make_bed(outer.repo.clone())
    with pytest.raises(UserError) as caught:
        clone.source("libs")
    assert caught.value.text == "submodule `libs/sub` is not checked out"
    assert caught.value.help == "run `git submodule update --init -- libs/sub`"
    assert clone.source("libs/own.py") is not None
    with pytest.raises(UserError, match="libs/sub"):
        clone.revision().source_id("libs")
    assert "libs/sub" in clone.tree().input("libs").problem
    assert clone.revision().input("libs").problem is not None


def test_submodule_put_away_is_still_read_at_a_commit(outer):
    before = outer.source("libs")
    outer.repo.git("submodule", "deinit", "-q", "-f", "--all")
    assert outer.revision().source_id("libs") == before


def test_submodule_seen_from_a_bare_clone_beside_its_modules(outer):
    before = outer.source("libs")
    commit = outer.repo.git("rev-parse", "HEAD").stdout.strip()
    outer.repo.git("config", "core.bare", "true")
    bare = outer.revision(commit, path=outer.path / ".git")
    assert bare.source_id("libs") == before


def test_nested_repository_counts_with_or_without_commits(bed, make_repo):
    nested = make_repo("work/tools/nested")
    nested.write("a.py", "a\n")
    nested.write(".gitignore", "*.log\n")
    nested.write("x.log", "ignored\n")
    bed.repo.write("tools/b.py", "b\n")
    expected = flat_tree(bed, bed.path, "tools")
    assert bed.source("tools") == expected
    nested.commit()
    assert bed.source("tools") == expected
    bed.repo.commit()  # the nested one is a gitlink now, without being a submodule
    assert bed.source("tools") == expected
    assert bed.revision().source_id("tools") == expected


def test_nested_repository_without_files_is_nothing(bed, make_repo):
    make_repo("work/tools/nested")
    bed.repo.write("tools/b.py", "b\n")
    assert bed.source("tools") == flat_tree(bed, bed.path, "tools")
    assert bed.source("tools/nested") is None


def test_filters_of_the_nested_repository_apply_in_it(bed, make_repo):
    nested = make_repo("work/nested")
    nested.write(".gitattributes", "* text\n")
    nested.write("a.txt", b"a\r\n")
    bed.repo.write("b.txt", b"a\r\n")
    assert bed.source("nested") == bed.__class__(nested).source(".")
    digest = bed.tree().input("nested/a.txt").digest
    assert digest.size == 2
    assert bed.tree().input("b.txt").digest.size == 3


def test_input_folder_with_a_submodule_is_the_same_at_the_commit(outer):
    found = outer.tree().input("libs")
    assert found.problem is None
    assert found.git == flat_tree(outer, outer.path, "libs")
    assert outer.revision().input("libs") == found
    assert outer.tree().hash_path_id("libs") == outer.revision().hash_path_id("libs") == found.git


def test_git_variables_of_a_hook_do_not_reach_nested_repositories(outer, monkeypatch):
    before = outer.source("libs")
    monkeypatch.setenv("GIT_DIR", ".git")
    monkeypatch.setenv("GIT_INDEX_FILE", ".git/index")
    monkeypatch.setenv("GIT_PREFIX", "")
    assert outer.source("libs") == before
    assert outer.revision().source_id("libs") == before


@pytest.mark.parametrize("broken", ["folder", "file"])
def test_a_broken_submodule_is_as_one_that_is_not_checked_out(outer, broken):
    place = outer.path / "libs/sub/.git"
    place.unlink()
    if broken == "folder":
        place.mkdir()
    else:
        place.write_text("gitdir: nowhere\n")
    with pytest.raises(UserError, match="submodule `libs/sub` is not checked out"):
        outer.source("libs")
    assert outer.source("libs/own.py") is not None
