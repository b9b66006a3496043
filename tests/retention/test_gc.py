"""What branches, tags, worktrees, stashes, recent runs and people need stays; the rest goes to the trash for a week."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from pipesmith.git.repository import Repository
from pipesmith.history.record import RunRecord
from pipesmith.lockfile.model import LockedOut
from pipesmith.pipeline.model import CacheConfig
from pipesmith.retention import gc
from pipesmith.retention.leftovers import remove_leftovers
from pipesmith.store.action_cache import ActionCache, ActionResult
from pipesmith.store.locks import CACHE, LockTable
from pipesmith.store.object_store import ObjectStore
from pipesmith.store.state_db import StateDB

DAY = 86_400.0
PIPELINE = """
    [stage.a]
    run = "cp {inputs.i} {outputs.o}"
    inputs = { i = "a.txt" }
    outputs = { o = "out/a.txt" }
"""


@pytest.fixture
def built(repo):  # type: ignore[no-untyped-def]
    """A repository whose branch main has been built with a.txt = `main`, committed."""
    repo.write("pipeline.toml", PIPELINE)
    build(repo, "main")
    repo.commit("main")
    return repo


def build(repo, text: str) -> str:  # type: ignore[no-untyped-def]
    """Build with a.txt = `text`, and return the digest of what came out."""
    repo.write("a.txt", f"{text}\n")
    made = repo.pipe("build", "--json").json()
    return str(made["stages"][0]["outputs"][0]["hash"]).rpartition(":")[2]


def age(repo, days: float = 40.0) -> None:  # type: ignore[no-untyped-def]
    """Let all that is in the cache, and every run, be older."""
    moment = time.time() - days * DAY
    for where, _folders, files in os.walk(repo.pipe_dir / "cache"):
        for name in files:
            os.utime(os.path.join(where, name), (moment, moment))


def collect(repo, *args: str, forget_runs: bool = True) -> Any:  # type: ignore[no-untyped-def]
    """Run `pipe gc`, as a rule without the runs of the last days, and return its report."""
    return repo.pipe("gc", "--json", *(("--keep-days", "0") if forget_runs else ()), *args).json()


def has(repo, hex: str) -> bool:  # type: ignore[no-untyped-def]
    return bool((repo.pipe_dir / "cache/files/blake3" / hex[:2] / hex[2:]).exists())


def in_trash(repo, hex: str) -> bool:  # type: ignore[no-untyped-def]
    return bool((repo.pipe_dir / "trash" / f"blake3-{hex}").exists())


def test_what_nothing_needs_goes_to_the_trash_with_its_result(built) -> None:  # type: ignore[no-untyped-def]
    old = build(built, "old")
    main = build(built, "main")
    report = collect(built)
    assert not has(built, old) and in_trash(built, old)
    assert has(built, main)
    assert (report["objects"], report["records"], report["bytes"]) == (1, 1, 4)
    built.write("a.txt", "old\n")
    assert built.pipe("status", "--json").stages(key="state") == {"a": "stale"}


def test_dry_run_drops_nothing_and_says_the_same(built) -> None:  # type: ignore[no-untyped-def]
    old = build(built, "old")
    build(built, "main")
    said = collect(built, "--dry-run")
    assert has(built, old)
    done = collect(built)
    assert {**said, "dry_run": False} == done
    assert not has(built, old)


def test_while_a_build_goes_on_what_is_young_stays(built) -> None:  # type: ignore[no-untyped-def]
    old = build(built, "old")
    build(built, "main")
    with LockTable(str(built.pipe_dir / "locks")).shared(CACHE):
        assert collect(built)["objects"] == 0
        assert collect(built, "--dry-run")["objects"] == 0
        assert has(built, old)
    assert collect(built)["objects"] == 1
    assert not has(built, old)


def test_the_tips_of_branches_and_tags_stay_and_their_history_does_not(built) -> None:  # type: ignore[no-untyped-def]
    kept = {}
    for name, command in (("branch", ("branch",)), ("tag", ("tag",)), ("note", ("tag", "-a", "-m", "x"))):
        built.git("checkout", "-q", "--detach")
        kept[name] = build(built, name)
        built.commit(name)
        built.git(*command, f"{name}-x")
    passed = build(built, "passed over")
    built.commit("passed over")
    kept["tip"] = build(built, "tip")
    built.commit("tip")
    built.git("branch", "tip")
    built.git("checkout", "-q", "main")
    collect(built)
    assert {name: has(built, hex) for name, hex in kept.items()} == dict.fromkeys(kept, True)
    assert not has(built, passed)


def test_a_deleted_branch_needs_nothing(built) -> None:  # type: ignore[no-untyped-def]
    built.git("checkout", "-q", "-b", "other")
    other = build(built, "other")
    built.commit("other")
    built.git("checkout", "-q", "main")
    collect(built)
    assert has(built, other)
    built.git("branch", "-q", "-D", "other")
    collect(built)
    assert not has(built, other)


def test_remote_branches_stay(built) -> None:  # type: ignore[no-untyped-def]
    other = build(built, "theirs")
    built.commit("theirs")
    built.git("update-ref", "refs/remotes/origin/work", "HEAD")
    built.git("reset", "-q", "--hard", "HEAD~")
    collect(built)
    assert has(built, other)


def test_an_uncommitted_lock_stays_here_and_in_other_worktrees(built) -> None:  # type: ignore[no-untyped-def]
    here = build(built, "here")
    other = built.worktree("other")
    there = build(other, "there")
    collect(built)
    assert has(built, here) and has(built, there)
    other.git("checkout", "-q", "--", ".")
    collect(built)
    assert not has(built, there)
    assert has(built, here)


def test_an_untracked_and_an_ignored_lock_stay(repo) -> None:  # type: ignore[no-untyped-def]
    repo.write("pipeline.toml", PIPELINE)
    first = build(repo, "first")
    collect(repo)
    assert has(repo, first), "nothing was ever committed"
    repo.write(".git/info/exclude", "pipe.lock\n")
    collect(repo)
    assert has(repo, first)


def test_a_detached_head_of_a_worktree_stays(built) -> None:  # type: ignore[no-untyped-def]
    other = built.worktree("other")
    there = build(other, "there")
    other.git("add", "-A")
    other.git("commit", "-q", "-m", "there")
    other.git("rm", "-q", "pipe.lock")
    collect(built)
    assert has(built, there)


def test_a_staged_lock_stays(built) -> None:  # type: ignore[no-untyped-def]
    staged = build(built, "staged")
    built.git("add", "pipe.lock")
    build(built, "main")
    assert has(built, staged)
    collect(built)
    assert has(built, staged)


def test_stash_entries_stay_all_of_them(built) -> None:  # type: ignore[no-untyped-def]
    stashed = []
    for number in range(3):
        stashed.append(build(built, f"stash {number}"))
        built.git("stash", "push", "-q")
    collect(built)
    assert [has(built, hex) for hex in stashed] == [True] * 3
    built.git("stash", "drop", "-q", "stash@{1}")
    collect(built, "--kept", "0")  # each build found the output of a stashed one, and put it away
    assert [has(built, hex) for hex in stashed] == [True, False, True]


def test_an_untracked_lock_in_a_stash_stays(built) -> None:  # type: ignore[no-untyped-def]
    built.write("sub/pipeline.toml", PIPELINE)
    built.write("sub/a.txt", "sub\n")
    made = built.pipe("-C", "sub", "build", "--json").json()
    hex = made["stages"][0]["outputs"][0]["hash"].rpartition(":")[2]
    built.git("stash", "push", "-q", "--include-untracked")
    assert not built.exists("sub/pipe.lock")
    collect(built)
    assert has(built, hex)


def test_every_workspace_of_the_repository_counts(built) -> None:  # type: ignore[no-untyped-def]
    built.write("deep/er/pipeline.toml", PIPELINE)
    built.write("deep/er/a.txt", "deep\n")
    made = built.pipe("-C", "deep/er", "build", "--json").json()
    hex = made["stages"][0]["outputs"][0]["hash"].rpartition(":")[2]
    built.commit("deep")
    collect(built)
    assert has(built, hex)
    collect(built, "-C", "deep/er")
    assert has(built, hex)


def test_recorded_runs_of_the_last_days_stay(built) -> None:  # type: ignore[no-untyped-def]
    old = build(built, "old")
    build(built, "main")
    collect(built, forget_runs=False)
    assert has(built, old)
    built.pipe_dir.joinpath("state.db").unlink()
    collect(built, forget_runs=False)
    assert has(built, old), "the refs know as well"
    collect(built, "--keep-days", "0")
    assert not has(built, old)


def test_runs_that_are_not_recent_are_forgotten(built) -> None:  # type: ignore[no-untyped-def]
    """Ref, row and logs; git can collect what only their snapshots held. They rest in the trash, and come back from it."""
    built.write("only-in-a-snapshot", "x\n")
    build(built, "second")
    runs = [each["id"] for each in built.pipe("runs", "--json").json()["runs"]]
    blob = built.git("rev-parse", f"refs/pipe/runs/{runs[0]}:only-in-a-snapshot").stdout.strip()
    assert collect(built, "--keep-days", "1", forget_runs=False)["runs"] == 0
    assert collect(built, "--dry-run")["runs"] == len(runs) == 2
    assert [each["id"] for each in built.pipe("runs", "--json").json()["runs"]] == runs
    assert collect(built)["runs"] == 2
    assert built.pipe("runs", "--json").json()["runs"] == []
    assert built.git("for-each-ref", "refs/pipe").stdout == ""
    assert list((built.pipe_dir / "logs").iterdir()) == []
    note = (built.pipe_dir / "trash" / f"run-{runs[0]}").read_text().split()
    built.git("update-ref", note[1], note[0])
    assert [each["id"] for each in built.pipe("runs", "--json").json()["runs"]] == runs[:1]
    collect(built)
    for path in (built.pipe_dir / "trash").iterdir():
        os.utime(path, (time.time() - 8 * DAY,) * 2)
    collect(built)
    assert list((built.pipe_dir / "trash").iterdir()) == []
    (built.path / "only-in-a-snapshot").unlink()
    built.git("gc", "-q", "--prune=now")
    assert built.git("cat-file", "-e", blob, check=False).returncode != 0


def test_keeping_small_forgets_no_run(built) -> None:  # type: ignore[no-untyped-def]
    """`--auto` is about the size of the cache: history stays."""
    built.write("pipeline.toml", PIPELINE + '    [cache]\n    max-size = "1K"\n')
    build(built, "x")
    before = len(built.pipe("runs", "--json").json()["runs"])
    built.pipe("gc", "--auto", "--keep-days", "0")
    assert len(built.pipe("runs", "--json").json()["runs"]) == before == 2


def test_what_was_put_away_stays_for_its_days(built) -> None:  # type: ignore[no-untyped-def]
    built.write("out/a.txt", "by hand\n")
    built.pipe("build")
    records = list((built.pipe_dir / "cache/kept").iterdir())
    assert len(records) == 1
    hand = json.loads(records[0].read_text())["hex"]
    collect(built)
    assert has(built, hand)
    report = collect(built, "--kept", "0")
    assert report["kept"] == 1
    assert not has(built, hand) and in_trash(built, hand)
    assert list((built.pipe_dir / "cache/kept").iterdir()) == []


def test_what_a_folder_holds_stays_with_it(repo) -> None:  # type: ignore[no-untyped-def]
    repo.write(
        "pipeline.toml",
        """
        [stage.a]
        run = "mkdir -p {outputs.o}/sub; cp {inputs.i} {outputs.o}/sub/x; echo same > {outputs.o}/same"
        inputs = { i = "a.txt" }
        outputs = { o = "out" }
        """,
    )
    build(repo, "one")
    repo.commit("one")
    build(repo, "two")
    build(repo, "one")
    report = collect(repo)
    assert report["objects"] == 2, "a manifest and what only it holds"
    repo.git("clean", "-qdfx")
    repo.git("checkout", "-q", "--", ".")
    repo.pipe("checkout")
    assert repo.read("out/sub/x") == "one\n" and repo.read("out/same") == "same\n"


def test_the_trash_is_emptied_after_a_week(built) -> None:  # type: ignore[no-untyped-def]
    old = build(built, "old")
    build(built, "main")
    collect(built)
    trash = built.pipe_dir / "trash" / f"blake3-{old}"
    moment = time.time() - 6.9 * DAY
    os.utime(trash, (moment, moment))
    assert collect(built)["emptied"] == 0
    moment = time.time() - 7.1 * DAY
    os.utime(trash, (moment, moment))
    report = collect(built)
    assert (report["emptied"], report["emptied_bytes"]) == (1, 4)
    assert not trash.exists()


def test_an_old_object_rests_a_whole_week(built) -> None:  # type: ignore[no-untyped-def]
    old = build(built, "old")
    build(built, "main")
    age(built, 400)
    collect(built)
    assert in_trash(built, old)
    collect(built)
    assert in_trash(built, old)


@pytest.mark.parametrize("lock", ["garbage", "conflict", "later"])
def test_a_lock_that_can_not_be_read_keeps_all_that_it_names(built, lock: str) -> None:  # type: ignore[no-untyped-def]
    old = build(built, "old")
    text = built.read("pipe.lock")
    build(built, "main")
    built.git("checkout", "-q", "-b", "bad")
    if lock == "garbage":
        text = f"{text}\nx = = =\n"
    elif lock == "conflict":
        text = f"<<<<<<< a\n{text}=======\n{built.read('pipe.lock')}>>>>>>> b\n"
    else:
        text = text.replace("version = 1", "version = 77")
    built.write("pipe.lock", text)
    built.commit("bad")
    built.git("checkout", "-q", "main")
    report = collect(built)
    assert has(built, old)
    assert any("refs/heads/bad" in note for note in report["notes"])


def test_a_bare_repository_with_worktrees(built) -> None:  # type: ignore[no-untyped-def]
    from tests.conftest import Repo

    bare = built.path.parent / "bare.git"
    built.git("clone", "-q", "--bare", str(built.path), str(bare))
    tree = built.path.parent / "tree"
    built.git("-C", str(bare), "worktree", "add", "-q", str(tree), "main")
    other = Repo(tree, built.home)
    hex = build(other, "in bare")
    old = build(other, "old")
    build(other, "in bare")
    collect(other)
    assert has(other, hex) and not has(other, old)


def test_from_inside_a_hook(built) -> None:  # type: ignore[no-untyped-def]
    """git tells hooks GIT_DIR and GIT_INDEX_FILE of the one worktree; other worktrees' locks are found all the same."""
    other = built.worktree("other")
    there = build(other, "there")
    env = {"GIT_DIR": str(built.path / ".git"), "GIT_INDEX_FILE": str(built.path / ".git/index")}
    built.pipe("gc", "--keep-days", "0", env=env)
    assert has(built, there)


def test_the_environment_of_git_keeps_other_worktrees_apart(built) -> None:  # type: ignore[no-untyped-def]
    from pipesmith.retention.locks_of_git import lock_texts

    other = built.worktree("other")
    build(other, "there")
    where = [place for place, _text in lock_texts(Repository.discover(str(built.path)))]
    assert str(other.path / "pipe.lock") in where
    assert str(built.path / "pipe.lock") in where


# -- sizes ------------------------------------------------------------------------------------------------------------


def test_max_size_takes_recent_runs_least_recently_used_first(built) -> None:  # type: ignore[no-untyped-def]
    hexes = [build(built, f"{'x' * 995}{number}") for number in range(4)]
    tip = build(built, "main")
    report = collect(built, "--max-size", "2500", forget_runs=False)
    assert [has(built, hex) for hex in hexes] == [False, False, True, True]
    assert has(built, tip)
    assert report["left_bytes"] <= 2500 and report["notes"] == []


def test_max_size_never_takes_what_a_tip_needs_and_says_so(built) -> None:  # type: ignore[no-untyped-def]
    build(built, "old")
    tip = build(built, "main")
    report = collect(built, "--max-size", "1", forget_runs=False)
    assert has(built, tip)
    assert report["left_bytes"] == 5
    assert any("larger than asked for" in note for note in report["notes"])


def test_max_size_never_takes_what_was_put_away(built) -> None:  # type: ignore[no-untyped-def]
    built.write("out/a.txt", "by hand\n")
    built.pipe("build")
    (record,) = (built.pipe_dir / "cache/kept").iterdir()
    collect(built, "--max-size", "1", forget_runs=False)
    assert has(built, json.loads(record.read_text())["hex"])


def test_auto_does_nothing_below_the_size_and_no_more_than_it_takes_above(built) -> None:  # type: ignore[no-untyped-def]
    hexes = [build(built, f"{'x' * 995}{number}") for number in range(4)]
    for number, hex in enumerate(hexes):
        path = built.pipe_dir / "cache/files/blake3" / hex[:2] / hex[2:]
        assert path.exists(), number
    built.write("pipeline.toml", f'[cache]\nmax-size = "8K"\n{PIPELINE.replace("    ", "")}')
    build(built, "main")
    assert collect(built, "--auto")["objects"] == 0
    built.write("pipeline.toml", f'[cache]\nmax-size = "2500B"\n{PIPELINE.replace("    ", "")}')
    report = collect(built, "--auto")
    assert report["objects"] == 2
    assert [has(built, hex) for hex in hexes].count(True) == 2


def test_a_build_keeps_the_cache_under_max_size(built) -> None:  # type: ignore[no-untyped-def]
    built.write("pipeline.toml", f'[cache]\nmax-size = "2500B"\n{PIPELINE.replace("    ", "")}')
    hexes = [build(built, f"{'x' * 995}{number}") for number in range(5)]
    size = sum(p.stat().st_size for p in (built.pipe_dir / "cache/files").rglob("*") if p.is_file())
    assert size <= 2500
    assert has(built, hexes[-1])
    assert not has(built, hexes[0])


# -- beside others ----------------------------------------------------------------------------------------------------


def test_one_collection_at_a_time(built) -> None:  # type: ignore[no-untyped-def]
    with LockTable(str(built.pipe_dir / "locks")).exclusive("gc"):
        said = built.pipe("gc", check=False)
        assert said.returncode == 2
        assert f"pid {os.getpid()}" in said.stderr
        built.pipe("gc", "--dry-run")
    built.pipe("gc")


def test_a_build_waits_for_a_collection_and_a_fresh_one_does_not(built) -> None:  # type: ignore[no-untyped-def]
    with LockTable(str(built.pipe_dir / "locks")).exclusive(CACHE):
        built.pipe("build")
        built.write("a.txt", "new\n")
        building = built.start("build")
        time.sleep(1.0)
        assert building.poll() is None
        assert built.read("out/a.txt") == "main\n"
    assert building.wait() == 0
    assert built.read("out/a.txt") == "new\n"


class Runs:
    """One recorded run that began two hours ago."""

    def __init__(self, status: str, host: str, hours: float) -> None:
        self.record = RunRecord(id="r", time=time.time() - hours * 3600, status=status, host=host)

    def all(self) -> list[RunRecord]:
        return [self.record]

    def prune(self, keep_days: float, *, dry_run: bool, trash: str) -> list[str]:
        return []


HERE = socket.gethostname()


@pytest.mark.parametrize(
    ("status", "host", "hours", "stays"),
    [
        ("running", HERE, 2, True),
        ("running", "elsewhere", 2, True),
        ("running", HERE, 200, True),
        ("running", "elsewhere", 200, False),
        ("succeeded", HERE, 2, False),
    ],
)
def test_what_a_long_build_made_stays_though_no_lock_names_it_yet(  # type: ignore[no-untyped-def]
    built, monkeypatch: pytest.MonkeyPatch, status: str, host: str, hours: float, stays: bool
) -> None:
    pipe = str(built.pipe_dir)
    state = StateDB(f"{pipe}/state.db")
    store = ObjectStore(f"{pipe}/cache", f"{pipe}/tmp", state, CacheConfig())
    actions = ActionCache(f"{pipe}/cache/actions")
    digest = store.add_bytes(b"of a live build")
    out = LockedOut(name="o", path="o", digest=digest)
    actions.record(ActionResult(key="cd" * 32, stage="x", outs=(out,), created=time.time()))
    monkeypatch.setattr(gc, "_FRESH_S", -5.0)  # an hour has passed since
    with LockTable(f"{pipe}/locks").shared(CACHE):
        gc.collect(
            repo=Repository.discover(str(built.path)),
            pipe_dir=pipe,
            store=store,
            actions=actions,
            runs=Runs(status, host, hours),
            state=state,
            keep_days=0,
        )
    assert store.has(digest) is stays
    assert bool(actions.lookup("cd" * 32)) is stays


@pytest.mark.parametrize("live", [False, True])
def test_what_killed_processes_left_is_cleared_away(built, live: bool) -> None:  # type: ignore[no-untyped-def]
    pipe: Path = built.pipe_dir
    left = pipe / "cache/files/blake3/ab/.tmp-1234"
    left.parent.mkdir(exist_ok=True)
    left.write_text("x")
    sandbox = pipe / "tmp/stage-00ff"
    (sandbox / "inner").mkdir(parents=True)
    (sandbox / "inner/file").write_text("x")
    (sandbox / "inner").chmod(0o500)
    (pipe / "tmp/failed/a").mkdir(parents=True)
    (pipe / "tmp/shell-1").mkdir()
    built.pipe("gc")
    assert left.exists() and sandbox.exists(), "it is young"
    remove_leftovers(str(pipe), time.time() + 1, live=live)
    assert not left.exists()
    assert sandbox.exists() is live
    assert (pipe / "tmp/failed/a").exists() and (pipe / "tmp/shell-1").exists(), "a person may look at it"


def test_builds_beside_a_collection_lose_nothing(built) -> None:  # type: ignore[no-untyped-def]
    """Every build ends well, and what its lock names is there, however often a collection runs."""
    import subprocess

    for turn in range(6):
        built.write("a.txt", f"turn {turn % 3}\n")
        building = built.start("build")
        collect(built)
        assert building.wait() == 0, building.stderr.read() if building.stderr else ""
        assert built.read("out/a.txt") == f"turn {turn % 3}\n"
        assert built.pipe("verify", check=False).returncode == 0
        assert isinstance(building, subprocess.Popen)
