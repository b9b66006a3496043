"""GPUs given out: each once on the machine, whole or by memory, those first that no other program uses."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipesmith.errors import EnvironmentFailure
from pipesmith.executors import gpu_shares
from pipesmith.executors.gpu import Driver, Gpu, GpuReading
from pipesmith.executors.gpus import GpuHold, GpuPool, pool_of

GIB = 1 << 30


class Readings:
    """What the driver says, without one."""

    def __init__(self, **readings: GpuReading) -> None:
        self.all = readings
        self.later: dict[str, GpuReading] = {}  # what is said from the next look on

    def readings(self, *, anew: bool = False) -> Mapping[str, GpuReading]:
        if anew:
            self.all |= self.later
        return self.all


def cards(count: int, gib: float = 80) -> list[Gpu]:
    return [Gpu(id="abcdefgh"[i], index=i, name="card", memory_bytes=int(gib * GIB)) for i in range(count)]


def pool(folder: Path, gpus: int | list[Gpu] = 2, watch: Readings | None = None) -> GpuPool:
    listed = cards(gpus) if isinstance(gpus, int) else gpus
    return GpuPool(listed, watch=watch, folder=str(folder))  # type: ignore[arg-type]


def ids(found: GpuHold | str) -> tuple[str, ...]:
    assert isinstance(found, GpuHold), found
    return found.ids


def test_each_gpu_is_given_out_once(tmp_path: Path) -> None:
    """Also between pools, which stand for two pipes on one machine."""
    one, other = pool(tmp_path), pool(tmp_path)
    first = one.acquire(1)
    assert (ids(first), ids(other.acquire(1))) == (("a",), ("b",))
    assert one.acquire(1) == "1 GPU" and other.acquire(2) == "2 GPUs"
    assert isinstance(first, GpuHold)
    first.release()
    first.release()
    assert ids(other.acquire(1)) == ("a",)
    first.release()
    assert one.acquire(1) == "1 GPU"


def test_all_or_none(tmp_path: Path) -> None:
    """Two are wanted and one is free: none is taken meanwhile."""
    gpus = pool(tmp_path)
    held = gpus.acquire(1)
    assert gpus.acquire(2) == "2 GPUs"
    rest = gpus.acquire(1)
    assert isinstance(held, GpuHold) and isinstance(rest, GpuHold) and rest.ids == ("b",)
    held.release()
    rest.release()
    assert ids(gpus.acquire(2)) == ("a", "b")


def test_by_memory_a_gpu_is_shared_until_it_is_full(tmp_path: Path) -> None:
    gpus = pool(tmp_path, 1)
    holds = [gpus.acquire(1, 30 * GIB), gpus.acquire(1, 30 * GIB)]
    assert [ids(hold) for hold in holds] == [("a",), ("a",)]
    assert gpus.acquire(1, 30 * GIB) == "30G of GPU memory"
    assert gpus.acquire(1) == "1 GPU"
    holds.append(gpus.acquire(1, 20 * GIB))
    assert ids(holds[2]) == ("a",)
    for hold in holds:
        assert isinstance(hold, GpuHold)
        hold.release()
    assert ids(gpus.acquire(1, 80 * GIB)) == ("a",)
    assert gpus.acquire(1, 1 * GIB) == "1G of GPU memory"


def test_shared_ones_are_filled_up_so_that_whole_ones_stay_free(tmp_path: Path) -> None:
    gpus = pool(tmp_path, 2)
    holds = [gpus.acquire(1, 60 * GIB), gpus.acquire(1, 30 * GIB), gpus.acquire(1, 20 * GIB)]
    assert [ids(hold) for hold in holds] == [("a",), ("b",), ("a",)]


@given(st.lists(st.one_of(st.integers(0, 100), st.tuples(st.floats(0.1, 12), st.integers(1, 2))), max_size=40))
def test_what_was_promised_is_never_more_than_there_is(asked: list[int | tuple[float, int]]) -> None:
    """Whoever asks and gives back in whatever order: no GPU is promised beyond its memory, and none that is asked for is
    refused where a plain sum says that there is room."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        pools = [pool(Path(folder), cards(3, 12)) for _ in range(2)]
        holds: list[tuple[GpuHold, float]] = []
        for step, each in enumerate(asked):
            if isinstance(each, int):
                if holds:
                    holds.pop(each % len(holds))[0].release()
                continue
            size, count = each
            promised = {id: sum(much for hold, much in holds if id in hold.ids) for id in "abc"}
            found = pools[step % 2].acquire(count, int(size * GIB))
            slack = 12 / gpu_shares.SHARES * (len(holds) + 2)  # shares are whole
            if isinstance(found, GpuHold):
                assert len(set(found.ids)) == count
                assert all(promised[id] + size <= 12 + 1e-6 for id in found.ids)
                holds.append((found, size))
            else:
                assert sum(promised[id] + size + slack <= 12 for id in "abc") < count
        for hold, _size in holds:
            hold.release()
        assert ids(pools[0].acquire(3)) == ("a", "b", "c")


def test_without_known_memory_a_gpu_is_given_whole(tmp_path: Path) -> None:
    gpus = pool(tmp_path, cards(1, 0))
    assert ids(gpus.acquire(1, GIB)) == ("a",)
    assert gpus.acquire(1, GIB) == "1G of GPU memory"


def test_what_can_never_be_had(tmp_path: Path) -> None:
    gpus = pool(tmp_path, [*cards(1, 80), *cards(2, 24)[1:]])
    assert gpus.too_much(2, None) is None and gpus.too_much(2, 24 * GIB) is None
    assert gpus.too_much(3, None) == ("gpus", "3 GPUs, this machine has 2", None)
    assert gpus.too_much(1, 81 * GIB) == ("gpu-memory", "81G of GPU memory, the largest GPU here has 80G", None)
    told = gpus.too_much(2, 30 * GIB)
    assert told is not None and told[1] == "30G of GPU memory on each of 2 GPUs, and 1 here has as much"


# -- other programs -----------------------------------------------------------------------------------------------


def test_a_gpu_that_nobody_uses_is_given_first(tmp_path: Path) -> None:
    """One that a stranger computes on is given when no other one is left, and that is said."""
    watch = Readings(a=GpuReading(used_bytes=10 * GIB, processes={1: 10 * GIB}), b=GpuReading(processes={}))
    gpus = pool(tmp_path, 2, watch)
    first, second = gpus.acquire(1), gpus.acquire(1)
    assert (ids(first), ids(second)) == (("b",), ("a",))
    assert isinstance(first, GpuHold) and first.notes == ()
    assert isinstance(second, GpuHold) and len(second.notes) == 1
    assert "GPU 0 (card) is used by other programs, no free one was left (10G: pid 1" in second.notes[0]


def test_a_program_that_has_just_ended_is_not_told_of(tmp_path: Path) -> None:
    watch = Readings(a=GpuReading(used_bytes=10 * GIB, processes={1: 10 * GIB}))
    watch.later = {"a": GpuReading(used_bytes=0, processes={})}
    found = pool(tmp_path, 1, watch).acquire(1)
    assert ids(found) == ("a",)
    assert isinstance(found, GpuHold) and found.notes == ()


def test_used_memory_tells_where_processes_are_not_listed(tmp_path: Path) -> None:
    watch = Readings(a=GpuReading(used_bytes=20 * GIB), b=GpuReading(used_bytes=GIB // 2))
    gpus = pool(tmp_path, 2, watch)
    first, second = gpus.acquire(1), gpus.acquire(1)
    assert (ids(first), ids(second)) == (("b",), ("a",))
    assert isinstance(second, GpuHold) and "(20G)" in second.notes[0]


@pytest.mark.parametrize("processes", [None, {1: 50 * GIB}, {1: None}])
def test_memory_that_others_use_is_not_shared_out(tmp_path: Path, processes: dict[int, int | None] | None) -> None:
    """Nor while a stage that has its part of it does not use it yet."""
    gpus = pool(tmp_path, 1, Readings(a=GpuReading(used_bytes=50 * GIB, processes=processes)))
    told = gpus.acquire(1, 40 * GIB)
    assert isinstance(told, str) and told.startswith("40G of GPU memory, which other programs use")
    assert ("pid 1" in told) is (processes is not None)
    held = gpus.acquire(1, 20 * GIB)
    assert ids(held) == ("a",)
    assert isinstance(gpus.acquire(1, 20 * GIB), str)
    assert ids(gpus.acquire(1, 10 * GIB)) == ("a",)


def test_what_stages_use_of_what_they_were_promised_is_not_counted_twice(tmp_path: Path) -> None:
    """Known by the process that descends from the pipe that holds the share, whoever asks the driver."""
    watch = Readings(a=GpuReading(used_bytes=0, processes={}))
    gpus = pool(tmp_path, 1, watch)
    held = gpus.acquire(1, 30 * GIB)
    watch.all["a"] = GpuReading(used_bytes=40 * GIB, processes={os.getpid(): 30 * GIB, 1: 10 * GIB})
    assert isinstance(gpus.acquire(1, 50 * GIB), str)
    assert ids(gpus.acquire(1, 40 * GIB)) == ("a",)
    assert isinstance(held, GpuHold)


def test_nor_where_processes_are_not_listed(tmp_path: Path) -> None:
    """As in a container: then what was in use before, and what is more than was promised, is taken for others'."""
    watch = Readings(a=GpuReading(used_bytes=10 * GIB, processes={}))
    gpus = pool(tmp_path, 1, watch)
    held = gpus.acquire(1, 30 * GIB)
    watch.all["a"] = GpuReading(used_bytes=35 * GIB, processes={})
    second = gpus.acquire(1, 40 * GIB)
    assert ids(held) == ids(second) == ("a",)
    assert isinstance(second, GpuHold)
    second.release()
    watch.all["a"] = GpuReading(used_bytes=55 * GIB, processes={})
    assert isinstance(gpus.acquire(1, 40 * GIB), str)
    assert ids(gpus.acquire(1, 25 * GIB)) == ("a",)


def test_a_lost_gpu_is_not_given(tmp_path: Path) -> None:
    watch = Readings(a=GpuReading(problem="GPU is lost"), b=GpuReading())
    gpus = pool(tmp_path, 2, watch)
    assert ids(gpus.acquire(1)) == ("b",)
    with pytest.raises(EnvironmentFailure, match=r"it asks for 2 GPUs, and GPU 0 \(card\): GPU is lost"):
        gpus.acquire(2)


def test_of_several_whole_gpus_come_before_mig_devices(tmp_path: Path) -> None:
    """A program of CUDA sees one MIG device at most."""
    mig = [Gpu(id=f"MIG-{i}", index=0, name="card MIG", memory_bytes=10 * GIB, mig=True) for i in range(2)]
    gpus = pool(tmp_path, [*mig, *cards(2)])
    assert ids(gpus.acquire(2)) == ("a", "b")
    assert ids(gpus.acquire(1)) == ("MIG-0",)


# -- other pipes --------------------------------------------------------------------------------------------------


def test_a_dead_process_holds_nothing_and_a_living_one_is_named(tmp_path: Path) -> None:
    code = f"""
import sys
sys.path[:0] = {sys.path!r}
from pipesmith.executors.gpu import Gpu
from pipesmith.executors.gpus import GpuPool
held = GpuPool([Gpu(id="a", index=0, name="", memory_bytes={80 * GIB})], folder={str(tmp_path)!r}).acquire(1, {50 * GIB})
print(held.ids, flush=True)
sys.stdin.read()
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"('a',)\n"
    gpus = pool(tmp_path, 1)
    told = gpus.acquire(1)
    assert isinstance(told, str) and told.startswith(f"1 GPU, held by pid {holder.pid} (")
    told = gpus.acquire(1, 40 * GIB)
    assert isinstance(told, str) and told.startswith(f"40G of GPU memory, held by pid {holder.pid} (")
    assert [state.word for state in gpus.states()] == ["shared"]
    holder.kill()
    holder.wait()
    assert ids(gpus.acquire(1)) == ("a",)
    assert [state.word for state in gpus.states()] == ["given"]


@pytest.mark.parametrize(
    ("visible", "named"),
    [
        (None, ["GPU-a0", "GPU-b1"]),
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
    monkeypatch: pytest.MonkeyPatch, visible: str | None, named: list[str]
) -> None:
    gpus = tuple(Gpu(id=f"GPU-{'ab'[i]}{i}", index=i, name="card", memory_bytes=GIB) for i in range(2))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = pool_of(7, Driver(gpus=gpus), None)
    assert [gpu.id for gpu in found.gpus] == named
    if len(named) < 2:
        told = found.too_much(2, None)
        assert told is not None and told[1].endswith(f"of 2, CUDA_VISIBLE_DEVICES=`{visible}` lets pipe have no more")


def test_the_number_of_a_gpu_in_mig_devices_means_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = tuple(Gpu(id=f"MIG-{i}", index=i // 2, name="card", memory_bytes=GIB, mig=True) for i in range(4))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,MIG-1")
    assert [gpu.id for gpu in pool_of(None, Driver(gpus=gpus), None).gpus] == ["MIG-2", "MIG-1"]


def test_declared_gpus_are_not_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a driver, what pipeline.toml says is all there is to know."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert [gpu.id for gpu in pool_of(2, Driver(problem="no driver"), None).gpus] == ["0", "1"]


def test_lock_files_are_for_every_user(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        held = pool(tmp_path, 1).acquire(1)
    finally:
        os.umask(before)
    assert ids(held) == ("a",)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666


def test_shared_folder_is_sticky_and_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that somebody put there first is not followed; the next place is taken."""
    trap, real = tmp_path / "trap", tmp_path / "real"
    trap.mkdir()
    real.mkdir()
    (trap / "pipesmith-gpus").symlink_to(tmp_path)
    monkeypatch.setattr(gpu_shares, "_FOLDERS", (str(tmp_path / "missing"), str(trap), str(real)))
    assert ids(GpuPool(cards(1)).acquire(1)) == ("a",)
    assert (real / "pipesmith-gpus").stat().st_mode & 0o7777 == 0o1777
    assert (real / "pipesmith-gpus" / "a").exists()


def test_a_lock_file_with_nonsense_in_it_does_no_harm(tmp_path: Path) -> None:
    """Any user may write there."""
    (tmp_path / "a").write_bytes(os.urandom(9000))
    gpus = pool(tmp_path, 1, Readings(a=GpuReading(used_bytes=0, processes={1: 5 * GIB})))
    held = gpus.acquire(1, 30 * GIB)
    (tmp_path / "a").write_bytes(b"")
    assert ids(gpus.acquire(1, 30 * GIB)) == ids(held) == ("a",)
