"""The hash of a file's bytes, read in one pass."""

from __future__ import annotations

import os

from pipesmith.digest import new_hasher

__all__ = ["hash_file", "read_small"]

_CHUNK = 1 << 20
_THREADED_ABOVE_BYTES = 64 << 20
_MAPPED_ABOVE_BYTES = 256 << 20  # a process must be worth it
_THREADED_CHUNK = 4 << 20
_BUFFERS = 2


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
        if algorithm == "blake3" and info.st_size >= _THREADED_ABOVE_BYTES and (os.cpu_count() or 1) > 1:
            from pipesmith.store.mapped import hash_mapped

            hex = hash_mapped(fd, info.st_size) if info.st_size >= _MAPPED_ABOVE_BYTES else None
            return (hex, info.st_size) if hex is not None else _hash_threaded(fd)
        hasher = new_hasher(algorithm)
        read = 0
        buffer = bytearray(_CHUNK)
        view = memoryview(buffer)
        while count := os.readv(fd, [buffer]):
            hasher.update(view[:count])
            read += count
        return hasher.hexdigest(), read
    finally:
        os.close(fd)


def _hash_threaded(fd: int) -> tuple[str, int]:
    """Hash with all cores what one more thread reads ahead. Returns hex hash and size. Raises OSError."""
    from queue import SimpleQueue
    from threading import Thread

    from blake3 import blake3

    free: SimpleQueue[bytearray | None] = SimpleQueue()
    filled: SimpleQueue[tuple[bytearray, int | OSError]] = SimpleQueue()

    def read_ahead() -> None:
        while (buffer := free.get()) is not None:
            try:
                filled.put((buffer, os.readv(fd, [buffer])))
            except OSError as error:
                filled.put((buffer, error))

    for _ in range(_BUFFERS):
        free.put(bytearray(_THREADED_CHUNK))
    reader = Thread(target=read_ahead, name="read ahead", daemon=True)
    reader.start()
    try:
        hasher = blake3(max_threads=blake3.AUTO)
        read = 0
        while True:
            buffer, got = filled.get()
            if isinstance(got, OSError):
                raise got
            if not got:
                return str(hasher.hexdigest()), read
            hasher.update(memoryview(buffer)[:got])
            read += got
            free.put(buffer)
    finally:
        free.put(None)
        reader.join()  # it reads from a descriptor that is closed next


def read_small(fd: int, size: int) -> bytes:
    """Return all that can be read of a file that was `size` bytes long: mostly in one call."""
    data = os.read(fd, size + 1)
    if len(data) == size:
        return data
    parts = [data]
    while more := os.read(fd, _CHUNK):
        parts.append(more)
    return b"".join(parts)
