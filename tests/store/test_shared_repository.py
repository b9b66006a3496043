"""`core.sharedRepository`, from outside: a colleague of the group can use what a build left."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.conftest import Repo, Result
from tests.users import ADA, BOB, EVE, GROUP, User, needs_root, run_as, start_as

PIPELINE = """
    [stage.a]
    run = "echo 1 > {outputs.o}"
    outputs = { o = "o.txt" }
"""


def test_all_that_a_build_leaves_is_the_groups(repo) -> None:  # type: ignore[no-untyped-def]
    repo.write("pipeline.toml", PIPELINE)
    repo.git("config", "core.sharedRepository", "group")
    old = os.umask(0o077)
    try:
        repo.pipe("build")
    finally:
        os.umask(old)
    for name in ("", "cache", "cache/files/blake3", "cache/actions", "locks", "tmp", "logs"):
        assert stat.S_IMODE((repo.pipe_dir / name).stat().st_mode) == 0o2770, name
    assert stat.S_IMODE((repo.pipe_dir / "state.db").stat().st_mode) == 0o660
    assert stat.S_IMODE((repo.pipe_dir / "locks/table").stat().st_mode) == 0o660
    for where, _folders, files in os.walk(repo.pipe_dir / "cache"):
        for name in files:
            assert os.stat(os.path.join(where, name)).st_mode & 0o040, name


def test_without_it_the_umask_says(repo) -> None:  # type: ignore[no-untyped-def]
    repo.write("pipeline.toml", PIPELINE)
    old = os.umask(0o077)
    try:
        repo.pipe("build")
    finally:
        os.umask(old)
    for where, folders, files in os.walk(repo.pipe_dir):
        for name in [*folders, *files]:
            assert not os.lstat(os.path.join(where, name)).st_mode & 0o077, f"{where}/{name}"


SHARED = """
    [stage.a]
    source = "src"
    run = "{note} && cat src/x > {{outputs.o}} && head -c 2000000 /dev/zero > {{outputs.big}} && echo told"
    outputs = {{ o = "out/a.txt", big = "out/big" }}
    [stage.b]
    inputs = {{ i = "stage:a.o" }}
    run = "mkdir -p {{outputs.d}}/sub && cp {{inputs.i}} {{outputs.d}}/sub/b && sleep ${{{{SLOW:-0}}}}"
    outputs = {{ d = "out/b" }}
    pass-env = ["SLOW"]
"""


@pytest.fixture
def both(request: pytest.FixtureRequest, repo: Repo) -> tuple[Repo, Repo]:
    """One clone of a group, with a work tree each: Ada's, who made it, and Bob's."""
    repo.write("pipeline.toml", SHARED.format(note="echo ran >> $HOME/ran"))
    repo.write("src/x", "1\n")
    repo.git("config", "core.sharedRepository", request.param)
    repo.commit()
    repo.git("config", "--global", "safe.directory", "*")  # root looks at it as well
    bobs = repo.worktree("bob")
    subprocess.run(["chown", "-R", f"{ADA.uid}:{GROUP}", repo.path], check=True)
    subprocess.run(["chown", "-R", f"{BOB.uid}:{GROUP}", bobs.path], check=True)
    git = repo.path / ".git"
    more = "o+rX" if request.param == "all" else "o-rwx"
    subprocess.run(["chmod", "-R", f"g+rwX,{more}", git], check=True)
    subprocess.run(["find", git, "-type", "d", "-exec", "chmod", "g+s", "{}", "+"], check=True)
    return repo, bobs


def ran(repo: Repo, user: User) -> int:
    """Return how often stage `a` ran as a user since this was last asked."""
    log = repo.path.parent / f"home-{user.name}/ran"
    count = len(log.read_text().split()) if log.exists() else 0
    log.unlink(missing_ok=True)
    return count


def unshared(pipe_dir: Path) -> list[str]:
    """Return what a colleague can't use. What lies in sandboxes has the modes that its stage gave it."""
    found = []
    for where, folders, files in os.walk(pipe_dir):
        if "/tmp/stage-" in where or "/tmp/failed/" in where:
            continue
        for name in folders:
            mode = os.lstat(os.path.join(where, name)).st_mode
            if mode & 0o2070 != 0o2070:
                found.append(f"{stat.filemode(mode)} {where}/{name}")
        for name in files:
            mode = os.lstat(os.path.join(where, name)).st_mode
            if not stat.S_ISLNK(mode) and not mode & 0o040:
                found.append(f"{stat.filemode(mode)} {where}/{name}")
    return found


@needs_root
@pytest.mark.parametrize(("both", "umask"), [("group", 0o022), ("0660", 0o077), ("all", 0o077)], indirect=["both"])
def test_colleagues_use_each_others_results(both: tuple[Repo, Repo], umask: int) -> None:
    adas, bobs = both

    def ada(*args: str, check: bool = True) -> Result:
        return run_as(adas, ADA, *args, umask=umask, check=check)

    def bob(*args: str, check: bool = True) -> Result:
        return run_as(bobs, BOB, *args, umask=umask, check=check)

    assert ada("pipe", "build", "--json").stages() == {"a": "ran", "b": "ran"}
    assert unshared(adas.pipe_dir) == []
    restored = bob("pipe", "build", "--json")
    assert restored.stages() == {"a": "restored", "b": "restored"} and "warning" not in restored.stderr
    assert (ran(adas, ADA), ran(adas, BOB)) == (1, 0)
    for _ in range(2):
        assert ada("pipe", "status").stderr == bob("pipe", "status").stderr == ""
        assert bob("pipe", "build", "--json").json()["status"] == "up-to-date"

    bob("sh", "-c", "echo 2 > src/x")
    assert bob("pipe", "build", "--json").stages() == {"a": "ran", "b": "ran"}
    ada("sh", "-c", "echo 2 > src/x; echo mine > out/a.txt")
    taken = ada("pipe", "build", "--json")
    assert taken.stages() == {"a": "restored", "b": "restored"}
    (kept,) = [line for line in taken.stderr.splitlines() if "is kept as" in line]
    assert bob("pipe", "cat", kept.rpartition(" ")[2]).stdout == "mine\n"
    runs = bob("pipe", "runs", "--json").json()["runs"]
    assert len(runs) == 4 and {entry["user"] for entry in runs} == {"ada", "bob"}
    for entry in runs:
        for side in (ada, bob):
            side("pipe", "show", entry["id"])
            side("pipe", "logs", entry["id"])
    assert "told" in bob("pipe", "logs", runs[-1]["id"], "a").stdout
    ada("git", "fsck", "--no-dangling")
    bob("git", "show", f"refs/pipe/runs/{runs[-1]['id']}")
    assert bob("pipe", "verify", "--full").returncode == 0
    assert unshared(adas.pipe_dir) == []
    assert "Traceback" not in bob("pipe", "doctor").stdout


@needs_root
@pytest.mark.parametrize("both", ["group"], indirect=True)
def test_what_a_colleague_left_when_killed_is_no_hindrance(both: tuple[Repo, Repo]) -> None:
    adas, bobs = both
    process = start_as(bobs, BOB, sys.executable, "-m", "pipesmith", "build", env={"SLOW": "60"})
    log = adas.path.parent / "home-bob/ran"
    while not (log.exists() and list(adas.pipe_dir.glob("cache/actions/*/*/*.json"))):
        assert process.poll() is None
    process.kill()
    process.communicate()
    built = run_as(adas, ADA, "pipe", "build", "--json")
    assert built.stages() == {"a": "restored", "b": "ran"} and "denied" not in built.stderr
    for user, where in ((ADA, adas), (BOB, bobs)):
        done = run_as(where, user, "pipe", "gc", "--keep-days", "0")
        assert "denied" not in done.stdout + done.stderr
    assert run_as(bobs, BOB, "pipe", "build", "--json").stages() == {"a": "restored", "b": "restored"}


@needs_root
@pytest.mark.parametrize("both", ["group"], indirect=True)
def test_what_is_dropped_of_a_colleagues_rests_a_week(both: tuple[Repo, Repo]) -> None:
    """Its times are its owner's alone to set: it must not count as long dropped at once."""
    adas, bobs = both
    run_as(bobs, BOB, "pipe", "build")
    run_as(bobs, BOB, "rm", "-rf", "out", "pipe.lock")
    old = time.time() - 30 * 86_400
    for path in (adas.pipe_dir / "cache").rglob("*"):
        os.utime(path, (old, old))
    for ref in adas.pipe_dir.parent.glob("refs/pipe/runs/*"):
        run_as(adas, ADA, "git", "update-ref", "-d", f"refs/pipe/runs/{ref.name}")
    for _ in range(2):
        run_as(adas, ADA, "pipe", "gc", "--keep-days", "0")
        assert len(list((adas.pipe_dir / "trash").iterdir())) == 3


@needs_root
@pytest.mark.parametrize("both", ["group"], indirect=True)
def test_who_may_not_read_the_repository_is_told_so(both: tuple[Repo, Repo]) -> None:
    adas, _bobs = both
    for command in ("build", "status", "runs"):
        result = run_as(adas, EVE, "pipe", command, check=False)
        assert (result.returncode, result.stderr) == (
            2,
            f"error: `{adas.path}/.git` can't be read: permission denied\n"
            f"help: ask its owner for access: `ls -ld {adas.path}/.git`\n",
        )


@needs_root
@pytest.mark.parametrize("both", ["all"], indirect=True)
def test_who_may_read_alone_sees_all_and_is_told_what_he_may_not(both: tuple[Repo, Repo]) -> None:
    adas, _bobs = both
    run_as(adas, ADA, "pipe", "build")
    assert run_as(adas, EVE, "pipe", "status", "--json").stages(key="state") == {"a": "fresh", "b": "fresh"}
    assert "up to date" in run_as(adas, EVE, "pipe", "build").stdout
    for command in ("build -f", "gc", "shell a true"):
        result = run_as(adas, EVE, "pipe", *command.split(), check=False)
        assert result.returncode in (1, 2) and "Traceback" not in result.stderr, command
        if result.returncode == 1:
            first, help = result.stderr.splitlines()
            assert first.startswith(f"error: `{adas.pipe_dir}/") and first.endswith(": permission denied"), command
            assert "a group that shares this clone" in help, command


@needs_root
def test_after_a_build_by_root_its_owner_is_told_how_to_get_it_back(repo: Repo) -> None:
    repo.write("pipeline.toml", SHARED.format(note="true"))
    repo.write("src/x", "1\n")
    repo.commit()
    repo.git("config", "--global", "safe.directory", "*")
    subprocess.run(["chown", "-R", f"{ADA.uid}:{ADA.uid}", repo.path], check=True)
    repo.pipe("build")
    assert "up to date" in run_as(repo, ADA, "pipe", "build").stdout
    run_as(repo, ADA, "sh", "-c", "echo 2 > src/x")
    assert run_as(repo, ADA, "pipe", "status", "--json").stages(key="state") == {"a": "stale", "b": "pending"}
    result = run_as(repo, ADA, "pipe", "build", check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"error: `{repo.pipe_dir}/locks/table`: permission denied\n"
        f"help: it belongs to `root`: `sudo chown -R {ADA.uid} {repo.pipe_dir}`, or share the clone: "
        "`git config core.sharedRepository group`\n"
    )
    subprocess.run(["chown", "-R", str(ADA.uid), repo.pipe_dir], check=True)
    result = run_as(repo, ADA, "pipe", "build", check=False)
    assert result.returncode == 1 and "out/.pipe-tmp-" in result.stdout
    assert f"help: it belongs to `root`: `sudo chown -R {ADA.uid} {repo.path}/out`" in result.stdout
    subprocess.run(["chown", "-R", str(ADA.uid), repo.path], check=True)
    assert run_as(repo, ADA, "pipe", "build", "--json").stages() == {"a": "restored", "b": "ran"}
