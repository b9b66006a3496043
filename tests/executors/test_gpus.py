"""GPUs: counted by the driver, given out once on the machine, whole or by memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipesmith.executors import gpus
from pipesmith.executors.gpus import GpuPool
from pipesmith.executors.nvml import Gpu

GIB = 1 << 30

DRIVER = r"""
#include <stdio.h>
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned gpu, memory; } rates_t;
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **h) { *h = (void *)(unsigned long)(index + 1); return 0; }
int nvmlDeviceGetUUID(void *h, char *text, unsigned n) { snprintf(text, n, "GPU-%lu", (unsigned long)h - 1); return 0; }
int nvmlDeviceGetName(void *h, char *text, unsigned size) { snprintf(text, size, "Test GPU"); return 0; }
int nvmlDeviceGetMemoryInfo(void *h, memory_t *m) { m->total = 80ULL << 30; m->used = 1ULL << 30; return 0; }
int nvmlDeviceGetUtilizationRates(void *h, rates_t *r) { r->gpu = 37; r->memory = 5; return 0; }
"""


@pytest.fixture(autouse=True)
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "driver_gpus", lambda: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def pool(folder: Path, count: int = 2) -> GpuPool:
    return GpuPool(count, str(folder))


def test_each_gpu_is_given_out_once(tmp_path: Path) -> None:
    """Also between pools, which stand for two pipes on one machine."""
    one, other = pool(tmp_path), pool(tmp_path)
    first = one.acquire(1)
    second = other.acquire(1)
    assert first is not None and second is not None
    assert (first.ids, second.ids) == (("0",), ("1",))
    assert one.acquire(1) is None and other.acquire(1) is None
    first.release()
    again = other.acquire(1)
    assert again is not None and again.ids == ("0",)


def test_all_or_none(tmp_path: Path) -> None:
    """Two are wanted and one is free: none is taken meanwhile."""
    gpu_pool = pool(tmp_path)
    held = gpu_pool.acquire(1)
    assert held is not None
    assert gpu_pool.acquire(2) is None
    rest = gpu_pool.acquire(1)
    assert rest is not None and rest.ids == ("1",)
    held.release()
    rest.release()
    both = gpu_pool.acquire(2)
    assert both is not None and both.ids == ("0", "1")


def test_release_twice_frees_nothing_of_others(tmp_path: Path) -> None:
    gpu_pool = pool(tmp_path, 1)
    held = gpu_pool.acquire(1)
    assert held is not None
    held.release()
    again = gpu_pool.acquire(1)
    held.release()
    assert again is not None and gpu_pool.acquire(1) is None


def test_by_memory_a_gpu_is_shared_until_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = Gpu(id="GPU-a", index=0, name="card", memory_bytes=80 * GIB)
    monkeypatch.setattr(gpus, "driver_gpus", lambda: [card])
    gpu_pool = pool(tmp_path)
    holds = [gpu_pool.acquire(1, 30 * GIB), gpu_pool.acquire(1, 30 * GIB)]
    assert all(hold is not None and hold.ids == ("GPU-a",) for hold in holds)
    assert gpu_pool.acquire(1, 30 * GIB) is None
    assert gpu_pool.acquire(1) is None
    small = gpu_pool.acquire(1, 10 * GIB)
    assert small is not None
    for hold in (*holds, small):
        assert hold is not None
        hold.release()
    assert gpu_pool.acquire(1, 81 * GIB) is None
    assert gpu_pool.acquire(1, 80 * GIB) is not None


def test_without_known_memory_a_gpu_is_given_whole(tmp_path: Path) -> None:
    gpu_pool = pool(tmp_path, 1)
    assert gpu_pool.acquire(1, GIB) is not None
    assert gpu_pool.acquire(1, GIB) is None


def test_a_dead_process_holds_nothing(tmp_path: Path) -> None:
    code = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from pipesmith.executors import gpus
gpus.driver_gpus = lambda: None
held = gpus.GpuPool(1, {str(tmp_path)!r}).acquire(1)
print(held.ids, flush=True)
sys.stdin.read()
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"('0',)\n"
    gpu_pool = pool(tmp_path, 1)
    assert gpu_pool.acquire(1) is None
    holder.kill()
    holder.wait()
    assert gpu_pool.acquire(1) is not None


@pytest.mark.parametrize(
    ("visible", "ids"),
    [
        ("", []),
        ("1", ["GPU-b1"]),
        ("1,0", ["GPU-b1", "GPU-a0"]),
        ("GPU-b", ["GPU-b1"]),
        ("0,7,1", ["GPU-a0"]),
        ("GPU-", []),
        ("-1", []),
        ("NoDevFiles", []),
    ],
)
def test_pipes_own_cuda_visible_devices_limits_the_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str, ids: list[str]
) -> None:
    cards = [Gpu(id=f"GPU-{'ab'[i]}{i}", index=i, name="card", memory_bytes=GIB) for i in range(2)]
    monkeypatch.setattr(gpus, "driver_gpus", lambda: cards)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.id for gpu in pool(tmp_path).gpus] == ids


def test_declared_gpus_are_not_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a driver, what pipeline.toml says is all there is to know."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert [gpu.id for gpu in pool(tmp_path).gpus] == ["0", "1"]


def test_lock_files_are_for_every_user(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        held = pool(tmp_path, 1).acquire(1)
    finally:
        os.umask(before)
    assert held is not None
    assert (tmp_path / "0").stat().st_mode & 0o777 == 0o666


def test_shared_folder_is_sticky_and_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that somebody put there first is not followed; the next place is taken."""
    trap, real = tmp_path / "trap", tmp_path / "real"
    trap.mkdir()
    real.mkdir()
    (trap / "pipesmith-gpus").symlink_to(tmp_path)
    monkeypatch.setattr(gpus, "_FOLDERS", (str(tmp_path / "missing"), str(trap), str(real)))
    held = GpuPool(1).acquire(1)
    assert held is not None
    assert (real / "pipesmith-gpus").stat().st_mode & 0o7777 == 0o1777
    assert (real / "pipesmith-gpus" / "0").exists()


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_driver_counts(tmp_path: Path) -> None:
    """A stand-in for the driver's library: ids, names, memory and use come from it, whatever pipeline.toml declares."""
    (tmp_path / "driver.c").write_text(DRIVER)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "libnvidia-ml.so.1", tmp_path / "driver.c"], check=True)
    code = f"""
import sys
sys.path[:0] = {sys.path!r}
from pipesmith.executors.gpus import GpuPool
from pipesmith.executors.nvml import gpu_use
pool = GpuPool(7, {str(tmp_path)!r})
print([(gpu.id, gpu.index, gpu.name, gpu.memory_bytes >> 30) for gpu in pool.gpus])
print(gpu_use()[1].percent, gpu_use()[1].used_bytes >> 30)
"""
    env = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env | {"LD_LIBRARY_PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["[('GPU-0', 0, 'Test GPU', 80), ('GPU-1', 1, 'Test GPU', 80)]", "37 1"], (
        done.stderr
    )
