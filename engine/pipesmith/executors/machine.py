"""What this machine has: CPUs and memory that this process may use."""

from __future__ import annotations

import os

from pipesmith.executors.base import Capacity

__all__ = ["machine_capacity"]

_CGROUP = "/sys/fs/cgroup"


def machine_capacity() -> Capacity:
    """Return CPUs and memory that this process may use, a container's limits counted. GPUs are `gpus.GpuPool`'s."""
    return Capacity(cpus=_cpus(), memory_bytes=_memory_bytes())


def _cpus() -> float:
    cpus = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    for folder in _cgroups():
        words = _words(f"{folder}/cpu.max")
        if len(words) == 2 and words[0] != "max":
            cpus = min(cpus, int(words[0]) / int(words[1]))
    quota, period = _words(f"{_CGROUP}/cpu/cpu.cfs_quota_us"), _words(f"{_CGROUP}/cpu/cpu.cfs_period_us")
    if quota and period and int(quota[0]) > 0:
        cpus = min(cpus, int(quota[0]) / int(period[0]))
    return max(cpus, 0.1)


def _memory_bytes() -> int | None:
    limits: list[int] = []
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            limits += [int(line.split()[1]) * 1024 for line in file if line.startswith("MemTotal:")]
    except OSError:
        pass
    if not limits and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in (*(f"{folder}/memory.max" for folder in _cgroups()), f"{_CGROUP}/memory/memory.limit_in_bytes"):
        words = _words(path)
        if words and words[0] != "max":
            limits.append(int(words[0]))
    return min(limits, default=None)


def _cgroups() -> list[str]:
    """Return the folders of this process's cgroup (version 2) and of those above it."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            own = next((line.rstrip("\n")[3:] for line in file if line.startswith("0::")), None)
    except OSError:
        own = None
    folders = [_CGROUP]
    for name in (own or "").strip("/").split("/"):
        if name and name != "..":
            folders.append(f"{folders[-1]}/{name}")
    return folders


def _words(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().split()
    except OSError:
        return []
