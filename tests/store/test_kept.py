"""What a person made by hand is put away whole, and can be found again."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from pipesmith.errors import EnvironmentFailure
from pipesmith.store.kept import keep, kept
from pipesmith.store.object_store import ObjectStore

from .conftest import MakeStore, tree


def test_a_file_a_folder_and_a_link(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"by hand")
    (tmp_path / "folder/empty").mkdir(parents=True)
    (tmp_path / "folder/x").write_bytes(b"x")
    (tmp_path / "link").symlink_to("somewhere")
    before = time.time()
    digests = [keep(store, str(tmp_path / n), path=f"out/{n}", stage="s") for n in ("file", "folder", "link")]
    assert tree(tmp_path / "folder") == {"empty": None, "x": (b"x", False)}, "it stays where it is"
    found = list(kept(store))
    assert [(k.path, k.stage, k.link) for k in found] == [
        ("out/file", "s", False),
        ("out/folder", "s", False),
        ("out/link", "s", True),
    ]
    assert [k.digest for k in found] == digests
    assert all(before <= k.at <= time.time() for k in found)
    assert store.read(digests[0]) == b"by hand"
    assert store.read(digests[2]) == b"somewhere"
    store.place(digests[1], str(tmp_path / "out"), link=True)
    assert tree(tmp_path / "out") == tree(tmp_path / "folder")


def test_in_md5_mode_what_dvc_can_not_hold_is_kept_all_the_same(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store(hash="md5")
    (tmp_path / "folder/empty").mkdir(parents=True)
    (tmp_path / "folder/link").symlink_to("x")
    (tmp_path / "plain").write_bytes(b"x")
    assert keep(store, str(tmp_path / "plain"), path="p", stage="s").algorithm == "md5"
    digest = keep(store, str(tmp_path / "folder"), path="f", stage="s")
    make_store(hash="md5").place(digest, str(tmp_path / "out"), link=True)
    assert tree(tmp_path / "out") == tree(tmp_path / "folder")


def test_a_broken_record_hides_no_other(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    keep(store, str(tmp_path / "f"), path="f", stage="s")
    folder = tmp_path / "pipe/cache/kept"
    (folder / "0-broken.json").write_text("{")
    (folder / "1-list.json").write_text("[]")
    assert [k.path for k in kept(store)] == ["f"]


def test_an_odd_name(store: ObjectStore, tmp_path: Path) -> None:
    path = os.fsdecode(b"caf\xe9\n")
    (tmp_path / path).write_bytes(b"x")
    keep(store, str(tmp_path / path), path=path, stage="s")
    assert [k.path for k in kept(store)] == [path]


def test_a_full_disk_is_told(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_bytes(b"x")
    keep(store, str(tmp_path / "f"), path="f", stage="s")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(EnvironmentFailure, match="no space left"):
        keep(store, str(tmp_path / "f"), path="f", stage="s")
    assert len(list(kept(store))) == 1


def test_nothing_was_put_away(store: ObjectStore) -> None:
    assert list(kept(store)) == []
