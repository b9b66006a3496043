"""Whether a stage used far more than it asked for: what is packed by what was asked does not fit then."""

from __future__ import annotations

import math

from pipesmith.executors.base import Usage
from pipesmith.pipeline.model import Resources
from pipesmith.pipeline.units import size_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pipesmith.executors.gpu import GpuUsage

__all__ = ["overuse"]

_FAR = 1.5
_SPARED_BYTES = 32 << 20  # an interpreter more or less
_SPARED_S = 2.0


def overuse(asked: Resources, used: Usage, gpu: GpuUsage | None) -> list[tuple[str, str]]:
    """Return what a stage used far more of than it asked for: a text for people, and what to ask for instead."""
    found = []
    if asked.memory_bytes and used.peak_bytes > max(_FAR * asked.memory_bytes, asked.memory_bytes + _SPARED_BYTES):
        text = f"used {size_text(used.peak_bytes)} of memory and asked for {size_text(asked.memory_bytes)}"
        found.append((text, f'memory = "{math.ceil(used.peak_bytes / 1e6)}MB"'))
    if asked.cpus and used.wall_s >= _SPARED_S and used.cpu_s > _FAR * asked.cpus * used.wall_s:
        busy = used.cpu_s / used.wall_s
        found.append((f"kept {busy:.1f} CPUs busy and asked for {asked.cpus:g}", f"cpus = {math.ceil(busy)}"))
    promised = (asked.gpu_memory_bytes or 0) * len(gpu.ids) if gpu is not None else 0
    if gpu is not None and gpu.own and (gpu.peak_bytes or 0) > _FAR * promised > 0:
        peak = gpu.peak_bytes or 0
        text = f"used {size_text(peak)} of GPU memory and asked for {size_text(promised)}"
        found.append((text, f'gpu-memory = "{math.ceil(peak / len(gpu.ids) / 1e6)}MB"'))
    return found
