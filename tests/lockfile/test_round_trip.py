"""Laws of the lockfile's text."""

from __future__ import annotations

import os
import random
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings

from pipesmith.digest import Digest
from pipesmith.lockfile import io
from pipesmith.lockfile.emitter import render
from pipesmith.lockfile.model import LockedDep, LockedOut, Lockfile, StageLock
from pipesmith.lockfile.reader import parse

from .strategies import LOCKFILES


@settings(max_examples=200, deadline=None)
@given(LOCKFILES)
def test_what_is_written_is_read_back(lockfile: Lockfile) -> None:
    text = render(lockfile)
    assert parse(text) == lockfile
    assert render(parse(text)) == text, "no change, no diff"
    text.encode()  # UTF-8, whatever the names are


@settings(max_examples=60, deadline=None)
@given(LOCKFILES)
def test_the_order_of_what_was_built_does_not_matter(lockfile: Lockfile) -> None:
    shuffled = Lockfile(
        stages={name: _shuffled(entry) for name, entry in _reversed(lockfile.stages).items()},
        environments=_reversed(lockfile.environments),
        datasets=_reversed(lockfile.datasets),
    )
    assert render(shuffled) == render(lockfile)


def _reversed(table):  # type: ignore[no-untyped-def]
    return dict(reversed(list(table.items())))


def _shuffled(entry: StageLock) -> StageLock:
    return replace(
        entry,
        source=_reversed(entry.source),
        params=_reversed(entry.params),
        env=_reversed(entry.env),
        metrics=_reversed(entry.metrics),
        hash_paths=_reversed(entry.hash_paths),
        deps=entry.deps[::-1],
        outs=entry.outs[::-1],
    )


def test_nan_and_infinity_are_numbers_of_toml() -> None:
    metrics = {"r:a": float("nan"), "r:b": float("inf"), "r:c": float("-inf"), "r:d": 1e22, "r:e": 5e-324}
    text = render(Lockfile(stages={"s": StageLock(fingerprint="f", run="x", metrics=metrics)}))
    again = parse(text)
    assert render(again) == text
    assert again.stages["s"].metrics["r:d"] == 1e22


def test_a_number_that_became_whole_stays_a_number() -> None:
    """A metric 1 and a metric 1.0 are written alike, so that a rewrite makes no diff."""
    one = render(Lockfile(stages={"s": StageLock(fingerprint="f", run="x", metrics={"r:a": 1})}))
    other = render(Lockfile(stages={"s": StageLock(fingerprint="f", run="x", metrics={"r:a": 1.0})}))
    assert one == other


def many(count: int) -> Lockfile:
    """A lockfile of `count` stages."""
    rand = random.Random(7)
    stages = {}
    for index in range(count):
        deps = [
            LockedDep(
                name=f"in{i}", path=f"data/{index}/{i}.csv", digest=Digest("blake3", f"{rand.getrandbits(256):064x}", 9)
            )
            for i in range(3)
        ]
        out = LockedOut(
            name="o", path=f"out/{index}", digest=Digest("blake3", f"{rand.getrandbits(256):064x}.dir", 9, 2)
        )
        stages[f"stage-{index}"] = StageLock(
            fingerprint=f"{rand.getrandbits(256):064x}",
            run=f"python stages/{index}.py --out {{outputs.o}}",
            source={f"stages/{index}": f"{rand.getrandbits(160):040x}"},
            deps=tuple(deps),
            params={"train.lr": 0.1, "seed": index},
            outs=(out,),
            metrics={"o:auc": rand.random()},
        )
    return Lockfile(stages=stages)


def test_a_thousand_stages_are_written_in_no_time() -> None:
    lockfile = many(1000)
    best = min(_seconds(lambda: render(lockfile)) for _ in range(5))
    assert best < 0.25, f"{best * 1000:.0f} ms"


def _seconds(call) -> float:  # type: ignore[no-untyped-def]
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def test_two_stages_changed_on_two_branches_merge_in_git(workspace) -> None:  # type: ignore[no-untyped-def]
    """One entry a line: git merges what does not touch the same stage, without help."""
    base = many(6)
    path = str(workspace.path / "pipe.lock")

    def commit_with(name: str) -> None:
        entry = replace(base.stages[name], fingerprint="0" * 64)
        io.write(path, Lockfile(stages={**base.stages, name: entry}))
        workspace.commit(name)

    io.write(path, base)
    workspace.commit("base")
    workspace.git("checkout", "-q", "-b", "other")
    commit_with("stage-1")
    workspace.git("checkout", "-q", "main")
    commit_with("stage-4")
    workspace.git("merge", "-q", "-m", "merge", "other")
    merged = parse(Path(path).read_text())
    assert {n for n, e in merged.stages.items() if e.fingerprint == "0" * 64} == {"stage-1", "stage-4"}


class TestWrite:
    """`io.write`: in one step, and not at all where nothing changed."""

    def test_equal_bytes_are_not_written_again(self, tmp_path: Path) -> None:
        path = tmp_path / "pipe.lock"
        io.write(str(path), many(2))
        before = path.stat()
        io.write(str(path), many(2))
        after = path.stat()
        assert (before.st_ino, before.st_ctime_ns) == (after.st_ino, after.st_ctime_ns)

    def test_the_mode_stays(self, tmp_path: Path) -> None:
        path = tmp_path / "pipe.lock"
        io.write(str(path), many(1))
        path.chmod(0o640)
        io.write(str(path), many(2))
        assert path.stat().st_mode & 0o777 == 0o640

    def test_a_link_stays_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "pipe.lock").symlink_to("elsewhere/real.lock")
        io.write(str(tmp_path / "pipe.lock"), many(1))
        assert (tmp_path / "pipe.lock").is_symlink()
        assert parse((tmp_path / "elsewhere/real.lock").read_text()) == many(1)

    def test_a_full_disk_leaves_the_old_file_and_nothing_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "pipe.lock"
        io.write(str(path), many(1))
        old = path.read_bytes()

        def full(fd: int, data: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError):
            io.write(str(path), many(2))
        assert path.read_bytes() == old
        assert os.listdir(tmp_path) == ["pipe.lock"]

    def test_readers_beside_a_writer_see_whole_files(self, tmp_path: Path) -> None:
        path = str(tmp_path / "pipe.lock")
        io.write(path, many(1))
        code = (
            "import sys\n"
            "from pipesmith.lockfile import io\n"
            "from tests.lockfile.test_round_trip import many\n"
            "for n in range(60): io.write(sys.argv[1], many(1 + n % 7))\n"
        )
        root = Path(__file__).parent.parent.parent
        env = {**os.environ, "PYTHONPATH": f"{root}:{root / 'engine'}"}
        writer = subprocess.Popen([os.sys.executable, "-c", code, path], env=env)  # type: ignore[attr-defined]
        seen = 0
        while writer.poll() is None:
            parse(Path(path).read_text())
            seen += 1
        assert writer.returncode == 0
        assert seen > 5
