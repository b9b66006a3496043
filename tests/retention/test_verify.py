"""`pipe verify` reads every object and compares every output; what is wrong is named, and exit is 1."""

from __future__ import annotations

import marshal
import os
import time
from pathlib import Path
from typing import Any

import pytest

from pipesmith.fingerprint.stat_cache import stamp_of
from pipesmith.store.state_db import StateDB

PIPELINE = """
    [stage.a]
    run = "mkdir -p {outputs.d} && echo 1 > {outputs.d}/one && echo 2 > {outputs.d}/two && echo 3 > {outputs.f}"
    outputs = { d = "out/d", f = "out/f.txt" }
"""


@pytest.fixture
def built(repo):  # type: ignore[no-untyped-def]
    repo.write("pipeline.toml", PIPELINE)
    repo.pipe("build")
    return repo


def objects(repo) -> list[Path]:  # type: ignore[no-untyped-def]
    return sorted(p for p in (repo.pipe_dir / "cache/files").rglob("*") if p.is_file())


def verify(repo, *args: str, code: int) -> Any:  # type: ignore[no-untyped-def]
    done = repo.pipe("verify", "--json", *args, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.json()


def test_all_well(built) -> None:  # type: ignore[no-untyped-def]
    found = verify(built, code=0)
    assert found == {"ok": True, "objects": 4, "damaged": [], "missing": [], "changed": []}
    assert verify(built, "--full", code=0)["ok"]


def test_every_flipped_byte_is_named_and_trashed(built) -> None:  # type: ignore[no-untyped-def]
    for path in objects(built):
        hex = path.parent.name + path.name
        data = path.read_bytes()
        info = path.stat()
        path.chmod(0o644)
        path.write_bytes(bytes((data[0] ^ 1,)) + data[1:])
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
        found = verify(built, code=1)
        assert any(hex in line for line in found["damaged"])
        assert (built.pipe_dir / "trash" / f"blake3-{hex}").exists()
        assert not path.exists()
        (built.pipe_dir / "trash" / f"blake3-{hex}").unlink()
        path.write_bytes(data)
        path.chmod(0o444)
    assert verify(built, code=0)["ok"]


def test_damage_is_mended_by_the_next_build_that_makes_it(built) -> None:  # type: ignore[no-untyped-def]
    for path in objects(built):
        path.chmod(0o644)
        path.write_bytes(b"bad")
    verify(built, code=1)
    built.pipe("build", "--force")
    assert verify(built, code=0)["objects"] == 4


def test_a_changed_output_is_named(built) -> None:  # type: ignore[no-untyped-def]
    built.write("out/d/two", "by hand\n")
    found = verify(built, code=1)
    assert len(found["changed"]) == 1 and "out/d" in found["changed"][0]
    assert built.read("out/d/two") == "by hand\n"


def test_a_lost_output_and_a_lost_object_are_named(built) -> None:  # type: ignore[no-untyped-def]
    (built.path / "out/f.txt").unlink()
    assert any("out/f.txt" in line for line in verify(built, code=1)["missing"])
    for path in objects(built):
        path.unlink()
    found = verify(built, code=1)
    assert any("out/f.txt" in line for line in found["missing"])
    built.pipe("build")
    assert verify(built, code=0)["ok"]


def test_full_reads_whatever_the_stamps_say(built) -> None:  # type: ignore[no-untyped-def]
    """A write that left every stamp as it was (through mmap, say) is seen by `--full` alone."""
    path = built.path / "out/f.txt"
    time.sleep(0.05)  # what was written just now is not remembered
    verify(built, code=0)
    built.pipe("status")
    path.write_text("9\n")
    state = StateDB(str(built.pipe_dir / "state.db"))
    key = f"blake3:{path}"
    assert state.query("SELECT 1 FROM files WHERE path = ?", (key,)) == [(1,)]
    stamp = marshal.dumps(stamp_of(os.lstat(path)), 2)
    state.write([("UPDATE files SET stamp = ? WHERE path = ?", (stamp, key))])
    state.close()
    verify(built, code=0)
    assert len(verify(built, "--full", code=1)["changed"]) == 1
