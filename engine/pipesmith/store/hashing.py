"""The hash of a file's bytes, read in one pass."""

from __future__ import annotations

import os

from pipesmith.digest import new_hasher

__all__ = ["hash_file", "read_small"]

_CHUNK = 1 << 20
_THREADED_ABOVE_BYTES = 64 << 20
_THREADED_CHUNK = 4 << 20


def hash_file(path: str, algorithm: str) -> tuple[str, int]:
    """Return hex hash and size of a file's bytes. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        info = os.fstat(fd)
        if info.st_size < _CHUNK:
            data = read_small(fd, info.st_size)
            hasher = new_hasher(algorithm)
            hasher.update(data)
            return hasher.hexdigest(), len(data)
        hasher = new_hasher(algorithm)
        chunk = _CHUNK
        if algorithm == "blake3" and info.st_size >= _THREADED_ABOVE_BYTES and _has_cores():
            from blake3 import blake3

            # Read, never mapped: a mapped file that is cut short meanwhile ends the process with SIGBUS.
            hasher, chunk = blake3(max_threads=blake3.AUTO), _THREADED_CHUNK
        read = 0
        buffer = bytearray(chunk)
        view = memoryview(buffer)
        while count := os.readv(fd, [buffer]):
            hasher.update(view[:count])
            read += count
        return hasher.hexdigest(), read
    finally:
        os.close(fd)


def _has_cores() -> bool:
    return (os.cpu_count() or 1) > 1


def read_small(fd: int, size: int) -> bytes:
    """Return all that can be read of a file that was `size` bytes long: mostly in one call."""
    data = os.read(fd, size + 1)
    if len(data) == size:
        return data
    parts = [data]
    while more := os.read(fd, _CHUNK):
        parts.append(more)
    return b"".join(parts)
