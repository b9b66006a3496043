"""Data moved between datastores, and outputs brought to one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipesmith.data import transfer as module
from pipesmith.data.deliver import deliver, filled
from pipesmith.data.transfer import Moved, transfer
from pipesmith.digest import Digest
from pipesmith.errors import Cancelled, StageError, UserError
from pipesmith.pipeline.model import CacheConfig, Datastore
from pipesmith.store.object_store import ObjectStore
from pipesmith.store.state_db import StateDB


@pytest.fixture
def stores(tmp_path: Path) -> dict[str, Datastore]:
    """Two file datastores, `one` with files in it, `two` empty and not even made."""
    for name in ("in/a.txt", "in/deep/b.txt", "other.txt"):
        (tmp_path / "one" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "one" / name).write_text(name)
    return {name: Datastore(name=name, url=f"file://{tmp_path / name}") for name in ("one", "two")}


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.mark.parametrize(
    ("source", "target", "made"),
    [
        ("one:in/**", "two:out/", {"out/a.txt": "in/a.txt", "out/deep/b.txt": "in/deep/b.txt"}),
        ("one:in/**", "two:out", {"out/a.txt": "in/a.txt", "out/deep/b.txt": "in/deep/b.txt"}),
        ("one:in", "two:", {"a.txt": "in/a.txt", "deep/b.txt": "in/deep/b.txt"}),
        ("one:other.txt", "two:out/", {"out/other.txt": "other.txt"}),
        ("one:other.txt", "two:out/renamed.txt", {"out/renamed.txt": "other.txt"}),
        ("one:*.txt", "two:x", {"x/other.txt": "other.txt"}),
    ],
)
def test_names_below_the_fixed_part_are_kept(
    stores: dict[str, Datastore], tmp_path: Path, source: str, target: str, made: dict[str, str]
) -> None:
    moved = transfer(source, target, stores, str(tmp_path))
    assert tree(tmp_path / "two") == made
    assert (moved.copied, moved.skipped) == (len(made), 0)


def test_the_second_time_nothing_is_copied(stores: dict[str, Datastore], tmp_path: Path) -> None:
    transfer("one:in/**", "two:out/", stores, str(tmp_path))
    (tmp_path / "one" / "in" / "a.txt").write_text("in/A.txt")
    said: list[str] = []
    moved = transfer("one:in/**", "two:out/", stores, str(tmp_path), said=said.append)
    assert (moved.copied, moved.skipped) == (1, 1)
    assert said == ["a.txt: 8 bytes"]
    assert tree(tmp_path / "two" / "out")["a.txt"] == "in/A.txt"


def test_a_transfer_that_was_cut_off_is_taken_up(stores: dict[str, Datastore], tmp_path: Path) -> None:
    asked = iter([False, True])
    with pytest.raises(Cancelled):
        transfer("one:in/**", "two:out/", stores, str(tmp_path), cancelled=lambda: next(asked))
    assert tree(tmp_path / "two") == {"out/a.txt": "in/a.txt"}
    moved = transfer("one:in/**", "two:out/", stores, str(tmp_path))
    assert (moved.copied, moved.skipped) == (1, 1)


def test_what_arrives_otherwise_is_no_file_of_the_target(
    stores: dict[str, Datastore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def torn(source: str, target: str, mode: int, algorithm: str) -> str:
        Path(target).write_text("half")
        return "0" * 64

    monkeypatch.setattr(module, "copy_hashing", torn)
    with pytest.raises(StageError, match=r"`.*a\.txt` was changed while it was read"):
        transfer("one:in/**", "two:out/", stores, str(tmp_path))
    assert tree(tmp_path / "two") == {}


def test_executable_bits_are_kept(stores: dict[str, Datastore], tmp_path: Path) -> None:
    (tmp_path / "one" / "in" / "a.txt").chmod(0o755)
    transfer("one:in/**", "two:out/", stores, str(tmp_path))
    assert os.access(tmp_path / "two" / "out" / "a.txt", os.X_OK)


def test_nothing_to_move_fails(stores: dict[str, Datastore], tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"transfer from `one:gone/\*` finds nothing"):
        transfer("one:gone/*", "two:out/", stores, str(tmp_path))


def test_other_schemes_are_refused(stores: dict[str, Datastore], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this version does not read s3:// datastores"):
        transfer("one:in/**", "s3://bucket/x/", stores, str(tmp_path))


def test_a_target_in_the_way_is_named(stores: dict[str, Datastore], tmp_path: Path) -> None:
    (tmp_path / "two" / "out").mkdir(parents=True)
    (tmp_path / "two" / "out" / "deep").write_text("a file")
    with pytest.raises(StageError, match=r"transfer of `.*b\.txt` failed"):
        transfer("one:in/**", "two:out/", stores, str(tmp_path))


# -- delivery -----------------------------------------------------------------------------------------------------

Deliver = Callable[..., Moved]


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    state = StateDB(str(tmp_path / "state.db"))
    return ObjectStore(str(tmp_path / "cache"), str(tmp_path / "tmp"), state, CacheConfig())


def made(store: ObjectStore, folder: Path, **files: str) -> Digest:
    """Return the digest of a folder output of these files."""
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return store.add_tree(str(folder), move=False)


def test_a_file_keeps_its_name_in_a_folder_and_takes_one_that_is_given(
    stores: dict[str, Datastore], store: ObjectStore, tmp_path: Path
) -> None:
    (tmp_path / "m.pkl").write_text("model")
    digest = store.add_tree(str(tmp_path / "m.pkl"), move=False)
    deliver(digest, "models/m.pkl", "two:models/", stores, str(tmp_path), store)
    deliver(digest, "models/m.pkl", "two:latest.pkl", stores, str(tmp_path), store)
    assert tree(tmp_path / "two") == {"models/m.pkl": "model", "latest.pkl": "model"}
    assert (tmp_path / "two" / "latest.pkl").stat().st_mode & 0o777 == 0o644


def test_a_folder_goes_below_the_target_with_links_and_empty_folders(
    stores: dict[str, Datastore], store: ObjectStore, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / "empty").mkdir(parents=True)
    (out / "link").symlink_to("a")
    digest = made(store, out, a="1", deep__b="2")
    moved = deliver(digest, "out", "two:x/", stores, str(tmp_path), store)
    assert tree(tmp_path / "two" / "x") == {"a": "1", "deep/b": "2", "link": "1"}
    assert os.readlink(tmp_path / "two" / "x" / "link") == "a"
    assert (tmp_path / "two" / "x" / "empty").is_dir()
    again = deliver(digest, "out", "two:x/", stores, str(tmp_path), store)
    assert (moved.copied, again.copied, again.skipped) == (3, 0, 2)


def test_what_is_there_with_other_content_is_replaced(
    stores: dict[str, Datastore], store: ObjectStore, tmp_path: Path
) -> None:
    digest = made(store, tmp_path / "out", a="new")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "a").write_text("old")
    deliver(digest, "out", "two:", stores, str(tmp_path), store)
    assert tree(tmp_path / "two") == {"a": "new"}


def test_a_failed_delivery_names_output_and_place(
    stores: dict[str, Datastore], store: ObjectStore, tmp_path: Path
) -> None:
    digest = made(store, tmp_path / "out", a="1")
    (tmp_path / "two").write_text("a file where the datastore should be")
    with pytest.raises(StageError) as caught:
        deliver(digest, "out", "two:x/", stores, str(tmp_path), store)
    assert caught.value.text.startswith("delivery of `out` to `two:x/` failed: ")
    with pytest.raises(StageError, match="delivery of `out` to `s3://b/x` failed: this version does not read s3://"):
        deliver(digest, "out", "s3://b/x", stores, str(tmp_path), store)


def test_a_damaged_object_is_not_delivered(stores: dict[str, Datastore], store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "m").write_text("model")
    digest = store.add_tree(str(tmp_path / "m"), move=False)
    os.chmod(store.path(digest), 0o644)
    Path(store.path(digest)).write_text("MODEL")
    with pytest.raises(StageError):
        deliver(digest, "m", "two:m", stores, str(tmp_path), store)
    assert not (tmp_path / "two" / "m").exists()


def test_placeholders_are_filled_in() -> None:
    values = {"run.id": "r1", "git.commit": "abc", "git.branch": "feature/{x}"}
    assert filled("blob:{run.id}/{git.commit}/{git.branch}/{{x}}", values) == "blob:r1/abc/feature/{x}/{x}"


def test_a_placeholder_without_a_value_is_named() -> None:
    with pytest.raises(StageError, match=r"`b:\{git\.branch\}/` names `\{git\.branch\}`, which there is none of here"):
        filled("b:{git.branch}/", {"git.branch": None})
