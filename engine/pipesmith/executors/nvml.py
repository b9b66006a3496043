"""What the NVIDIA driver says of its GPUs, asked of its own library. Source: NVML API reference guide.

By ctypes, so that nothing has to be installed besides the driver. Imported when somebody wants to know of GPUs, and not
before. A MIG device counts as a GPU; one that is cut into them does not, since nothing can run on the whole of it.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from typing import Any

from pipesmith.executors.gpu import LIBRARY, Driver, Gpu, GpuReading

__all__ = ["Nvml", "NvmlError", "ask_driver"]

_PATIENCE_S = 30.0  # a GPU that has fallen off its bus can keep the driver busy
_TEXT_BYTES = 96
_MOST_GPUS = 1024
_NOT_TOLD = (1 << 64) - 1
_MEMORY_V2 = 2 << 24  # and the size of the struct

_SUCCESS, _INVALID_ARGUMENT, _INSUFFICIENT_SIZE, _NO_FUNCTION = 0, 2, 7, 13
_LOST = (
    11,
    15,
    16,
    28,
    999,
)  # IRQ issue, GPU is lost, reset required, GPU not found, unknown: it is of no use any more
_TOLD = {
    4: "this user may not use the NVIDIA driver",
    9: "the NVIDIA driver is not loaded",
    18: "the NVIDIA driver and its library are of different versions; was it updated? Then restart this machine",
}


class _Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


class _MemoryV2(ctypes.Structure):
    _fields_ = [
        ("version", ctypes.c_uint),
        *((name, ctypes.c_ulonglong) for name in ("total", "reserved", "free", "used")),
    ]


class _Utilization(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint) for name in ("gpu", "memory")]


class _ProcessV1(ctypes.Structure):
    _fields_ = [("pid", ctypes.c_uint), ("used", ctypes.c_ulonglong)]


class _Process(ctypes.Structure):
    _fields_ = [*_ProcessV1._fields_, ("gpu_instance", ctypes.c_uint), ("compute_instance", ctypes.c_uint)]


_PROCESSES = (
    ("nvmlDeviceGetComputeRunningProcesses_v3", _Process),
    ("nvmlDeviceGetComputeRunningProcesses_v2", _Process),
    ("nvmlDeviceGetComputeRunningProcesses", _ProcessV1),
)


class NvmlError(Exception):
    """What the driver says no with. code: NVML's own, None where there is no driver to say anything."""

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


class Nvml:
    """The library, initialised until it is closed. For one thread at a time. problem: of GPUs that are left out."""

    def __init__(self) -> None:
        """Raises NvmlError."""
        try:
            self._library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            missing = "No such file" in str(error)
            raise NvmlError(
                f"no NVIDIA driver is installed (there is no `{LIBRARY}`)"
                if missing
                else f"it can't be loaded: {error}"
            ) from None
        self.problem: str | None = None
        code = self._call("nvmlInit_v2")
        if code != _SUCCESS:
            raise NvmlError(_TOLD.get(code) or f"the NVIDIA driver can't be asked: {self._words(code)}", code)

    def __enter__(self) -> Nvml:
        return self

    def __exit__(self, *_: object) -> None:
        self._call("nvmlShutdown")

    def gpus(self) -> Iterator[tuple[Gpu, ctypes.c_void_p]]:
        """Yield what stages can be given, each with the handle by which it is asked about. Raises NvmlError."""
        count = ctypes.c_uint()
        code = self._call("nvmlDeviceGetCount_v2", ctypes.byref(count))
        if code != _SUCCESS:
            raise NvmlError(f"the NVIDIA driver can't count its GPUs: {self._words(code)}", code)
        seen: set[str] = set()
        for index in range(min(count.value, _MOST_GPUS)):
            handle = ctypes.c_void_p()
            code = self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
            if code != _SUCCESS:
                self.problem = self.problem or f"GPU {index} can't be used: {self._words(code)}"
                if code == _INVALID_ARGUMENT:  # the count is a lie: there are no more
                    break
                continue
            parts = self._parts(handle)
            for part in [handle] if parts is None else parts:
                gpu = self._gpu(part, index, mig=parts is not None)
                if gpu.id not in seen:
                    seen.add(gpu.id)
                    yield gpu, part

    def _parts(self, handle: ctypes.c_void_p) -> list[ctypes.c_void_p] | None:
        """Return the MIG devices that a GPU is cut into, None for one that is not."""
        mode, later, most = ctypes.c_uint(), ctypes.c_uint(), ctypes.c_uint()
        if self._call("nvmlDeviceGetMigMode", handle, ctypes.byref(mode), ctypes.byref(later)) != _SUCCESS:
            return None
        if not mode.value:
            return None
        if self._call("nvmlDeviceGetMaxMigDeviceCount", handle, ctypes.byref(most)) != _SUCCESS:
            return []
        parts = []
        for index in range(min(most.value, _MOST_GPUS)):
            part = ctypes.c_void_p()
            if self._call("nvmlDeviceGetMigDeviceHandleByIndex", handle, ctypes.c_uint(index), ctypes.byref(part)) == 0:
                parts.append(part)
        return parts

    def _gpu(self, handle: ctypes.c_void_p, index: int, *, mig: bool) -> Gpu:
        total, _used, _code = self._memory(handle)
        return Gpu(
            id=self._text("nvmlDeviceGetUUID", handle) or str(index),
            index=index,
            name=self._text("nvmlDeviceGetName", handle) or "GPU",
            memory_bytes=total,
            mig=mig,
        )

    def read(self, handle: ctypes.c_void_p) -> GpuReading:
        """Return how a GPU is now."""
        _total, used, code = self._memory(handle)
        rates = _Utilization()
        told = self._call("nvmlDeviceGetUtilizationRates", handle, ctypes.byref(rates)) == _SUCCESS
        return GpuReading(
            used_bytes=used if code == _SUCCESS else None,
            percent=min(rates.gpu, 100) if told else None,
            processes=self._processes(handle),
            problem=self._words(code) if code in _LOST else None,
        )

    def _memory(self, handle: ctypes.c_void_p) -> tuple[int, int, int]:
        """Return the bytes that programs can have, those that some have, and NVML's code. 0, 0 where it is not told."""
        newer = _MemoryV2(version=_MEMORY_V2 | ctypes.sizeof(_MemoryV2))
        code = self._call("nvmlDeviceGetMemoryInfo_v2", handle, ctypes.byref(newer))
        if code == _SUCCESS:  # it tells what the driver keeps for itself
            total = max(0, newer.total - newer.reserved)
            return total, min(newer.used, total), code
        older = _Memory()
        code = self._call("nvmlDeviceGetMemoryInfo", handle, ctypes.byref(older))
        return (older.total, min(older.used, older.total), code) if code == _SUCCESS else (0, 0, code)

    def _processes(self, handle: ctypes.c_void_p) -> dict[int, int | None] | None:
        """Return the pid of each process that computes on a GPU, with its bytes where they are told; None where the
        driver does not list them."""
        for function, kind in _PROCESSES:
            room = 64
            for _ in range(4):  # more may come between two calls
                count, rows = ctypes.c_uint(room), (kind * room)()
                code = self._call(function, handle, ctypes.byref(count), rows)
                if code != _INSUFFICIENT_SIZE:
                    break
                room = min(max(count.value, room) * 2, 1 << 16)
            if code == _NO_FUNCTION:
                continue
            if code != _SUCCESS:
                return None
            found: dict[int, int | None] = {}
            for row in rows[: min(count.value, room)]:
                found[row.pid] = None if row.used == _NOT_TOLD else (found.get(row.pid) or 0) + row.used
            return found
        return None

    def _text(self, function: str, handle: ctypes.c_void_p) -> str | None:
        text = ctypes.create_string_buffer(_TEXT_BYTES)
        if self._call(function, handle, text, ctypes.c_uint(_TEXT_BYTES)) != _SUCCESS:
            return None
        return " ".join(text.value.decode(errors="replace").split()) or None

    def _words(self, code: int) -> str:
        """Return what the library says of a code."""
        try:
            words = self._library.nvmlErrorString
            words.restype = ctypes.c_char_p
            told = words(code)
        except AttributeError:
            told = None
        return f"{told.decode(errors='replace')} (NVML error {code})" if told else f"NVML error {code}"

    def _call(self, function: str, *arguments: Any) -> int:
        try:
            called = getattr(self._library, function)
        except AttributeError:
            return _NO_FUNCTION
        return int(called(*arguments))


def ask_driver() -> Driver:
    """Return what the driver counts, or why it does not; without waiting for ever for one that hangs."""
    answers: list[Driver] = []
    thread = threading.Thread(target=lambda: answers.append(_ask()), name="count GPUs", daemon=True)
    thread.start()
    thread.join(_PATIENCE_S)
    return answers[0] if answers else Driver(problem=f"the NVIDIA driver has not answered for {_PATIENCE_S:g} s")


def _ask() -> Driver:
    try:
        with Nvml() as nvml:
            gpus = tuple(gpu for gpu, _handle in nvml.gpus())
            return Driver(gpus=gpus, problem=nvml.problem or (None if gpus else "the NVIDIA driver sees none"))
    except NvmlError as error:
        return Driver(problem=error.text)
