"""Disk full at random points: told as such, exit 1, nothing lost, and the next build with space does the rest. Root
only."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.conftest import Repo, new_repo

from .conftest import STAGES, Bed, nobody_left

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

_BIG = 700_000
_SIZE_KB = 16_384
_SEED = int(os.environ.get("PIPESMITH_SEED", "1"))

Mount = Callable[[Path, int], None]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mounts a small file system (size in KB) at a folder; all are gone after the test."""
    mounted: list[Path] = []

    def make(folder: Path, size_kb: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "pipesmith-test", folder])
        if done.returncode != 0:
            pytest.skip("no tmpfs can be mounted here")
        mounted.append(folder)

    yield make
    for folder in reversed(mounted):
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path, leave_kb: int) -> Path:
    """Take all space of the file system but `leave_kb`; return the file that holds it."""
    filler = folder / "filler"
    info = os.statvfs(folder)
    size = info.f_bavail * info.f_frsize - leave_kb * 1024
    with open(filler, "wb") as file:
        if size > 0:
            os.posix_fallocate(file.fileno(), 0, size)
    return filler


def fill_again_and_again(bed: Bed, disk: Path, times: int, seed: int) -> int:
    """Return how many of the builds failed for want of space."""
    rng = random.Random(seed)
    repo = bed.repo
    bed.write(0)
    repo.pipe("build")
    repo.ran()
    failed = 0
    for version in range(1, times + 1):
        bed.write(version)
        leave_kb = rng.choice([0, rng.randint(0, 64), rng.randint(0, 1200), rng.randint(0, 4000)])
        about = f"seed {seed}, version {version}, {leave_kb} KB left"
        filler = fill(disk, leave_kb)
        result = repo.pipe("build", "-k", check=False)
        filler.unlink()
        said = result.stdout + result.stderr
        assert "Traceback" not in said, f"{about}: {said}"
        assert nobody_left(repo.home) == {}, about
        bed.check_lock()
        bed.check_cache()
        recorded = bed.recorded()
        first = set(repo.ran())
        assert recorded <= first, about
        if result.returncode == 0:
            assert first == set(STAGES), f"{about}: {said}"
        else:
            failed += 1
            assert result.returncode == 1, f"{about}: {said}"
            assert "space" in said.lower(), f"{about}: {said}"
        repo.pipe("build")
        second = set(repo.ran())
        assert not second & recorded, f"{about}: {second & recorded} were recorded and ran again\n{said}"
        assert recorded | second == set(STAGES), about
        bed.check_outputs()
        assert repo.pipe("build", "--json").json()["status"] == "up-to-date", about
        repo.pipe("gc", "--keep-days", "0", check=False)
        trash = repo.pipe_dir / "trash"
        subprocess.run(["rm", "-rf", trash, repo.pipe_dir / "cache/actions", repo.pipe_dir / "logs"], check=True)
    assert repo.git("fsck", "--no-dangling", check=False).returncode == 0
    return failed


def on_pipe_folder(tmp_path: Path, mount: Mount) -> tuple[Bed, Path]:
    repo = new_repo(tmp_path)
    disk = repo.path / ".git/pipe"
    mount(disk, _SIZE_KB)
    return Bed(repo, pause=0.01, big=_BIG), disk


def on_everything(tmp_path: Path, mount: Mount) -> tuple[Bed, Path]:
    disk = tmp_path / "disk"
    mount(disk, _SIZE_KB)
    repo = new_repo(disk)
    return Bed(Repo(repo.path, _home(tmp_path)), pause=0.01, big=_BIG), disk


def _home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").touch()
    return home


both = pytest.mark.parametrize("place", [on_pipe_folder, on_everything])


@both
def test_full_at_some_points(tmp_path: Path, mount: Mount, place: Callable[[Path, Mount], tuple[Bed, Path]]) -> None:
    bed, disk = place(tmp_path, mount)
    assert fill_again_and_again(bed, disk, 4, _SEED) >= 1


@pytest.mark.slow
@both
@pytest.mark.parametrize("part", range(2))
def test_full_at_many_points(
    tmp_path: Path, mount: Mount, place: Callable[[Path, Mount], tuple[Bed, Path]], part: int
) -> None:
    bed, disk = place(tmp_path, mount)
    assert fill_again_and_again(bed, disk, 25, 100 * _SEED + part) >= 10


@both
def test_no_byte_left_from_the_start(
    tmp_path: Path, mount: Mount, place: Callable[[Path, Mount], tuple[Bed, Path]]
) -> None:
    bed, disk = place(tmp_path, mount)
    bed.write(0)
    filler = fill(disk, 0)
    result = bed.repo.pipe("build", check=False)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr and "space" in (result.stdout + result.stderr).lower()
    state = bed.repo.pipe("status", check=False)
    assert "Traceback" not in state.stderr
    filler.unlink()
    bed.repo.ran()
    bed.repo.pipe("build")
    bed.check_outputs()
