"""Builds in places of their own, in every kind of repository that git has."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.conftest import Repo, new_repo

from .conftest import Looks, two_stages


def _both(repo: Repo, revision: str = "HEAD") -> None:
    """Build a commit, then the work tree as an experiment; nothing of the user's changes."""
    looks = Looks(repo)
    assert repo.pipe("build", "--rev", revision, "--json").stages() == {"a": "ran", "b": "ran"}
    assert repo.pipe("build", "--experiment", "e", "--set", "lr=9", "--json").stages()["b"] == "ran"
    looks.same()


def test_a_worktree(two: Repo) -> None:
    other = two.worktree()
    _both(other)
    assert len(two.git("worktree", "list").stdout.splitlines()) == 2
    two.ran()
    assert two.pipe("build", "--json").stages() == {"a": "restored", "b": "restored"}


def test_a_subfolder_of_a_repository_with_several_workspaces(repo: Repo) -> None:
    repo.write(".gitattributes", "*.crlf text eol=crlf\n")
    for name in ("one", "two [x]"):
        repo.write(f"{name}/pipeline.toml", two_stages(repo))
        repo.write(f"{name}/src/word", f"{name}\n")
        repo.write(f"{name}/src/text.crlf", "a\nb\n")
    repo.write("elsewhere/huge", "not checked out\n")
    repo.commit()
    for name in ("one", "two [x]"):
        looks = Looks(repo)
        done = repo.pipe("-C", name, "build", "--rev", "HEAD", "--json")
        assert done.stages() == {"a": "ran", "b": "ran"}
        looks.same()
        run = repo.pipe("-C", name, "show", done.json()["run"], "--json").json()
        assert (run["workspace"], run["dirty"]) == (name, False)
        repo.ran()
        assert repo.pipe("-C", name, "build", "--json").stages() == {"a": "restored", "b": "restored"}
        assert repo.ran() == []
        assert repo.read(f"{name}/out/b.txt") == f"{name}\n1\n"
    inner = Repo(repo.path / "one" / "src", repo.home)
    assert inner.pipe("build", "--rev", "HEAD", "--json").json()["status"] in ("up-to-date", "succeeded")


def test_a_workspace_that_is_not_on_disk(two: Repo) -> None:
    two.git("checkout", "-q", "--orphan", "other")
    two.git("rm", "-rfq", ".")
    two.write("readme", "r\n")
    two.commit("other")
    assert two.pipe("build", "--rev", "main", "--json").stages() == {"a": "ran", "b": "ran"}
    assert not two.exists("pipeline.toml")


def test_a_bare_repository(two: Repo) -> None:
    bare = Repo(two.path.parent / "bare.git", two.home)
    two.git("clone", "-q", "--bare", str(two.path), str(bare.path))
    for command in (("build", "--rev", "HEAD"), ("build", "--rev", "main", "--set", "lr=2")):
        assert two.pipe("-C", str(bare.path), *command, "--json").stages()["b"] == "ran"
    assert two.ran() == ["a", "b", "b"]
    assert list((bare.path / "pipe" / "tmp").glob("place-*")) == []
    assert not (bare.path / "worktrees").exists()
    for wrong in (("build",), ("build", "--experiment", "e")):
        assert two.pipe("-C", str(bare.path), *wrong, check=False).returncode == 2


def test_a_bare_repository_of_a_subfolder(repo: Repo) -> None:
    repo.write("sub/pipeline.toml", two_stages(repo))
    repo.write("sub/src/word", "w\n")
    repo.commit()
    repo.git("clone", "-q", "--bare", ".", "../bare.git")
    assert repo.pipe("-C", "../bare.git", "build", "--rev", "main", "--json").stages() == {"a": "ran", "b": "ran"}
    repo.write("more/pipeline.toml", two_stages(repo))
    repo.commit()
    repo.git("push", "-q", "../bare.git", "main")
    said = repo.pipe("-C", "../bare.git", "build", "--rev", "main", check=False)
    assert said.returncode == 2
    assert "more/pipeline.toml, sub/pipeline.toml" in said.stderr


def test_sha256(tmp_path: Path) -> None:
    repo = new_repo(tmp_path)
    shutil.rmtree(repo.path / ".git")
    repo.git("-c", "init.templateDir=", "init", "-q", "-b", "main", "--object-format=sha256")
    repo.write("pipeline.toml", two_stages(repo))
    repo.write("src/word", "w\n")
    repo.commit()
    _both(repo)


def test_a_shallow_clone(two: Repo) -> None:
    two.write("src/word", "two\n")
    two.commit("second")
    first = two.git("rev-parse", "HEAD~1").stdout.strip()
    two.git("clone", "-q", "--depth=1", f"file://{two.path}", "../shallow")
    shallow = Repo(two.path.parent / "shallow", two.home)
    _both(shallow)
    for args in (["build", "--rev", first], ["status", "--rev", first], ["what-if", "--merge", first]):
        said = shallow.pipe(*args, check=False)
        assert said.returncode == 2
        assert "this clone is shallow" in said.stderr
    two.git("checkout", "-q", "-b", "side", first)
    two.write("src/word", "side\n")
    two.commit("side")
    shallow.git("fetch", "-q", "--depth=1", "origin", "side")
    said = shallow.pipe("what-if", "--merge", "FETCH_HEAD", check=False)
    assert said.returncode == 2
    assert "no common history" in said.stderr and "this clone is shallow" in said.stderr


def test_a_sparse_clone(two: Repo) -> None:
    two.write("other/x", "x\n")
    two.commit()
    for setting in ("false", "true"):
        two.git("config", "extensions.worktreeConfig", setting)
        two.git("sparse-checkout", "set", "--cone", "other")
        assert not two.exists("src")
        looks = Looks(two)
        done = two.pipe("build", "--rev", "HEAD", "--json")
        assert set(done.stages().values()) == ({"ran"} if setting == "false" else {"restored"})
        looks.same()
        assert two.git("sparse-checkout", "list").stdout == "other\n"
        two.git("sparse-checkout", "disable")


def test_a_partial_clone_fetches_what_it_lacks(two: Repo) -> None:
    two.git("config", "uploadpack.allowFilter", "true")
    two.write("src/word", "two\n")
    two.commit("second")
    two.git("clone", "-q", "--filter=blob:none", f"file://{two.path}", "../partial")
    partial = Repo(two.path.parent / "partial", two.home)
    assert partial.pipe("build", "--rev", "HEAD~1", "--json").stages() == {"a": "ran", "b": "ran"}
    two.write("src/word", "three\n")
    two.commit("third")
    partial.git("fetch", "-q")
    two.path.rename(two.path.parent / "gone")
    looks = Looks(partial)
    said = partial.pipe("build", "--rev", "origin/main", check=False)
    assert said.returncode == 1
    assert "error: " in said.stderr and "help: " in said.stderr and "Traceback" not in said.stderr
    looks.same()


def _with_submodule(repo: Repo) -> str:
    inner = new_repo(repo.path.parent, "inner")
    inner.write("word", "inner\n")
    inner.commit("inner")
    repo.write(
        "pipeline.toml",
        two_stages(repo).replace('source = "src"', 'source = "src/sub"').replace("src/word", "src/sub/word"),
    )
    repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner.path), "src/sub")
    repo.commit("with a submodule")
    return str(inner.path)


def test_a_submodule_as_source(repo: Repo) -> None:
    _with_submodule(repo)
    _both(repo)
    repo.ran()
    assert repo.pipe("build", "--json").stages() == {"a": "restored", "b": "restored"}
    repo.write("src/sub/word", "changed inside\n")
    repo.write("src/sub/more", "untracked inside\n")
    looks = Looks(repo)
    assert repo.pipe("build", "--experiment", "e", "--json").stages() == {"a": "ran", "b": "ran"}
    looks.same()
    assert repo.pipe("build", "--json").stages() == {"a": "restored", "b": "restored"}
    assert repo.read("out/b.txt") == "changed inside\n1\n"


def test_a_submodule_at_an_older_commit_and_one_that_is_not_here(repo: Repo) -> None:
    inner = _with_submodule(repo)
    old = repo.git("rev-parse", "HEAD").stdout.strip()
    repo.write("src/sub/word", "newer\n")
    sub = Repo(repo.path / "src" / "sub", repo.home)
    sub.commit("newer")
    repo.commit("moved on")
    repo.git("submodule", "--quiet", "deinit", "-f", "src/sub")
    assert repo.pipe("build", "--rev", old, "--json").stages() == {"a": "ran", "b": "ran"}
    repo.git("clone", "-q", ".", "../clone")
    clone = Repo(repo.path.parent / "clone", repo.home)
    said = clone.pipe("build", "--rev", old, check=False)
    assert said.returncode == 2
    assert "src/sub" in said.stderr and "git submodule update --init" in said.stderr
    assert inner


def test_a_workspace_inside_a_submodule(repo: Repo) -> None:
    inner = new_repo(repo.path.parent, "inner")
    inner.write("pipeline.toml", two_stages(inner))
    inner.write("src/word", "w\n")
    inner.commit()
    repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner.path), "sub")
    repo.commit()
    _both(Repo(repo.path / "sub", repo.home))


def test_a_nested_repository_as_source_of_an_experiment(repo: Repo) -> None:
    repo.write("pipeline.toml", two_stages(repo))
    repo.write("src/word", "w\n")
    repo.write("src/nested/file", "n\n")
    nested = Repo(repo.path / "src" / "nested", repo.home)
    nested.git("init", "-q")
    looks = Looks(repo)
    assert repo.pipe("build", "--experiment", "e", "--json").stages() == {"a": "ran", "b": "ran"}
    looks.same()
    assert repo.pipe("build", "--json").stages() == {"a": "restored", "b": "restored"}


def test_filters_and_line_ends(two: Repo) -> None:
    two.git("config", "filter.up.clean", "tr A-Z a-z")
    two.git("config", "filter.up.smudge", "tr a-z A-Z")
    two.git("config", "filter.up.required", "true")
    two.write(".gitattributes", "src/word filter=up\n*.txt text eol=crlf\n")
    two.write("src/text.txt", "a\r\n")
    two.write("src/word", "WORD\n")
    commit = two.commit("filtered")
    _both(two, commit)
    two.ran()
    assert two.pipe("build", "--json").stages() == {"a": "restored", "b": "restored"}
    assert two.read("out/b.txt") == "WORD\n1\n"
    two.git("config", "filter.up.smudge", "false")
    said = two.pipe("build", "--rev", commit, "--force", check=False)
    assert said.returncode == 1
    assert "git can't check out" in said.stderr


@pytest.mark.skipif(shutil.which("git-lfs") is None, reason="git-lfs is not here")
def test_lfs(two: Repo) -> None:
    two.git("lfs", "install", "--local")
    two.git("lfs", "track", "*.bin")
    two.write("src/big.bin", b"\0" * 5000)
    two.write("pipeline.toml", two_stages(two).replace("cp src/word", "cp src/big.bin"))
    two.commit("lfs")
    looks = Looks(two)
    assert two.pipe("build", "--rev", "HEAD", "--json").stages()["a"] == "ran"
    looks.same()
    two.ran()
    two.pipe("build", "a")
    assert two.ran() == []
    assert (two.path / "out/a.txt").read_bytes() == b"\0" * 5000


@pytest.mark.parametrize("hook", ["post-checkout", "reference-transaction", "post-index-change"])
def test_no_hook_runs(two: Repo, hook: str) -> None:
    two.write(".git/hooks/" + hook, f"#!/bin/sh\n{two.note('hook')}\n", executable=True)
    two.git("checkout", "-q", "--detach")
    two.write("src/word", "two\n")
    two.commit("second")
    assert "hook" in two.ran()
    two.pipe("build", "--rev", "HEAD", "-q")
    assert two.ran() == ["a", "b"]


def test_in_a_hook_that_speaks_of_another_index(two: Repo) -> None:
    two.write(
        ".git/hooks/post-commit",
        f'#!/bin/sh\nexec "{os.path.dirname(subprocess.sys.executable)}/python" -m pipesmith build --rev HEAD -q\n',
        executable=True,
    )
    two.write("src/word", "two\n")
    two.git("commit", "-q", "-a", "-m", "second", env={"GIT_INDEX_FILE": ".git/index"})
    assert two.ran() == ["a", "b"]
    assert two.git("status", "--porcelain").stdout == ""
    assert len(two.git("worktree", "list").stdout.splitlines()) == 1
    two.pipe("build")
    assert two.ran() == []


def test_what_is_pushed_is_built_when_it_is_accepted(two: Repo) -> None:
    two.git("clone", "-q", "--bare", ".", "../server.git")
    server = Repo(two.path.parent / "server.git", two.home)
    python = f'"{os.path.dirname(subprocess.sys.executable)}/python"'
    hook = f"#!/bin/sh\nread old new ref\n{python} -m pipesmith build --rev $new\n"
    server.write("hooks/pre-receive", hook, executable=True)
    two.write("src/word", "two\n")
    two.commit("second")
    refused = two.git("push", "../server.git", "main", check=False)
    assert refused.returncode != 0
    assert "can't be built before it is accepted" in refused.stderr
    (server.path / "hooks/pre-receive").rename(server.path / "hooks/post-receive")
    two.git("push", "-q", "../server.git", "main")
    assert two.ran() == ["a", "b"]
    assert not (server.path / "worktrees").exists()


def test_during_a_rebase_and_a_bisect(two: Repo) -> None:
    for word in ("two", "three"):
        two.write("src/word", f"{word}\n")
        two.commit(word)
    two.git("bisect", "start", "HEAD", "HEAD~2")
    looks = Looks(two)
    two.pipe("build", "--rev", "main~2")
    two.pipe("build", "--experiment", "e")
    looks.same()
    two.git("bisect", "reset")
    two.git("checkout", "-q", "-b", "side", "HEAD~1")
    two.write("src/word", "side\n")
    two.commit("side")
    two.git("rebase", "main", check=False)
    looks = Looks(two)
    two.pipe("build", "--rev", "main")
    two.pipe("build", "--experiment", "e")
    looks.same()
    two.git("rebase", "--abort")


def test_settings_that_would_start_something(two: Repo) -> None:
    for key, value in (("core.fsmonitor", "true"), ("core.untrackedCache", "true"), ("core.splitIndex", "true")):
        two.git("config", key, value)
    two.pipe("build", "--rev", "HEAD")
    assert (
        "fsmonitor"
        not in subprocess.run(["ps", "ax"], capture_output=True, text=True).stdout.replace(str(two.path) + "\n", "")
        or str(two.pipe_dir / "tmp") not in subprocess.run(["ps", "axww"], capture_output=True, text=True).stdout
    )


def test_several_work_trees_and_a_locked_one_stay(two: Repo) -> None:
    other = two.worktree("kept")
    two.git("worktree", "lock", str(other.path))
    looks = Looks(two)
    two.pipe("build", "--rev", "HEAD")
    two.pipe("gc")
    looks.same()


@pytest.mark.parametrize("command", ["build", "status", "what-if", "gc", "watch"])
def test_what_needs_a_work_tree_says_so_in_a_bare_repository(repo: Repo, command: str) -> None:
    """And names what works there; `init` writes nothing among git's own files."""
    repo.write("pipeline.toml", "")
    repo.commit()
    bare = repo.path.parent / "bare.git"
    repo.git("clone", "-q", "--bare", str(repo.path), str(bare))
    done = repo.pipe("-C", str(bare), command, check=False)
    assert done.returncode == 2
    assert "is a bare repository: it has no work tree" in done.stderr
    assert "pipe status --rev REV" in done.stderr


@pytest.mark.parametrize("inside", ["bare.git", "own/.git", "own/.git/hooks"])
def test_init_writes_nothing_among_gits_own_files(repo: Repo, inside: str) -> None:
    top = repo.path.parent
    repo.git("init", "-q", "--bare", str(top / "bare.git"))
    repo.git("init", "-q", str(top / "own"))
    done = repo.pipe("-C", str(top / inside), "init", check=False)
    assert (done.returncode, "belongs to git" in done.stderr) == (2, True)
    assert not (top / inside / "pipeline.toml").exists()


def test_a_partial_clone_without_work_tree_whose_remote_is_gone_says_so(repo: Repo) -> None:
    """Nothing is taken for absent that could only not be fetched."""
    repo.write("pipeline.toml", "[stage.a]\nrun = 'true'\n")
    commit = repo.commit()
    repo.git("config", "uploadpack.allowFilter", "true")
    there = repo.path.parent / "partial"
    repo.git("clone", "-q", "--no-checkout", "--filter=blob:none", f"file://{repo.path}", str(there))
    repo.path.rename(repo.path.parent / "moved")
    clone = Repo(there, repo.home)
    done = clone.pipe("status", "--rev", commit, check=False)
    assert done.returncode == 1
    assert "pipeline.toml" in done.stderr and "partial clone" in done.stderr
