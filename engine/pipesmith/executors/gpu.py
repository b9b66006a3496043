"""What is known of GPUs: of one, of how it is now, of what a job had of them."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pipesmith.records import record

__all__ = ["LIBRARY", "Driver", "Gpu", "GpuReading", "GpuUsage", "driver_may_be_there", "gib", "gpus_text"]

LIBRARY = "libnvidia-ml.so.1"
_CACHE = "/etc/ld.so.cache"
_FOLDERS = ("/lib", "/usr/lib", "/lib64", "/usr/lib64", f"/usr/lib/{os.uname().machine}-linux-gnu")


@record
class Gpu:
    """id: as CUDA_VISIBLE_DEVICES names it (UUID, or number where no driver counts). index: the driver's, of a MIG
    device that of the GPU it is a part of. memory_bytes: what programs can have of it, 0 where unknown."""

    id: str
    index: int
    name: str
    memory_bytes: int
    mig: bool = False

    @property
    def title(self) -> str:
        """What people know it by."""
        return f"GPU {self.index} ({self.name})" if self.name else f"GPU {self.index}"


@record
class Driver:
    """What the driver counts. gpus: None where it can't count. problem: why there are none, or fewer than there are."""

    gpus: tuple[Gpu, ...] | None = None
    problem: str | None = None


@record
class GpuReading:
    """How a GPU is at a moment. used_bytes: of all programs. percent: of the last second or so in which something ran
    on it. processes: of each pid its bytes, None where they are not told. Each None where the driver does not say.
    problem: why it is of no use any more."""

    used_bytes: int | None = None
    percent: int | None = None
    processes: Mapping[int, int | None] | None = None
    problem: str | None = None


@record
class GpuUsage:
    """What a job had of GPUs. ids: as CUDA_VISIBLE_DEVICES names them. seconds: of each added up. peak_bytes: the most
    at one moment, on all of them; own: of its processes alone, else of all that was there. percent: mean, of whole
    GPUs. None where nobody told. problem: of one that was lost meanwhile."""

    ids: tuple[str, ...] = ()
    seconds: float = 0.0
    peak_bytes: int | None = None
    own: bool = False
    percent: float | None = None
    problem: str | None = None


def driver_may_be_there() -> bool:
    """Return whether the driver's library could be loaded, without trying."""
    try:
        with open(_CACHE, "rb") as file:
            if LIBRARY.encode() in file.read():
                return True
    except OSError:
        return True  # a system that finds libraries in another way
    named = os.environ.get("LD_LIBRARY_PATH", "").replace(";", ":")
    folders = (*(named.split(":") if named else ()), *_FOLDERS)
    return any(os.path.exists(os.path.join(folder, LIBRARY)) for folder in folders)


def gib(size: float) -> str:
    """Return bytes as pipeline.toml has them: `20G`."""
    return f"{size / (1 << 30):.1f}".removesuffix(".0") + "G"


def gpus_text(count: int) -> str:
    return f"{count} GPU{'s' if count != 1 else ''}"
