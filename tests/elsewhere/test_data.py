"""Inputs that git does not hold, for a commit that is built elsewhere: from the workspace or the cache, never another."""

from __future__ import annotations

import pytest
from tests.conftest import Repo

from .conftest import Looks


@pytest.fixture
def data(repo: Repo) -> Repo:
    """A repository whose stage reads data that git ignores; built and committed, then a new commit that is not built."""
    repo.write(".gitignore", "/data\n")
    repo.write("data/raw/one", "1\n")
    repo.write("data/raw/sub/two", "2\n")
    repo.write("src/word", "w\n")
    repo.write(
        "pipeline.toml",
        f"""
        [stage.a]
        source = "src"
        run = "{repo.note("a")} && cat data/raw/one data/raw/sub/two src/word > {{outputs.o}}"
        inputs = {{ raw = "data/raw" }}
        outputs = {{ o = "out" }}
        """,
    )
    repo.commit("first")
    repo.pipe("build")
    repo.commit("built")
    repo.write("src/word", "w2\n")
    repo.commit("second")
    repo.ran()
    return repo


def test_it_comes_from_the_workspace_where_it_is_what_the_lock_says(data: Repo) -> None:
    looks = Looks(data)
    result = data.pipe("build", "--rev", "HEAD", "--json")
    assert result.stages() == {"a": "ran"}
    looks.same()
    data.pipe("build")
    assert data.read("out") == "1\n2\nw2\n"
    assert data.ran() == ["a"]


def test_another_content_is_never_taken(data: Repo) -> None:
    data.write("data/raw/one", "another\n")
    looks = Looks(data)
    said = data.pipe("build", "--rev", "HEAD", check=False)
    assert said.returncode == 2
    assert "`data/raw` is not in git" in said.stderr
    assert "the workspace has another one" in said.stderr
    assert "stage.a.inputs.raw" in said.stderr
    assert "help: " in said.stderr
    assert data.ran() == []
    looks.same()
    assert data.pipe("build", "--rev", "HEAD", "--json", check=False).json()["error"]["messages"][0]["line"] == 4


def test_what_is_missing_does_not_matter_where_nothing_needs_it(data: Repo) -> None:
    (data.path / "data/raw/one").unlink()
    assert data.pipe("build", "--rev", "HEAD~1", "--json").stages() == {"a": "fresh"}
    assert data.pipe("build", "--rev", "HEAD", check=False).returncode == 2


def test_it_comes_from_the_cache(repo: Repo) -> None:
    """What one commit makes is what another is given as data."""
    repo.write(".gitignore", "/data\n")
    make = f"""
        [stage.make]
        run = "{repo.note("make")} && mkdir -p {{outputs.o}} && echo made > {{outputs.o}}/f"
        outputs = {{ o = "data" }}
    """
    use = f"""
        [stage.use]
        source = "src"
        run = "{repo.note("use")} && cat data/f src/word > {{outputs.o}}"
        inputs = {{ i = "data" }}
        outputs = {{ o = "out" }}
    """
    repo.write("src/word", "w\n")
    repo.write("pipeline.toml", make + use)
    repo.pipe("build")
    repo.write("pipeline.toml", use)
    repo.pipe("build")
    repo.commit("data is given")
    repo.write("src/word", "w2\n")
    repo.commit("changed")
    (repo.path / "data/f").unlink()
    repo.ran()
    assert repo.pipe("build", "--rev", "HEAD", "--json").stages() == {"use": "ran"}
    assert not repo.exists("data/f")


def test_a_lock_that_says_nothing_lets_it_be_taken_as_it_lies(repo: Repo) -> None:
    repo.write(".gitignore", "/raw\n")
    repo.write("raw", "1\n")
    repo.write(
        "pipeline.toml",
        """
        [stage.a]
        run = "cat raw > {outputs.o}"
        inputs = { raw = "raw" }
        outputs = { o = "out" }
        """,
    )
    repo.commit()
    done = repo.pipe("build", "--rev", "HEAD")
    assert "`raw` is not in git, and pipe.lock at" in done.stderr
    (repo.path / "raw").unlink()
    gone = repo.pipe("build", "--rev", "HEAD", check=False)
    assert gone.returncode == 2
    assert "neither in git at" in gone.stderr


def test_a_folder_that_git_holds_in_part(repo: Repo) -> None:
    repo.write(".gitignore", "*.bin\n")
    repo.write("data/readme", "r\n")
    repo.write("data/big.bin", "b\n")
    repo.write("src/word", "w\n")
    repo.write(
        "pipeline.toml",
        """
        [stage.a]
        source = "src"
        run = "ls data > {outputs.o}; cat src/word >> {outputs.o}"
        inputs = { d = "data" }
        outputs = { o = "out" }
        """,
    )
    repo.pipe("build")
    repo.commit("built")
    repo.write("src/word", "w2\n")
    repo.commit("changed")
    assert repo.pipe("build", "--rev", "HEAD", "--json").stages() == {"a": "ran"}
    repo.pipe("build")
    assert repo.read("out") == "big.bin\nreadme\nw2\n"


def test_hash_paths_that_git_ignores(repo: Repo) -> None:
    repo.write(".gitignore", "/notes\n")
    repo.write("notes", "1\n")
    repo.write(
        "pipeline.toml",
        """
        [stage.a]
        run = "echo 1 > {outputs.o}"
        hash-paths = ["notes"]
        outputs = { o = "out" }
        """,
    )
    repo.pipe("build")
    repo.commit("built")
    (repo.path / "notes").unlink()
    assert repo.pipe("build", "--rev", "HEAD", "--json").stages() == {"a": "fresh"}
    assert repo.pipe("build", "--rev", "HEAD", "--json", env={"PIPE_PARAM_x": "1"}, check=False).returncode in (0, 2)


def test_datasets_with_relative_paths(repo: Repo) -> None:
    repo.write(".gitignore", "/big\n")
    repo.write("big/x", "ignored\n")
    repo.write("small/y", "held\n")
    (repo.path.parent / "outside").mkdir()
    (repo.path.parent / "outside" / "z").write_text("outside\n")
    repo.write("src/word", "w\n")
    repo.write(
        "pipeline.toml",
        """
        [dataset.big]
        from = "big/**"
        [dataset.small]
        from = "small/**"
        [dataset.out]
        from = "../outside/z"
        [stage.a]
        source = "src"
        run = "cat inputs/big/x inputs/small/y inputs/out src/word > {outputs.o}"
        inputs = { big = "dataset:big", small = "dataset:small", out = "dataset:out" }
        outputs = { o = "o" }
        """,
    )
    repo.pipe("build")
    first = repo.commit("built")
    repo.write("src/word", "w2\n")
    changed = repo.commit("changed")
    repo.write("small/y", "later\n")
    repo.commit("later")
    assert repo.pipe("build", "--rev", first, "--json").stages() == {"a": "fresh"}
    assert repo.pipe("build", "--rev", changed, "--json").stages() == {"a": "ran"}
    repo.git("checkout", "-q", changed)
    repo.pipe("build")
    assert repo.read("o") == "ignored\nheld\noutside\nw2\n"
