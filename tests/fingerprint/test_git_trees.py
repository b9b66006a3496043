"""Blob ids of a file's own bytes, in one pass of bounded memory."""

from __future__ import annotations

import os

import pytest

from pipesmith.fingerprint.git_trees import blob_id


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (3 << 20) + 5])
@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
def test_blob_id_is_gits(repo, tmp_path, size, object_format):
    path = tmp_path / "a"
    path.write_bytes(os.urandom(size))
    repo.git("init", "-q", f"--object-format={object_format}", str(tmp_path / "other"))
    expected = repo.git("-C", str(tmp_path / "other"), "hash-object", str(path)).stdout.strip()
    assert blob_id(str(path), size, object_format) == expected


@pytest.mark.parametrize("size", [5, 2 << 20])
def test_a_file_of_another_size_than_said_has_none(tmp_path, size):
    path = tmp_path / "a"
    path.write_bytes(bytes(size))
    assert blob_id(str(path), size - 1, "sha1") is blob_id(str(path), size + 1, "sha1") is None
