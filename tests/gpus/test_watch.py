"""The thread that asks the driver: there when somebody wants to know, and gone when nobody does."""

from __future__ import annotations

import threading
import time

import pytest

from pipesmith.executors import gpu_watch, nvml
from pipesmith.executors.gpu import Gpu, GpuReading
from pipesmith.executors.gpu_watch import GpuMeter, GpuWatch

CARD = Gpu(id="a", index=0, name="card", memory_bytes=80 << 30)


class Driver:
    """A driver of one GPU that counts how often it is opened and looked at. broken: what it says no with."""

    opened = looked = 0
    broken: Exception | None = None
    hangs: threading.Event | None = None

    def __enter__(self) -> Driver:
        type(self).opened += 1
        if self.broken is not None:
            raise self.broken
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(0.05)  # as long as somebody may ask meanwhile

    def gpus(self) -> list[tuple[Gpu, int]]:
        return [(CARD, 1)]

    def read(self, _handle: int) -> GpuReading:
        if self.hangs is not None:
            self.hangs.wait(60)
        type(self).looked += 1
        return GpuReading(used_bytes=5 << 30, percent=50, processes={})


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch) -> type[Driver]:
    fresh = type("Fresh", (Driver,), {})
    monkeypatch.setattr(nvml, "Nvml", fresh)
    return fresh


def test_who_asks_while_the_driver_is_let_go_is_answered(driver: type[Driver], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_watch, "_IDLE_S", 0.02)
    monkeypatch.setattr(gpu_watch, "_OLD_S", 0.0)
    watch = GpuWatch()
    for step in range(40):
        before = driver.looked
        assert watch.readings(anew=True)["a"].percent == 50
        assert driver.looked > before
        time.sleep(step / 1000)
    watch.close()
    assert 1 < driver.opened <= 41


def test_a_meter_is_never_forgotten(driver: type[Driver], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that is made just when nobody wanted to know any more."""
    monkeypatch.setattr(gpu_watch, "_IDLE_S", 0.02)
    watch = GpuWatch()
    for step in range(30):
        before, meter = driver.looked, GpuMeter([CARD], "run", "stage", watch)
        while driver.looked < before + 2:
            time.sleep(0.001)
        used = meter.end()
        assert used.percent == 50 and used.seconds > 0 and used.problem is None
        time.sleep(step / 1000)
    watch.close()


def test_a_driver_that_hangs_keeps_nobody(driver: type[Driver], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for once; what it says when it wakes counts again."""
    driver.hangs = threading.Event()
    monkeypatch.setattr(gpu_watch, "_FIRST_S", 0.1)
    watch = GpuWatch()
    assert watch.readings() == {}
    monkeypatch.setattr(gpu_watch, "_FIRST_S", 60.0)
    meter = GpuMeter([CARD], "run", "stage", watch)
    used = meter.end()
    assert (used.peak_bytes, used.percent) == (None, None)
    driver.hangs.set()
    while not watch.readings():
        time.sleep(0.001)
    watch.close()


def test_a_driver_that_breaks_is_asked_no_more(driver: type[Driver]) -> None:
    driver.broken = nvml.NvmlError("the NVIDIA driver is not loaded", 9)
    watch = GpuWatch()
    meter = GpuMeter([CARD], "run", "stage", watch)
    assert watch.readings() == {} and watch.readings() == {}
    used = meter.end()
    assert used.problem == "the NVIDIA driver is not loaded" and used.peak_bytes is None
    assert GpuMeter([CARD], "run", "other", watch).end().problem == "the NVIDIA driver is not loaded"
    assert driver.opened == 1


def test_anything_else_that_goes_wrong_is_told_as_well(driver: type[Driver]) -> None:
    driver.broken = ValueError("nonsense")
    meter = GpuMeter([CARD], "run", "stage", watch := GpuWatch())
    assert watch.readings() == {}
    assert meter.end().problem == "the NVIDIA driver can't be asked: ValueError('nonsense')"
