"""Random damage to what lies in .git/pipe: never trusted, never a traceback; it costs time only."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from tests.conftest import Repo

from .conftest import STAGES, Bed

_SEED = int(os.environ.get("PIPESMITH_SEED", "1"))


def damage(rng: random.Random, path: Path) -> str:
    """Harm one file in one of many ways."""
    data = path.read_bytes()
    way = rng.choice(["flip", "flip", "cut", "empty", "lost", "grown", "zeros", "junk", "folder", "dangling"])
    path.chmod(0o644)
    at = rng.randrange(max(1, len(data)))
    if way == "lost":
        path.unlink()
    elif way == "folder":
        path.unlink()
        path.mkdir()
    elif way == "dangling":
        path.unlink()
        path.symlink_to("/nowhere")
    else:
        flipped = data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :] if data else b"x"
        new = {
            "flip": flipped,
            "cut": data[:at],
            "empty": b"",
            "grown": data + b"more",
            "zeros": bytes(len(data)),
            "junk": rng.randbytes(len(data)),
        }[way]
        before = path.stat()
        path.write_bytes(new)
        if way == "flip" and rng.random() < 0.5:
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return f"{way} {path.parent.name}/{path.name}"


def damage_again_and_again(bed: Bed, times: int, seed: int) -> None:
    rng = random.Random(seed)
    repo = bed.repo
    repo.pipe("build")
    for number in range(times):
        repo.ran()
        files = [path for path in repo.pipe_dir.rglob("*") if path.is_file() and not path.is_symlink()]
        told = [damage(rng, path) for path in rng.sample(sorted(files), min(len(files), rng.randint(1, 4)))]
        lost = rng.sample(["out/file.txt", "out/big.bin", "out/folder/3", "out/plain.txt", "kept/open.txt"], 2)
        for path in lost if rng.random() < 0.7 else []:
            (repo.path / path).unlink()
        about = f"seed {seed}, number {number}: {told}"
        state = repo.pipe("status", "--json", check=False)
        assert state.returncode == 0, f"{about}: {state.stderr}"
        assert repo.ran() == [], about
        result = repo.pipe("build", "--json", check=False)
        assert result.returncode == 0, f"{about}: {result.stderr}"
        assert "Traceback" not in result.stderr + state.stderr, f"{about}: {result.stderr}{state.stderr}"
        bed.check_outputs()
        ran = [name for name, status in result.stages().items() if status == "ran"]
        assert repo.ran() == sorted(ran), about
        assert repo.pipe("build", "--json").json()["status"] == "up-to-date", about
        assert repo.ran() == [], about


def test_some_damage(bed: Bed) -> None:
    damage_again_and_again(bed, 6, _SEED)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_much_damage(bed: Bed, part: int) -> None:
    damage_again_and_again(bed, 40, 100 * _SEED + part)


def test_every_object_flipped(bed: Bed) -> None:
    """All outputs gone and all of the cache damaged: everything runs again, and comes out right."""
    repo = bed.repo
    repo.pipe("build")
    repo.ran()
    for path in (repo.pipe_dir / "cache/files").rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            data = path.read_bytes()
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    for path in bed.expected():
        (repo.path / path).unlink(missing_ok=True)
    repo.pipe("build")
    assert repo.ran() == sorted(STAGES)
    bed.check_outputs()


def test_every_object_and_record_is_a_folder(bed: Bed) -> None:
    """Where a folder lies in the place of an object or a record, it is damage like any other, and swept in time."""
    repo = bed.repo
    repo.pipe("build")
    repo.ran()
    for number, path in enumerate((repo.pipe_dir / "cache").rglob("*")):
        if path.is_file():
            path.unlink()
            path.mkdir()
            (path / "inner").touch() if number % 2 else None
    for path in bed.expected():
        (repo.path / path).unlink(missing_ok=True)
    assert "Traceback" not in repo.pipe("verify", check=False).stderr
    repo.pipe("build")
    assert repo.ran() == sorted(STAGES)
    bed.check_outputs()
    for path in bed.expected():
        (repo.path / path).unlink(missing_ok=True)
    repo.pipe("build")
    assert repo.ran() == [], "all is known again"
    for path in (repo.pipe_dir / "trash").iterdir():
        os.utime(path, (1, 1))
    repo.pipe("gc", "--keep-days", "0")
    assert not [path for path in (repo.pipe_dir / "trash").iterdir() if path.stat().st_mtime < 2]


def test_every_object_lost(bed: Bed, repo: Repo) -> None:
    repo.pipe("build")
    repo.ran()
    for path in (repo.pipe_dir / "cache/files").rglob("*"):
        if path.is_file():
            path.unlink()
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date", "the workspace has all that is locked"
    (repo.path / "out/plain.txt").unlink()
    states = repo.pipe("status", "--json").stages(key="state")
    assert states["plain"] == "stale" and states["file"] == "fresh"
    repo.pipe("build")
    assert repo.ran() == ["plain"]
    bed.check_outputs()
