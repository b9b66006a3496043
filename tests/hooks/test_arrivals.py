"""`post-checkout`, `post-merge`, `post-rewrite`: outputs that the cache has come with the branch, and nothing is lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Repo

from .conftest import PIPELINE, theirs_ran

CLEAN, MODEL = "data/clean.txt", "data/model.txt"


@pytest.fixture
def two(project: Repo) -> Repo:
    """Branches `main` (1) and `topic` (2), both built; `main` is checked out, all four hooks are installed."""
    project.git("switch", "-q", "-c", "topic")
    project.write("src/a.txt", "2\n")
    project.pipe("build")
    project.commit("built 2")
    project.git("switch", "-q", "main")
    project.pipe("checkout")
    project.pipe("hooks", "install", "--all")
    project.ran()
    assert project.read(CLEAN) == "1\n"
    return project


def test_a_switch_of_branches_brings_outputs(two: Repo) -> None:
    """What the other lock names and the cache has is in place, and said in one line; nothing runs; all is fresh."""
    done = two.git("switch", "topic")
    assert (two.read(CLEAN), two.read(MODEL)) == ("2\n", "2\n1\n")
    assert "pipe: put 2 outputs of pipe.lock into place" in done.stderr
    two.pipe("status", "--check")
    two.git("checkout", "-q", "main")
    assert two.read(CLEAN) == "1\n"
    two.git("checkout", "-q", "--detach", "topic")
    assert two.read(CLEAN) == "2\n"
    assert two.ran() == []
    assert two.git("status", "--porcelain").stdout == ""


def test_nothing_to_do_says_nothing(two: Repo) -> None:
    """A branch with the same lock, and a branch that is where it was."""
    two.git("switch", "-q", "-c", "same")
    two.write("note.txt", "x")
    two.commit("unrelated")
    (two.path / CLEAN).unlink()
    for args in (("switch", "main"), ("switch", "same"), ("checkout", "same")):
        assert "pipe" not in two.git(*args).stderr
    assert not two.exists(CLEAN)


def test_a_checkout_of_files_is_no_switch(two: Repo) -> None:
    two.git("checkout", "topic", "--", "pipe.lock", "src")
    assert two.read(CLEAN) == "1\n"


def test_hand_edited_content_is_left_alone(two: Repo) -> None:
    """An edit by hand stays where it is, through any number of switches; so does one that was put away once."""
    (two.path / MODEL).chmod(0o644)
    two.write(MODEL, "mine\n")
    for branch in ("topic", "main", "topic"):
        done = two.git("switch", branch)
        assert two.read(MODEL) == "mine\n"
    assert two.read(CLEAN) == "2\n" and "put 1 output of" in done.stderr
    kept = two.pipe("checkout")
    assert "mine" not in two.read(MODEL) and "is kept as" in kept.stderr
    digest = kept.stderr.split("is kept as ")[1].split()[0]
    two.write(MODEL, two.pipe("cat", digest).stdout)
    two.git("switch", "-q", "main")
    assert two.read(MODEL) == "mine\n"


def test_what_the_cache_lacks_is_left_out(two: Repo) -> None:
    """Absent objects are skipped without a word, the others come."""
    objects = [
        path for path in (two.pipe_dir / "cache").rglob("*") if path.is_file() and path.read_bytes() == b"2\n1\n"
    ]
    assert objects
    for path in objects:
        path.unlink()
    done = two.git("switch", "topic")
    assert two.read(CLEAN) == "2\n" and two.read(MODEL) == "1\n1\n"
    assert "put 1 output of" in done.stderr and "cache" not in done.stderr
    for path in (two.pipe_dir / "cache/files").rglob("*"):
        if path.is_file():
            path.unlink()
    (two.path / CLEAN).unlink()
    done = two.git("switch", "main")
    assert not two.exists(CLEAN) and "pipe" not in done.stderr


def test_a_merge_and_a_pull(two: Repo) -> None:
    two.git("merge", "-q", "topic")
    assert two.read(CLEAN) == "2\n"
    two.git("reset", "-q", "--hard", "HEAD~1")
    two.pipe("checkout")
    two.git("pull", "-q", "--no-rebase", ".", "topic")
    assert two.read(CLEAN) == "2\n"
    two.git("reset", "-q", "--hard", "HEAD~1")
    two.pipe("checkout")
    two.write("note.txt", "x")
    two.commit("diverged")
    two.git("merge", "-q", "--no-ff", "--no-edit", "topic")
    assert two.read(CLEAN) == "2\n"
    assert two.ran() == []


def test_a_rebase_and_an_amended_commit(two: Repo) -> None:
    """Outputs come at the end of a rebase, once, not at its steps."""
    two.write("one.txt", "x")
    two.commit("one")
    two.write("two.txt", "x")
    two.commit("two")
    done = two.git("rebase", "topic")
    assert two.read(CLEAN) == "2\n" and done.stderr.count("pipe: put") == 1
    done = two.git("rebase", "-i", "--onto", "HEAD~3", "HEAD~2", env={"GIT_SEQUENCE_EDITOR": "true"})
    assert two.read(CLEAN) == "1\n" and done.stderr.count("pipe: put") == 1
    two.git("checkout", "topic", "--", "pipe.lock", "src")
    two.git("commit", "-q", "--amend", "-m", "as on topic")
    assert two.read(CLEAN) == "2\n"
    two.git("switch", "-q", "topic")
    two.git("switch", "-q", "-c", "behind", "main~1")
    assert two.ran() == []


def test_a_rebase_that_only_moves_on(two: Repo) -> None:
    """Nothing is rewritten, so git tells post-checkout alone."""
    two.git("switch", "-q", "-c", "behind")
    two.git("rebase", "-q", "topic")
    assert two.read(CLEAN) == "2\n"


def test_a_new_worktree_and_a_clone_s_first_checkout(two: Repo) -> None:
    """A new worktree has its outputs at once: the cache is the clone's."""
    two.git("worktree", "add", "-q", "../other", "topic")
    assert (two.path.parent / "other" / CLEAN).read_text() == "2\n"
    assert two.read(CLEAN) == "1\n"


def test_every_workspace(two: Repo) -> None:
    """A monorepo: all workspaces of the work tree, from a folder that is none."""
    two.write("sub/pipeline.toml", PIPELINE)
    two.write("sub/src/a.txt", "7\n")
    two.pipe("-C", "sub", "build")
    two.commit("sub")
    two.git("switch", "-q", "-c", "more")
    two.write("sub/src/a.txt", "8\n")
    two.write("src/a.txt", "3\n")
    two.pipe("build")
    two.pipe("-C", "sub", "build")
    two.commit("more")
    (two.path / "docs").mkdir()
    Repo(two.path / "docs", two.home).git("switch", "-q", "main")
    assert (two.read(CLEAN), two.read(f"sub/{CLEAN}")) == ("1\n", "7\n")


def test_what_git_holds_is_git_s(project: Repo) -> None:
    """An output with `cache = false` is not touched, nor is one whose stage is gone from pipeline.toml."""
    toml = PIPELINE.replace(
        'outputs = { model = "data/model.txt" }', '[stage.train.outputs]\nmodel = { path = "m.txt", cache = false }'
    )
    project.write("pipeline.toml", toml)
    project.pipe("build")
    project.commit("built")
    project.pipe("hooks", "install", "--all")
    project.git("switch", "-q", "-c", "topic")
    project.write("src/a.txt", "2\n")
    project.pipe("build")
    project.commit("built 2")
    project.git("rm", "-q", "m.txt")
    project.git("commit", "-q", "-m", "without")
    project.git("switch", "-q", "main")
    assert project.read("m.txt") == "1\n1\n"
    project.git("switch", "-q", "topic")
    assert not project.exists("m.txt") and project.read(CLEAN) == "2\n"


def test_git_never_fails_for_it(two: Repo) -> None:
    """A broken pipeline.toml or lock, an output's folder that is a file: git's command is done, one line says it."""
    two.git("switch", "-q", "topic")
    two.write("pipeline.toml", "[stage.a]\nrnu = 1\n")
    two.commit("broken")
    two.git("switch", "-q", "main")
    done = two.git("switch", "topic")
    assert "post-checkout: pipeline.toml:2: stage.a.rnu: " in done.stderr
    two.git("switch", "-q", "main")
    two.git("switch", "-q", "-c", "markers")
    two.write("pipe.lock", "<<<<<<<\n")
    two.commit("markers")
    two.git("switch", "-q", "main")
    assert "Traceback" not in two.git("switch", "markers").stderr
    assert two.read(CLEAN) == "1\n"


def test_a_hook_by_hand(two: Repo) -> None:
    """`pipe hooks run post-checkout` takes what git gives; --json tells what was put into place."""
    old = two.git("rev-parse", "main").stdout.strip()
    two.git("-c", "core.hooksPath=/dev/null", "switch", "-q", "topic")
    assert two.read(CLEAN) == "1\n"
    new = two.git("rev-parse", "topic").stdout.strip()
    assert two.pipe("hooks", "run", "post-checkout", old, new, "0", "--json").json() == {"placed": [], "notes": []}
    told = two.pipe("hooks", "run", "post-checkout", old, new, "1", "--json").json()
    assert told == {"placed": [CLEAN, MODEL], "notes": []}
    assert two.pipe("hooks", "run", "post-merge", "0", "--json").json()["placed"] == []
    assert two.pipe("hooks", "run", "post-rewrite", "amend", "--json", input=f"{old} {new}\n").returncode == 0


def test_somebody_s_own_hooks_are_chained(two: Repo, own_hook: Callable[..., Path]) -> None:
    """Theirs runs first, and its exit code is git's as before; ours does its work even where theirs fails."""
    two.pipe("hooks", "uninstall")
    paths = [own_hook(f".git/hooks/{name}", code=5) for name in ("post-checkout", "post-rewrite")]
    before = [path.read_bytes() for path in paths]
    two.pipe("hooks", "install", "--all")
    done = two.git("switch", "topic", check=False)
    assert done.returncode != 0 and two.read(CLEAN) == "2\n"
    assert len(theirs_ran(two)) == 1
    old = two.git("rev-parse", "HEAD").stdout.strip()
    two.git("commit", "-q", "--amend", "-m", "x")
    new = two.git("rev-parse", "HEAD").stdout.strip()
    assert theirs_ran(two) == ["amend", f"{old} {new}"]
    two.pipe("hooks", "uninstall")
    assert [path.read_bytes() for path in paths] == before


def test_a_folder_output(two: Repo) -> None:
    two.write(
        "pipeline.toml",
        '[stage.a]\nsource = "src"\nrun = "mkdir -p {outputs.o}/in && cp src/a.txt {outputs.o}/in/ && ln -s in/a.txt {outputs.o}/link"\noutputs = { o = "out" }\n',
    )
    two.pipe("build")
    two.commit("folder")
    two.git("switch", "-q", "-c", "next")
    two.write("src/a.txt", "9\n")
    two.pipe("build")
    two.commit("folder 2")
    two.git("switch", "-q", "main")
    assert two.read("out/in/a.txt") == "1\n" and os.readlink(two.path / "out/link") == "in/a.txt"
    (two.path / "out/in/new.txt").write_text("mine")
    two.git("switch", "-q", "next")
    assert two.read("out/in/a.txt") == "1\n" and two.read("out/in/new.txt") == "mine"
