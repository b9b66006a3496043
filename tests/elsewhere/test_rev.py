"""`pipe build --rev`: a commit built in a place of its own, where nothing of the user's changes."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
from tests.conftest import Repo

from .conftest import Looks, two_stages


def test_a_commit_is_built_and_nothing_of_the_users_changes(two: Repo) -> None:
    first = two.git("rev-parse", "HEAD").stdout.strip()
    two.write("src/word", "two\n")
    two.commit("second")
    two.write("src/word", "three, not committed\n")
    two.write("untracked", "x")
    looks = Looks(two)
    result = two.pipe("build", "--rev", first, "--json")
    assert result.stages() == {"a": "ran", "b": "ran"}
    assert set(result.json()) == {"run", "status", "stages"}
    assert two.ran() == ["a", "b"]
    looks.same()
    run = two.pipe("show", result.json()["run"], "--json").json()
    assert (run["commit"], run["dirty"], run["branch"]) == (first, False, None)
    tree = two.git("rev-parse", f"refs/pipe/runs/{run['id']}^{{tree}}").stdout
    assert tree == two.git("rev-parse", f"{first}^{{tree}}").stdout
    assert two.git("rev-parse", f"refs/pipe/runs/{run['id']}^").stdout.strip() == first
    two.git("stash", "-q", "-u")
    two.git("checkout", "-q", first)
    again = two.pipe("build", "--json")
    assert again.stages() == {"a": "restored", "b": "restored"}
    assert two.ran() == []
    assert two.read("out/b.txt") == "one\n1\n"


def test_what_is_fresh_at_the_commit_is_not_run(two: Repo) -> None:
    two.pipe("build")
    two.commit("built")
    two.ran()
    two.write("src/word", "two\n")
    result = two.pipe("build", "--rev", "HEAD", "--json").json()
    assert (result["status"], result["run"]) == ("up-to-date", None)
    assert [stage["status"] for stage in result["stages"]] == ["fresh", "fresh"]
    assert result["stages"][1]["outputs"][0]["path"] == "out/b.txt"
    assert two.ran() == []
    assert two.pipe("build", "--rev", "HEAD").stdout.startswith("up to date at ")


def test_outputs_that_are_not_at_hand_are_made_where_needed(two: Repo) -> None:
    two.pipe("build")
    two.commit("built")
    two.ran()
    hash = two.pipe("status", "--json").json()["stages"][1]["outputs"][0]["hash"].split(":")[1]
    for path in (two.pipe_dir / "cache").rglob(f"*{hash[2:]}*"):
        path.unlink()
    result = two.pipe("build", "--rev", "HEAD", "--json")
    assert result.stages() == {"a": "restored", "b": "ran"}  # a's output was brought for b
    assert two.ran() == ["b"]


def test_flags_of_a_build_work(two: Repo) -> None:
    assert two.pipe("build", "--rev", "HEAD", "a", "--json").stages() == {"a": "ran"}
    assert two.pipe("build", "--rev", "HEAD", "a", "--downstream", "--json").stages() == {"a": "restored", "b": "ran"}
    two.ran()
    dry = two.pipe("build", "--rev", "HEAD", "--force", "--dry-run", "--json").json()
    assert dry["status"] == "planned"
    assert [stage["status"] for stage in dry["stages"]] == ["ran", "pending"]
    assert two.ran() == []
    assert two.pipe("build", "--rev", "HEAD", "--force", "b", "--json").stages() == {"a": "restored", "b": "ran"}
    assert two.ran() == ["b"]
    changed = two.pipe("build", "--rev", "HEAD", "--set", "lr=5", "--json")
    assert changed.stages() == {"a": "restored", "b": "ran"}
    assert two.pipe("build", "--rev", "HEAD", "--json", env={"PIPE_PARAM_lr": "5"}).stages() == {
        "a": "restored",
        "b": "restored",
    }
    assert two.ran() == ["b"]


def test_keep_going_and_a_failure(two: Repo) -> None:
    two.write(
        "pipeline.toml",
        two_stages(two)
        + f"""
        [stage.c]
        run = "{two.note("c")}; cat nowhere-at-all; exit 3"
        outputs = {{ o = "c" }}
    """,
    )
    two.commit("c fails")
    looks = Looks(two)
    failed = two.pipe("build", "--rev", "HEAD", "-k", "--json", check=False)
    assert failed.returncode == 1
    assert failed.stages() == {"a": "ran", "b": "ran", "c": "failed"}
    looks.same()
    entry = next(stage for stage in failed.json()["stages"] if stage["name"] == "c")
    kept = two.pipe_dir / "tmp" / "failed-elsewhere" / failed.json()["run"]
    assert str(kept) in entry["help"]
    assert (kept / "c").is_dir()
    assert "nowhere-at-all" in two.pipe("logs", failed.json()["run"], "c").stdout


def test_the_text_names_what_the_commits_lock_lacks(two: Repo) -> None:
    short = two.git("rev-parse", "HEAD").stdout[:10]
    said = two.pipe("build", "--rev", "HEAD").stdout
    assert f"pipe.lock at {short} does not have what was built of a, b" in said
    two.pipe("build", "a")
    two.commit("a is locked")
    short = two.git("rev-parse", "HEAD").stdout[:10]
    assert f"pipe.lock at {short} does not have what was built of b\n" in two.pipe("build", "--rev", "HEAD").stdout
    two.pipe("build")
    two.commit("all is locked")
    assert "does not have" not in two.pipe("build", "--rev", "HEAD").stdout


def test_git_speaks_of_the_commit(two: Repo) -> None:
    two.write(
        "pipeline.toml",
        """
        [datastore.away]
        url = "file:../away"
        [stage.c]
        run = '''python3 -c "
        from pipesmith.sdk import Run
        run = Run.get_context()
        open('c', 'w').write(run.git.commit)
        "'''
        outputs = { o = { path = "c", to = "away:{git.branch}/{git.commit}/" } }
        """,
    )
    commit = two.commit("c")
    two.git("branch", "side")
    two.write("src/word", "other\n")
    two.commit("later")
    assert two.pipe("build", "--rev", "side", "c", "--json").stages() == {"c": "ran"}
    assert (two.path.parent / "away" / "side" / commit / "c").read_text() == commit


def test_nothing_is_delivered_into_the_work_tree(two: Repo) -> None:
    two.write(
        "pipeline.toml",
        """
        [datastore.here]
        url = "file:exports"
        [stage.c]
        run = "echo 1 > {outputs.o}"
        outputs = { o = { path = "c", to = "here:all/" } }
        """,
    )
    two.commit("c")
    looks = Looks(two)
    done = two.pipe("build", "--rev", "HEAD")
    assert "is not delivered to `here:all/`" in done.stderr
    looks.same()


def test_stages_see_the_workspace_where_it_is_for_its_users(two: Repo) -> None:
    two.write(
        "pipeline.toml",
        """
        [stage.c]
        source = "src"
        run = "(pwd; ls -a; ls -A $PWD/src) > $TMPDIR/c; mv $TMPDIR/c {outputs.o}"
        outputs = { o = "c" }
        """,
    )
    two.commit("c")
    two.write("secret-of-the-work-tree", "x")
    two.pipe("build", "--rev", "HEAD")
    two.pipe("build")  # restored
    assert two.read("c").split("\n") == [str(two.path), ".", "..", "src", "word", ""]


@pytest.mark.parametrize("mode", ["copies", "namespaces"])
def test_both_kinds_of_sandbox(two: Repo, mode: str) -> None:
    done = two.pipe("build", "--rev", "HEAD", "--json", env={"PIPE_SANDBOX": mode}, check=False)
    if "this machine offers" in done.stderr:
        pytest.skip("no namespaces here")
    assert done.stages() == {"a": "ran", "b": "ran"}


def test_a_stage_without_a_sandbox_runs_in_the_place(two: Repo) -> None:
    two.write(".gitignore", "/data\n")
    two.write("data/raw", "raw\n")
    two.write(
        "pipeline.toml",
        """
        [stage.c]
        run = "cat data/raw src/word > {outputs.o}; echo scribbled > src/word"
        inputs = { raw = "data" }
        outputs = { o = "c" }
        sandbox = false
        """,
    )
    two.commit("c")
    looks = Looks(two)
    assert two.pipe("build", "--rev", "HEAD", "--json").stages() == {"c": "ran"}
    looks.same()
    two.pipe("build")
    assert two.read("c") == "raw\none\n"


def test_params_files_and_pipeignore_are_those_of_the_commit(two: Repo) -> None:
    two.write("params.yaml", "lr: 3\n")
    two.write(".pipeignore", "src/notes\n")
    two.write("src/notes", "n\n")
    two.write(
        "pipeline.toml",
        '[pipeline]\nparams-files = ["params.yaml"]\n' + two.read("pipeline.toml").replace("[params]\nlr = 1", ""),
    )
    first = two.commit("params file")
    two.write("params.yaml", "lr: 4\n")
    two.write(".pipeignore", "")
    two.commit("later")
    assert two.pipe("build", "--rev", first, "--json").stages() == {"a": "ran", "b": "ran"}
    two.git("checkout", "-q", first)
    two.ran()
    assert two.pipe("build", "--json").stages() == {"a": "restored", "b": "restored"}
    assert two.read("out/b.txt") == "one\n3\n"
    assert two.ran() == []


# -- wrong use --------------------------------------------------------------------------------------------------------


def test_what_is_no_commit_is_said(two: Repo, make_repo) -> None:
    bad = two.pipe("build", "--rev", "nowhere", check=False)
    assert bad.returncode == 2
    assert "`nowhere` is not a revision" in bad.stderr
    two.write("pipeline.toml", "[stage.a]\nrum = 1\n")
    commit = two.commit("broken")
    two.git("checkout", "-q", "HEAD~1")
    broken = two.pipe("build", "--rev", commit, check=False)
    assert broken.returncode == 2
    assert f"{commit[:10]}:pipeline.toml:2: stage.a" in broken.stderr
    two.git("rm", "-q", "pipeline.toml")
    commit = two.commit("none")
    two.git("checkout", "-q", "HEAD~1")
    none = two.pipe("build", "--rev", commit, check=False)
    assert none.returncode == 2
    assert f"there is no pipeline.toml at {commit[:10]}" in none.stderr


def test_before_the_first_commit(repo: Repo) -> None:
    repo.write("pipeline.toml", two_stages(repo))
    repo.write("src/word", "one\n")
    said = repo.pipe("build", "--rev", "HEAD", check=False)
    assert said.returncode == 2
    assert "there is no commit yet" in said.stderr


def test_inside_a_stage_it_refuses(two: Repo) -> None:
    assert two.pipe("build", "--rev", "HEAD", check=False, env={"PIPE_RUN": "r", "PIPE_STAGE": "s"}).returncode == 2


# -- several at once, interrupts, kills -------------------------------------------------------------------------------


def test_many_builds_of_one_commit_run_each_stage_once(two: Repo) -> None:
    looks = Looks(two)
    builds = [two.start("build", "--rev", "HEAD", "--json") for _ in range(4)]
    for build in builds:
        out, err = build.communicate(timeout=120)
        assert build.returncode == 0, err
        assert {stage["status"] for stage in json.loads(out)["stages"]} <= {"ran", "restored"}
    assert two.ran() == ["a", "b"]
    looks.same()


def _started(repo: Repo, *args: str):
    build = repo.start("build", *args)
    deadline = time.monotonic() + 60
    while not (repo.home / "ran").exists():
        assert time.monotonic() < deadline and build.poll() is None, build.stderr.read()
        time.sleep(0.02)
    return build


def _slow(repo: Repo) -> None:
    repo.write(
        "pipeline.toml",
        f"""
        [stage.slow]
        run = "{repo.note("slow")} && sleep 100 && echo 1 > {{outputs.o}}"
        outputs = {{ o = "o" }}
        """,
    )
    repo.commit("slow")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing(two: Repo, number: signal.Signals) -> None:
    _slow(two)
    looks = Looks(two)
    build = _started(two, "--rev", "HEAD")
    assert len(two.git("worktree", "list").stdout.splitlines()) == 2
    os.killpg(build.pid, number)
    build.communicate(timeout=60)
    assert build.returncode == 130
    looks.same()


@pytest.mark.parametrize("after", [("build",), ("build", "--rev", "HEAD"), ("gc",)])
def test_what_a_killed_build_left_is_swept(two: Repo, after: tuple[str, ...]) -> None:
    _slow(two)
    looks = Looks(two)
    build = _started(two, "--rev", "HEAD")
    build.kill()
    build.communicate(timeout=60)
    assert len(two.git("worktree", "list").stdout.splitlines()) == 2
    two.git("worktree", "prune")
    two.git("checkout", "-q", "HEAD~1")
    two.pipe(*after)
    assert len(two.git("worktree", "list").stdout.splitlines()) == 1
    assert looks.now()["places"] == []
    assert not (two.path / ".git" / "worktrees").exists()


def test_a_build_that_goes_on_is_not_swept(two: Repo) -> None:
    _slow(two)
    build = _started(two, "--rev", "HEAD")
    two.pipe("build", "--rev", "HEAD~1")
    two.git("worktree", "prune", "--expire=now")
    assert len(two.git("worktree", "list").stdout.splitlines()) == 2
    assert build.poll() is None
    os.killpg(build.pid, signal.SIGINT)
    build.communicate(timeout=60)
