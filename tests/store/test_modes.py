"""Files follow core.sharedRepository, else the umask."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipesmith.pipeline.model import CacheConfig
from pipesmith.store.action_cache import ActionCache, ActionResult
from pipesmith.store.locks import LockTable
from pipesmith.store.modes import make_folders, prepare, shared_bits
from pipesmith.store.object_store import ObjectStore
from pipesmith.store.state_db import StateDB


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    from pipesmith.store import object_store

    old = os.umask(request.param)
    object_store._umask.cache_clear()
    yield request.param
    os.umask(old)
    object_store._umask.cache_clear()


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (None, None),
        ("", None),
        ("false", None),
        ("umask", None),
        ("0", None),
        ("group", 0o660),
        ("true", 0o660),
        ("1", 0o660),
        ("all", 0o664),
        ("world", 0o664),
        ("everybody", 0o664),
        ("2", 0o664),
        ("0640", 0o640),
        ("0660", 0o660),
        ("0777", 0o666),
        ("0060", None),
        ("nonsense", None),
    ],
)
def test_values_of_core_shared_repository(value: str | None, bits: int | None) -> None:
    assert shared_bits(value) == bits


def fill(pipe: Path) -> None:
    """Let every part of the store write something."""
    state = StateDB(str(pipe / "state.db"))
    state.write([("INSERT INTO parsed VALUES ('a', 1)", ())])
    store = ObjectStore(str(pipe / "cache"), str(pipe / "tmp"), state, CacheConfig())
    source = pipe.parent / "source"
    source.mkdir()
    (source / "small").write_bytes(b"x")
    (source / "big").write_bytes(os.urandom(1_200_000))
    store.add_tree(str(source), move=False)
    (source / "moved").write_bytes(b"moved")
    (source / "moved").chmod(0o600)
    digest = store.add_tree(str(source), move=True)
    store.discard("blake3", digest.hex)
    ActionCache(str(pipe / "cache/actions")).record(ActionResult(key="ab" * 32, stage="s"))
    LockTable(str(pipe / "locks")).try_acquire("a")


def modes(pipe: Path) -> tuple[set[int], set[int], set[int]]:
    """Return the modes of folders, of objects, and of other files."""
    folders, objects, files = set(), set(), set()
    for where, _names, found in os.walk(pipe):
        folders.add(stat.S_IMODE(os.stat(where).st_mode))
        for name in found:
            mode = stat.S_IMODE(os.stat(os.path.join(where, name)).st_mode)
            is_object = "/files/" in where or name.startswith("blake3-")
            (objects if is_object else files).add(mode)
    return folders, objects, files


def test_by_the_umask(tmp_path: Path, umask: int) -> None:
    fill(tmp_path / "pipe")
    folders, objects, files = modes(tmp_path / "pipe")
    assert folders == {0o777 & ~umask}
    assert objects == {0o444 & ~umask}
    assert files <= {0o666 & ~umask, 0o644 & ~umask}


@pytest.mark.parametrize(
    ("value", "folder", "object", "file"),
    [
        ("group", 0o2770, 0o440, 0o660),
        ("all", 0o2775, 0o444, 0o664),
        ("0640", 0o2750, 0o440, 0o640),
        ("0660", 0o2770, 0o440, 0o660),
    ],
)
def test_shared(tmp_path: Path, umask: int, value: str, folder: int, object: int, file: int) -> None:
    prepare(str(tmp_path / "pipe"), value)
    fill(tmp_path / "pipe")
    folders, objects, files = modes(tmp_path / "pipe")
    extra = 0 if value.startswith("0") else 0o777 & ~umask & 0o055
    assert folders == {folder | extra}
    assert objects == {object | extra & 0o444}
    assert all(mode & file == file for mode in files)


def test_a_group_that_is_asked_for_later_reaches_what_is_new(tmp_path: Path, umask: int) -> None:
    prepare(str(tmp_path / "pipe"), None)
    assert not (tmp_path / "pipe").stat().st_mode & stat.S_ISGID
    prepare(str(tmp_path / "pipe"), "group")
    fill(tmp_path / "pipe")
    assert all(mode & 0o2070 == 0o2070 for mode in modes(tmp_path / "pipe")[0])


def test_folders_made_by_two_at_once(tmp_path: Path) -> None:
    make_folders(str(tmp_path / "a/b/c"))
    make_folders(str(tmp_path / "a/b/c"))
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        make_folders(str(tmp_path / "file/x"))
