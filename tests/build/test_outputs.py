"""temp outputs, links leading out, deliveries' paths."""

from __future__ import annotations

import os

import pytest

TEMP = """
    [stage.a]
    source = "src"
    run = "NOTE(a) && cat src > {outputs.t}"
    outputs = { t = { path = "tmp/t", temp = true } }
    [stage.b]
    source = "code"
    run = "NOTE(b) && cat {inputs.t} code > {outputs.o}"
    inputs = { t = "stage:a.t" }
    outputs = { o = "o" }
"""


@pytest.fixture
def temp(repo, toml):
    repo.write("src", "1")
    repo.write("code", "x")
    toml(TEMP)
    repo.pipe("build")
    assert repo.ran() == ["a", "b"]
    return repo


def test_temp_is_gone_once_its_consumers_are_fresh(temp) -> None:
    """Absent counts as locked; gone once its consumers are fresh."""
    assert not temp.exists("tmp/t") and temp.read("o") == "1x"
    assert temp.pipe("build", "--json").json()["status"] == "up-to-date"
    assert temp.pipe("status", "--check").returncode == 0
    assert temp.ran() == []


def test_temp_is_restored_when_needed(temp) -> None:
    """Needed again: restored."""
    temp.write("code", "y")
    done = temp.pipe("build", "--json")
    assert done.stages() == {"a": "restored", "b": "ran"}
    assert temp.ran() == ["b"] and temp.read("o") == "1y" and not temp.exists("tmp/t")


def test_temp_is_made_when_it_can_not_be_had(temp) -> None:
    """Needed again: restored or made."""
    import shutil

    shutil.rmtree(temp.pipe_dir)
    temp.write("code", "y")
    assert temp.pipe("build", "--json").stages() == {"a": "ran", "b": "ran"}
    assert temp.ran() == ["a", "b"] and temp.read("o") == "1y"


def test_temp_early_cutoff(temp) -> None:
    """A stage before a temp output that makes the same again leaves its consumers fresh."""
    temp.write("src", "2")
    temp.pipe("build")
    assert temp.ran() == ["a", "b"] and temp.read("o") == "2x"
    temp.write("src", "1")
    done = temp.pipe("build", "--json")
    assert temp.ran() == [] and temp.read("o") == "1x"
    assert done.stages()["b"] == "restored"
    assert not temp.exists("tmp/t")


def test_temp_stays_while_a_consumer_fails(repo, toml) -> None:
    """It stays until its consumers are fresh."""
    repo.write("src", "1")
    repo.write("code", "x")
    toml(TEMP.replace("code > {outputs.o}", "code > {outputs.o}; exit 1"))
    repo.pipe("build", check=False)
    assert repo.exists("tmp/t")


def test_temp_at_a_revision(temp) -> None:
    """At a revision it is fresh like the rest."""
    temp.commit()
    assert temp.pipe("status", "--rev", "HEAD", "--check").returncode == 0


@pytest.mark.parametrize("key", ["inputs = { d = 'data' }", "source = 'data'", "inputs = { d = 'data/x' }"])
def test_a_link_leading_out(repo, toml, key: str) -> None:
    """No path may leave the workspace through a symlink; the error for `data -> /mnt/big` shows the `[dataset]` to
    write."""
    (repo.home / "big").mkdir()
    (repo.home / "big/x").write_text("1")
    os.symlink(repo.home / "big", repo.path / "data")
    toml(f"""
        [stage.a]
        {key}
        run = "NOTE(a) && echo 1 > {{outputs.o}}"
        outputs = {{ o = "o" }}
    """)
    done = repo.pipe("build", check=False)
    assert done.returncode == 2 and "pipeline.toml:" in done.stderr
    assert "[dataset." in done.stderr and str(repo.home / "big") in done.stderr
    assert repo.ran() == []


def test_an_output_through_a_link_leading_out(repo, toml) -> None:
    """Nor an output."""
    (repo.home / "big").mkdir()
    os.symlink(repo.home / "big", repo.path / "out")
    toml("""
        [stage.a]
        run = "NOTE(a) && echo 1 > {outputs.o}"
        outputs = { o = "out/o" }
    """)
    done = repo.pipe("build", check=False)
    assert done.returncode == 2 and "out" in done.stderr and repo.ran() == []
    assert not list((repo.home / "big").iterdir()) and not repo.exists(".gitignore")


def test_a_gitignore_that_is_a_link(repo, toml) -> None:
    """git does not follow it, so that no line in it would help, and nothing is written by way of it."""
    elsewhere = repo.home / "ignored"
    elsewhere.write_text("x\n")
    (repo.path / ".gitignore").symlink_to(elsewhere)
    toml("""
        [stage.a]
        run = "NOTE(a) && echo 1 > {outputs.o}"
        outputs = { o = "o" }
    """)
    refused = repo.pipe("build", check=False)
    assert refused.returncode == 2 and "`.gitignore` is a symbolic link" in refused.stderr
    assert repo.ran() == [] and elsewhere.read_text() == "x\n"
    (repo.path / ".git/info").mkdir(exist_ok=True)
    (repo.path / ".git/info/exclude").write_text("/o\n")
    assert repo.pipe("build", "--json").stages() == {"a": "ran"}


def test_an_output_through_a_link_inside(repo, toml) -> None:
    """Nor does an output go through a link that stays inside: git can't say whether it ignores such a path."""
    (repo.path / "real").mkdir()
    os.symlink("real", repo.path / "out")
    toml("""
        [stage.a]
        run = "NOTE(a) && echo 1 > {outputs.o}"
        outputs = { o = "out/o" }
    """)
    done = repo.pipe("build", check=False)
    assert done.returncode == 2 and "pipeline.toml:3" in done.stderr and "`real/o`" in done.stderr
    assert repo.ran() == []


def test_a_dangling_link_given_to_a_stage(repo, toml) -> None:
    """One that dangles is an error when a stage is given it."""
    os.symlink("nowhere", repo.path / "data")
    toml("""
        [stage.a]
        inputs = { d = "data" }
        run = "echo 1 > {outputs.o}"
        outputs = { o = "o" }
    """)
    done = repo.pipe("build", check=False)
    assert done.returncode == 2 and "data" in done.stderr


def test_a_missing_input_or_source(repo, toml) -> None:
    """A missing source or input: exit 2 before anything runs, both at once."""
    toml("""
        [stage.z]
        run = "NOTE(z) && echo 1 > {outputs.o}"
        outputs = { o = "z" }
        [stage.a]
        source = "code"
        inputs = { d = "dat" }
        run = "NOTE(a) && echo 1 > {outputs.o}"
        outputs = { o = "o" }
    """)
    done = repo.pipe("build", check=False)
    assert done.returncode == 2 and "`code`" in done.stderr and "`dat`" in done.stderr
    assert repo.ran() == []


def test_an_output_that_is_a_link(repo, toml) -> None:
    """An output must be a file or a folder."""
    toml("""
        [stage.a]
        run = "ln -s /etc/passwd {outputs.o}"
        outputs = { o = "o" }
    """)
    done = repo.pipe("build", "--json", check=False)
    assert done.stages() == {"a": "failed"} and "link" in done.json()["stages"][0]["error"]


def test_outputs_of_strange_names(repo, toml) -> None:
    """Names with spaces, quotes and unicode are names like others."""
    toml("""
        [stage.a]
        run = "echo 1 > {outputs.o}"
        outputs = { o = "out dir/it's ünï $x [1]*" }
        [stage.b]
        run = ["cp", "{inputs.i}", "{outputs.o}"]
        inputs = { i = "stage:a.o" }
        outputs = { o = "b" }
    """)
    repo.pipe("build")
    assert repo.read("b") == "1\n"
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"
    (repo.path / "out dir/it's ünï $x [1]*").unlink()
    assert repo.pipe("build", "--json").stages()["a"] == "restored"
    assert repo.git("status", "--porcelain", "-z").stdout.count("out dir") == 0


# -- executable -------------------------------------------------------------------------------------------------------

TOOL = """
    [stage.tool]
    source = "tool"
    run = "NOTE(tool) && cp tool {outputs.t} && chmod MODE {outputs.t}"
    outputs = { t = "bin/tool" }
    KEYS
    [stage.use]
    run = "NOTE(use) && {inputs.t} > {outputs.o}"
    inputs = { t = "stage:tool.t" }
    outputs = { o = "o" }
"""


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("keys", ["", "sandbox = false"])
@pytest.mark.parametrize("hash", ["blake3", "md5"])
def test_what_a_stage_makes_executable_stays_so(repo, toml, hash: str, keys: str, large: bool) -> None:
    """As with make and DVC: a program that a stage builds can be run by the next one, restored or checked out too."""
    repo.write("tool", "#!/bin/sh\necho used\nexit\n" + "#" * (3_000_000 if large else 0))
    toml(f'[cache]\nhash = "{hash}"\n' + TOOL.replace("MODE", "+x").replace("KEYS", keys))
    repo.pipe("build")
    assert repo.ran() == ["tool", "use"] and repo.read("o") == "used\n"
    assert os.access(repo.path / "bin/tool", os.X_OK)
    before = repo.read("pipe.lock")
    (repo.path / "bin/tool").unlink()
    assert repo.pipe("build", "--json").stages() == {"tool": "restored", "use": "fresh"}
    assert os.stat(repo.path / "bin/tool").st_mode & 0o111 == 0o111
    (repo.path / "bin/tool").unlink()
    repo.pipe("checkout")
    assert os.access(repo.path / "bin/tool", os.X_OK)
    (repo.path / "pipe.lock").unlink()
    (repo.path / "bin/tool").unlink()
    assert repo.pipe("build", "--json").stages() == {"tool": "restored", "use": "restored"}
    assert os.access(repo.path / "bin/tool", os.X_OK)
    assert repo.read("pipe.lock") == before and repo.ran() == []
    repo.commit()
    repo.pipe("build", "--force", "use")
    assert repo.ran() == ["use"] and repo.read("pipe.lock") == before
    assert repo.pipe("status", "--rev", "HEAD", "--check").returncode == 0


def test_executable_from_now_on(repo, toml) -> None:
    """The same bytes, made executable or no longer: what lies in the workspace is as the last run made it."""
    repo.write("tool", "#!/bin/sh\necho used\n")
    for mode in ("-x", "+x", "-x"):
        toml(TOOL.replace("MODE", mode).replace("KEYS", "").replace("{inputs.t} >", "cat {inputs.t} >"))
        assert repo.pipe("build", "--json").stages()["tool"] in ("ran", "restored")
        assert os.access(repo.path / "bin/tool", os.X_OK) == (mode == "+x")
        assert ("executable = true" in repo.read("pipe.lock")) == (mode == "+x")
    assert repo.ran() == [
        "tool",
        "tool",
        "use",
    ]  # restored the third time, and early cutoff: the content is what it was
