"""Whatever of git merges: pipe.lock merges stage by stage where the driver is set, and is mended by `pipe lock resolve`
where it is not."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from tests.conftest import Repo
from tests.git.test_drivers import lock

from pipesmith.git.drivers import install_drivers
from pipesmith.git.repository import Repository

MERGED = lock(a="2", b="3", c="2")
GIT = tuple(
    int(part)
    for part in subprocess.run(["git", "version"], capture_output=True, text=True).stdout.split()[2].split(".")[:2]
)
ZDIFF3 = pytest.param("zdiff3", marks=pytest.mark.skipif(GIT < (2, 35), reason="this git has no zdiff3"))


@pytest.fixture
def forked(workspace: Repo) -> Repo:
    """On `main` stage a changed and c is new; on `other` stage b, its neighbour, changed."""
    workspace.write("pipeline.toml", "")
    workspace.write("pipe.lock", lock(a="1", b="1"))
    workspace.commit("base")
    workspace.git("tag", "base")
    workspace.git("checkout", "-q", "-b", "other")
    workspace.write("pipe.lock", lock(a="1", b="3"))
    workspace.commit("other")
    workspace.git("checkout", "-q", "main")
    workspace.write("pipe.lock", lock(a="2", b="1", c="2"))
    workspace.commit("main")
    return workspace


def set_drivers(repo: Repo) -> None:
    install_drivers(Repository.discover(str(repo.path)))


def merge(repo: Repo) -> str:
    repo.git("merge", "-q", "--no-edit", "other", check=False)
    return MERGED


def merge_recursive(repo: Repo) -> str:
    repo.git("merge", "-q", "--no-edit", "-s", "recursive", "-X", "patience", "other", check=False)
    return MERGED


def squash(repo: Repo) -> str:
    repo.git("merge", "-q", "--squash", "other", check=False)
    return MERGED


def rebase(repo: Repo) -> str:
    """Ours and theirs are exchanged."""
    repo.git("checkout", "-q", "other")
    repo.git("rebase", "-q", "main", check=False)
    return MERGED


def rebase_apply(repo: Repo) -> str:
    repo.git("checkout", "-q", "other")
    repo.git("rebase", "-q", "--apply", "main", check=False)
    return MERGED


def cherry_pick(repo: Repo) -> str:
    repo.git("cherry-pick", "other", check=False)
    return MERGED


def revert(repo: Repo) -> str:
    """What an earlier commit did to a stage is undone, what came after stays."""
    repo.git("checkout", "-q", "other")
    repo.write("pipe.lock", MERGED)
    repo.commit("more")
    repo.git("revert", "--no-edit", "HEAD~", check=False)
    return lock(a="2", b="1", c="2")


def stash_pop(repo: Repo) -> str:
    repo.git("checkout", "-q", "other")
    repo.write("pipe.lock", lock(a="2", b="3", c="2"))
    repo.git("stash", "-q")
    repo.write("pipe.lock", lock(a="1", b="4"))
    repo.commit("more")
    repo.git("stash", "pop", check=False)
    return lock(a="2", b="4", c="2")


def am(repo: Repo) -> str:
    patch = repo.git("format-patch", "--stdout", "base..other").stdout
    repo.run("git", "am", "-q", "-3", input=patch, check=False)
    return MERGED


def apply(repo: Repo) -> str:
    patch = repo.git("diff", "--no-textconv", "--full-index", "base", "other").stdout
    repo.run("git", "apply", "-3", input=patch, check=False)
    return MERGED


def checkout_merge(repo: Repo) -> str:
    """Uncommitted changes, taken along to another branch."""
    repo.git("checkout", "-q", "base")
    repo.write("pipe.lock", lock(a="2", b="1", c="2"))
    repo.git("checkout", "-q", "-m", "other", check=False)
    return MERGED


def in_worktree(repo: Repo) -> str:
    tree = repo.worktree("tree", "main")
    tree.git("merge", "-q", "--no-edit", "other", check=False)
    repo.path = tree.path
    return MERGED


OPERATIONS = [
    merge,
    merge_recursive,
    squash,
    rebase,
    rebase_apply,
    cherry_pick,
    revert,
    stash_pop,
    am,
    apply,
    checkout_merge,
    in_worktree,
]
Operation = Callable[[Repo], str]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_with_the_driver(forked: Repo, operation: Operation) -> None:
    set_drivers(forked)
    expected = operation(forked)
    assert forked.read("pipe.lock") == expected
    assert forked.git("ls-files", "--unmerged").stdout == ""


@pytest.mark.parametrize(
    ("operation", "style"),
    [
        *((each, "merge") for each in OPERATIONS),
        (merge, "diff3"),
        (stash_pop, "diff3"),
        pytest.param(rebase, *ZDIFF3.values, marks=ZDIFF3.marks),
    ],
)
def test_without_the_driver(forked: Repo, operation: Operation, style: str) -> None:
    forked.git("config", "merge.conflictStyle", style)
    expected = operation(forked)
    marked = forked.read("pipe.lock")
    assert "<<<<<<<" in marked
    told = forked.pipe("status", check=False)
    assert told.returncode == 2 and "`pipe lock resolve`" in told.stderr
    index = forked.git("ls-files", "--stage").stdout
    done = forked.pipe("lock", "resolve")
    assert forked.read("pipe.lock") == expected
    assert "dropped" not in done.stdout and "`git add pipe.lock`" in done.stdout
    assert "`pipe hooks install`" in done.stdout
    assert forked.git("ls-files", "--stage").stdout == index, "the index is the user's"
    again = forked.pipe("lock", "resolve").stdout
    assert "nothing to do" in again and "`git add pipe.lock`" in again
    forked.git("add", "pipe.lock")
    assert "git add" not in forked.pipe("lock", "resolve").stdout


@pytest.mark.parametrize("operation", OPERATIONS)
def test_where_the_driver_fails(forked: Repo, operation: Operation) -> None:
    """Git leaves ours, without markers, and calls it a conflict: that is mended as well."""
    set_drivers(forked)
    forked.git("config", "merge.pipesmith.driver", "false %O")
    expected = operation(forked)
    assert "<<<<<<<" not in forked.read("pipe.lock")
    assert forked.git("ls-files", "--unmerged").stdout
    told = forked.pipe("lock", "resolve").stdout
    assert "mended" in told and "hooks install" not in told
    assert forked.read("pipe.lock") == expected


def test_in_a_workspace_below(workspace: Repo) -> None:
    """Another lockfile of the repository, in conflict as well, is another workspace's business."""
    for folder in ("", "models/deep/"):
        workspace.write(f"{folder}pipeline.toml", "")
        workspace.write(f"{folder}pipe.lock", lock(a="1"))
    workspace.write("models/deep/src/x", "")
    workspace.commit()
    workspace.git("branch", "other")
    for folder in ("", "models/deep/"):
        workspace.write(f"{folder}pipe.lock", lock(a="1", b="2"))
    workspace.commit()
    workspace.git("checkout", "-q", "other")
    for folder in ("", "models/deep/"):
        workspace.write(f"{folder}pipe.lock", lock(a="1", c="3"))
    workspace.commit()
    workspace.git("merge", "-q", "main", check=False)
    marked = workspace.read("pipe.lock")
    assert "`git add ../pipe.lock`" in workspace.pipe("-C", "models/deep/src", "lock", "resolve").stdout
    assert workspace.read("models/deep/pipe.lock") == lock(a="1", b="2", c="3")
    assert workspace.read("pipe.lock") == marked and "<<<<<<<" in marked
    workspace.pipe("lock", "resolve")
    assert workspace.read("pipe.lock") == lock(a="1", b="2", c="3")


def test_what_a_person_made_of_a_conflict_stays(forked: Repo) -> None:
    forked.git("merge", "-q", "other", check=False)
    mine = lock(a="7")
    forked.write("pipe.lock", mine)
    done = forked.pipe("lock", "resolve").stdout
    assert "nothing to do" in done and "`git add pipe.lock`" in done
    assert forked.read("pipe.lock") == mine


def test_a_lockfile_broken_by_hand_while_merging_is_made_of_git_s_versions(forked: Repo) -> None:
    """Somebody took out one of the markers only."""
    forked.git("merge", "-q", "other", check=False)
    forked.write("pipe.lock", forked.read("pipe.lock").replace("<<<<<<< HEAD\n", ""))
    assert "mended" in forked.pipe("lock", "resolve").stdout
    assert forked.read("pipe.lock") == MERGED


@pytest.mark.parametrize("style", ["merge", "diff3", ZDIFF3])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_markers_that_git_knows_nothing_of(forked: Repo, style: str, ends: str) -> None:
    """Committed by mistake, or added: what the text says is all there is."""
    forked.git("config", "merge.conflictStyle", style)
    forked.git("merge", "-q", "other", check=False)
    marked = forked.read("pipe.lock").replace("\n", ends).encode()
    forked.write("pipe.lock", marked)
    forked.commit("by mistake")
    done = forked.pipe("lock", "resolve")
    assert "git add" not in done.stdout
    mended = forked.read("pipe.lock")
    assert "<<<<<<<" not in mended and "\r" not in mended
    assert set(mended.split("\n\n")) <= set(MERGED.split("\n\n")), "no entry that neither side has"


def test_longer_markers(forked: Repo) -> None:
    forked.write(".gitattributes", "pipe.lock conflict-marker-size=23\n")
    forked.git("merge", "-q", "other", check=False)
    assert "<" * 23 in forked.read("pipe.lock")
    assert forked.pipe("status", check=False).returncode == 2
    forked.git("add", "pipe.lock")
    forked.pipe("lock", "resolve")
    assert "<" not in forked.read("pipe.lock")


def test_a_label_that_is_no_utf8(forked: Repo) -> None:
    text = forked.read("pipe.lock").encode()
    forked.write("pipe.lock", b"<<<<<<< br\xe9\n" + text + b"=======\n" + text + b">>>>>>> other\n")
    told = forked.pipe("status", check=False)
    assert told.returncode == 2 and "`pipe lock resolve`" in told.stderr
    forked.pipe("lock", "resolve")
    assert forked.read("pipe.lock").encode() == text


# -- both sides changed one stage ---------------------------------------------------------------------------------


def conflict(repo: Repo, ours: str, theirs: str, base: str | None = None) -> None:
    """Two branches with these lockfiles; on `main`."""
    repo.write("pipeline.toml", "")
    if base is not None:
        repo.write("pipe.lock", base)
    repo.commit("base")
    repo.git("branch", "other")
    repo.write("pipe.lock", ours)
    repo.commit("ours")
    repo.git("checkout", "-q", "other")
    repo.write("pipe.lock", theirs)
    repo.commit("theirs")
    repo.git("checkout", "-q", "main")


def test_what_disagrees_is_dropped_and_said(workspace: Repo) -> None:
    conflict(workspace, lock(a="2", b="1"), lock(a="3", b="3"), lock(a="1", b="1"))
    set_drivers(workspace)
    done = workspace.git("merge", "--no-edit", "other")
    assert (
        "pipe.lock: dropped a: the two sides disagree\npipe.lock: `pipe build` makes what was dropped\n" in done.stderr
    )
    assert workspace.read("pipe.lock") == lock(b="3")


def test_without_a_common_version(workspace: Repo) -> None:
    """Both sides made the file."""
    conflict(workspace, lock(a="1", b="1", c="2"), lock(a="1", b="3", d="3"))
    set_drivers(workspace)
    done = workspace.git("merge", "--no-edit", "other")
    assert "dropped b:" in done.stderr
    assert workspace.read("pipe.lock") == lock(a="1", c="2", d="3")


def pinned(python: str, content: str) -> str:
    hex = content * 64
    return (
        "# Written by pipe; kept in git. A conflict in it: `pipe lock resolve`.\nversion = 1\n\n"
        f'[environment.p]\ndefinition = "d"\npython = "{python}"\n\n'
        f'[dataset.q]\ndefinition = "d"\nhash = "blake3"\nblake3 = "{hex}"\nsize = 1\n'
    )


def test_pins_that_disagree_are_ours_and_said(workspace: Repo) -> None:
    conflict(workspace, pinned("3.12", "2"), pinned("3.13", "3"), pinned("3.11", "1"))
    set_drivers(workspace)
    done = workspace.git("merge", "--no-edit", "other")
    for name in ("dataset.q", "environment.p"):
        assert f"pipe.lock: {name}: the two sides disagree, ours was taken\n" in done.stderr
    assert "pipe build" not in done.stderr, "nothing was dropped"
    assert workspace.read("pipe.lock") == pinned("3.12", "2")


def test_several_lockfiles_in_one_merge(workspace: Repo) -> None:
    for folder in ("", "one/", "two/"):
        workspace.write(f"{folder}pipe.lock", lock(a="1", b="1"))
    workspace.commit()
    workspace.git("branch", "other")
    for folder in ("", "one/", "two/"):
        workspace.write(f"{folder}pipe.lock", lock(a="2", b="1"))
    workspace.commit()
    workspace.git("checkout", "-q", "other")
    workspace.write("pipe.lock", lock(a="1", b="3"))
    workspace.write("one/pipe.lock", lock(a="3", b="1"))
    workspace.commit()
    workspace.git("checkout", "-q", "main")
    set_drivers(workspace)
    done = workspace.git("merge", "--no-edit", "other")
    assert workspace.read("pipe.lock") == lock(a="2", b="3")
    assert workspace.read("one/pipe.lock") == lock(b="1")
    assert workspace.read("two/pipe.lock") == lock(a="2", b="1")
    assert [line for line in done.stderr.splitlines() if "dropped a" in line] == [
        "one/pipe.lock: dropped a: the two sides disagree"
    ]


@pytest.mark.parametrize("sides", [("2", "3"), ("3", "2")])
def test_a_later_version_on_one_side_is_not_guessed_at(workspace: Repo, sides: tuple[str, str]) -> None:
    """Neither markers nor a loss: ours stays, git calls it a conflict, and it is told why."""
    ours, theirs = (lock(a=side).replace("version = 1", f"version = {side}") for side in sides)
    conflict(workspace, ours, theirs, lock(a="1"))
    set_drivers(workspace)
    done = workspace.git("merge", "other", check=False)
    assert done.returncode == 1
    assert "is of version" in done.stderr and "this pipesmith reads version 1" in done.stderr
    assert "Traceback" not in done.stderr
    assert workspace.read("pipe.lock") == ours
    mended = workspace.pipe("lock", "resolve", check=False)
    assert mended.returncode == 2 and "is of version" in mended.stderr
    assert workspace.read("pipe.lock") == ours


def test_a_side_with_markers_that_were_committed(workspace: Repo) -> None:
    one, other = (lock(**{name: "1"}).removeprefix(lock()) for name in "bc")
    theirs = f"{lock()}<<<<<<< HEAD\n{one}=======\n{other}>>>>>>> more\n"
    conflict(workspace, lock(a="2"), theirs, lock(a="1"))
    set_drivers(workspace)
    done = workspace.git("merge", "--no-edit", "other")
    assert "<<<<<<<" not in workspace.read("pipe.lock")
    assert workspace.read("pipe.lock") == lock(b="1", c="1")
    assert "dropped a" in done.stderr, "changed here, gone there"


def test_a_side_that_is_no_lockfile(workspace: Repo) -> None:
    conflict(workspace, lock(a="2"), "version = \n", lock(a="1"))
    set_drivers(workspace)
    done = workspace.git("merge", "other", check=False)
    assert done.returncode == 1
    assert "pipe.lock (theirs):1: can't be read" in done.stderr or "pipe.lock (theirs):1" in done.stderr
    assert "Traceback" not in done.stderr
    assert workspace.read("pipe.lock") == lock(a="2")


@pytest.mark.parametrize("taken", ["2", "3"])
@pytest.mark.parametrize("driver", [True, False])
def test_criss_cross(workspace: Repo, driver: bool, taken: str) -> None:
    """Two merges of the same two commits, then merged: git makes the common version by merging as well, and where it has
    no driver, with markers in it."""
    if driver:
        set_drivers(workspace)
    workspace.git("config", "merge.conflictStyle", "diff3")
    conflict(workspace, lock(a="2", b="1"), lock(a="3", b="1", c="3"), lock(a="1", b="1"))
    workspace.git("tag", "one", "main")
    workspace.git("tag", "two", "other")

    def settle(branch: str, into: str, text: str) -> None:
        workspace.git("checkout", "-q", branch)
        workspace.git("merge", "-q", "--no-commit", into, check=False)
        workspace.write("pipe.lock", text)
        workspace.commit("merged")

    settle("main", "two", lock(a="2", b="1", c="3"))
    settle("other", "one", lock(a=taken, b="1", c="3"))
    workspace.write("pipe.lock", lock(a=taken, b="1", c="5"))
    workspace.commit("more")
    workspace.git("checkout", "-q", "main")
    workspace.write("pipe.lock", lock(a="2", b="1", c="3", d="6"))
    workspace.commit("more")
    done = workspace.git("merge", "--no-edit", "other", check=False)
    if not driver:
        assert "<<<<<<<" in workspace.read("pipe.lock")
        done = workspace.pipe("lock", "resolve")
    rest = {"b": "1", "c": "5", "d": "6"}
    if taken == "2":
        assert workspace.read("pipe.lock") == lock(a="2", **rest)
        assert "dropped" not in done.stdout + done.stderr, "nothing is said of the common version"
    else:
        assert workspace.read("pipe.lock") == lock(**rest)
        assert (done.stdout + done.stderr).count("dropped a") == 1


def many(repo: Repo, **branches: dict[str, str]) -> None:
    """Branches of one commit, each with some stages changed; on `main`, with the drivers set."""
    set_drivers(repo)
    rest = dict.fromkeys("abcdefg", "1")
    repo.write("pipeline.toml", "")
    repo.write("pipe.lock", lock(**rest))
    repo.commit()
    for branch, change in branches.items():
        repo.git("checkout", "-q", "-b", branch, "main")
        repo.write("pipe.lock", lock(**{**rest, **change}))
        repo.commit(branch)
    repo.git("checkout", "-q", "main")


def test_octopus(workspace: Repo) -> None:
    """Git's octopus strategy asks no driver: as text, what is apart merges."""
    many(workspace, x={"a": "2"}, y={"c": "2", "h": "2"}, z={"f": "2"})
    workspace.git("merge", "-q", "--no-edit", "x", "y", "z")
    assert workspace.read("pipe.lock") == lock(a="2", b="1", c="2", d="1", e="1", f="2", g="1", h="2")


def test_octopus_in_conflict(workspace: Repo) -> None:
    """Git allows the last one to conflict, and leaves markers: mended as always. One by one, the driver is asked."""
    many(workspace, x={"a": "2"}, y={"c": "2"}, z={"c": "3", "f": "3"})
    done = workspace.git("merge", "-q", "--no-edit", "x", "y", "z", check=False)
    assert done.returncode == 1
    assert "<<<<<<<" in workspace.read("pipe.lock")
    assert "dropped c" in workspace.pipe("lock", "resolve").stdout
    expected = lock(a="2", b="1", d="1", e="1", f="3", g="1")
    assert workspace.read("pipe.lock") == expected
    workspace.git("reset", "-q", "--hard")
    for branch in "xyz":
        workspace.git("merge", "-q", "--no-edit", branch)
    assert workspace.read("pipe.lock") == expected


def test_removed_on_one_side_is_git_s_own_conflict(workspace: Repo) -> None:
    """The file itself: git asks no driver, and leaves the side that is there."""
    conflict(workspace, lock(a="2"), lock(a="1"), lock(a="1"))
    workspace.git("checkout", "-q", "other")
    workspace.git("rm", "-q", "pipe.lock")
    workspace.commit("gone")
    workspace.git("checkout", "-q", "main")
    set_drivers(workspace)
    assert workspace.git("merge", "other", check=False).returncode == 1
    assert workspace.read("pipe.lock") == lock(a="2")
    assert "nothing to do" in workspace.pipe("lock", "resolve").stdout
