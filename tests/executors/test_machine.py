"""What the machine has, and other ways to a folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipesmith.executors import machine
from pipesmith.executors.aliases import aliases
from pipesmith.executors.machine import machine_capacity
from pipesmith.executors.probe import probe
from pipesmith.launcher.processes import _by_walk, descendants


def test_capacity_is_what_this_process_may_use() -> None:
    capacity = machine_capacity()
    assert 0 < capacity.cpus <= len(os.sched_getaffinity(0))
    assert capacity.memory_bytes is not None and capacity.memory_bytes > 100 << 20


def test_capacity_counts_affinity() -> None:
    one = min(os.sched_getaffinity(0))
    code = f"import os, sys; sys.path[:0] = {sys.path!r}; os.sched_setaffinity(0, [{one}])\n"
    code += "from pipesmith.executors.machine import machine_capacity; print(machine_capacity().cpus <= 1.0)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"


def test_capacity_counts_a_containers_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """cgroup version 2, in the folder of the process or in one above it."""
    (tmp_path / "box").mkdir()
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "box" / "memory.max").write_text("1048576\n")
    monkeypatch.setattr(machine, "_cgroups", lambda: [str(tmp_path), str(tmp_path / "box")])
    capacity = machine_capacity()
    assert (capacity.cpus, capacity.memory_bytes) == (0.5, 1 << 20)


def test_unlimited_is_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = machine_capacity()
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    monkeypatch.setattr(machine, "_cgroups", lambda: [str(tmp_path)])
    assert machine_capacity() == before


def mountinfo(*mounts: tuple[str, str, str]) -> str:
    return "".join(f"{n} 1 {dev} {root} {point} rw - ext4 /dev/x rw\n" for n, (dev, root, point) in enumerate(mounts))


def test_aliases_of_a_folder(tmp_path: Path) -> None:
    """The disk is mounted a second time, and a folder above is bound elsewhere: links stand in for the mounts here."""
    real = tmp_path / "disk" / "home" / "project"
    real.mkdir(parents=True)
    (tmp_path / "again").symlink_to(tmp_path / "disk")
    (tmp_path / "bo und").symlink_to(tmp_path / "disk" / "home")
    text = mountinfo(
        ("0:1", "/", "/"),
        ("8:1", "/", f"{tmp_path}/disk"),
        ("8:1", "/", f"{tmp_path}/again"),
        ("8:1", "/home", f"{tmp_path}/bo\\040und"),
        ("8:1", "/home/other", f"{tmp_path}/disk/x"),
        ("8:2", "/home", f"{tmp_path}/bo\\040und"),
        ("8:1", "/hom", f"{tmp_path}/again"),
    )
    assert aliases(str(real), text) == (f"{tmp_path}/again/home/project", f"{tmp_path}/bo und/project")


def test_no_aliases_on_an_ordinary_machine(tmp_path: Path) -> None:
    assert aliases(str(tmp_path), mountinfo(("8:1", "/", "/"), ("0:5", "/", "/proc"))) == ()


def test_probe_says_what_and_why() -> None:
    found = probe()
    assert found.mode in ("namespaces", "copies")
    assert "namespaces" in found.why
    assert probe() is found


def test_descendants_both_ways() -> None:
    """The kernel's list of children, and the walk over /proc for kernels without, agree."""
    child = subprocess.Popen(["/bin/sh", "-c", "sleep 60 & sleep 60 & echo; wait"], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None and child.stdout.readline() == b"\n"
        assert len(descendants(child.pid)) == 2
        assert sorted(descendants(child.pid)) == sorted(_by_walk(child.pid))
    finally:
        for pid in (*descendants(child.pid), child.pid):
            os.kill(pid, 9)
        child.wait()
