"""What `pipe build` takes on its command line."""

from __future__ import annotations

import pytest

FAN = """
    [params]
    x = 1
    name = "n"
    flag = true
    items = ["p", "q r"]
    deep = { lr = 0.5 }
    [stage.a]
    source = "s"
    run = "NOTE(a) && exit $(cat s)"
    outputs = {}
    [stage.bad]
    source = "s"
    run = "NOTE(bad) && echo 1 > {outputs.o}; exit $(cat s)"
    outputs = { o = "bad" }
    [stage.after_bad]
    inputs = { i = "bad" }
    run = "NOTE(after_bad) && echo 1 > {outputs.o}"
    outputs = { o = "after" }
    [stage.good]
    run = "NOTE(good) && echo 1 > {outputs.o}"
    outputs = { o = "good" }
    after = ["first"]
    [stage.first]
    run = "NOTE(first) && echo 1 > {outputs.o}"
    outputs = { o = "first" }
"""


@pytest.fixture
def failing(repo, toml):
    repo.write("s", "1")
    text = FAN[: FAN.index("    [stage.a]")] + FAN[FAN.index("    [stage.bad]") :]
    toml(text)
    return repo


def test_after_a_failure_nothing_new_starts(failing) -> None:
    """After a failure what runs is let finish and nothing new starts."""
    done = failing.pipe("build", "-j1", "--json", check=False)
    assert done.returncode == 1 and done.json()["status"] == "failed"
    stages = done.stages()
    assert stages["bad"] == "failed" and stages["after_bad"] == "skipped"
    assert "skipped" in stages.values() and "after_bad" not in failing.ran()


def test_keep_going(failing) -> None:
    """With `-k` all that does not depend on it goes on."""
    done = failing.pipe("build", "-k", "--json", check=False)
    assert done.returncode == 1
    assert done.stages() == {"bad": "failed", "after_bad": "skipped", "first": "ran", "good": "ran"}
    assert failing.ran() == ["bad", "first", "good"]
    assert done.why("after_bad") == [("upstream", "bad")]


def test_what_succeeded_beside_a_failure_is_kept(failing) -> None:
    """A failed build records what succeeded, and the next one runs the rest only."""
    failing.pipe("build", "-k", check=False)
    failing.ran()
    failing.write("s", "0")
    done = failing.pipe("build", "--json")
    assert done.stages() == {"first": "fresh", "good": "fresh", "bad": "ran", "after_bad": "ran"}


def test_force_named_stages(repo, chain) -> None:
    """`--force` re-runs the named stages; what depends on them only where outputs change."""
    repo.pipe("build")
    repo.ran()
    repo.pipe("build", "--force", "b")
    assert repo.ran() == ["b"]
    repo.pipe("build", "-f")
    assert repo.ran() == ["a", "b", "c"]


def test_no_restore(repo, chain) -> None:
    """`--no-restore`: stale stages run even where a result is known."""
    repo.pipe("build")
    repo.write("a.txt", "2x")
    repo.pipe("build")
    repo.write("a.txt", "1x")
    repo.ran()
    assert repo.pipe("build", "--no-restore", "--json").stages() == {"a": "ran", "b": "ran", "c": "ran"}
    assert repo.ran() == ["a", "b", "c"]


def test_dry_run(repo, chain) -> None:
    """`--dry-run` says what would be done and changes nothing."""
    import os

    done = repo.pipe("build", "--dry-run")
    assert "would run a" in done.stdout and repo.ran() == []
    assert sorted(os.listdir(repo.path)) == [".git", "a.txt", "pipeline.toml"]
    repo.pipe("build")
    assert "up to date" in repo.pipe("build", "--dry-run").stdout
    (repo.path / "out/b").unlink()
    assert repo.pipe("build", "--dry-run", "--json").stages() == {"a": "fresh", "b": "restored", "c": "fresh"}
    assert not repo.exists("out/b") and len(repo.pipe("runs", "--json").json()["runs"]) == 1


def test_upstream_only(repo, chain) -> None:
    """`--upstream-only`: what comes before the named stages, not they."""
    assert set(repo.pipe("build", "c", "--upstream-only", "--json").stages()) == {"a", "b"}
    assert repo.ran() == ["a", "b"] and not repo.exists("out/c")


def test_downstream(repo, chain) -> None:
    """`--downstream`: also what comes after the named stages."""
    assert set(repo.pipe("build", "a", "--downstream", "--json").stages()) == {"a", "b", "c"}


def test_set_and_pipe_param(repo, toml) -> None:
    """`--set` and PIPE_PARAM_ override params, typed as the default is; --set wins."""
    toml("""
        [params]
        x = 1
        name = "n"
        flag = true
        train = { lr = 0.5 }
        [stage.a]
        run = "NOTE(a) && printf %s $PIPE_PARAMS > {outputs.o}"
        outputs = { o = "o" }
        params = ["x", "name", "flag", "train.lr"]
    """)
    import json

    repo.pipe("build", "--set", "x=2", "--set", "name=3", "--set", "train.lr=1")
    assert json.loads(repo.read("o")) == {"x": 2, "name": "3", "flag": True, "train": {"lr": 1.0}}
    repo.pipe("build", env={"PIPE_PARAM_train__lr": "0.25", "PIPE_PARAM_flag": "false"})
    assert json.loads(repo.read("o")) == {"x": 1, "name": "n", "flag": False, "train": {"lr": 0.25}}
    repo.pipe("build", "--set", "x=7", env={"PIPE_PARAM_x": "8"})
    assert json.loads(repo.read("o"))["x"] == 7
    assert repo.ran() == ["a", "a", "a"]
    assert repo.pipe("build", "--set", "x=2", "--set", "name=3", "--set", "train.lr=1", "--json").stages() == {
        "a": "restored"
    }


@pytest.mark.parametrize(
    "words",
    [
        ("--set", "x=word"), ("--set", "nope=1"), ("--set", "x"), ("nope",), ("-j", "0"), ("-j", "x"), ("--nope",),
        ("--compute", "nope"),
    ],
)  # fmt: skip
def test_wrong_use(repo, toml, words: tuple[str, ...]) -> None:
    """Wrong use is exit 2, as JSON too, and nothing runs."""
    toml("""
        [params]
        x = 1
        [stage.a]
        run = "NOTE(a) && echo {params.x} > {outputs.o}"
        outputs = { o = "o" }
    """)
    done = repo.pipe("build", *words, check=False)
    assert done.returncode == 2 and done.stderr and "Traceback" not in done.stderr
    done = repo.pipe("build", "--json", *words, check=False)
    assert done.returncode == 2 and done.json()["error"]["messages"][0]["text"]
    assert repo.ran() == [] and not repo.exists("pipe.lock")


def test_inside_a_stage(repo, toml) -> None:
    """Inside a stage `pipe build` is exit 2."""
    import sys

    toml(f"""
        [stage.a]
        source = "pipeline2"
        run = "cd $HOME/other; {sys.executable} -m pipesmith build 2> $HOME/said; echo $? > $HOME/code; cd -; echo 1 > {{outputs.o}}"
        outputs = {{ o = "o" }}
        env = {{ PYTHONPATH = "{repo.env.get("PYTHONPATH", "")}" }}
    """)
    repo.write("pipeline2", "1")
    (repo.home / "other").mkdir()
    repo.run("git", "init", "-q", str(repo.home / "other"))
    (repo.home / "other/pipeline.toml").write_text('[stage.x]\nrun = "true"\n')
    repo.pipe("build")
    assert (repo.home / "code").read_text() == "2\n"
    assert "inside a stage" in (repo.home / "said").read_text()


@pytest.mark.parametrize("command", ["build", "build --detach", "compute up", "compute down", "watch"])
def test_inside_a_sandbox(repo, toml, command: str) -> None:
    """A sandbox is no git repository: that it is a stage is what is said all the same."""
    import sys

    toml(f"""
        [stage.a]
        run = "{sys.executable} -m pipesmith {command} 2> {{outputs.said}}; test $? = 2"
        outputs = {{ said = "said" }}
        env = {{ PYTHONPATH = "{repo.env.get("PYTHONPATH", "")}" }}
    """)
    repo.pipe("build")
    said = repo.read("said")
    assert f"`pipe {command.removesuffix(' --detach')}` does not start inside a stage (here `a`)" in said
    assert "git init" not in said


def test_a_subfolder_workspace(repo) -> None:
    """pipeline.toml may lie in a subfolder; paths in it are relative to its folder; the nearest one up is used, -C
    names another."""
    repo.write("sub/pipeline.toml", """
        [stage.a]
        source = "code"
        run = "cat code/x > {outputs.o}"
        outputs = { o = "out/o" }
    """)  # fmt: skip
    repo.write("sub/code/x", "1")
    repo.write("code/x", "2")
    repo.pipe("-C", "sub/code", "build")
    assert repo.read("sub/out/o") == "1" and not repo.exists("out")
    assert "/out/o" in repo.read("sub/.gitignore") and not repo.exists(".gitignore")
    repo.commit()
    assert repo.pipe("-C", "sub", "status", "--rev", "HEAD", "--check").returncode == 0
    assert repo.pipe("build", check=False).returncode == 2
    assert "up to date" in repo.pipe("build", "-C", "sub").stdout
    repo.write("code/x", "3")
    assert "up to date" in repo.pipe("build", "-C", "sub").stdout


def test_outside_a_repository(repo, tmp_path) -> None:
    """Outside a git repository: exit 2, and says to run `git init`."""
    folder = tmp_path / "none"
    folder.mkdir()
    (folder / "pipeline.toml").write_text('[stage.a]\nrun = "true"\n')
    for command in ("build", "status", "why"):
        done = repo.pipe("-C", str(folder), command, check=False)
        assert done.returncode == 2
    assert "git init" in repo.pipe("-C", str(folder), "build", check=False).stderr


def test_json_says_nothing_else_on_stdout(repo, toml) -> None:
    """`--json`: one JSON document on stdout, everything else on stderr; the stage's own output too."""
    toml("""
        [stage.a]
        run = "echo chatter; echo 1 > {outputs.o}"
        outputs = { o = "o" }
    """)
    done = repo.pipe("build", "--json")
    assert set(done.json()) >= {"run", "status", "stages"} and "chatter" not in done.stdout
    assert set(done.json()["stages"][0]) >= {"name", "status", "why", "fingerprint", "seconds", "outputs"}
