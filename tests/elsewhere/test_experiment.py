"""`pipe build --experiment`: the work tree as it is, with other params, in a place of its own."""

from __future__ import annotations

import json

from tests.conftest import Repo

from .conftest import Looks, two_stages


def test_neither_work_tree_nor_lock_changes(two: Repo) -> None:
    two.pipe("build")
    two.commit("built")
    two.write("src/word", "uncommitted\n")
    two.write("src/more", "untracked\n")
    two.ran()
    looks = Looks(two)
    result = two.pipe("build", "--experiment", "lrs", "--set", "lr=2", "--json")
    assert result.stages() == {"a": "ran", "b": "ran"}
    looks.same()
    assert two.read("out/b.txt") == "one\n1\n"
    run = two.pipe("show", result.json()["run"], "--json").json()
    assert (run["experiment"], run["branch"], run["dirty"]) == ("lrs", "main", True)
    assert run["commit"] == two.git("rev-parse", "HEAD").stdout.strip()
    assert two.git("show", f"refs/pipe/runs/{run['id']}:src/more").stdout == "untracked\n"
    two.ran()
    two.write("pipeline.toml", two.read("pipeline.toml").replace("lr = 1", "lr = 2"))
    assert two.pipe("build", "--json").stages() == {"a": "restored", "b": "restored"}
    assert two.ran() == []
    assert two.read("out/b.txt") == "uncommitted\n2\n"


def test_runs_are_filtered_and_outputs_can_be_had(two: Repo) -> None:
    two.pipe("build", "-q")
    run = two.pipe("build", "--experiment", "e", "--set", "lr=7", "--json").json()["run"]
    listed = two.pipe("runs", "--experiment", "e", "--json").json()
    assert [each["id"] for each in listed["runs"]] == [run]
    two.pipe("checkout", "--run", run, "--to", "there")
    assert two.read("there/out/b.txt") == "one\n7\n"
    assert two.read("out/b.txt") == "one\n1\n"


def test_many_at_once(two: Repo) -> None:
    two.pipe("build")
    two.ran()
    looks = Looks(two)
    builds = [two.start("build", "--experiment", "e", "--set", f"lr={lr}", "--json") for lr in (2, 3, 4, 5)]
    for build in builds:
        out, err = build.communicate(timeout=120)
        assert build.returncode == 0, err
        assert {stage["name"]: stage["status"] for stage in json.loads(out)["stages"]} == {
            "a": "fresh",
            "b": "ran",
        } or {stage["name"]: stage["status"] for stage in json.loads(out)["stages"]} == {"a": "restored", "b": "ran"}
    looks.same()
    assert two.ran() == ["b"] * 4
    assert len(two.pipe("runs", "--experiment", "e", "--json").json()["runs"]) == 4


def test_data_that_git_ignores_is_the_workspaces(repo: Repo) -> None:
    repo.write(".gitignore", "/data\n/params.yaml\n")
    repo.write("data/raw", "1\n")
    repo.write("params.yaml", "lr: 3\n")
    repo.write(
        "pipeline.toml",
        """
        [pipeline]
        params-files = ["params.yaml"]
        [stage.a]
        run = "cat data/raw > {outputs.o}; echo {params.lr} >> {outputs.o}"
        inputs = { raw = "data" }
        outputs = { o = "out" }
        """,
    )
    repo.pipe("build")
    repo.commit()
    repo.write("data/raw", "2\n")
    looks = Looks(repo)
    assert repo.pipe("build", "--experiment", "e", "--json").stages() == {"a": "ran"}
    looks.same()
    assert repo.pipe("build", "--json").stages() == {"a": "restored"}
    assert repo.read("out") == "2\n3\n"


def test_what_no_snapshot_keeps_is_given_all_the_same(repo: Repo) -> None:
    repo.write("src/.env", "TOKEN=1\n")
    repo.write("src/big", "x" * 3000)
    repo.write(
        "pipeline.toml",
        """
        [snapshot]
        max-file = "2K"
        [stage.a]
        source = "src"
        run = "cat src/.env > {outputs.o}; wc -c src/big >> {outputs.o}"
        outputs = { o = "out" }
        """,
    )
    looks = Looks(repo)
    first = repo.pipe("build", "--experiment", "e", "--json")
    assert first.stages() == {"a": "ran"}
    looks.same()
    listed = repo.git("ls-tree", "-r", "--name-only", f"refs/pipe/runs/{first.json()['run']}").stdout.split()
    assert "src/.env" not in listed and "src/big" not in listed
    assert repo.pipe("build", "--json").stages() == {"a": "restored"}


def test_before_the_first_commit(repo: Repo) -> None:
    repo.write("pipeline.toml", two_stages(repo))
    repo.write("src/word", "one\n")
    looks = Looks(repo)
    result = repo.pipe("build", "--experiment", "e", "--set", "lr=4", "--json")
    assert result.stages() == {"a": "ran", "b": "ran"}
    looks.same()
    run = repo.pipe("show", result.json()["run"], "--json").json()
    assert (run["commit"], run["experiment"]) == (None, "e")


def test_a_commit_may_be_an_experiment(two: Repo) -> None:
    result = two.pipe("build", "--rev", "HEAD", "--experiment", "e", "--set", "lr=4", "--json").json()
    run = two.pipe("show", result["run"], "--json").json()
    assert (run["experiment"], run["dirty"]) == ("e", False)


def test_a_wrong_param_is_said(two: Repo) -> None:
    looks = Looks(two)
    wrong = two.pipe("build", "--experiment", "e", "--set", "rl=4", check=False)
    assert wrong.returncode == 2
    assert "no param `rl`" in wrong.stderr
    looks.same()


def test_while_a_merge_has_conflicts(two: Repo) -> None:
    two.git("checkout", "-q", "-b", "side")
    two.write("src/word", "side\n")
    two.commit("side")
    two.git("checkout", "-q", "main")
    two.write("src/word", "main\n")
    two.commit("main")
    two.git("merge", "side", check=False)
    looks = Looks(two)
    assert two.pipe("build", "--experiment", "e", "--json").stages() == {"a": "ran", "b": "ran"}
    assert two.pipe("build", "--rev", "side", "--json").stages() == {"a": "ran", "b": "ran"}
    looks.same()
    assert "<<<<<<<" in two.read("src/word")
    two.git("merge", "--abort")


def test_keep_folders_of_experiments_do_not_meet(repo: Repo) -> None:
    """One try of another fingerprint leaves alone what a failed one kept."""
    repo.write(
        "pipeline.toml",
        """
        [params]
        lr = 1
        [stage.a]
        run = "echo {params.lr}; if ls $PIPE_KEEP/half; then touch {outputs.o}; else touch $PIPE_KEEP/half; exit 1; fi"
        keep = "ckpt"
        outputs = { o = "out" }
        """,
    )
    repo.commit()
    for lr in ("2", "3"):
        assert repo.pipe("build", "--experiment", "e", "--set", f"lr={lr}", check=False).returncode == 1
    for lr in ("2", "3"):
        assert repo.pipe("build", "--experiment", "e", "--set", f"lr={lr}", "--json").stages() == {"a": "ran"}


def test_data_that_lies_in_a_source(repo: Repo) -> None:
    repo.write("data/raw", "untracked, and not ignored\n")
    repo.write(
        "pipeline.toml",
        """
        [params]
        lr = 1
        [stage.a]
        source = "."
        run = "cat data/raw > {outputs.o}; echo {params.lr} >> {outputs.o}"
        inputs = { raw = "data" }
        outputs = { o = "out" }
        """,
    )
    repo.write("more/file", "x\n")
    repo.git("add", "pipeline.toml")
    repo.git("commit", "-q", "-m", "first")
    looks = Looks(repo)
    assert repo.pipe("build", "--experiment", "e", "--json").stages() == {"a": "ran"}
    looks.same()
    assert repo.pipe("build", "--json").stages() == {"a": "restored"}


def test_in_a_subfolder(repo: Repo) -> None:
    repo.write("ws/pipeline.toml", two_stages(repo))
    repo.write("ws/src/word", "one\n")
    repo.write("beside/x", "x\n")
    repo.commit()
    repo.write("ws/src/word", "two\n")
    repo.write("ws/src/.env", "TOKEN=1\n")
    looks = Looks(repo)
    assert repo.pipe("-C", "ws", "build", "--experiment", "e", "--json").stages() == {"a": "ran", "b": "ran"}
    looks.same()
    assert repo.pipe("-C", "ws", "build", "--json").stages() == {"a": "restored", "b": "restored"}
