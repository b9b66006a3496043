"""`pipe what-if`: what a build would do, and for how long, without touching anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import Repo

TEXT = """
    [params]
    k = 1
    [stage.a]
    source = "a.txt"
    run = "NOTE(a) && cat a.txt > {outputs.o}"
    outputs = { o = "out/a" }
    [stage.b]
    run = "NOTE(b) && cat {inputs.i} > {outputs.o} && echo {params.k} >> {outputs.o}"
    inputs = { i = "stage:a.o" }
    outputs = { o = "out/b" }
    [stage.c]
    run = "NOTE(c) && cat {inputs.i} > {outputs.o}"
    inputs = { i = "out/b" }
    outputs = { o = "out/c" }
"""


@pytest.fixture
def built(repo: Repo, toml) -> Repo:
    """a → b → c, built and committed; b reads the param k."""
    repo.write("a.txt", "one\n")
    toml(TEXT)
    repo.pipe("build")
    repo.commit("first")
    repo.ran()
    return repo


def would(repo: Repo, *args: str) -> dict[str, str]:
    """Return stage to what it would; hold that nothing ran."""
    told = repo.pipe("what-if", "--json", *args).stages(key="would")
    assert repo.ran() == []
    return told


def stage(repo: Repo, name: str, *args: str) -> dict:
    told = repo.pipe("what-if", "--json", *args).json()["stages"]
    return next(entry for entry in told if entry["name"] == name)


def test_all_fresh(built: Repo) -> None:
    """A fresh stage takes no time; nothing is said of why."""
    told = built.pipe("what-if", "--json").json()
    assert [(entry["name"], entry["would"], entry["why"], entry["seconds"]) for entry in told["stages"]] == [
        ("a", "fresh", [], 0),
        ("b", "fresh", [], 0),
        ("c", "fresh", [], 0),
    ]
    assert told["seconds"] == 0 and told["revision"] is None and told["merged"] is None
    assert built.pipe("what-if").stdout.endswith("up to date\n")


def test_without_history(repo: Repo, toml) -> None:
    """seconds is null where no run is known; in a repository without a commit as well."""
    repo.write("a.txt", "one\n")
    toml(TEXT)
    told = repo.pipe("what-if", "--json").json()
    assert [(entry["would"], entry["seconds"]) for entry in told["stages"]] == [("run", None)] * 3
    assert told["unknown"] == ["a", "b", "c"]
    assert [entry["why"][0]["kind"] for entry in told["stages"]] == ["new", "upstream", "upstream"]
    assert not repo.exists("out") and not repo.exists("pipe.lock") and not repo.exists(".gitignore")


def test_a_changed_source(built: Repo) -> None:
    """What follows a stage that runs would run, unless that makes the same again."""
    built.write("a.txt", "two\n")
    told = {entry["name"]: entry for entry in built.pipe("what-if", "--json").json()["stages"]}
    assert {name: (entry["would"], entry["sure"]) for name, entry in told.items()} == {
        "a": ("run", True),
        "b": ("run", False),
        "c": ("run", False),
    }
    assert [(why["kind"], why["item"]) for why in told["a"]["why"]] == [("source", "a.txt")]
    assert [(why["kind"], why["item"]) for why in told["b"]["why"]] == [("upstream", "a")]
    assert all(entry["seconds"] > 0 for entry in told.values())
    said = built.pipe("what-if").stdout
    assert "source `a.txt` changed" in said and "3 run: " in said


def test_beyond_a_restored_stage_all_is_known(built: Repo) -> None:
    """A restored stage's outputs are known: what follows is told exactly."""
    built.write("a.txt", "two\n")
    built.pipe("build")
    built.ran()
    built.write("a.txt", "one\n")
    assert would(built) == {"a": "restored", "b": "restored", "c": "restored"}
    assert would(built, "--set", "k=5") == {"a": "restored", "b": "run", "c": "run"}
    assert stage(built, "b", "--set", "k=5")["sure"]


def test_set(built: Repo) -> None:
    """--set: as if the param had that value; typed as the default is, a wrong one is exit 2."""
    assert would(built, "--set", "k=2") == {"a": "fresh", "b": "run", "c": "run"}
    why = stage(built, "b", "--set", "k=2")["why"]
    assert why == [{"kind": "param", "item": "k", "old": "1", "new": "2"}]
    assert would(built, "--set", "k=1") == {"a": "fresh", "b": "fresh", "c": "fresh"}
    assert built.pipe("what-if", "--set", "k=no", check=False).returncode == 2
    assert built.pipe("what-if", "--set", "nope=1", check=False).returncode == 2


def test_named_stages(built: Repo) -> None:
    """Named stages, and what is before them."""
    built.write("a.txt", "two\n")
    assert would(built, "b") == {"a": "run", "b": "run"}
    assert would(built, "out/a") == {"a": "run"}
    assert "did you mean" in built.pipe("what-if", "out/d", check=False).stderr


def test_another_commit(built: Repo) -> None:
    """--rev: as if that commit were checked out here, with what is known of it."""
    first = built.git("rev-parse", "HEAD").stdout.strip()
    built.write("a.txt", "two\n")
    built.pipe("build")
    built.commit("second")
    built.ran()
    assert would(built, "--rev", "HEAD") == {"a": "fresh", "b": "fresh", "c": "fresh"}
    assert would(built, "--rev", first) == {"a": "restored", "b": "restored", "c": "restored"}
    assert built.pipe("what-if", "--json", "--rev", "HEAD~1").json()["revision"] == first
    assert would(built, "--rev", first, "--set", "k=2") == {"a": "restored", "b": "run", "c": "run"}


def test_a_commit_counts_as_it_is_committed(built: Repo) -> None:
    """Changes to tracked files that are not committed do not count at a commit."""
    built.write("a.txt", "dirty\n")
    built.write("pipeline.toml", "broken = [")
    assert would(built, "--rev", "HEAD") == {"a": "fresh", "b": "fresh", "c": "fresh"}
    built.write("out/b", "other\n")
    assert would(built, "--rev", "HEAD") == {"a": "fresh", "b": "restored", "c": "fresh"}


def test_untracked_files_stay(repo: Repo, toml) -> None:
    """What git does not track stays through a checkout, and counts where it counts then."""
    repo.write("src/a", "1")
    toml("""
        [stage.a]
        source = "src"
        run = "NOTE(a) && cat src/* > {outputs.o}"
        outputs = { o = "o" }
    """)
    repo.pipe("build")
    repo.commit()
    repo.ran()
    repo.write("src/b", "2")
    assert would(repo, "--rev", "HEAD") == {"a": "run"}
    repo.write("src/b.log", "2")
    (repo.path / "src/b").unlink()
    repo.write(".git/info/exclude", "*.log\n")
    assert would(repo, "--rev", "HEAD") == {"a": "fresh"}


def test_data_that_git_does_not_hold(repo: Repo, toml) -> None:
    """An ignored input is what lies here: a checkout leaves it alone."""
    repo.write(".gitignore", "/raw\n")
    repo.write("raw", "1\n")
    toml("""
        [stage.a]
        run = "NOTE(a) && cat {inputs.i} > {outputs.o}"
        inputs = { i = "raw" }
        outputs = { o = "o" }
    """)
    repo.pipe("build")
    repo.commit()
    repo.write("raw", "2\n")
    repo.pipe("build")
    repo.commit()
    repo.ran()
    assert would(repo, "--rev", "HEAD~1") == {"a": "restored"}
    repo.write("raw", "3\n")
    assert would(repo, "--rev", "HEAD~1") == {"a": "run"}
    (repo.path / "raw").unlink()
    done = repo.pipe("what-if", "--rev", "HEAD~1", check=False)
    assert done.returncode == 2 and "`raw` does not exist" in done.stderr


def test_a_merge(built: Repo) -> None:
    """--merge: the tree that git would make of both, and one lockfile of both."""
    built.git("checkout", "-q", "-b", "side")
    built.write("other.txt", "x\n")
    built.write("a.txt", "two\n")
    built.pipe("build")
    built.commit("side")
    built.git("checkout", "-q", "main")
    built.pipe("build")
    built.ran()
    assert would(built, "--merge", "side") == {"a": "restored", "b": "restored", "c": "restored"}
    built.write("pipeline.toml", built.read("pipeline.toml").replace("k = 1", "k = 2"))
    built.pipe("build")
    built.commit("main")
    built.ran()
    assert would(built, "--merge", "side") == {"a": "restored", "b": "run", "c": "run"}
    told = built.pipe("what-if", "--json", "--merge", "side").json()
    assert told["merged"] == built.git("rev-parse", "side").stdout.strip()
    assert told["revision"] == built.git("rev-parse", "main").stdout.strip()
    assert would(built, "--rev", "side", "--merge", "main") == {"a": "restored", "b": "run", "c": "run"}


def test_a_merge_with_the_driver(built: Repo) -> None:
    """The lockfile is merged as the driver would, also where the two have merged each other before."""
    built.pipe("hooks", "install")
    built.git("checkout", "-q", "-b", "side")
    built.write("pipeline.toml", built.read("pipeline.toml").replace("k = 1", "k = 2"))
    built.pipe("build")
    built.commit("side")
    built.git("checkout", "-q", "main")
    built.write("a.txt", "two\n")
    built.pipe("build")
    built.commit("main")
    side, main = (built.git("rev-parse", name).stdout.strip() for name in ("side", "main"))
    for branch, other in (("side", main), ("main", side)):
        built.git("checkout", "-q", branch)
        built.git("merge", "-q", "--no-edit", other)
        built.pipe("build")
        built.commit("built")
    built.write("a.txt", "three\n")
    built.pipe("build")
    built.commit("more")
    built.ran()
    asked = would(built, "--merge", "side")
    built.git("merge", "-q", "--no-edit", "side")
    assert built.pipe("build", "--json").stages() == asked


def test_a_merge_that_needs_a_person(built: Repo) -> None:
    """Files in conflict are named, the lockfile's is none: exit 1."""
    built.git("checkout", "-q", "-b", "side")
    built.write("a.txt", "two\n")
    built.pipe("build")
    built.commit("side")
    built.git("checkout", "-q", "main")
    built.write("a.txt", "three\n")
    built.pipe("build")
    built.commit("main")
    done = built.pipe("what-if", "--json", "--merge", "side", check=False)
    assert done.returncode == 1
    assert done.json()["conflicts"] == ["a.txt"] and done.json()["stages"] == []
    done = built.pipe("what-if", "--merge", "side", check=False)
    assert done.returncode == 1 and "  a.txt\n" in done.stdout


def test_no_common_history(built: Repo) -> None:
    built.git("checkout", "-q", "--orphan", "alone")
    built.commit("alone")
    done = built.pipe("what-if", "--merge", "main", check=False)
    assert done.returncode == 2 and "no common history" in done.stderr


def test_lost_results(built: Repo, toml) -> None:
    """A stage whose locked outputs are nowhere any more runs again, and is taken to make the same."""
    import shutil

    shutil.rmtree(built.path / "out")
    shutil.rmtree(built.pipe_dir / "cache/files")
    built.write("out/c", "one\n1\n")
    told = {entry["name"]: entry for entry in built.pipe("what-if", "--json").json()["stages"]}
    assert {name: (entry["would"], entry["sure"]) for name, entry in told.items()} == {
        "a": ("run", True),
        "b": ("run", False),
        "c": ("fresh", False),
    }
    assert built.pipe("build", "--json").stages() == {"a": "ran", "b": "ran", "c": "fresh"}


def test_temporary_outputs(repo: Repo, toml) -> None:
    """An absent temporary output that a stage needs which would run is made first."""
    repo.write("a.txt", "1")
    toml("""
        [params]
        k = 1
        [stage.a]
        source = "a.txt"
        run = "NOTE(a) && cat a.txt > {outputs.o}"
        outputs = { o = { path = "a", temp = true } }
        [stage.b]
        run = "NOTE(b) && cat {inputs.i} > {outputs.o}; echo {params.k} >> {outputs.o}"
        inputs = { i = "stage:a.o" }
        outputs = { o = "b" }
    """)
    repo.pipe("build")
    repo.ran()
    assert not repo.exists("a")
    assert would(repo) == {"a": "fresh", "b": "fresh"}
    assert would(repo, "--set", "k=2") == {"a": "restored", "b": "run"}


def test_seconds_are_those_of_the_history(repo: Repo, toml) -> None:
    """By the very action where it is known, else as long as the stage took last time; in all as many at once as -j
    says."""
    toml("""
        [params]
        k = 1
        [stage.a]
        run = "sleep 0.4; echo {params.k} > {outputs.o}"
        outputs = { o = "a" }
        [stage.b]
        run = "sleep 0.3; echo {params.k} > {outputs.o}"
        outputs = { o = "b" }
    """)
    repo.pipe("build")
    told = repo.pipe("what-if", "--json", "--set", "k=2", "-j1").json()
    a, b = (entry["seconds"] for entry in told["stages"])
    assert a >= 0.4 and b >= 0.3
    assert told["seconds"] == pytest.approx(a + b, abs=0.01) and told["jobs"] == 1
    told = repo.pipe("what-if", "--json", "--set", "k=2", "-j2").json()
    assert told["seconds"] == pytest.approx(max(a, b), abs=0.01)
    for state in Path(repo.pipe_dir).glob("state.db*"):
        state.unlink()
    for name in "ab":
        (repo.path / name).unlink()
    (repo.path / "pipe.lock").unlink()
    import shutil

    shutil.rmtree(repo.pipe_dir / "cache/files")
    told = repo.pipe("what-if", "--json").json()["stages"]
    assert [entry["would"] for entry in told] == ["run", "run"]
    assert told[0]["seconds"] >= 0.4 and told[1]["seconds"] >= 0.3


def test_reuse_is_off(built: Repo) -> None:
    text = built.read("pipeline.toml").replace("[stage.b]", "[stage.b]\nreuse = false")
    built.write("pipeline.toml", text)
    assert would(built) == {"a": "fresh", "b": "run", "c": "fresh"}
    assert built.pipe("build", "--json").stages() == {"a": "fresh", "b": "ran", "c": "fresh"}


def test_an_environment_that_is_not_resolved(built: Repo) -> None:
    """The network is not asked: a stage whose environment has no pin would run, as far as can be told."""
    text = built.read("pipeline.toml").replace(
        "[stage.b]", '[environment.e]\npackages = ["x==1"]\n[stage.b]\nenvironment = "e"'
    )
    built.write("pipeline.toml", text)
    entry = stage(built, "b")
    assert (entry["would"], entry["sure"]) == ("run", False)
    assert [why["kind"] for why in entry["why"]] == ["environment"]


def test_a_cached_output_that_git_tracks(built: Repo) -> None:
    """Refused as a build would: where the commit tracks it."""
    built.git("checkout", "-q", "-b", "side")
    built.git("add", "-f", "out/a")
    built.git("commit", "-q", "-m", "tracked")
    built.git("checkout", "-q", "main")
    assert built.pipe("what-if").returncode == 0
    done = built.pipe("what-if", "--rev", "side", check=False)
    assert done.returncode == 2 and "git tracks `out/a`" in done.stderr


@pytest.mark.parametrize(
    "args",
    [["--rev", "nope"], ["--merge", "nope"], ["--rev", "HEAD^{tree}"], ["-j", "0"], ["--set", "k"], ["--rev", ""]],
)
def test_wrong_use(built: Repo, args: list[str]) -> None:
    done = built.pipe("what-if", *args, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_a_commit_without_or_with_a_broken_pipeline(built: Repo) -> None:
    built.write("pipeline.toml", "[stage.a]\nrnu = 1\n")
    broken = built.commit()
    built.git("rm", "-q", "pipeline.toml")
    built.git("commit", "-q", "-m", "none")
    built.git("checkout", "-q", "main~2")
    done = built.pipe("what-if", "--rev", broken, check=False)
    assert done.returncode == 2 and f"{broken[:10]}:pipeline.toml:2" in done.stderr
    done = built.pipe("what-if", "--rev", "main", check=False)
    assert done.returncode == 2 and "there is no pipeline.toml" in done.stderr


def test_a_workspace_in_a_folder(repo: Repo) -> None:
    """A monorepo's workspace is asked about on its own, ignore rules above it included."""
    repo.write(
        "sub/pipeline.toml",
        f'[stage.a]\nsource = "src"\nrun = "{repo.note("a")}; cat src/* > {{outputs.o}}"\noutputs = {{ o = "o" }}\n',
    )
    repo.write("sub/src/x", "1")
    repo.write(".gitignore", "*.log\n")
    repo.pipe("-C", "sub", "build")
    repo.commit()
    repo.write("sub/src/x", "2")
    repo.write(".gitignore", "nothing\n")
    repo.pipe("-C", "sub", "build")
    repo.commit()
    repo.ran()
    assert would(repo, "-C", "sub", "--rev", "HEAD~1") == {"a": "restored"}
    repo.write("sub/src/y.log", "2")
    assert would(repo, "-C", "sub", "--rev", "HEAD~1") == {"a": "restored"}
    assert would(repo, "-C", "sub", "--rev", "HEAD") == {"a": "run"}


def test_an_output_left_to_git(repo: Repo, toml) -> None:
    """With another commit checked out it is what that commit holds."""
    repo.write("a.txt", "1")
    toml("""
        [stage.a]
        source = "a.txt"
        run = "NOTE(a) && cat a.txt > {outputs.o}"
        outputs = { o = { path = "kept/a", cache = false } }
    """)
    repo.pipe("build")
    repo.commit()
    repo.write("a.txt", "2")
    repo.pipe("build")
    repo.commit()
    repo.ran()
    assert would(repo, "--rev", "HEAD~1") == {"a": "fresh"}
    repo.git("rm", "-q", "--cached", "kept/a")
    repo.git("commit", "-q", "-m", "left out")
    (repo.path / "kept/a").unlink()
    assert would(repo, "--rev", "HEAD") == {"a": "restored"}
    assert would(repo, "--rev", "HEAD~1") == {"a": "fresh"}


def test_from_python(built: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipesmith import Workspace

    for name, value in built.env.items():
        monkeypatch.setenv(name, value)
    result = Workspace.open(built.path).what_if(params={"k": 3})
    assert [(entry.name, entry.would) for entry in result.stages] == [("a", "fresh"), ("b", "run"), ("c", "run")]
    assert result["b"].why[0].item == "k"
