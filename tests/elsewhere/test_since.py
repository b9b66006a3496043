"""`pipe build --since REV`: only what the difference from a revision reaches."""

from __future__ import annotations

import pytest
from tests.conftest import Repo


@pytest.fixture
def three(repo: Repo) -> Repo:
    """Two chains, a -> b and c -> d; data that git ignores; built and committed."""
    repo.write(".gitignore", "/data\n")
    repo.write("data/raw", "raw\n")
    for name in "abcd":
        repo.write(f"src/{name}/word", f"{name}\n")
    repo.write(
        "pipeline.toml",
        f"""
        [params]
        lr = 1
        other = 1
        [stage.a]
        source = "src/a"
        run = "{repo.note("a")} && cat src/a/word data/raw > {{outputs.o}}"
        inputs = {{ raw = "data/raw" }}
        outputs = {{ o = "out/a" }}
        [stage.b]
        source = "src/b"
        run = "{repo.note("b")} && cat {{inputs.i}} src/b/word > {{outputs.o}} && echo {{params.lr}} >> {{outputs.o}}"
        inputs = {{ i = "stage:a.o" }}
        outputs = {{ o = "out/b" }}
        [stage.c]
        source = "src/c"
        run = "{repo.note("c")} && cat src/c/word > {{outputs.o}}"
        outputs = {{ o = "out/c" }}
        [stage.d]
        source = "src/d"
        run = "{repo.note("d")} && cat {{inputs.i}} src/d/word > {{outputs.o}}"
        inputs = {{ i = "stage:c.o" }}
        outputs = {{ o = "out/d" }}
        """,
    )
    repo.pipe("build")
    repo.commit("built")
    repo.ran()
    return repo


def test_nothing_differs(three: Repo) -> None:
    result = three.pipe("build", "--since", "HEAD", "--json").json()
    assert (result["status"], result["stages"], result["run"]) == ("up-to-date", [], None)
    assert three.ran() == []


def test_a_source_reaches_what_is_after_it_and_no_more(three: Repo) -> None:
    three.write("src/c/word", "new\n")
    three.commit("other")  # stale at HEAD: not what differs from HEAD
    three.write("src/a/word", "new\n")
    result = three.pipe("build", "--since", "HEAD", "--json")
    assert result.stages() == {"a": "ran", "b": "ran"}
    assert three.ran() == ["a", "b"]
    assert three.pipe("status", "--json").stages(key="state") == {
        "a": "fresh",
        "b": "fresh",
        "c": "stale",
        "d": "pending",
    }
    assert three.pipe("build", "--since", "HEAD~1", "--json").stages() == {
        "a": "fresh",
        "b": "fresh",
        "c": "ran",
        "d": "ran",
    }


@pytest.mark.parametrize("change", ["param", "run", "output", "env"])
def test_definitions_and_params(three: Repo, change: str) -> None:
    text = three.read("pipeline.toml")
    three.write(
        "pipeline.toml",
        {
            "param": text.replace("lr = 1", "lr = 2"),
            "run": text.replace("echo {params.lr}", "echo x {params.lr}"),
            "output": text.replace('"out/b"', '"out/bb"'),
            "env": text.replace("[stage.b]", "[stage.b]\nenv = { X = '1' }"),
        }[change],
    )
    assert three.pipe("build", "--since", "HEAD", "--json").stages() == {"b": "ran"}
    assert three.ran() == ["b"]


def test_what_does_not_count_reaches_nothing(three: Repo) -> None:
    text = three.read("pipeline.toml")
    three.write(
        "pipeline.toml",
        "# a comment\n" + text.replace("other = 1", "other = 2").replace("[stage.c]", "[stage.c]\ntimeout = '1h'"),
    )
    three.write("readme", "r\n")
    assert three.pipe("build", "--since", "HEAD", "--json").json()["stages"] == []
    assert three.pipe("build", "--since", "HEAD", "--set", "lr=3", "--json").stages() == {"b": "ran"}
    assert three.ran() == ["b"]


def test_data_that_git_ignores_counts_by_the_lock_there(three: Repo) -> None:
    three.write("data/raw", "more\n")
    assert three.pipe("build", "--since", "HEAD", "--json").stages() == {"a": "ran", "b": "ran"}
    three.ran()
    three.pipe("build", "--since", "HEAD")
    assert three.ran() == []


def test_data_of_which_the_lock_says_nothing(three: Repo) -> None:
    three.git("rm", "-q", "--cached", "pipe.lock")
    three.git("commit", "-q", "-m", "no lock")
    assert set(three.pipe("build", "--since", "HEAD", "--json").stages()) == {"a", "b"}


def test_with_stage_names(three: Repo) -> None:
    for name in "ac":
        three.write(f"src/{name}/word", "new\n")
    assert three.pipe("build", "--since", "HEAD", "d", "--json").stages() == {"c": "ran", "d": "ran"}
    assert three.pipe("build", "--since", "HEAD", "a", "--json").stages() == {"a": "ran"}
    assert three.pipe("build", "--since", "HEAD", "--dry-run", "--json").stages() == {
        "a": "fresh",
        "b": "ran",
        "c": "fresh",
        "d": "fresh",
    }


def test_force_runs_what_is_reached(three: Repo) -> None:
    three.write("src/b/word", "new\n")
    three.pipe("build")
    three.ran()
    assert three.pipe("build", "--since", "HEAD", "--force", "--json").stages() == {"b": "ran"}
    assert three.ran() == ["b"]


def test_what_is_not_reached_is_left_alone_though_stale_or_missing(three: Repo) -> None:
    (three.path / "out/d").unlink()
    three.write("out/c", "by hand\n")
    three.write("src/b/word", "new\n")
    assert three.pipe("build", "--since", "HEAD", "--json").stages() == {"b": "ran"}
    assert not three.exists("out/d")
    assert three.read("out/c") == "by hand\n"


def test_a_stale_stage_before_a_reached_one_is_left_alone(three: Repo) -> None:
    three.write("src/a/word", "stale at the commit\n")
    three.commit("stale")
    three.write("src/b/word", "new\n")
    assert three.pipe("build", "--since", "HEAD", "--json").stages() == {"b": "ran"}
    assert three.ran() == ["b"]
    assert three.read("out/b") == "a\nraw\nnew\n1\n"


def test_what_a_reached_stage_needs_is_brought(three: Repo) -> None:
    (three.path / "out/a").unlink()
    three.write("src/b/word", "new\n")
    assert three.pipe("build", "--since", "HEAD", "--json").stages() == {"a": "restored", "b": "ran"}
    three.write("out/a", "by hand\n")
    three.write("src/b/word", "newer\n")
    done = three.pipe("build", "--since", "HEAD", "--json")
    assert done.stages() == {"a": "restored", "b": "ran"}
    assert "kept as" in done.stderr
    assert three.ran() == ["b", "b"]
    assert three.read("out/b") == "a\nraw\nnewer\n1\n"


def test_a_new_stage_and_a_first_build(three: Repo) -> None:
    three.git("rm", "-q", "--cached", "pipe.lock")
    (three.path / "pipe.lock").unlink()
    (three.path / "data/raw").rename(three.path / "src/a/raw")
    three.write(
        "pipeline.toml",
        three.read("pipeline.toml").replace("data/raw > ", "src/a/raw > ").replace('inputs = { raw = "data/raw" }', ""),
    )
    three.commit("never built here")
    for path in ("out", ".git/pipe"):
        three.run("rm", "-rf", path)
    three.write("src/d/word", "new\n")
    assert three.pipe("build", "--since", "HEAD", "--json").stages() == {"c": "ran", "d": "ran"}
    assert three.ran() == ["c", "d"]


def test_a_revision_without_a_pipeline_or_with_a_wrong_one(three: Repo) -> None:
    three.git("checkout", "-q", "--orphan", "empty")
    three.git("rm", "-q", "--cached", "-r", ".")
    three.git("commit", "-q", "--allow-empty", "-m", "empty")
    three.git("tag", "empty-one")
    three.git("checkout", "-q", "-f", "main")
    done = three.pipe("build", "--since", "empty-one", "--json")
    assert done.stages() == dict.fromkeys("abcd", "fresh")
    assert "every stage is looked at" in done.stderr
    good = three.read("pipeline.toml")
    three.write("pipeline.toml", "[stage")
    three.commit("wrong")
    three.write("pipeline.toml", good)
    assert three.pipe("build", "--since", "HEAD", "--json").stages() == dict.fromkeys("abcd", "fresh")
    assert three.pipe("build", "--since", "nowhere", check=False).returncode == 2


def test_no_answer_is_remembered_for_it(three: Repo) -> None:
    for _ in range(2):
        assert three.pipe("build", "--since", "HEAD").stdout.startswith("up to date")
    three.git("commit", "-q", "--allow-empty", "-m", "x")
    three.write("src/c/word", "new\n")
    three.commit("c")
    assert three.pipe("build", "--since", "HEAD").stdout.startswith("up to date")
    assert three.pipe("build", "--since", "HEAD~1", "--json").stages() == {"c": "ran", "d": "ran"}


def test_of_a_commit_elsewhere(three: Repo) -> None:
    three.write("src/c/word", "new\n")
    three.commit("c")
    assert three.pipe("build", "--rev", "HEAD", "--since", "HEAD~1", "--json").stages() == {"c": "ran", "d": "ran"}
    assert three.pipe("build", "--experiment", "e", "--since", "HEAD", "--set", "lr=2", "--json").stages() in (
        {"b": "ran"},
        {"a": "restored", "b": "ran"},
    )
