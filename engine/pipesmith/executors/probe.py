"""What this machine has and can do."""

from __future__ import annotations

import os
from functools import cache

from pipesmith.executors.base import Capacity

__all__ = ["machine_capacity", "probe_namespaces"]


@cache
def probe_namespaces() -> str | None:
    """Return None where a stage can have namespaces of its own, else why not. Tried for real, in a child, once a process."""
    import subprocess
    import sys
    import tempfile

    if not sys.platform.startswith("linux"):
        return f"{sys.platform} has no namespaces"
    folder = os.path.join(os.path.dirname(os.path.dirname(__file__)), "launcher")
    with tempfile.TemporaryDirectory(prefix="pipe-probe-") as scratch:
        for name in ("workspace", "root", "empty"):
            os.mkdir(os.path.join(scratch, name))
        script = (
            "import sys, os, marshal; sys.path.insert(0, sys.argv[1]); import stage_init; s = sys.argv[2]\n"
            "spec = {'argv': ['/bin/true'], 'env': {}, 'cwd': s + '/workspace', 'private': True, 'workspace': s + '/workspace',"
            " 'root': s + '/root', 'binds': [], 'hidden': [], 'empty': s + '/empty'}\n"
            "pid, report = stage_init.start(spec, [0, 1, 2]); os.waitpid(pid, 0); r = marshal.loads(os.read(report, 9999))\n"
            "print(r['problem'] or ('' if r['exit'] == 0 else 'a command ended with %s' % r['exit']))"
        )
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", script, folder, scratch],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        return lines[-1] if lines else "the probe failed"
    return done.stdout.strip() or None


def machine_capacity() -> Capacity:
    """Return CPUs and memory that this process may use. GPUs are counted by `gpus.GpuPool`."""
    cpus = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    quota = _cgroup_cpus()
    if quota is not None:
        cpus = min(cpus, quota)
    return Capacity(cpus=cpus, memory_bytes=_memory_bytes())


def _cgroup_cpus() -> float | None:
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _memory_bytes() -> int | None:
    total = None
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemTotal:"):
                    total = int(line.split()[1]) * 1024
                    break
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            limit = file.read().strip()
        if limit != "max" and total is not None:
            total = min(total, int(limit))
    except (OSError, ValueError):
        pass
    return total
