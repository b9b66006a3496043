"""A store of its own for each test."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipesmith.pipeline.model import CacheConfig
from pipesmith.store.object_store import ObjectStore
from pipesmith.store.state_db import StateDB

MakeStore = Callable[..., ObjectStore]


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """Opens the one store of a test, as another process would: with a state database connection of its own."""

    def make(hash: str = "blake3", link: tuple[str, ...] = ("reflink", "hardlink", "copy")) -> ObjectStore:
        pipe = tmp_path / "pipe"
        state = StateDB(str(pipe / "state.db"))
        return ObjectStore(str(pipe / "cache"), str(pipe / "tmp"), state, CacheConfig(hash=hash, link=link))

    return make


@pytest.fixture
def store(make_store: MakeStore) -> ObjectStore:
    return make_store()


def tree(root: Path) -> dict[str, object]:
    """Return what lies below a folder: path to (bytes, executable), link text, or None for a folder."""
    found: dict[str, object] = {}
    for where, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = Path(where, name)
            key = str(path.relative_to(root))
            if path.is_symlink():
                found[key] = f"-> {os.readlink(path)}"
            elif path.is_dir():
                found[key] = None
            else:
                found[key] = (path.read_bytes(), bool(path.stat().st_mode & 0o100))
    return found
