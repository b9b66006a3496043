"""The driver's library: counted, named and read as it says, and never a traceback whatever it says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.gpus.conftest import FakeDriver

Ask = Callable[[str], str]

COUNT = """
from pipesmith.executors.nvml import ask_driver
driver = ask_driver()
print(driver.gpus if driver.gpus is None else [(g.id, g.index, g.name, g.memory_bytes >> 20, g.mig) for g in driver.gpus])
print(driver.problem)
"""
READ = """
from pipesmith.executors.nvml import Nvml
with Nvml() as nvml:
    for gpu, handle in nvml.gpus():
        print(nvml.read(handle))
"""


def test_counted_and_named(driver: FakeDriver, ask: Ask) -> None:
    ids = [driver.gpu(0), driver.gpu(1, gib=24, name="Fake RTX 4090")]
    driver.say("reserved 512")
    counted = [(ids[0], 0, "Fake H100", 81920 - 512, False), (ids[1], 1, "Fake RTX 4090", 24576 - 512, False)]
    assert ask(COUNT) == f"{counted}\nNone\n"


def test_mig_devices_count_as_gpus_and_the_gpu_they_are_parts_of_does_not(driver: FakeDriver, ask: Ask) -> None:
    ids = [driver.gpu(0), driver.gpu(1), driver.mig(1, 0), driver.mig(1, 1, gib=20)]
    name = "Fake H100 MIG 1g.10gb"
    counted = [
        (ids[0], 0, "Fake H100", 81920, False),
        (ids[2], 1, name, 10240, True),
        (ids[3], 1, name, 20480, True),
    ]
    assert ask(COUNT) == f"{counted}\nNone\n"


@pytest.mark.parametrize("older", [(), ("nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetMigMode")])
def test_older_libraries(driver: FakeDriver, ask: Ask, older: tuple[str, ...]) -> None:
    """What they lack is asked in the older way, or is no more than not known."""
    id = driver.gpu(0, used=3, percent=37)
    driver.process(id, 4242, 2)
    for function in older:
        driver.say(f"lacks {function}")
    read = f"GpuReading(used_bytes={5 << 30}, percent=37, processes={{4242: {2 << 30}}}, problem=None)\n"
    assert ask(READ) == read
    driver.say("lacks nvmlDeviceGetComputeRunningProcesses_v3")
    driver.say("lacks nvmlDeviceGetComputeRunningProcesses_v2")
    assert ask(READ) == read
    driver.say("lacks nvmlDeviceGetComputeRunningProcesses")
    driver.say("lacks nvmlDeviceGetUtilizationRates")
    assert ask(READ) == f"GpuReading(used_bytes={5 << 30}, percent=None, processes=None, problem=None)\n"


def test_many_processes_and_memory_that_is_not_told(driver: FakeDriver, ask: Ask) -> None:
    id = driver.gpu(0, used=-1)
    driver.process(id, 1, None)
    for pid in range(2, 60):
        driver.process(id, pid, 1)
    told = ask(READ)
    assert "used_bytes=None" in told and "1: None, 2: 1073741824" in told and "59: 1073741824" in told


@pytest.mark.parametrize(
    ("lines", "gpus", "problem"),
    [
        (["init 9"], "None", "the NVIDIA driver is not loaded"),
        (["init 18"], "None", "of different versions; was it updated? Then restart this machine"),
        (["init 4"], "None", "this user may not use the NVIDIA driver"),
        (["init 999"], "None", "the NVIDIA driver can't be asked: Unknown Error (NVML error 999)"),
        (["lacks nvmlInit_v2"], "None", "NVML error 13"),
        (["lacks nvmlDeviceGetCount_v2"], "None", "can't count its GPUs"),
        ([], "[]", "the NVIDIA driver sees none"),
        (["count 3"], "[]", "GPU 0 can't be used: Unknown Error (NVML error 2)"),
        (["count 2000000000"], "[]", "GPU 0 can't be used"),
    ],
)
def test_a_driver_that_lies_or_breaks(driver: FakeDriver, ask: Ask, lines: list[str], gpus: str, problem: str) -> None:
    """It says what is wrong, in words."""
    for line in lines:
        driver.say(line)
    told = ask(COUNT).splitlines()
    assert told[0] == gpus and problem in told[1]


def test_a_gpu_that_is_lost_is_left_out_and_named(driver: FakeDriver, ask: Ask) -> None:
    good, bad = driver.gpu(0), driver.gpu(1)
    driver.say(f"error {bad} 15")
    told = ask(COUNT).splitlines()
    assert good in told[0] and bad not in told[0]
    assert told[1] == "GPU 1 can't be used: GPU is lost (NVML error 15)"


def test_a_library_that_is_none(driver: FakeDriver, ask: Ask, tmp_path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "libnvidia-ml.so.1").write_text("no library")
    driver.env["LD_LIBRARY_PATH"] = str(tmp_path / "bad")
    told = ask(COUNT).splitlines()
    assert told[0] == "None" and "can't be loaded" in told[1] and "libnvidia-ml.so.1" in told[1]


def test_a_driver_that_hangs_is_not_waited_for(driver: FakeDriver, ask: Ask) -> None:
    driver.gpu(0)
    driver.say("sleep 30")
    hurry = "import pipesmith.executors.nvml as nvml; nvml._PATIENCE_S = 0.2\n"
    assert ask(hurry + COUNT) == "None\nthe NVIDIA driver has not answered for 0.2 s\n"


def test_the_stand_in_speaks_as_the_real_library_does(driver: FakeDriver, ask: Ask) -> None:
    """NVIDIA's own package reads the same of it as is read here."""
    pytest.importorskip("pynvml")
    id = driver.gpu(0, used=3, percent=37)
    driver.process(id, 4242, 2)
    driver.mig(1, 0)
    driver.gpu(1)
    part = driver.mig(1, 1, gib=20)
    driver.say("reserved 512")
    theirs = ask("""
import pynvml as n
n.nvmlInit()
print(n.nvmlDeviceGetCount())
one, two = (n.nvmlDeviceGetHandleByIndex(i) for i in range(2))
print(n.nvmlDeviceGetUUID(one), n.nvmlDeviceGetName(one), n.nvmlDeviceGetUtilizationRates(one).gpu)
memory, old = n.nvmlDeviceGetMemoryInfo(one, n.nvmlMemory_v2), n.nvmlDeviceGetMemoryInfo(one)
print(memory.total >> 20, memory.reserved >> 20, memory.used >> 20, old.total >> 20, old.used >> 20)
print([(p.pid, p.usedGpuMemory >> 20) for p in n.nvmlDeviceGetComputeRunningProcesses(one)])
print(n.nvmlDeviceGetMigMode(one), n.nvmlDeviceGetMigMode(two), n.nvmlDeviceGetMaxMigDeviceCount(two))
part = n.nvmlDeviceGetMigDeviceHandleByIndex(two, 1)
print(n.nvmlDeviceGetUUID(part), n.nvmlDeviceGetMemoryInfo(part).total >> 20)
""")
    assert theirs.splitlines() == [
        "2",
        f"{id} Fake H100 37",
        "81920 512 5120 81920 5632",
        "[(4242, 2048)]",
        "[0, 0] [1, 1] 7",
        f"{part} 20480",
    ]
