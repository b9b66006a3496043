"""Why a stage is not fresh: every kind, item by item, old → new."""

from __future__ import annotations

import pytest

BASE = """
    [params]
    lr = 0.1
    other = 1
    deep = { x = 1, y = 2 }
    [stage.a]
    source = ["src", "one.py"]
    run = "cat {inputs.i} > {outputs.o}"
    inputs = { i = "data" }
    outputs = { o = "o.txt" }
    params = ["lr", "deep"]
    env = { A = "1" }
    hash-paths = ["notes.md"]
    cwd = "."
"""


@pytest.fixture
def built(repo, toml):
    repo.write("src/x.py", "1")
    repo.write("one.py", "1")
    repo.write("data", "1")
    repo.write("notes.md", "1")
    toml(BASE)
    repo.pipe("build")

    def edit(old: str, new: str) -> None:
        assert old in BASE
        toml(BASE.replace(old, new))

    return edit


def reasons(repo, stage: str = "a") -> list[tuple[str, str, str | None, str | None]]:
    told = repo.pipe("status", "--json").json()["stages"]
    entry = next(each for each in told if each["name"] == stage)
    return [(why["kind"], why["item"], why["old"], why["new"]) for why in entry["why"]]


def test_new(repo, toml) -> None:
    """`new`: never built."""
    toml(BASE)
    repo.write("src/x.py", "1")
    repo.write("one.py", "1")
    repo.write("data", "1")
    repo.write("notes.md", "1")
    assert reasons(repo) == [("new", "", None, None)]


def test_run(repo, built) -> None:
    """`run`: the command, old → new."""
    built("cat {inputs.i} >", "cat  {inputs.i} >")
    (why,) = reasons(repo)
    assert why[:2] == ("run", "")
    assert "cat {inputs.i}" in why[2] and "cat  {inputs.i}" in why[3]


def test_cwd(repo, built) -> None:
    """`run` with item `cwd`."""
    built('cwd = "."', 'cwd = "src"')
    assert reasons(repo) == [("run", "cwd", ".", "src")]


def test_output_path(repo, built) -> None:
    """`run` with item `outs.NAME`."""
    built('o = "o.txt"', 'o = "p.txt"')
    assert ("run", "outs.o", "o.txt", "p.txt") in reasons(repo)


def test_source_has_gits_ids(repo, built) -> None:
    """`source`: the id is the git tree id it would have if committed now."""
    repo.commit()
    old = repo.git("rev-parse", "HEAD:src").stdout.strip()
    repo.write("src/x.py", "2")
    (why,) = reasons(repo)
    repo.commit()
    assert why == ("source", "src", old, repo.git("rev-parse", "HEAD:src").stdout.strip())
    repo.write("src/x.py", "1")
    repo.write("one.py", "2")
    (why,) = reasons(repo)
    assert why[:2] == ("source", "one.py")
    assert why[3] == repo.git("hash-object", "one.py").stdout.strip()


def test_an_untracked_file_in_a_source_counts(repo, built) -> None:
    """Tracked and untracked-not-ignored files count."""
    repo.commit()
    repo.write("src/new.py", "1")
    assert [why[:2] for why in reasons(repo)] == [("source", "src")]


def test_input(repo, built) -> None:
    """`input`: by name, old → new content."""
    repo.write("data", "2")
    (why,) = reasons(repo)
    assert why[:2] == ("input", "i")
    assert why[2] != why[3] and why[2] and why[3]


def test_param(repo, built) -> None:
    """`param`: a param that counts, old → new; a whole table counts by its keys."""
    built("lr = 0.1", "lr = 0.2")
    (why,) = reasons(repo)
    assert why[:2] == ("param", "lr") and "0.1" in why[2] and "0.2" in why[3]
    built("deep = { x = 1, y = 2 }", "deep = { x = 1, y = 3 }")
    assert reasons(repo) == [("param", "deep.y", "2", "3")]


def test_param_by_type(repo, built) -> None:
    """A number that becomes a string is another value."""
    built("lr = 0.1", 'lr = "0.1"')
    assert [why[:2] for why in reasons(repo)] == [("param", "lr")]


def test_param_that_does_not_count(repo, built) -> None:
    """Values of the params that count, no others."""
    built("other = 1", "other = 2")
    assert reasons(repo) == []


def test_env(repo, built) -> None:
    """`env`: by variable, old → new."""
    built('env = { A = "1" }', 'env = { A = "2", B = "3" }')
    assert reasons(repo) == [("env", "A", "1", "2"), ("env", "B", None, "3")]


def test_hash_path(repo, built) -> None:
    """`hash-path`: an extra file that counts."""
    repo.write("notes.md", "2")
    assert [why[:2] for why in reasons(repo)] == [("hash-path", "notes.md")]


def test_environment(repo, toml) -> None:
    """`environment`: what it resolved to."""
    text = """
        [environment.e]
        python = "system"
        [stage.a]
        ENV
        run = "echo 1 > {outputs.o}"
        outputs = { o = "o.txt" }
    """
    toml(text.replace("ENV", ""))
    repo.pipe("build")
    toml(text.replace("ENV", 'environment = "e"'))
    (why,) = reasons(repo)
    assert why[:3] == ("environment", "e", None) and why[3]
    repo.pipe("build")
    toml(text.replace("ENV", ""))
    assert " environment is gone: was " in repo.pipe("status").stdout


def test_a_command_of_several_lines_is_told_in_one(repo, toml) -> None:
    """One line a reason, and nothing that a terminal would take for itself; programs get the text as it is."""
    text = '[stage.a]\nrun = """\necho 1\n\techo %s\n"""\n'
    toml(text % "2")
    repo.pipe("build")
    toml(text % "\\u001b[31m3")
    assert repo.pipe("status").stdout.splitlines() == [
        "stale      a",
        r"             command changed: echo 1\n\techo 2\n -> echo 1\n\techo \x1b[31m3\n",
    ]
    assert reasons(repo) == [("run", "", "echo 1\n\techo 2\n", "echo 1\n\techo \x1b[31m3\n")]


def test_output_missing_and_changed(repo, built) -> None:
    """`output-missing` and `output-changed`: by path, with hashes."""
    (repo.path / "o.txt").unlink()
    (why,) = reasons(repo)
    assert why[:2] == ("output-missing", "o.txt") and why[2] and why[3] is None
    repo.write("o.txt", "edited")
    (why,) = reasons(repo)
    assert why[:2] == ("output-changed", "o.txt") and why[2] != why[3] and why[3]


def test_reuse_off(repo, toml) -> None:
    """reuse = false: runs at every build; judged by fingerprint in status and --check."""
    toml("""
        [stage.a]
        run = "NOTE(a) && echo 1 > {outputs.o}"
        outputs = { o = "o" }
        reuse = false
    """)
    repo.pipe("build")
    done = repo.pipe("build", "--json")
    assert done.stages() == {"a": "ran"}
    assert done.why("a") == [("reuse-off", "")]
    assert repo.ran() == ["a", "a"]
    assert repo.pipe("status", "--check", "--json").stages(key="state") == {"a": "fresh"}
    repo.commit()
    assert repo.pipe("status", "--rev", "HEAD", "--check").returncode == 0


def test_forced(repo, built) -> None:
    """`forced`: the named stages run whatever is known."""
    done = repo.pipe("build", "a", "--force", "--json")
    assert done.stages() == {"a": "ran"}
    assert done.why("a") == [("forced", "")]


def test_several_at_once(repo, built) -> None:
    """Item by item: all that differs is told at once."""
    built("lr = 0.1", "lr = 0.2")
    repo.write("data", "2")
    repo.write("src/x.py", "3")
    assert [why[:2] for why in reasons(repo)] == [("source", "src"), ("input", "i"), ("param", "lr")]


def test_build_and_status_tell_the_same(repo, built) -> None:
    """The reasons of `status` are those of the build that follows."""
    repo.write("data", "2")
    told = repo.pipe("status", "--json").json()["stages"][0]["why"]
    assert repo.pipe("build", "--json").json()["stages"][0]["why"] == told


def test_why_names_the_nearest_known_result(repo, built) -> None:
    """`why` also says of a stage that ran which known result was nearest and what differed."""
    repo.write("data", "2")
    run = repo.pipe("build", "--json").json()["run"]
    (told,) = repo.pipe("why", "a", run, "--json").json()["stages"]
    assert [(why["kind"], why["item"]) for why in told["nearest"]["differs"]] == [("input", "i")]
    assert "input" in repo.pipe("why", "a", run).stdout
