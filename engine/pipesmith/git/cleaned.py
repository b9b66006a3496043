"""The bytes that git would store for a file of the work tree, where a filter makes them others than the file's own."""

from __future__ import annotations

import os
import shutil
import tempfile

from pipesmith.git.repository import Repository

__all__ = ["cleaned_bytes"]


def cleaned_bytes(repo: Repository, root: str, path: str, oid: str) -> bytes:
    """Return the content of blob `oid`, which `path` (relative to `root`) would become. The repository's objects are not written."""
    known = repo.process("cat-file", "blob", oid)
    if known.returncode == 0:
        return known.stdout
    folder = tempfile.mkdtemp(prefix="pipe-objects-")
    try:
        env = {
            "GIT_OBJECT_DIRECTORY": folder,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": os.path.join(repo.common_dir, "objects"),
        }
        repo.run("hash-object", "-w", "--", path, cwd=root, env=env)
        return repo.run("cat-file", "blob", oid, env=env)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
