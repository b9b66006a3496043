"""Locks between processes: one holder a name, freed by the kernel however the holder ends, and the holder is named."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipesmith.store import locks
from pipesmith.store.locks import LockTable

HOLDER = """
import subprocess, sys, time
from pipesmith.store.locks import LockTable
hold = LockTable(sys.argv[1]).try_acquire(sys.argv[2])
child = subprocess.Popen(["sleep", "60"], close_fds=False) if len(sys.argv) > 3 else None
print("got" if hold else "busy", child.pid if child else 0, flush=True)
time.sleep(60)
"""


def holder(folder: Path, name: str, *more: str) -> tuple[subprocess.Popen[str], str, int]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), name, *more], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    word, child = process.stdout.readline().split()
    return process, word, int(child)


def test_one_holder_a_name(tmp_path: Path) -> None:
    table = LockTable(str(tmp_path / "locks"))
    hold = table.try_acquire("a")
    assert hold is not None
    assert table.try_acquire("a") is None, "not even for this process"
    other = table.try_acquire("b")
    assert other is not None, "names do not touch each other"
    process, word, _child = holder(tmp_path / "locks", "a")
    assert word == "busy"
    process.kill()
    process.wait()
    hold.release()
    hold.release()
    again = LockTable(str(tmp_path / "locks")).try_acquire("a")
    assert again is not None
    again.release()
    other.release()


@pytest.mark.parametrize("ofd", [True, False])
def test_killed_holders_hold_nothing_though_their_children_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ofd: bool
) -> None:
    if not ofd:
        without_ofd(monkeypatch)
    process, word, child = holder(tmp_path, "a", "child")
    table = LockTable(str(tmp_path))
    try:
        assert word == "got"
        if ofd:
            assert table.try_acquire("a") is None
            said = table.holder("a")
            assert said is not None and f"pid {process.pid} on " in said
        process.send_signal(signal.SIGKILL)
        process.wait()
        hold = table.try_acquire("a")
        assert hold is not None
        said = table.holder("a")
        assert said is not None and f"pid {os.getpid()} on " in said
        hold.release()
        assert table.holder("a") is None
    finally:
        os.kill(child, signal.SIGKILL)


def without_ofd(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> bool:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(locks, "_try_lock", unknown)


def test_where_the_system_has_no_such_locks_files_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_ofd(monkeypatch)
    table = LockTable(str(tmp_path))
    hold = table.try_acquire("a")
    assert hold is not None
    assert table.try_acquire("a") is None
    other = table.try_acquire("b")
    assert other is not None
    other.release()
    hold.release()
    assert table.try_acquire("a") is not None


def test_threads_exclude_each_other_and_wait(tmp_path: Path) -> None:
    table = LockTable(str(tmp_path))
    inside = 0
    most = 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with table.exclusive("w"):
                inside += 1
                most = max(most, inside)
                time.sleep(0.0005)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_exclusive_is_given_back_after_an_error(tmp_path: Path) -> None:
    table = LockTable(str(tmp_path))
    with pytest.raises(ZeroDivisionError), table.exclusive("w"):
        raise ZeroDivisionError
    assert table.try_acquire("w") is not None


def test_a_broken_note_names_nobody(tmp_path: Path) -> None:
    table = LockTable(str(tmp_path))
    hold = table.try_acquire("a")
    assert hold is not None
    Path(table._note("a")).write_text("{")
    assert table.holder("a") is None
    hold.release()


def test_many_names_open_no_many_files(tmp_path: Path) -> None:
    table = LockTable(str(tmp_path))
    holds = [table.try_acquire(f"stage-{n}") for n in range(200)]
    assert all(holds)
    for hold in holds:
        assert hold is not None
        hold.release()
    assert os.listdir(tmp_path) == ["table"]


@pytest.mark.parametrize("ofd", [True, False])
def test_a_shared_name_has_many_holders_or_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ofd: bool
) -> None:
    if not ofd:
        without_ofd(monkeypatch)
    table = LockTable(str(tmp_path))
    one, other = table.try_acquire("c", shared=True), LockTable(str(tmp_path)).try_acquire("c", shared=True)
    assert one is not None and other is not None
    assert table.try_acquire("c") is None
    one.release()
    assert table.try_acquire("c") is None
    other.release()
    alone = table.try_acquire("c")
    assert alone is not None
    assert table.try_acquire("c", shared=True) is None
    alone.release()
    with table.shared("c"), table.shared("c"):
        assert table.try_acquire("c") is None
