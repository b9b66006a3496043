"""Rule 10: at a revision, judged from git's objects and the lockfile there alone."""

from __future__ import annotations

import shutil

import pytest

TEXT = """
    [stage.a]
    run = "NOTE(a) && cat {inputs.i}/* > {outputs.o}"
    inputs = { i = "data" }
    outputs = { o = "o" }
    [stage.b]
    run = "NOTE(b) && cat {inputs.i} {inputs.j} > {outputs.o}"
    inputs = { i = "o", j = "data/y" }
    outputs = { o = "b" }
"""


@pytest.fixture
def ignored(repo, toml):
    """Stages that read a data folder that git ignores."""
    repo.write("data/x", "1")
    repo.write("data/y", "1")
    repo.write(".gitignore", "/data/\n")
    toml(TEXT)
    repo.pipe("build")
    repo.commit()
    return repo


def states(repo, rev: str = "HEAD") -> dict[str, str]:
    return repo.pipe("status", "--rev", rev, "--json").stages(key="state")


def test_an_input_that_git_does_not_hold(ignored) -> None:
    """It has the digest that the lock's entries give it, though it is not there."""
    assert states(ignored) == {"a": "fresh", "b": "fresh"}
    shutil.rmtree(ignored.path / "data")
    shutil.rmtree(ignored.pipe_dir)
    assert states(ignored) == {"a": "fresh", "b": "fresh"}
    clone = ignored.clone()
    assert states(clone) == {"a": "fresh", "b": "fresh"}


def test_entries_that_disagree(ignored) -> None:
    """Entries that disagree make the stages that read it stale."""
    ignored.write("data/y", "2")
    ignored.pipe("build", "a")
    ignored.commit()
    told = states(ignored)
    assert told["a"] == "fresh"
    ignored.write("pipeline.toml", ignored.read("pipeline.toml").replace('j = "data/y"', 'j = "data"'))
    ignored.commit()
    assert states(ignored)["b"] == "stale"


def test_no_entries(ignored) -> None:
    """None: stale."""
    (ignored.path / "pipe.lock").unlink()
    ignored.commit()
    assert states(ignored) == {"a": "stale", "b": "pending"}
    assert ignored.pipe("status", "--rev", "HEAD", "--check", check=False).returncode == 1


def test_an_input_that_git_holds_counts_by_its_blob(repo, toml) -> None:
    """An input that git does not ignore counts by the bytes git stores for it: the same at a commit."""
    repo.write(".gitattributes", "*.txt text eol=crlf\n")
    repo.write("data.txt", b"1\r\n2\r\n")
    toml("""
        [stage.a]
        run = "NOTE(a) && cat {inputs.i} > {outputs.o}"
        inputs = { i = "data.txt" }
        outputs = { o = "o" }
    """)
    repo.pipe("build")
    repo.commit()
    assert states(repo) == {"a": "fresh"}
    repo.write("data.txt", b"1\r\n3\r\n")
    repo.commit()
    assert states(repo) == {"a": "stale"}


def test_untracked_work_does_not_count_there(repo, chain) -> None:
    """A commit is judged by what is in it: neither the work tree nor untracked files count."""
    repo.pipe("build")
    repo.commit()
    repo.write("a.txt", "2x")
    repo.write("pipeline.toml", "broken = [")
    (repo.path / "pipe.lock").unlink()
    assert states(repo) == {"a": "fresh", "b": "fresh", "c": "fresh"}


def test_a_lock_not_committed_with_its_source(repo, chain) -> None:
    """The lock that counts is that revision's."""
    repo.pipe("build")
    repo.commit()
    repo.write("a.txt", "2x")
    repo.pipe("build")
    repo.git("add", "a.txt")
    repo.git("commit", "-q", "-m", "source only")
    assert states(repo) == {"a": "stale", "b": "pending", "c": "pending"}
    assert repo.pipe("status", "--check").returncode == 0


@pytest.mark.parametrize("rev", ["nope", "HEAD:a.txt", "--foo", ""])
def test_a_revision_that_is_none(repo, chain, rev: str) -> None:
    """A revision that is none is wrong use: exit 2."""
    repo.commit()
    done = repo.pipe("status", f"--rev={rev}", check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_a_commit_without_a_pipeline(repo, toml) -> None:
    """A commit without a pipeline.toml has nothing to judge: exit 2."""
    repo.commit("empty")
    toml("""
        [stage.a]
        run = "true"
    """)
    assert repo.pipe("status", "--rev", "HEAD", check=False).returncode == 2


def test_a_branch_a_tag_and_a_broken_pipeline(repo, chain) -> None:
    """Any name of a commit does; a broken pipeline.toml there is told with its lines."""
    repo.pipe("build")
    repo.commit()
    repo.git("tag", "-a", "v1", "-m", "v1")
    assert states(repo, "v1") == states(repo, "main") == {"a": "fresh", "b": "fresh", "c": "fresh"}
    repo.write("pipeline.toml", "[stage.a]\nrnu = 1\n")
    repo.commit()
    done = repo.pipe("status", "--rev", "HEAD", check=False)
    assert done.returncode == 2 and "pipeline.toml:2" in done.stderr


def test_a_range(repo, chain) -> None:
    """`--rev A..B`: each commit of the range by its own lock; --check fails if one of them is stale."""
    first = repo.commit("no lock")
    repo.pipe("build")
    second = repo.commit("built")
    third = repo.commit("nothing")
    told = repo.pipe("status", "--rev", f"{first}..HEAD", "--check", "--json").json()["commits"]
    assert [entry["revision"] for entry in told] == [second, third]
    assert {stage["state"] for entry in told for stage in entry["stages"]} == {"fresh"}
    repo.write("a.txt", "2x")
    stale = repo.commit("stale")
    repo.pipe("build")
    repo.commit("mended")
    assert repo.pipe("status", "--rev", "HEAD~1..HEAD", "--check").returncode == 0
    done = repo.pipe("status", "--rev", f"{third}..main", "--check", check=False)
    assert done.returncode == 1 and f"commit {stale}" in done.stdout
    assert repo.pipe("status", "--rev", "nope..HEAD", check=False).returncode == 2
    assert repo.pipe("status", "--rev", "HEAD...HEAD", check=False).returncode == 2
