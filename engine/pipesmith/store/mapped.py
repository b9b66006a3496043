"""The hash of a big file whose pages are in memory: mapped, which saves copying them.

Whoever looks at a mapped file that is cut short, or at one on a bad disk, is ended by SIGBUS. So a process is forked
for it; where that ends without an answer the file is to be read.
"""

from __future__ import annotations

import mmap
import os
import resource
import signal
import threading
from typing import NoReturn

__all__ = ["hash_mapped"]

_PROBE, _WINDOW = 64 << 20, 512 << 20  # mapped at once: first, and then
# Mapping is dearer than reading where the kernel maps small pieces: of a file that was written in small pieces, or on a
# file system that keeps it so. Sixteen pages come in one fault at least.
_SMALL_PIECE = 72 << 10
_HEX_LENGTH = 64


def hash_mapped(fd: int, size: int) -> str | None:
    """Return the BLAKE3 hash of the `size` bytes of a file in hex, None where it is to be read."""
    import blake3  # noqa: F401 - here, where it is of use later too

    if threading.active_count() > 1:
        return None  # what other threads hold would be held for ever in the forked process
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _answer(fd, size, writing)
    os.close(writing)
    try:
        with open(reading, "rb") as answer:
            hex = answer.read().decode()
        return hex if len(hex) == _HEX_LENGTH else None
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _answer(fd: int, size: int, writing: int) -> NoReturn:
    """Write the hash, or nothing, and end this process."""
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGBUS):
            signal.signal(number, signal.SIG_DFL)
        hex = _hash(fd, size)
        if hex is not None:
            os.write(writing, hex.encode())
    finally:
        os._exit(0)


def _hash(fd: int, size: int) -> str | None:
    from blake3 import blake3

    # Not `blake3.AUTO`: the threads that it means are those of the process that was forked.
    hasher = blake3(max_threads=len(os.sched_getaffinity(0)))
    parent = os.getppid()
    before = _faults()
    done, length = 0, min(_PROBE, size)
    while length:
        with mmap.mmap(fd, length, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ, offset=done) as window:
            hasher.update(window)
        if done == 0 and (_faults() - before) * _SMALL_PIECE > length:
            return None
        if os.getppid() != parent:
            return None  # nobody waits any more
        done += length
        length = min(_WINDOW, size - done)
    return str(hasher.hexdigest())


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
