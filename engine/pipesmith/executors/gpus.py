"""GPUs of this machine: counted by the NVIDIA driver's own library, or as pipeline.toml says; given out machine-wide, one by one."""

from __future__ import annotations

import ctypes
import os
import tempfile
from dataclasses import dataclass

from pipesmith.store.locks import Hold, LockTable

__all__ = ["Gpu", "GpuHold", "GpuPool", "driver_gpus"]

_SHARES = 64  # a GPU's memory is given out in this many parts


@dataclass(frozen=True, slots=True)
class Gpu:
    """id: as CUDA_VISIBLE_DEVICES names it. memory_bytes: 0 where unknown."""

    id: str
    name: str
    memory_bytes: int


class _Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


def driver_gpus() -> list[Gpu] | None:
    """Return the GPUs that the driver counts, None without a driver. Source: NVML API reference."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        if library.nvmlInit_v2() != 0:
            return None
    except OSError:
        return None
    try:
        count = ctypes.c_uint()
        if library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
            return None
        found = []
        for index in range(count.value):
            handle = ctypes.c_void_p()
            if library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) != 0:
                continue
            uuid, name, memory = ctypes.create_string_buffer(96), ctypes.create_string_buffer(96), _Memory()
            library.nvmlDeviceGetUUID(handle, uuid, 96)
            library.nvmlDeviceGetName(handle, name, 96)
            library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
            found.append(Gpu(str(index), name.value.decode(errors="replace"), memory.total))
        return found
    finally:
        library.nvmlShutdown()


class GpuHold:
    """GPUs that were given to one stage."""

    def __init__(self, ids: tuple[str, ...], holds: list[Hold]) -> None:
        self.ids = ids
        self._holds = holds

    def release(self) -> None:
        for hold in self._holds:
            hold.release()


class GpuPool:
    """The GPUs of this machine, shared by every pipe on it. declared: `[compute.local] gpus`, used where no driver counts them."""

    def __init__(self, declared: int | None) -> None:
        counted = driver_gpus()
        if counted is None:
            counted = [Gpu(str(index), "declared", 0) for index in range(declared or 0)]
        self.gpus = counted
        folder = os.path.join(
            tempfile.gettempdir() if not os.path.isdir("/run/lock") else "/run/lock", "pipesmith-gpus"
        )
        if not os.path.isdir(folder):
            try:
                os.mkdir(folder)
                os.chmod(folder, 0o1777)
            except OSError:
                folder = os.path.join(tempfile.gettempdir(), "pipesmith-gpus")
                os.makedirs(folder, exist_ok=True)
        self._locks = LockTable(folder)

    def acquire(self, count: int, memory_bytes: int | None = None) -> GpuHold | None:
        """Return `count` free GPUs, or as many shares of GPUs with that memory; None when they are not free now."""
        ids: list[str] = []
        holds: list[Hold] = []
        for gpu in self.gpus:
            if len(ids) == count:
                break
            taken = self._take(gpu, memory_bytes)
            if taken:
                ids.append(gpu.id)
                holds += taken
        if len(ids) == count:
            return GpuHold(tuple(ids), holds)
        for hold in holds:
            hold.release()
        return None

    def _take(self, gpu: Gpu, memory_bytes: int | None) -> list[Hold]:
        shares = _SHARES
        if memory_bytes is not None and gpu.memory_bytes:
            shares = -(-memory_bytes * _SHARES // gpu.memory_bytes)
            if shares > _SHARES:
                return []
        held: list[Hold] = []
        for part in range(_SHARES):
            hold = self._locks.try_acquire(f"gpu {gpu.id} part {part}")
            if hold is not None:
                held.append(hold)
                if len(held) == shares:
                    return held
            elif shares == _SHARES:
                break
        for hold in held:
            hold.release()
        return []
