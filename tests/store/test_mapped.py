"""A big file is hashed by a process that maps it, and read wherever that is not to be had."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from blake3 import blake3

# Forks: so in a process of its own, which has no other threads. The file has a window to try, three more and a bit.
SCRIPT = """
import mmap, os, sys, threading
from pipesmith.store import hashing, mapped
mapped._PROBE, mapped._WINDOW, mapped._SMALL_PIECE = 1 << 20, 2 << 20, 0
hashing._THREADED_ABOVE_BYTES = hashing._MAPPED_ABOVE_BYTES = 1 << 20
os.cpu_count = lambda: 2
path = sys.argv[1]
{change}
with open(path, "rb") as file:
    print(mapped.hash_mapped(file.fileno(), os.stat(path).st_size))
print(*hashing.hash_file(path, "blake3"))
{after}
"""


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = tmp_path / "big"
    path.write_bytes(os.urandom((7 << 20) + 123))
    return path


def told(path: Path, change: str = "", after: str = "") -> list[str]:
    """Return what mapping came to, what hashing came to, and what is said after it. change: made before."""
    script = SCRIPT.format(change=change, after=after)
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def whole(path: Path) -> str:
    data = path.read_bytes()
    return f"{blake3(data).hexdigest()} {len(data)}"


def test_it_is_the_hash_of_the_bytes(big: Path) -> None:
    """And no process is left behind."""
    after = """
try:
    print(os.waitpid(-1, os.WNOHANG))
except ChildProcessError:
    print("no child")
"""
    assert told(big, after=after) == [whole(big).split()[0], whole(big), "no child"]


def test_one_that_is_cut_short_while_it_is_mapped_is_read(big: Path) -> None:
    """The process that maps it is ended by SIGBUS, and the one that asked goes on."""
    change = """
real = mmap.mmap
def cut(fd, length, **more):
    found = real(fd, length, **more)
    os.truncate(path, 5)
    return found
mmap.mmap = cut
"""
    mapped, hashed = told(big, change)
    assert (mapped, hashed) == ("None", whole(big))
    assert big.stat().st_size == 5


def test_one_that_comes_in_small_pieces_is_read(big: Path) -> None:
    assert told(big, "mapped._SMALL_PIECE = 1 << 20") == ["None", whole(big)]


def test_beside_other_threads_it_is_read(big: Path) -> None:
    """A process forked then could wait for ever for what a thread holds."""
    change = """
ended = threading.Event()
threading.Thread(target=ended.wait).start()
del os.fork
"""
    assert told(big, change, "ended.set()") == ["None", whole(big)]
