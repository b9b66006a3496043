"""The hash of a file, whatever its size, and whatever is done to it meanwhile."""

from __future__ import annotations

import errno
import hashlib
import os
import threading

import pytest
from blake3 import blake3

from pipesmith.store import hashing
from pipesmith.store.hashing import hash_file


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (5 << 20) + 7])
@pytest.mark.parametrize("threaded_above", [1 << 20, 64 << 20])
def test_reference_values(tmp_path, monkeypatch, size, threaded_above):
    monkeypatch.setattr(hashing, "_THREADED_ABOVE_BYTES", threaded_above)
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)
    assert hash_file(str(tmp_path / "a"), "blake3") == (blake3(data).hexdigest(), size)
    assert hash_file(str(tmp_path / "a"), "md5") == (hashlib.md5(data).hexdigest(), size)


def test_a_big_file_cut_short_while_it_is_read(tmp_path):
    """It ends with some hash, not with the process."""
    path = tmp_path / "a"
    with open(path, "wb") as file:
        file.truncate(1 << 30)
    cutter = threading.Timer(0.02, os.truncate, (path, 0))
    cutter.start()
    _hex, size = hash_file(str(path), "blake3")
    cutter.join()
    assert size <= 1 << 30


def test_a_file_that_cannot_be_read_to_its_end_is_an_error(tmp_path, monkeypatch) -> None:
    """What the thread that reads ahead meets is raised where the hash was asked for, and the thread is gone."""
    monkeypatch.setattr(hashing, "_THREADED_ABOVE_BYTES", 1)
    (tmp_path / "a").write_bytes(bytes(3 << 20))
    real, calls = os.readv, []

    def readv(fd: int, buffers: list[bytearray]) -> int:
        calls.append(fd)
        if len(calls) > 1:
            raise OSError(errno.EIO, "Input/output error")
        return real(fd, buffers)

    monkeypatch.setattr(hashing.os, "readv", readv)
    with pytest.raises(OSError, match="Input/output error"):
        hash_file(str(tmp_path / "a"), "blake3")
    assert not [thread for thread in threading.enumerate() if thread.name == "read ahead"]
