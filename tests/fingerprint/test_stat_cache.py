"""Stamps are evidence: what was rewritten is read again, what was not is not."""

from __future__ import annotations

import os
import time

import pytest
from blake3 import blake3

from pipesmith.errors import UserError
from pipesmith.fingerprint import stat_cache as module
from pipesmith.fingerprint.stat_cache import StatCache
from pipesmith.store.object_store import ObjectStore
from pipesmith.store.state_db import StateDB


@pytest.fixture
def state(tmp_path):
    made = StateDB(str(tmp_path / "state/state.db"))
    yield made
    made.close()


@pytest.fixture
def reads(monkeypatch):
    """The paths that were read for their hash."""
    seen: list[str] = []
    real = module.hash_file

    def hash_file(path: str, algorithm: str) -> tuple[str, int]:
        seen.append(path)
        return real(path, algorithm)

    monkeypatch.setattr(module, "hash_file", hash_file)
    return seen


def test_file_is_read_once_over_processes(state, tmp_path, reads, tick):
    path = tmp_path / "a"
    path.write_text("content")
    tick()
    for _process in range(3):
        cache = StatCache(state, "blake3")
        assert cache.digest(str(path)).hex == blake3(b"content").hexdigest()
        cache.flush()
    assert reads == [str(path)]


def test_folder_is_read_once_and_then_only_what_changed(state, tmp_path, reads, tick):
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    for name in ("a", "b", "deep/c"):
        (folder / name).write_text(name)
    tick()
    first = StatCache(state, "blake3")
    digest = first.digest(str(folder))
    first.flush()
    assert len(reads) == 3
    assert StatCache(state, "blake3").digest(str(folder)) == digest
    assert len(reads) == 3
    (folder / "b").write_text("changed")
    tick()
    second = StatCache(state, "blake3")
    assert second.digest(str(folder)) != digest
    second.flush()
    assert reads[3:] == [str(folder / "b")]


@pytest.mark.parametrize("of_folder", [False, True])
def test_rewritten_with_size_and_mtime_put_back(state, tmp_path, tick, of_folder):
    path = tmp_path / "data/a"
    path.parent.mkdir()
    path.write_text("one")
    asked = str(path.parent if of_folder else path)
    tick()
    cache = StatCache(state, "blake3")
    before = cache.digest(asked)
    cache.flush()
    info = path.stat()
    path.write_text("two")
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert cache.digest(asked) != before
    assert StatCache(state, "blake3").digest(asked) != before


@pytest.mark.parametrize("of_folder", [False, True])
def test_edits_within_a_tick_of_the_clock(state, tmp_path, of_folder, monkeypatch):
    """With stamps that never move: what was read within the tick of its writing is not remembered."""
    path = tmp_path / "data/a"
    path.parent.mkdir()
    path.write_text("one")
    asked = str(path.parent if of_folder else path)
    cache = StatCache(state, "blake3")
    frozen = path.stat()
    before = cache.digest(asked)
    cache.flush()
    path.write_text("two")
    real = os.lstat

    class Frozen:
        """A file's stat with the stamps of its first writing."""

        def __init__(self, info: os.stat_result) -> None:
            self._info = info

        def __getattr__(self, name: str) -> object:
            return getattr(frozen if name in ("st_mtime_ns", "st_ctime_ns") else self._info, name)

    if not of_folder:
        monkeypatch.setattr(module.os, "lstat", lambda p: Frozen(real(p)))
    assert cache.digest(asked) != before
    assert state.query("SELECT * FROM files") == []


def test_whole_seconds_need_two_of_them(state):
    cache = StatCache(state, "blake3")
    second = 1_000_000_000
    stamp = (1, 1, 1, 100 * second, 0)
    assert not cache.is_settled(stamp, -1, 101 * second)
    assert cache.is_settled(stamp, -1, 103 * second)
    fine = (1, 1, 1, 100 * second + 1, 0)
    assert cache.is_settled(fine, -1, 101 * second)


def test_a_modification_time_in_the_future_is_remembered(state, tmp_path, reads, tick):
    path = tmp_path / "a"
    path.write_text("content")
    os.utime(path, (time.time() + 1e6, time.time() + 1e6))
    tick()
    for _process in range(2):
        cache = StatCache(state, "blake3")
        cache.digest(str(path))
        cache.flush()
    assert len(reads) == 1


def test_tmpfs_is_always_read(state, reads, tick):
    folder = "/dev/shm"
    with open("/proc/self/mounts") as mounts:
        if not any(line.split()[1:3] == [folder, "tmpfs"] for line in mounts):
            pytest.skip("no tmpfs here")
    path = f"{folder}/pipesmith-test-{os.getpid()}"
    try:
        with open(path, "w") as file:
            file.write("a")
        tick()
        for _process in range(2):
            cache = StatCache(state, "blake3")
            cache.digest(path)
            cache.flush()
        assert len(reads) == 2
    finally:
        os.unlink(path)


def test_hard_link_made_and_removed_changes_no_digest(state, tmp_path, tick):
    path = tmp_path / "a"
    path.write_text("content")
    tick()
    cache = StatCache(state, "blake3")
    before = cache.digest(str(path))
    os.link(path, tmp_path / "b")
    assert cache.digest(str(path)) == before


def test_what_lies_there(state, tmp_path):
    cache = StatCache(state, "blake3")
    assert cache.digest(str(tmp_path / "absent")) is None
    (tmp_path / "file").write_text("x")
    assert cache.digest(str(tmp_path / "file/below")) is None
    os.symlink("nowhere", tmp_path / "link")
    link = cache.digest(str(tmp_path / "link"))
    assert link.is_link and link.size == 7 and link.hex == blake3(b"nowhere").hexdigest() + ".link"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe"):
        cache.digest(str(tmp_path / "pipe"))
    with pytest.raises(UserError, match="pipe"):
        cache.digest(str(tmp_path))


@pytest.mark.parametrize("algorithm", ["blake3", "md5"])
def test_output_digest_is_what_the_object_store_says(state, tmp_path, algorithm):
    from pipesmith.pipeline.model import CacheConfig

    folder = tmp_path / "out"
    (folder / "deep/.git").mkdir(parents=True)
    (folder / "deep/.git/config").write_text("an output may well be a clone\n")
    (folder / "a").write_text("a")
    (folder / "run.sh").write_text("a")
    (folder / "run.sh").chmod(0o755)
    if algorithm == "blake3":
        os.symlink("a", folder / "link")
        (folder / "empty").mkdir()
    store = ObjectStore(str(tmp_path / "cache"), str(tmp_path / "tmp"), state, CacheConfig(hash=algorithm))
    (tmp_path / "tmp").mkdir()
    assert StatCache(state, algorithm).digest(str(folder)) == store.add_tree(str(folder), move=False)


def test_what_dvc_cannot_hold_is_refused_by_path(state, tmp_path):
    (tmp_path / "out/empty").mkdir(parents=True)
    with pytest.raises(UserError, match="`empty` is an empty folder"):
        StatCache(state, "md5").digest(str(tmp_path / "out"))


def test_names_in_any_order_and_place_give_one_digest(state, tmp_path):
    for folder, names in (("one", "abc"), ("two", "cba")):
        for name in names:
            (tmp_path / folder / name).mkdir(parents=True)
            (tmp_path / folder / name / "file").write_text(name)
    cache = StatCache(state, "blake3")
    assert cache.digest(str(tmp_path / "one")) == cache.digest(str(tmp_path / "two"))


def test_broken_rows_cost_time_only(state, tmp_path, tick):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a").write_text("a")
    tick()
    cache = StatCache(state, "blake3")
    before = cache.digest(str(tmp_path / "data"))
    cache.flush()
    state.write([("UPDATE folders SET data = x'00'", ())])
    assert StatCache(state, "blake3").digest(str(tmp_path / "data")) == before
