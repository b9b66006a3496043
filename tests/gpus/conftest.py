"""A stand-in for the NVIDIA driver: GPUs on a machine that has none, by the library that the driver would bring."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

GIB = 1 << 30


class FakeDriver:
    """What the library says, line by line as nvml.c has it; may be changed while something runs. env: by which a process
    loads it. Ids are new ones each time, since all processes of the machine share the locks of a GPU."""

    def __init__(self, library: Path, folder: Path) -> None:
        self.env = {"LD_LIBRARY_PATH": str(library.parent), "FAKE_NVML": str(folder / "nvml.txt")}
        self._path = folder / "nvml.txt"
        self._lines: dict[str, str] = {}
        self._mark = uuid.uuid4().hex[:8]
        self._write()

    def gpu(self, index: int, *, gib: float = 80, used: float = 0, percent: int = 0, name: str = "Fake H100") -> str:
        """Put a GPU in, or change it; return its id. used: GiB without that of listed processes, -1: not told."""
        id = f"GPU-{self._mark}-{index}"
        self._lines[id] = f"gpu {index} {id} {_mib(gib)} {_mib(used)} {percent} {name}"
        self._write()
        return id

    def mig(self, index: int, part: int, *, gib: float = 10, used: float = 0) -> str:
        """Cut a GPU into MIG devices; return the id of one."""
        id = f"MIG-{self._mark}-{index}-{part}"
        self._lines[id] = f"mig {index} {id} {_mib(gib)} {_mib(used)} Fake H100 MIG 1g.10gb"
        self._write()
        return id

    def process(self, id: str, pid: int, gib: float | None) -> None:
        self._lines[f"{id} {pid}"] = f"process {id} {pid} {-1 if gib is None else _mib(gib)}"
        self._write()

    def no_process(self, id: str, pid: int) -> None:
        del self._lines[f"{id} {pid}"]
        self._write()

    def say(self, line: str) -> None:
        self._lines[line] = line
        self._write()

    @property
    def calls(self) -> int:
        """How often the library was initialised."""
        return self._noted("init")

    def looks(self, id: str) -> int:
        """How often a GPU was looked at."""
        return self._noted(id)

    def _noted(self, word: str) -> int:
        log = self._path.with_name("nvml.txt.calls")
        return log.read_text().splitlines().count(word) if log.exists() else 0

    def _write(self) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.write_text("".join(f"{line}\n" for line in self._lines.values()))
        fresh.replace(self._path)


def _mib(gib: float) -> int:
    return int(gib * 1024) if gib >= 0 else -1


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, compiled."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no C compiler", pytrace=False)
        pytest.skip("needs a C compiler")
    made = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    source = Path(__file__).with_name("nvml.c")
    subprocess.run([compiler, "-Wall", "-Werror", "-shared", "-fPIC", "-o", made, source], check=True)
    return made


@pytest.fixture
def driver(library: Path, tmp_path: Path) -> FakeDriver:
    """A driver that `pipe` does not know of yet: see `on_box`."""
    return FakeDriver(library, tmp_path)


@pytest.fixture
def on_box(driver: FakeDriver, repo) -> FakeDriver:
    """A driver on the machine that all commands of the test run on."""
    repo.env |= driver.env
    repo.env.pop("CUDA_VISIBLE_DEVICES", None)
    return driver


@pytest.fixture
def ask(driver: FakeDriver) -> Callable[[str], str]:
    """Runs code of Python in a process that has the driver, and returns what it prints."""
    import sys

    def run(code: str) -> str:
        env = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}"],
            env=env | driver.env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
