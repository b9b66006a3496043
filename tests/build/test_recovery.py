"""What may be deleted or damaged costs time, never rightness."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


@pytest.fixture
def built(repo, chain):
    repo.pipe("build")
    repo.ran()
    return repo


def objects(repo) -> list[Path]:
    """Every object of the cache, manifests too."""
    return [path for path in (repo.pipe_dir / "cache/files").rglob("*") if path.is_file()]


def test_lock_deleted(built) -> None:
    """`pipe.lock` deleted: nothing runs again, and the same bytes."""
    before = built.read("pipe.lock")
    (built.path / "pipe.lock").unlink()
    done = built.pipe("build", "--json")
    assert set(done.stages().values()) <= {"restored", "fresh"}
    assert built.ran() == []
    assert built.read("pipe.lock") == before


def test_pipe_folder_deleted(built) -> None:
    """`.git/pipe` deleted: costs time, never rightness."""
    before = built.read("pipe.lock")
    shutil.rmtree(built.pipe_dir)
    assert built.pipe("build", "--json").json()["status"] == "up-to-date"
    assert built.ran() == []
    shutil.rmtree(built.pipe_dir, ignore_errors=True)
    (built.path / "out/b").unlink()
    assert built.pipe("build", "--json").stages() == {"a": "fresh", "b": "ran", "c": "fresh"}
    assert built.read("pipe.lock") == before


@pytest.mark.parametrize("how", ["deleted", "garbage", "empty", "folder", "truncated"])
def test_state_db(built, how: str) -> None:
    """`state.db` may be deleted at any time, and costs time, never rightness."""
    database = built.pipe_dir / "state.db"
    data = database.read_bytes()
    for path in built.pipe_dir.glob("state.db*"):
        path.unlink()
    if how == "garbage":
        database.write_bytes(b"garbage" * 1000)
    elif how == "empty":
        database.touch()
    elif how == "folder":
        database.mkdir()
    elif how == "truncated":
        database.write_bytes(data[: len(data) // 2])
    assert built.pipe("build", "--json").json()["status"] == "up-to-date"
    built.write("a.txt", "2x")
    assert built.pipe("build", "--json").stages() == {"a": "ran", "b": "ran", "c": "ran"}
    built.write("a.txt", "1x")
    assert built.pipe("build", "--json").stages() == {"a": "restored", "b": "restored", "c": "restored"}
    assert built.read("out/c") == "11"


@pytest.mark.parametrize("how", ["flipped", "lost", "empty"])
def test_an_object_of_the_cache(built, how: str) -> None:
    """A flipped byte or a lost object in the cache is a miss: the stage runs, and its output is right."""
    before = built.read("pipe.lock")
    for path in objects(built):
        if how == "lost":
            path.unlink()
        else:
            path.chmod(0o644)
            path.write_bytes(b"" if how == "empty" else bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    shutil.rmtree(built.path / "out")
    done = built.pipe("build", "--json")
    assert set(done.stages().values()) <= {"ran", "restored"} and done.stages()["a"] == "ran"
    assert (built.read("out/a"), built.read("out/b"), built.read("out/c")) == ("1", "11", "11")
    assert built.read("pipe.lock") == before


def test_a_damaged_part_of_a_folder(repo, toml) -> None:
    """Also a file, or the list, of a folder output."""
    toml("""
        [stage.a]
        run = "NOTE(a) && mkdir {outputs.d} && echo 1 > {outputs.d}/x && echo 2 > {outputs.d}/y"
        outputs = { d = "d" }
    """)
    repo.pipe("build")
    for path in objects(repo):
        shutil.rmtree(repo.path / "d")
        path.chmod(0o644)
        path.write_bytes(b"junk")
        repo.ran()
        done = repo.pipe("build", "--json")
        assert done.stages() == {"a": "ran"}
        (said,) = [line for line in done.stderr.splitlines() if "damaged" in line]
        assert said.startswith("warning: object ") and "was damaged, and is in the trash now" in said
        assert repo.read("d/x") == "1\n" and repo.read("d/y") == "2\n"


@pytest.mark.parametrize("how", ["garbage", "empty", "deleted"])
def test_action_records(built, how: str) -> None:
    """A damaged cache record is a miss."""
    for path in (built.pipe_dir / "cache/actions").rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            path.unlink() if how == "deleted" else path.write_bytes(b"" if how == "empty" else b"\x00junk{")
    (built.path / "pipe.lock").unlink()
    done = built.pipe("build", "--json")
    assert done.returncode == 0
    assert built.read("out/c") == "11"


@pytest.mark.parametrize("text", ["= broken", "version = 99\n", '[stage.a]\nouts = "x"\n', "\x00"])
def test_broken_lock(built, text: str) -> None:
    """A lock that can't be read is the user's file: exit 2, not overwritten."""
    built.write("pipe.lock", text)
    for command in (("build",), ("status",), ("build", "--force")):
        done = built.pipe(*command, check=False)
        assert done.returncode == 2 and "pipe.lock" in done.stderr and "Traceback" not in done.stderr
    assert built.read("pipe.lock") == text


def test_lock_with_conflict_markers(built) -> None:
    """A clone without the merge driver that got markers is told to run `pipe lock resolve`."""
    built.write("pipe.lock", f"<<<<<<< HEAD\n{built.read('pipe.lock')}=======\n>>>>>>> other\n")
    done = built.pipe("build", check=False)
    assert done.returncode == 2 and "pipe lock resolve" in done.stderr


def test_an_earlier_commit_gives_its_lock_byte_for_byte(built) -> None:
    """Restore after `git checkout` of an earlier commit gives the committed pipe.lock byte for byte."""
    built.commit("one")
    built.write("a.txt", "2x")
    built.pipe("build")
    built.commit("two")
    built.ran()
    built.git("checkout", "-q", "HEAD~1")
    assert built.pipe("build", "--json").stages() == {"a": "restored", "b": "restored", "c": "restored"}
    assert built.git("status", "--porcelain").stdout == ""
    assert built.ran() == []
    built.git("checkout", "-q", "main")
    built.pipe("build")
    assert built.git("status", "--porcelain").stdout == "" and built.read("out/c") == "22"


def test_committing_changes_no_lock(built) -> None:
    """No change, no diff: a build after the commit leaves the lock as it is."""
    before = built.read("pipe.lock")
    built.commit()
    built.pipe("build")
    (built.path / "out/a").unlink()
    built.pipe("build")
    assert built.read("pipe.lock") == before
    assert built.git("status", "--porcelain").stdout == ""


def test_status_rev_equals_the_work_trees_fingerprints(built) -> None:
    """A fingerprint at a commit, without checking it out, is that of the work tree."""
    commit = built.commit()
    here = {s["name"]: s["fingerprint"] for s in built.pipe("status", "--json").json()["stages"]}
    there = {s["name"]: s["fingerprint"] for s in built.pipe("status", "--rev", commit, "--json").json()["stages"]}
    assert here == there and all(here.values())
    shutil.rmtree(built.path / "out")
    assert built.pipe("status", "--rev", commit, "--check", "--json").stages(key="state") == {
        "a": "fresh", "b": "fresh", "c": "fresh",
    }  # fmt: skip
    built.write("a.txt", "2x")
    stale = built.commit()
    told = built.pipe("status", "--rev", stale, "--check", "--json", check=False)
    assert told.returncode == 1
    assert told.stages(key="state") == {"a": "stale", "b": "pending", "c": "pending"}
    built.git("checkout", "-q", commit)
    assert built.pipe("status", "--rev", stale, "--json").stages(key="state")["a"] == "stale"


def test_rev_does_not_ask_pipe_param(built, toml) -> None:
    """At a revision PIPE_PARAM_* are not asked."""
    toml("""
        [params]
        x = 1
        [stage.a]
        run = "echo {params.x} > {outputs.o}"
        outputs = { o = "o" }
    """)
    built.pipe("build")
    built.commit()
    env = {"PIPE_PARAM_x": "2"}
    assert built.pipe("status", "--json", env=env).stages(key="state") == {"a": "stale"}
    assert built.pipe("status", "--rev", "HEAD", "--check", env=env).returncode == 0


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs a mount namespace")
def test_read_only_clone(built) -> None:
    """A read-only clone: a fresh build says up to date."""
    script = f"mount --bind {built.path} {built.path} && mount -o remount,ro,bind {built.path} && cd {built.path} && "
    import sys

    def read_only(command: str, check: bool = True):
        return built.run("unshare", "-m", "sh", "-c", f"{script}{sys.executable} -m pipesmith {command}", check=check)

    if read_only("--version", check=False).returncode != 0:
        pytest.skip("no mounts here")
    assert "up to date" in read_only("build").stdout
    assert read_only("status --check").returncode == 0
    shutil.rmtree(built.pipe_dir)
    assert "up to date" in read_only("build").stdout
    built.write("a.txt", "2x")
    done = read_only("build", check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr


def test_worktrees_share_the_cache(built) -> None:
    """The cache is shared by all worktrees of the clone."""
    built.commit()
    other = built.worktree()
    assert other.pipe("build", "--json").stages() == {"a": "restored", "b": "restored", "c": "restored"}
    assert other.ran() == []
    assert other.read("out/c") == "11"
    assert built.pipe("build", "--json").json()["status"] == "up-to-date"


def test_another_worktree_linking_an_object_makes_nothing_stale(repo, toml) -> None:
    """Making or removing a hard link changes a file's ctime: a reason to hash, never a verdict."""
    toml("""
        [stage.a]
        run = "NOTE(a) && head -c 3000000 /dev/zero > {outputs.o}"
        outputs = { o = "o" }
        [stage.b]
        run = "NOTE(b) && wc -c < {inputs.i} > {outputs.o}"
        inputs = { i = "o" }
        outputs = { o = "b" }
    """)
    repo.pipe("build")
    repo.commit()
    other = repo.worktree()
    other.pipe("build")
    assert repo.ran() == ["a", "b"]
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"
    other.git("worktree", "remove", "--force", str(other.path), check=False)
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"


def test_a_fresh_clone_with_allow_missing(built) -> None:
    """With --allow-missing a locked output that no stale stage needs may be absent."""
    built.commit()
    clone = built.clone()
    assert clone.pipe("status", "--check", check=False).returncode == 1
    assert clone.pipe("status", "--check", "--allow-missing").returncode == 0
    assert clone.pipe("build", "--allow-missing", "--json").json()["status"] == "up-to-date"
    assert not clone.exists("out") and clone.ran() == []


def test_allow_missing_makes_what_a_stale_stage_needs(built, toml) -> None:
    """What a stale stage needs must be there: it is made or restored."""
    built.commit()
    clone = built.clone()
    text = clone.read("pipeline.toml").replace("echo c", "echo c ")
    clone.write("pipeline.toml", text)
    done = clone.pipe("build", "--allow-missing", "--json")
    assert done.stages()["c"] == "ran"
    assert clone.read("out/c") == "11"
    assert "c" in clone.ran()
