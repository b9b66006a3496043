"""The GPUs that the NVIDIA driver counts, asked of its own library. Source: NVML API reference guide.

By ctypes, so that nothing has to be installed besides the driver.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

__all__ = ["Gpu", "GpuUse", "driver_gpus", "gpu_use"]

_SUCCESS = 0
_NAME_BYTES = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """id: as CUDA_VISIBLE_DEVICES names it (UUID, or number where no driver counts). memory_bytes: 0 where unknown."""

    id: str
    index: int
    name: str
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuUse:
    """percent: of the last second or so in which something ran on it; None where the driver does not say."""

    used_bytes: int
    percent: int | None


class _Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


class _Utilization(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint) for name in ("gpu", "memory")]


class _Nvml:
    """The library, initialised for the time of a `with`. handles: one a GPU."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library

    def __enter__(self) -> _Nvml:
        return self

    def __exit__(self, *_: object) -> None:
        self.library.nvmlShutdown()

    def handles(self) -> dict[int, ctypes.c_void_p]:
        count = ctypes.c_uint()
        if self.library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != _SUCCESS:
            return {}
        found = {}
        for index in range(count.value):
            handle = ctypes.c_void_p()
            if self.library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle)) == _SUCCESS:
                found[index] = handle
        return found

    def text(self, function: str, handle: ctypes.c_void_p) -> str | None:
        text = ctypes.create_string_buffer(_NAME_BYTES)
        if getattr(self.library, function)(handle, text, ctypes.c_uint(_NAME_BYTES)) != _SUCCESS:
            return None
        return text.value.decode(errors="replace")

    def memory(self, handle: ctypes.c_void_p) -> _Memory:
        memory = _Memory()
        if self.library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) != _SUCCESS:
            return _Memory()
        return memory


def _open() -> _Nvml | None:
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        return _Nvml(library) if library.nvmlInit_v2() == _SUCCESS else None
    except (OSError, AttributeError):
        return None


def driver_gpus() -> list[Gpu] | None:
    """Return the GPUs that the driver counts, None without a driver."""
    nvml = _open()
    if nvml is None:
        return None
    with nvml:
        return [
            Gpu(
                id=nvml.text("nvmlDeviceGetUUID", handle) or str(index),
                index=index,
                name=nvml.text("nvmlDeviceGetName", handle) or "GPU",
                memory_bytes=nvml.memory(handle).total,
            )
            for index, handle in nvml.handles().items()
        ]


def gpu_use() -> dict[int, GpuUse]:
    """Return how busy each GPU is now, by its index; empty without a driver."""
    nvml = _open()
    if nvml is None:
        return {}
    with nvml:
        use = {}
        for index, handle in nvml.handles().items():
            rates = _Utilization()
            known = nvml.library.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(rates)) == _SUCCESS
            use[index] = GpuUse(used_bytes=nvml.memory(handle).used, percent=rates.gpu if known else None)
        return use
