"""The witness: an equal call is answered from what was looked at, and only when all of that is as it was."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Repo

# What a no-op may import besides what the interpreter itself starts with.
ALLOWED = {
    "pipesmith",
    "pipesmith.__main__",
    "pipesmith.fingerprint",
    "pipesmith.fingerprint.witness",
    "_blake2",
    "marshal",
    "__future__",
}


@pytest.fixture
def built(repo: Repo) -> Repo:
    repo.write(
        "pipeline.toml",
        """
        [params]
        seed = 1
        [stage.a]
        source = "src"
        run = "cat src/a.txt {inputs.d}/* > {outputs.o}; echo {params.seed} >> {outputs.o}"
        inputs = { d = "data" }
        outputs = { o = "out/a.txt" }
        """,
    )
    repo.write("src/a.txt", "a\n")
    repo.write("src/deep/b.txt", "b\n")
    repo.write("data/d.txt", "d\n")
    repo.commit()
    repo.pipe("build")
    time.sleep(0.05)  # what is younger than the clock's tick is not believed
    repo.pipe("build")
    return repo


def witnesses(repo: Repo) -> list[str]:
    folder = repo.pipe_dir / "tmp" / "witness"
    return sorted(os.listdir(folder)) if folder.exists() else []


def imported(repo: Repo, *args: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pipesmith", *args],
        cwd=repo.path,
        env=repo.env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


def test_a_no_op_imports_next_to_nothing(built: Repo) -> None:
    """The second no-op is answered by the witness, which imports nothing of the rooms."""
    assert len(witnesses(built)) == 1
    bare = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "this"], capture_output=True, text=True, env=built.env
    )
    start = {line.rpartition("|")[2].strip() for line in bare.stderr.splitlines()}
    assert imported(built, "build") - start <= ALLOWED
    assert "pipesmith.cli" in imported(built, "build", "--dry-run")


def test_the_answer_is_the_same(built: Repo) -> None:
    """A call that the witness answers prints what the call before it printed, as text and as JSON."""
    for args in (["build"], ["status"], ["build", "--json"], ["status", "--json", "--check"], ["-C", ".", "build"]):
        first = built.pipe(*args)
        assert built.pipe(*args).stdout == first.stdout
        assert "pipesmith.cli" not in imported(built, *args)


CHANGES: dict[str, Callable[[Path], object]] = {
    "source edited": lambda p: (p / "src/a.txt").write_text("b\n"),
    "source edited in a folder below": lambda p: (p / "src/deep/b.txt").write_text("c\n"),
    "source added": lambda p: (p / "src/new.txt").write_text("n\n"),
    "source added in a folder below": lambda p: (p / "src/deep/new.txt").write_text("n\n"),
    "source removed": lambda p: (p / "src/deep/b.txt").unlink(),
    "source made executable": lambda p: (p / "src/a.txt").chmod(0o755),
    "input edited": lambda p: (p / "data/d.txt").write_text("e\n"),
    "input added": lambda p: (p / "data/e.txt").write_text("e\n"),
    "output removed": lambda p: (p / "out/a.txt").unlink(),
    "param edited": lambda p: (p / "pipeline.toml").write_text(
        (p / "pipeline.toml").read_text().replace("seed = 1", "seed = 2")
    ),
    "ignore file in a source": lambda p: (p / "src/.gitignore").write_text("b.txt\n"),
    "pipeignore": lambda p: (p / ".pipeignore").write_text("src/deep\n"),
    "ignored in the clone": lambda p: (
        (p / ".git/info").mkdir(exist_ok=True),
        (p / ".git/info/exclude").write_text("b.txt\n"),
    ),
    "attributes": lambda p: (p / ".gitattributes").write_text("*.txt text eol=crlf\n"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_difference_is_seen(built: Repo, change: str) -> None:
    """Whatever the witness looked at: a change of it is seen by the full path, and `status` says so or stays right."""
    built.pipe("status")
    built.pipe("status")
    CHANGES[change](built.path)
    seen = built.pipe("status", "--json")
    fresh = subprocess.run(
        ["rm", "-rf", str(built.pipe_dir / "tmp" / "witness"), str(built.pipe_dir / "state.db")], check=True
    )
    assert fresh.returncode == 0
    assert seen.json() == built.pipe("status", "--json").json()


def test_same_size_and_time_is_seen(built: Repo) -> None:
    """A source rewritten with its size and mtime put back is seen: its ctime tells."""
    path = built.path / "src/a.txt"
    info = path.stat()
    path.write_text("z\n")
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert built.pipe("status", "--json").stages(key="state") == {"a": "stale"}


def test_a_damaged_witness_is_no_witness(built: Repo) -> None:
    """A witness that can't be read costs time, nothing else."""
    folder = built.pipe_dir / "tmp" / "witness"
    for name in witnesses(built):
        (folder / name).write_bytes(b"\x00garbage")
    assert built.pipe("build").stdout.startswith("up to date")


def test_reuse_false_has_no_witness(repo: Repo) -> None:
    """A stage with `reuse = false` runs at every build: no call with it is answered from memory."""
    repo.write("pipeline.toml", '[stage.a]\nrun = "echo 1 > {outputs.o}"\noutputs = { o = "o.txt" }\nreuse = false\n')
    repo.commit()
    for _ in range(3):
        assert repo.pipe("build", "--json").stages() == {"a": "ran"}
    assert witnesses(repo) == []


def test_many_files_are_checked_by_two_processes(repo: Repo) -> None:
    """Above 20,000 entries the check is split: a change in either half is seen."""
    for folder in range(22):
        for index in range(1000):
            repo.write(f"data/f{folder}/{index}", "")
    repo.write(
        "pipeline.toml",
        '[stage.a]\nrun = "ls {inputs.d} | wc -l > {outputs.o}"\ninputs = { d = "data" }\noutputs = { o = "o.txt" }\n',
    )
    repo.write(".gitignore", "/data\n")
    repo.commit()
    repo.pipe("build")
    time.sleep(0.05)
    repo.pipe("build")
    assert "pipesmith.cli" not in imported(repo, "build")
    for folder in (0, 21):
        repo.write(f"data/f{folder}/5", "changed")
        assert repo.pipe("build", "--json").stages() == {"a": "ran"}


def test_each_of_very_many_files_in_one_folder_counts(repo: Repo) -> None:
    """A folder of 20,000 entries and more is looked at in two halves: a change in either is seen."""
    for number in range(20_010):
        repo.write(f"src/f{number}", "1")
    repo.write("pipeline.toml", '[stage.a]\nsource = "src"\nrun = "echo 1 > {outputs.o}"\noutputs = { o = "o" }\n')
    repo.pipe("build")
    time.sleep(0.1)
    for name in ("f10", "f11", "f20009"):
        repo.pipe("build")
        repo.pipe("build")
        repo.write(f"src/{name}", "2")
        assert repo.pipe("status", "--json").stages(key="state") == {"a": "stale"}
        repo.pipe("build")
        time.sleep(0.1)
    repo.pipe("build")
    (repo.path / "src" / "f12").unlink()
    assert repo.pipe("status", "--json").stages(key="state") == {"a": "stale"}
