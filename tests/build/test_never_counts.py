"""What never counts."""

from __future__ import annotations

import os
import shutil

import pytest

BASE = """
    [params]
    x = 1
    y = 2
    [compute.local]
    gpus = 2
    [stage.a]
    source = "src"
    run = "NOTE(a) && cat src/x {inputs.i} > {outputs.o}"
    inputs = { i = "data" }
    outputs = { o = "o" }
    params = ["x", "y"]
"""


@pytest.fixture
def built(repo, toml):
    repo.write("src/x", "1")
    repo.write("data", "1")
    toml(BASE)
    repo.pipe("build")
    repo.ran()
    return toml


@pytest.mark.parametrize(
    "line",
    [
        "# a comment",
        'compute = "local"',
        "resources = { cpus = 1, memory = '10M' }",
        'timeout = "2h"',
        "retries = 3",
        'desc = "words"',
        'mutex = ["db"]',
        'pass-env = ["TOKEN"]',
        'keep = "ckpt"',
        "after = []",
        'mode = ""',
        'to = ""',
    ],
)
def test_a_line_that_never_counts(repo, built, line: str) -> None:
    """Never over comments, compute, resources, timeout, retries, mode, to."""
    if line == 'mode = ""':
        built(BASE.replace('{ i = "data" }', '{ i = { from = "data", mode = "mount" } }'))
    elif line == 'to = ""':
        built(BASE.replace('{ o = "o" }', f'{{ o = {{ path = "o", to = "file://{repo.home}/there/" }} }}'))
    else:
        built(f"{BASE}    {line}\n")
    assert repo.pipe("build", "--json").stages() == {"a": "fresh"}
    assert repo.ran() == []


def test_key_order(repo, built) -> None:
    """Never over key order."""
    head, _, body = BASE.partition("[stage.a]\n")
    lines = [line for line in body.splitlines() if line.strip()]
    built(f"    [stage.a]\n{chr(10).join(reversed(lines))}\n{head}".replace('["x", "y"]', '["y", "x"]'))
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"


def test_stage_name(repo, built) -> None:
    """Never over the stage's own name unless it is in `run`: a renamed stage is restored."""
    built(BASE.replace("[stage.a]", "[stage.b]"))
    assert repo.pipe("build", "--json").stages() == {"b": "restored"}
    assert repo.ran() == []


def test_moving_the_clone(repo, built) -> None:
    """Never over absolute paths: a moved clone is up to date."""
    moved = type(repo)(repo.path.parent / "elsewhere", repo.home)
    shutil.move(repo.path, moved.path)
    assert moved.pipe("build", "--json").json()["status"] == "up-to-date"
    assert moved.ran() == []


def test_branch_times_and_owners(repo, built) -> None:
    """Never over times, owners, the branch."""
    repo.commit()
    repo.git("checkout", "-q", "-b", "other")
    for path in ("src/x", "data", "o"):
        os.utime(repo.path / path, (1, 1))
        if os.geteuid() == 0:
            os.chown(repo.path / path, 12345, 12345)
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"
    assert repo.ran() == []


def test_ignored_files_and_outputs_in_a_source(repo, toml) -> None:
    """Never part of a source: pipeline.toml, pipe.lock, every stage's outputs, what .pipeignore and git's ignores
    name."""
    repo.write("x", "1")
    repo.write(".gitignore", "*.log\n")
    repo.write(".pipeignore", "notes\n")
    toml("""
        [stage.a]
        source = "."
        run = "NOTE(a) && ls -A > {outputs.o}"
        outputs = { o = "out/o" }
    """)
    repo.pipe("build")
    listed = repo.read("out/o").split()
    repo.write("a.log", "1")
    repo.write("notes", "1")
    repo.write("pipeline.toml", repo.read("pipeline.toml") + "# more\n")
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"
    assert repo.ran() == ["a"]
    assert "x" in listed and not {"pipeline.toml", "pipe.lock", "a.log", "notes", ".git"} & set(listed)


def test_same_fingerprint_in_every_clone(repo, built) -> None:
    """The same content has the same fingerprint in every clone."""
    repo.commit()
    clone = repo.clone()
    prints = [each.pipe("status", "--json").json()["stages"][0]["fingerprint"] for each in (repo, clone)]
    assert prints[0] and prints[0] == prints[1]


@pytest.mark.parametrize("name", [".pipe-tmp-0a1b2c", "out/.pipe-tmp-0a1b2c", "out/.pipe-tmp-0a1b2c/inner/x"])
def test_what_another_build_is_placing(repo, toml, name: str) -> None:
    """An output on its way into the workspace, or left there by `kill -9`, is nobody's source."""
    repo.write("x", "1")
    toml("""
        [stage.a]
        source = "."
        run = "NOTE(a) && find . -type f | sort > $HOME/seen && echo 1 > {outputs.o}"
        outputs = { o = "out/o" }
    """)
    repo.pipe("build")
    repo.write(name, "half of")
    assert repo.pipe("status", "--json").stages(key="state") == {"a": "fresh"}
    repo.write("x", "2")
    repo.write(name, "half of it")
    repo.pipe("build")
    assert repo.ran() == ["a", "a"] and "pipe-tmp" not in (repo.home / "seen").read_text()
    repo.write("x.pipe-tmp-", "somebody's own")
    assert repo.pipe("status", "--json").why("a") == [("source", ".")]
