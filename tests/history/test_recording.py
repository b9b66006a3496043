"""Every build that did something is a run that git holds; what `runs`, `show`, `logs` and `diff` say of it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.conftest import Repo

PIPELINE = """
    [params]
    lr = 0.1
    [stage.train]
    source = ["train.sh"]
    run = "sh train.sh {params.lr} {outputs.model} {outputs.report}"
    outputs = { model = "model.bin", report = { path = "report.json", cache = false } }
    metrics = ["report"]
    pass-env = ["HF_TOKEN"]
"""
TRAIN = """
    echo "$1 $HF_TOKEN" | cut -c1-40
    echo "model $1" > "$2"
    echo "{\\"auc\\": $1}" > "$3"
"""


def with_pipeline(repo: Repo, folder: str = "") -> None:
    repo.write(f"{folder}pipeline.toml", PIPELINE)
    repo.write(f"{folder}train.sh", TRAIN)


def runs(repo: Repo, *args: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = repo.pipe("runs", "--json", *args).json()["runs"]
    return found


def test_a_build_is_a_run_with_everything_in_it(repo: Repo) -> None:
    """Who, what, where, from which code, and how each stage went."""
    with_pipeline(repo)
    commit = repo.commit()
    repo.git("remote", "add", "origin", "https://ada:hunter22@example.com/pets.git")
    repo.write("train.sh", TRAIN + "    # more\n")
    done = repo.pipe("build", "--json", "-m", "a try", "--tag", "team=a").json()
    (run,) = runs(repo)
    assert run["id"] == done["run"]
    assert (run["status"], run["commit"], run["branch"], run["dirty"]) == ("succeeded", commit, "main", True)
    assert run["remote"] == "https://example.com/pets.git"
    assert (run["message"], run["tags"], run["workspace"]) == ("a try", {"team": "a"}, ".")
    assert run["command"] == ["pipe", "build", "--json", "-m", "a try", "--tag", "team=a"]
    (stage,) = run["stages"]
    assert (stage["name"], stage["status"], stage["exit_code"]) == ("train", "ran", 0)
    assert stage["fingerprint"] == done["stages"][0]["fingerprint"]
    assert stage["outputs"] == {out["path"]: out["hash"] for out in done["stages"][0]["outputs"]}
    assert stage["metrics"] == {"report:auc": 0.1}
    assert stage["why"] == [{"kind": "new", "item": "", "old": None, "new": None}]
    snapshot = f"refs/pipe/runs/{run['id']}"
    assert stage["source"] == {"train.sh": repo.git("rev-parse", f"{snapshot}:train.sh").stdout.strip()}
    assert repo.git("rev-parse", f"{snapshot}^").stdout.strip() == commit
    assert stage["start"] <= stage["end"] <= run["end"]


def test_a_build_with_nothing_to_do_is_no_run(repo: Repo) -> None:
    with_pipeline(repo)
    repo.pipe("build")
    repo.pipe("build")
    assert len(runs(repo)) == 1


def test_history_outlives_state_db(repo: Repo) -> None:
    """The list is the same without the index, newest first, runs of one second included."""
    with_pipeline(repo)
    for rate in ("0.1", "0.2", "0.3"):
        repo.pipe("build", "--set", f"lr={rate}")
    before = runs(repo)
    assert [run["stages"][0]["metrics"]["report:auc"] for run in before] == [0.3, 0.2, 0.1]
    for path in repo.pipe_dir.glob("state.db*"):
        path.unlink()
    assert runs(repo) == before
    assert repo.pipe("show", "--json").json() == before[0]


def test_history_outlives_what_git_does_to_its_objects_and_refs(repo: Repo) -> None:
    """Collected, repacked, refs packed, the index of runs gone; another worktree sees the same, and adds its own."""
    with_pipeline(repo)
    repo.commit()
    repo.write("untracked.txt", "only in the snapshot\n")
    repo.pipe("build")
    before = runs(repo)
    logs = repo.pipe("logs").stdout
    for words in (
        ("gc", "-q", "--prune=now"),
        ("repack", "-adq"),
        ("pack-refs", "--all"),
        ("gc", "-q", "--aggressive", "--prune=now"),
    ):
        repo.git(*words)
        for path in repo.pipe_dir.glob("state.db*"):
            path.unlink()
        assert runs(repo) == before
        assert repo.pipe("logs", before[0]["id"]).stdout == logs
        assert repo.git("show", f"refs/pipe/runs/{before[0]['id']}:untracked.txt").stdout == "only in the snapshot\n"
    other = repo.worktree()
    assert runs(other) == before
    other.write("train.sh", TRAIN + "    # there\n")
    run = other.pipe("build", "--json").json()["run"]
    assert [each["id"] for each in runs(repo)] == [run, before[0]["id"]]
    assert "# there" in repo.git("show", f"refs/pipe/runs/{run}:train.sh").stdout
    assert repo.git("log", "--exclude=refs/pipe/*", "--all", "--format=%H").stdout.split() == [before[0]["commit"]]


def test_secrets_are_in_no_object_of_the_repository(repo: Repo) -> None:
    """Neither files that look secret, nor what pass-env hands through, by command line or log."""
    with_pipeline(repo)
    repo.write(".env", "HF_TOKEN=file-secret-1\n")
    repo.write("keys/server.PEM", "file-secret-2\n")
    token = "hf_abcdefgh"
    repo.pipe("build", "-m", f"with {token}", "--tag", f"token={token}", env={"HF_TOKEN": token})
    (run,) = runs(repo)
    assert run["left_out"] == {".env": "looks like a secret", "keys/server.PEM": "looks like a secret"}
    assert (run["message"], run["tags"]) == ("with ***", {"token": "***"})
    objects = subprocess.run(
        ["git", "cat-file", "--batch-all-objects", "--batch"],
        cwd=repo.path,
        env=repo.env,
        capture_output=True,
        check=True,
    )
    assert b"train.sh" in objects.stdout
    for secret in (b"file-secret", token.encode()):
        assert secret not in objects.stdout
    assert repo.pipe("logs", run["id"], "train").stdout == "0.1 ***\n"


def test_what_is_big_ignored_or_data_is_left_out(repo: Repo) -> None:
    """A declared input that git does not track, a file over the limit, and what a nested .pipeignore names."""
    repo.write(
        "pipeline.toml",
        """
        [snapshot]
        max-file = "1K"
        [stage.count]
        run = "wc -c {inputs.raw} > {outputs.n}"
        inputs = { raw = "raw.txt" }
        outputs = { n = "n.txt" }
        """,
    )
    repo.write("raw.txt", "raw\n")
    repo.write("big.bin", b"b" * 2000)
    repo.write("notes/.pipeignore", "*.md\n")
    repo.write("notes/a.md", "x\n")
    repo.write("notes/a.txt", "x\n")
    repo.pipe("build")
    (run,) = runs(repo)
    assert run["left_out"].keys() == {"raw.txt", "big.bin"}
    assert run["left_out"]["big.bin"].startswith("2000 bytes, blake3:")
    assert run["stages"][0]["inputs"].keys() == {"raw.txt"}
    listed = repo.git("ls-tree", "-r", "--name-only", f"refs/pipe/runs/{run['id']}").stdout.split()
    assert listed == [".gitignore", "notes/.pipeignore", "notes/a.txt", "pipeline.toml"]


def test_a_workspace_in_a_subfolder_snapshots_the_whole_repository(repo: Repo) -> None:
    with_pipeline(repo, "models/pets/")
    repo.write("other/file", "x\n")
    repo.pipe("-C", "models/pets", "build")
    (run,) = repo.pipe("-C", "models/pets", "runs", "--json").json()["runs"]
    assert run["workspace"] == "models/pets"
    listed = repo.git("ls-tree", "-r", "--name-only", f"refs/pipe/runs/{run['id']}").stdout.split()
    assert {"other/file", "models/pets/train.sh"} <= set(listed)
    assert "models/pets/model.bin" not in listed


def test_a_failed_run_is_found_by_failed(repo: Repo) -> None:
    with_pipeline(repo)
    repo.pipe("build")
    repo.write("train.sh", "echo sorry; exit 3\n")
    assert repo.pipe("build", check=False).returncode == 1
    (run,) = runs(repo, "--failed")
    assert (run["status"], run["stages"][0]["status"], run["stages"][0]["exit_code"]) == ("failed", "failed", 3)
    assert repo.pipe("logs").stdout == "sorry\n"


def test_a_build_that_failed_without_starting_a_stage_is_a_run(repo: Repo) -> None:
    repo.write("pipeline.toml", "[stage.f]\nrun = 'echo 1 > {outputs.o}'\noutputs = { o = 'o.txt' }\nfrozen = true\n")
    done = repo.pipe("build", "--json", check=False)
    (run,) = runs(repo, "--failed")
    assert (done.returncode, run["id"], run["stages"][0]["status"]) == (1, done.json()["run"], "failed")
    assert "never built" in run["stages"][0]["error"]
    assert repo.git("show", f"refs/pipe/runs/{run['id']}:pipeline.toml").stdout.startswith("[stage.f]")


def test_the_record_says_all_of_a_stage(repo: Repo) -> None:
    """What `show --json` has of each stage: all that the contract names."""
    with_pipeline(repo)
    repo.write("data.txt", "1\n")
    text = repo.read("pipeline.toml").replace(
        "[stage.train]", '[stage.train]\ninputs = { d = "data.txt" }\nenvironment = "here"'
    )
    repo.write("pipeline.toml", text + '[environment.here]\npython = "system"\n')
    repo.pipe("build")
    (stage,) = repo.pipe("show", "latest", "--json").json()["stages"]
    assert stage["status"] == "ran" and stage["why"][0]["kind"] == "new" and len(stage["fingerprint"]) == 64
    assert stage["inputs"]["data.txt"].startswith("blake3:") and stage["outputs"].keys() == {"model.bin", "report.json"}
    assert (stage["params"], stage["metrics"], stage["exit_code"]) == ({"lr": 0.1}, {"report:auc": 0.1}, 0)
    assert 0 < stage["start"] <= stage["end"] and stage["peak_bytes"] > 0 and stage["cpu_s"] >= 0
    assert (stage["gpus"], stage["compute"], stage["log"]) == ([], "local", "train.log")
    assert stage["environment"].startswith("system:")


def test_the_ref_is_there_while_the_run_goes_on_and_after_it_was_killed(repo: Repo) -> None:
    """The snapshot is written before the first stage starts; a run whose pipe is gone is cancelled."""
    repo.write(
        "pipeline.toml",
        """
        [stage.slow]
        run = "touch $HOME/started; sleep 60; touch {outputs.o}"
        outputs = { o = "o" }
        """,
    )
    process = repo.start("build")
    try:
        deadline = time.monotonic() + 30
        while not (repo.home / "started").exists():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        (run,) = runs(repo)
        assert run["status"] == "running"
        assert repo.git("cat-file", "-t", f"refs/pipe/runs/{run['id']}:pipeline.toml").stdout == "blob\n"
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    assert [each["status"] for each in runs(repo)] == ["cancelled"]


def test_diff_of_two_runs_and_of_a_run_and_the_lockfile(repo: Repo) -> None:
    """Source, params, metrics and outputs, old and new; nothing else."""
    with_pipeline(repo)
    first = repo.pipe("build", "--json").json()["run"]
    commit = repo.commit()
    repo.write("train.sh", TRAIN + "    # more\n")
    second = repo.pipe("build", "--set", "lr=0.2", "--json").json()["run"]
    changes = repo.pipe("diff", first, second, "--json").json()["changes"]
    assert [(each["kind"], each["item"]) for each in changes] == [
        ("source", "train.sh"),
        ("param", "lr"),
        ("metric", "report:auc"),
        ("output", "model.bin"),
        ("output", "report.json"),
    ]
    assert [(each["old"], each["new"]) for each in changes[1:3]] == [("0.1", "0.2"), ("0.1", "0.2")]
    assert repo.pipe("diff", first, commit, "--json").json()["changes"] == []
    assert repo.pipe("diff", second, "--json").json()["changes"] == []
    assert repo.pipe("diff", commit, "--json").json()["changes"] == changes


def test_restored_and_fresh_stages_have_their_facts_in_the_record(repo: Repo) -> None:
    """A run says what all of its stages were made of, whether they ran in it or not."""
    repo.write(
        "pipeline.toml",
        """
        [stage.a]
        run = "echo a > {outputs.o}"
        outputs = { o = "a.txt" }
        [stage.b]
        run = "cat {inputs.a} > {outputs.o}"
        inputs = { a = "stage:a.o" }
        outputs = { o = "b.txt" }
        """,
    )
    repo.pipe("build")
    (repo.path / "b.txt").unlink()
    repo.pipe("build")
    second, first = runs(repo)
    assert [stage["status"] for stage in second["stages"]] == ["fresh", "restored"]
    for key in ("fingerprint", "inputs", "outputs"):
        assert [stage[key] for stage in second["stages"]] == [stage[key] for stage in first["stages"]]
