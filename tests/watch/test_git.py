"""Git puts another state into the work tree: that is one build, not one a file, nor one a commit."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from tests.conftest import Repo

from .conftest import Watch, runs

_FILES = 60


@pytest.fixture
def branches(repo: Repo) -> Repo:
    """`main` and `other`, which differ in many files, a file more, and the command."""
    repo.write(
        "pipeline.toml",
        f"""
        [stage.a]
        source = "a"
        run = "{repo.note("a")}; find a -type f | sort | xargs cat > {{outputs.o}}"
        outputs = {{ o = "out/a" }}
        [stage.b]
        source = "b"
        run = "{repo.note("b")}; cat b/* > {{outputs.o}}"
        outputs = {{ o = "out/b" }}
        """,
    )
    repo.write(".gitignore", "/out\n")
    repo.write("b/b.txt", "b\n")
    for number in range(_FILES):
        repo.write(f"a/d{number % 7}/{number:02}.txt", f"main {number}\n")
    repo.pipe("build")
    repo.commit("main")
    repo.git("checkout", "-q", "-b", "other")
    for number in range(_FILES):
        repo.write(f"a/d{number % 7}/{number:02}.txt", f"other {number}\n")
    repo.write("a/new/more.txt", "more\n")
    repo.commit("other, not built")
    repo.git("checkout", "-q", "main")
    repo.ran()
    return repo


def test_one_branch_switch_is_one_build(branches: Repo, watch: Callable[..., Watch]) -> None:
    w = watch()
    w.until_ready()
    before = runs(branches)
    w.next(lambda: branches.git("checkout", "-q", "other"))
    assert runs(branches) == before + 1
    assert branches.ran() == ["a"]
    assert "more" in branches.read("out/a")
    assert "switched to `other`" in w.text
    back = w.next(lambda: branches.git("checkout", "-q", "-f", "main"))
    assert {stage["name"]: stage["status"] for stage in back["stages"]}["a"] == "restored"
    assert runs(branches) == before + 2
    assert branches.ran() == []
    w.next(lambda: branches.write("b/b.txt", "bb\n"))
    assert runs(branches) == before + 3
    assert branches.ran() == ["b"]


def test_a_branch_of_the_same_content_is_no_build(branches: Repo, watch: Callable[..., Watch]) -> None:
    w = watch()
    w.until_ready()
    branches.git("checkout", "-q", "-b", "third")
    branches.git("commit", "-q", "--allow-empty", "-m", "nothing")
    w.next(lambda: branches.write("b/b.txt", "bb\n"))
    assert branches.ran() == ["b"]


def test_stash_and_pop(branches: Repo, watch: Callable[..., Watch]) -> None:
    for number in range(_FILES):
        branches.write(f"a/d{number % 7}/{number:02}.txt", f"edited {number}\n")
    w = watch()
    w.until_ready()
    branches.ran()
    before = runs(branches)
    w.next(lambda: branches.git("stash", "-q", "--", "a"))
    assert "main 1" in branches.read("out/a")
    assert runs(branches) == before + 1
    w.next(lambda: branches.git("stash", "pop", "-q"))
    assert "edited 1" in branches.read("out/a")
    assert runs(branches) == before + 2
    assert branches.ran() == []  # both states are known


def test_a_pull_is_one_build(branches: Repo, watch: Callable[..., Watch]) -> None:
    clone = branches.clone("clone")
    w = watch(at=clone)
    w.until_ready()
    branches.ran()
    branches.git("merge", "-q", "other")
    branches.write("b/b.txt", "pulled\n")
    branches.commit("more to pull")
    before = runs(clone)
    w.next(lambda: clone.git("pull", "-q", "--ff-only"))
    assert runs(clone) == before + 1
    assert branches.ran() == ["a", "b"]


def test_a_rebase_of_many_commits_is_one_build(branches: Repo, watch: Callable[..., Watch]) -> None:
    """Each commit is put into the work tree in turn; only the last one's state is built."""
    branches.git("checkout", "-q", "-b", "topic", "main")
    for number in range(12):
        branches.write("a/topic.txt", f"topic {number}\n")
        branches.commit(f"topic {number}")
    branches.pipe("build")
    branches.commit("built")
    w = watch()
    w.until_ready()
    branches.ran()
    before = runs(branches)
    w.next(lambda: branches.git("rebase", "-q", "--force-rebase", "other"))
    assert branches.ran() == ["a"]
    assert runs(branches) == before + 1
    assert "topic 11" in branches.read("out/a") and "other 1" in branches.read("out/a")


def test_a_rebase_that_stops_does_not_stop_the_watch(branches: Repo, watch: Callable[..., Watch]) -> None:
    w = watch("b")
    w.until_ready()
    branches.git("checkout", "-q", "-b", "topic", "main")
    branches.write("a/d1/01.txt", "topic\n")
    branches.commit("in the way")
    assert branches.git("rebase", "other", check=False).returncode != 0
    branches.ran()
    w.next(lambda: branches.write("b/b.txt", "while it rests\n"))
    assert branches.ran() == ["b"]
    branches.git("rebase", "--abort")


def test_it_waits_while_git_holds_the_index(pair: Repo, watch: Callable[..., Watch]) -> None:
    """What git writes while it holds the index is not built before it lets go."""
    w = watch()
    w.until_ready()
    pair.ran()
    lock = pair.path / ".git/index.lock"
    lock.touch()
    for number in range(4):
        pair.write("a/a.txt", f"{number}\n")
        subprocess.run(["sleep", "0.4"], check=True)
    assert pair.ran() == []
    w.next(lock.unlink)
    assert pair.ran() == ["a"]
    assert pair.read("out/a") == "3\n"


def test_an_index_that_is_held_for_ever_is_not_waited_for(pair: Repo, watch: Callable[..., Watch]) -> None:
    """`git commit -a` holds it as long as its editor is open, a git that was killed leaves it behind."""
    w = watch()
    w.until_ready()
    pair.ran()
    (pair.path / ".git/index.lock").touch()
    w.next(lambda: pair.write("a/a.txt", "aa\n"))
    w.next(lambda: pair.write("a/a.txt", "aaa\n"))
    assert pair.ran() == ["a", "a"]


def test_a_linked_worktree_has_its_own_head_and_index(branches: Repo, watch: Callable[..., Watch]) -> None:
    tree = branches.worktree("tree", "main")
    w = watch(at=tree)
    w.until_ready()
    branches.ran()
    lock = branches.path / ".git/worktrees/tree/index.lock"
    lock.touch()
    tree.write("b/b.txt", "bb\n")
    subprocess.run(["sleep", "0.5"], check=True)
    assert branches.ran() == []
    w.next(lock.unlink)
    assert branches.ran() == ["b"]
    before = runs(branches)
    w.next(lambda: tree.git("checkout", "-q", "-f", "other"))
    assert runs(branches) == before + 1
    assert "switched to `other`" in w.text


def test_what_git_lists_may_change_without_any_file(pair: Repo, watch: Callable[..., Watch]) -> None:
    """An ignored file that is added by force becomes source; one that is ignored from now on is none any more."""
    pair.write("a/x.log", "log\n")
    w = watch()
    w.until_ready()
    w.next(lambda: pair.git("add", "-f", "a/x.log"))
    assert pair.read("out/a") == "a\nlog\n"
    w.next(lambda: pair.write("a/y.txt", "y\n"))
    exclude = pair.path / ".git/info/exclude"
    exclude.parent.mkdir(exist_ok=True)
    w.next(lambda: exclude.write_text("y.txt\n"))
    assert pair.read("out/a") == "a\nlog\n"


def test_a_workspace_below_the_top(repo: Repo, watch: Callable[..., Watch]) -> None:
    repo.write(
        "ml/pipeline.toml", '[stage.a]\nsource = "src"\nrun = "cat src/* > {outputs.o}"\noutputs = { o = "out/a" }\n'
    )
    repo.write("ml/src/a.txt", "1\n")
    repo.write("elsewhere/x.txt", "1\n")
    repo.commit()
    w = watch("-C", "ml")
    w.until_ready()
    repo.write("elsewhere/x.txt", "2\n")
    w.next(lambda: repo.write("ml/src/a.txt", "2\n"))
    assert repo.read("ml/out/a") == "2\n"
    assert len(w.documents) == 2
    w.next(lambda: repo.write(".gitignore", "*.md\n") and repo.write("ml/src/b.txt", "3\n"))
    assert repo.read("ml/out/a") == "2\n3\n"
