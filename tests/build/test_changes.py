"""Rule 6: source and inputs are compared when a stage starts and when it ends."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.usefixtures("sandbox")


@pytest.mark.parametrize("what", ["src/x", "data/x", "notes"])
def test_changed_while_it_runs(repo, toml, what: str) -> None:
    """One that changed while it ran makes it `failed`, nothing is recorded, the build says which."""
    for path in ("src/x", "data/x", "notes"):
        repo.write(path, "1")
    toml("""
        [stage.a]
        source = "src"
        run = "NOTE(a) && echo > $HOME/go; while test -e $HOME/go; do sleep 0.02; done; cat src/x data/x > {outputs.o}"
        inputs = { d = "data" }
        outputs = { o = "o" }
        hash-paths = ["notes"]
    """)
    process = repo.start("build", "--json")
    wait_for(repo.home / "go", process)
    repo.write(what, "2")
    (repo.home / "go").unlink()
    out, _err = process.communicate(timeout=20)
    assert process.returncode == 1
    import json

    (stage,) = json.loads(out)["stages"]
    assert stage["status"] == "failed"
    assert what.partition("/")[0] in stage["error"] and "changed while" in stage["error"]
    assert not repo.exists("o")
    assert repo.pipe("status", "--json").stages(key="state") == {"a": "stale"}
    repo.write(what, "1")
    assert repo.pipe("status", "--json").stages(key="state") == {"a": "stale"}


def test_an_input_made_by_a_stage_changed_while_it_runs(repo, toml) -> None:
    """An edited output of an earlier stage is an input that changed, too."""
    toml("""
        [stage.a]
        run = "echo 1 > {outputs.o}"
        outputs = { o = "a" }
        [stage.b]
        run = "echo > $HOME/go; while test -e $HOME/go; do sleep 0.02; done; cat {inputs.i} > {outputs.o}"
        inputs = { i = "a" }
        outputs = { o = "b" }
    """)
    process = repo.start("build", "--json")
    wait_for(repo.home / "go", process)
    (repo.path / "a").unlink()
    repo.write("a", "2")
    (repo.home / "go").unlink()
    process.communicate(timeout=20)
    assert process.returncode == 1
    assert not repo.exists("b")


def test_changed_before_it_starts(repo, toml) -> None:
    """When a stage starts it is compared, and judged anew: what it is recorded by is what it read."""
    repo.write("src/x", "1")
    toml("""
        [stage.a]
        run = "echo > $HOME/go; while test -e $HOME/go; do sleep 0.02; done; echo 1 > {outputs.o}"
        outputs = { o = "a" }
        [stage.b]
        source = "src"
        after = ["a"]
        run = "NOTE(b) && cat src/x > {outputs.o}"
        outputs = { o = "b" }
    """)
    process = repo.start("build", "--json")
    wait_for(repo.home / "go", process)
    repo.write("src/x", "2")
    (repo.home / "go").unlink()
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert repo.read("b") == "2" and repo.ran() == ["b"]
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"


@pytest.mark.parametrize("options", [(), ("--force",)])
@pytest.mark.parametrize("how", ["edited", "removed"])
def test_what_an_earlier_stage_made_changes_before_the_next_starts(repo, toml, how: str, options) -> None:
    """It is judged anew: what was made is put back, an edit is kept, and nothing runs twice."""
    toml("""
        [stage.a]
        run = "NOTE(a) && echo made > {outputs.o}"
        outputs = { o = "a" }
        [stage.slow]
        after = ["a"]
        run = "echo > $HOME/go; while test -e $HOME/go; do sleep 0.02; done; echo 1 > {outputs.o}"
        outputs = { o = "slow" }
        [stage.b]
        inputs = { i = "a" }
        after = ["slow"]
        run = "NOTE(b) && cat {inputs.i} > {outputs.o}"
        outputs = { o = "b" }
    """)
    process = repo.start("build", "--json", *options)
    wait_for(repo.home / "go", process)
    (repo.path / "a").unlink()
    if how == "edited":
        repo.write("a", "by hand")
    (repo.home / "go").unlink()
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0
    assert repo.read("a") == repo.read("b") == "made\n" and repo.ran() == ["a", "b"]
    assert {stage["name"]: stage["status"] for stage in json.loads(stdout)["stages"]} == dict.fromkeys(
        ("a", "slow", "b"), "ran"
    )
    if how == "edited":
        kept = stderr.partition("kept as ")[2].split()[0]
        assert repo.pipe("cat", kept).stdout == "by hand"
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"


def test_a_file_rewritten_with_its_times_put_back(repo, toml) -> None:
    """The stat cache sees a file rewritten with its size and mtime put back."""
    import os

    repo.write("data", "1")
    toml("""
        [stage.a]
        run = "cat {inputs.d} > {outputs.o}"
        inputs = { d = "data" }
        outputs = { o = "o" }
    """)
    repo.pipe("build")
    repo.pipe("build")
    before = os.stat(repo.path / "data")
    repo.write("data", "2")
    os.utime(repo.path / "data", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert repo.pipe("build", "--json").stages() == {"a": "ran"}
    assert repo.read("o") == "2"


def wait_for(path, process) -> None:
    import time

    for _ in range(500):
        if path.exists():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError(f"{path} never came")
