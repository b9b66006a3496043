"""`sandbox = false`: in the workspace itself, as make does."""

from __future__ import annotations


def test_it_runs_in_the_workspace(repo, toml) -> None:
    """false: run in the workspace itself."""
    repo.write("undeclared", "7")
    toml("""
        [stage.a]
        run = "cat undeclared > {outputs.o}; echo 1 > stray"
        outputs = { o = "deep/o" }
        sandbox = false
    """)
    repo.pipe("build")
    assert repo.read("deep/o") == "7" and repo.exists("stray")
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"
    (repo.path / "deep/o").unlink()
    assert repo.pipe("build", "--json").stages() == {"a": "restored"}


def test_old_outputs_come_back_after_a_failure(repo, toml) -> None:
    """Old outputs are put away first and put back after a failure; other changes stay."""
    repo.write("code", "0")
    toml("""
        [stage.a]
        source = "code"
        run = "test ! -e {outputs.o} && echo $(cat code) > {outputs.o}; echo 1 > {outputs.p}; echo 1 > stray; exit $(cat code)"
        outputs = { o = "o", p = "p" }
        sandbox = false
    """)
    repo.pipe("build")
    repo.write("code", "1")
    done = repo.pipe("build", "--json", check=False)
    assert done.returncode == 1
    assert repo.read("o") == "0\n"
    assert repo.exists("stray")
    repo.write("code", "0")
    assert repo.pipe("build", "--json").stages() == {"a": "fresh"}


def test_a_first_failure_leaves_no_output(repo, toml) -> None:
    """What a failed try wrote at its outputs is gone, so that nothing half done lies there."""
    toml("""
        [stage.a]
        run = "echo 1 > {outputs.o}; exit 1"
        outputs = { o = "o" }
        sandbox = false
    """)
    repo.pipe("build", check=False)
    assert not repo.exists("o")


def test_hand_edits_are_kept(repo, toml) -> None:
    """An output edited by hand is put into the cache and named before it is replaced."""
    repo.write("code", "0")
    toml("""
        [stage.a]
        source = "code"
        run = "cat code > {outputs.o}"
        outputs = { o = "o" }
        sandbox = false
    """)
    repo.pipe("build")
    repo.write("o", "mine")
    repo.write("code", "1")
    done = repo.pipe("build")
    assert "kept as" in done.stderr
    kept = done.stderr.partition("kept as ")[2].split()[0]
    assert repo.pipe("cat", kept).stdout == "mine"


def test_a_failure_does_not_speak_of_what_it_was_not_given(repo, toml) -> None:
    """It sees the whole workspace: no key has to be added for a file that its last lines name."""
    toml("""
        [stage.a]
        sandbox = false
        source = "src"
        run = "cat data/d; exit 1"
    """)
    repo.write("src/x", "1")
    repo.write("data/d", "data/d\n")
    done = repo.pipe("build", check=False)
    assert done.returncode == 1 and "a | data/d" in done.stdout
    assert "not given" not in done.stdout + done.stderr and "pipe logs" in done.stdout + done.stderr
