"""`kill -9` of a build at random moments: nothing recorded is lost, nothing half-made is trusted, nothing goes on
running.

The moments come from a seed, which a failure prints; PIPESMITH_SEED sets another.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time

import pytest

from .conftest import STAGES, Bed, nobody_left

_SEED = int(os.environ.get("PIPESMITH_SEED", "1"))


def kill_again_and_again(bed: Bed, times: int, seed: int) -> None:
    rng = random.Random(seed)
    repo = bed.repo
    bed.write(0)
    started = time.monotonic()
    repo.pipe("build")
    whole_s = time.monotonic() - started
    repo.ran()
    done = {0: set(STAGES)}  # version: stages that were once recorded
    killed = 0
    for number in range(10 * times):
        if killed == times:
            break
        bed.write(rng.choice([number, number, rng.randint(0, number)]))
        if rng.random() < 0.3:
            shutil.rmtree(repo.path / "out", ignore_errors=True)
        build = repo.start("build", f"-j{rng.randint(1, 3)}")
        time.sleep(rng.uniform(0.05, 1.1 * whole_s))
        about = f"seed {seed}, kill {number}, version {bed.version}"
        alive = build.poll() is None
        os.kill(build.pid, signal.SIGKILL) if alive else None
        build.communicate(timeout=30)
        killed += alive
        assert nobody_left(repo.home) == {}, about
        bed.check_lock()
        bed.check_cache()
        begun = set(repo.ran())
        recorded = done.setdefault(bed.version, set())
        recorded |= bed.recorded()
        assert not begun & (recorded - bed.recorded()), f"{about}: {begun} ran though known"
        before = set(recorded)
        again = repo.pipe("build", check=False)
        assert again.returncode == 0, f"{about}: {again.stdout}{again.stderr}"
        ran = set(repo.ran())
        assert ran & before == set(), f"{about}: {ran & before} were recorded and ran again"
        assert ran | before == set(STAGES), about
        recorded |= set(STAGES)
        bed.check_outputs()
        third = repo.pipe("build", "--json")
        assert third.json()["status"] == "up-to-date", about
        assert repo.ran() == [], about
    assert killed == times
    assert repo.git("fsck", "--no-dangling", check=False).returncode == 0


def test_killed_ten_times(bed: Bed) -> None:
    kill_again_and_again(bed, 10, _SEED)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_killed_a_hundred_times(bed: Bed, part: int) -> None:
    kill_again_and_again(bed, 25, 1000 * _SEED + part)


def test_what_a_killed_build_was_placing_is_swept(bed: Bed) -> None:
    """Also when all is fresh, and before a source folder that it lies in is looked at."""
    bed.repo.pipe("build")
    bed.repo.ran()
    for path in ("out/.pipe-tmp-0123456789ab", "kept/.pipe-tmp-0123456789ab", ".pipe-tmp-0123456789ab"):
        bed.repo.write(path, "half")
    bed.repo.write("out/.pipe-tmp-ba9876543210/inner", "half")
    assert bed.repo.pipe("build", "--json").json()["status"] == "up-to-date"
    assert not list(bed.repo.path.rglob(".pipe-tmp-*"))
    bed.check_outputs()
