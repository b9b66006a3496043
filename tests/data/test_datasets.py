"""Datasets of files: pinned, and found again as pinned or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipesmith.data.datasets import locate, objects_now, pin
from pipesmith.errors import StageError, UserError
from pipesmith.fingerprint.stat_cache import StatCache
from pipesmith.pipeline.model import Dataset, Datastore
from pipesmith.store.state_db import StateDB


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[StatCache]:
    yield StatCache(StateDB(str(tmp_path / "state.db")), "blake3")


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A folder outside the workspace with a few files."""
    folder = tmp_path / "big"
    for name in (
        "train/a.csv",
        "train/b.csv",
        "train/deep/c.csv",
        "train/deep/er/d.csv",
        "train/.h",
        "test/e.csv",
        "one.csv",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (tmp_path / "workspace").mkdir()
    return folder


def dataset(*sources: str, definition: str = "d", **more: str) -> Dataset:
    return Dataset(name="images", sources=sources, definition=definition, **more)  # type: ignore[arg-type]


def stores(origin: Path) -> dict[str, Datastore]:
    return {"blob": Datastore(name="blob", url=f"file://{origin}")}


def names(origin: Path, *sources: str) -> list[str]:
    root = str(origin.parent / "workspace")
    return [name for _path, name in objects_now(dataset(*sources), stores(origin), root)]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("blob:train/**", [".h", "a.csv", "b.csv", "deep/c.csv", "deep/er/d.csv"]),
        ("blob:train/*", [".h", "a.csv", "b.csv"]),
        ("blob:train/**/*.csv", ["a.csv", "b.csv", "deep/c.csv", "deep/er/d.csv"]),
        ("blob:**/c.csv", ["train/deep/c.csv"]),
        ("blob:*/?.csv", ["test/e.csv", "train/a.csv", "train/b.csv"]),
        ("blob:train/[ab].csv", ["a.csv", "b.csv"]),
        ("blob:train/[!a].csv", ["b.csv"]),
        ("blob:train/deep/*/*", ["er/d.csv"]),
        ("blob:train", [".h", "a.csv", "b.csv", "deep/c.csv", "deep/er/d.csv"]),
        ("blob:/train/deep/", ["c.csv", "er/d.csv"]),
        ("blob:one.csv", [""]),
        ("blob:*.csv", ["one.csv"]),
        ("../big/one.csv", [""]),
        ("../big/test", ["e.csv"]),
    ],
)
def test_what_a_source_finds(origin: Path, source: str, found: list[str]) -> None:
    assert names(origin, source) == found


def test_absolute_paths_and_file_urls(origin: Path) -> None:
    assert names(origin, str(origin / "test")) == ["e.csv"]
    assert names(origin, f"file://{origin}/test/*") == ["e.csv"]
    assert names(origin, f"file://localhost{origin}/test/*") == ["e.csv"]
    (origin / "a b").mkdir()
    (origin / "a b" / "x").write_text("")
    assert names(origin, f"file://{origin}/a%20b") == ["x"]


def test_a_list_is_all_of_them_together(origin: Path) -> None:
    assert names(origin, "blob:train/*.csv", "blob:one.csv", "blob:test") == ["a.csv", "b.csv", "e.csv", "one.csv"]


def test_what_two_sources_both_find_is_there_once(origin: Path) -> None:
    assert names(origin, "blob:train/*.csv", "blob:train/a*", "blob:train/**") == names(origin, "blob:train/**")
    assert names(origin, "blob:one.csv", "blob:one.csv") == ["one.csv"]


def test_two_objects_of_one_name_are_refused(origin: Path) -> None:
    (origin / "test" / "a.csv").write_text("other")
    with pytest.raises(UserError, match=r"are both `a\.csv` in it"):
        names(origin, "blob:train/*", "blob:test/*")


def test_glob_characters_in_real_names_are_no_globs(tmp_path: Path) -> None:
    root = tmp_path / "work [x] *"
    root.mkdir()
    (root / "data[1].csv").write_text("")
    (root / "d").mkdir()
    (root / "d" / "f?").write_text("")
    found = [
        name for source in ("data[1].csv", "d", "d/*") for _path, name in objects_now(dataset(source), {}, str(root))
    ]
    assert found == ["", "f?", "f?"]


def test_links_to_folders_are_followed_and_circles_end(origin: Path) -> None:
    (origin / "test" / "more").symlink_to(origin / "train" / "deep")
    (origin / "test" / "circle").symlink_to(origin / "test")
    assert names(origin, "blob:test") == ["e.csv", "more/c.csv", "more/er/d.csv"]


def test_a_link_that_leads_nowhere_is_named(origin: Path, cache: StatCache) -> None:
    (origin / "test" / "gone").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"`.*/test/gone` leads nowhere"):
        pin(dataset("blob:test"), stores(origin), str(origin.parent), cache.digest, None)


@pytest.mark.parametrize("source", ["blob:nothing/**", "blob:train/*.png", "../big/gone.csv", "/gone/*"])
def test_nothing_found_is_the_users_to_mend(origin: Path, source: str) -> None:
    with pytest.raises(UserError) as caught:
        names(origin, source)
    assert caught.value.text == f"dataset `images`: `{source}` finds nothing"
    assert caught.value.exit_code == 2
    assert caught.value.help


def test_the_nearest_name_is_suggested(origin: Path) -> None:
    with pytest.raises(UserError) as caught:
        names(origin, "blob:trian/*")
    assert caught.value.help == f"did you mean `{origin}/train`?"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("s3://bucket/x", "this version does not read s3:// datastores"),
        ("az:images/*", "this version does not read az:// datastores (in `az:images/*`)"),
        ("git+https://example.com/x.git@main:dataset/y", "this version does not read git+https:// datastores"),
        ("blob:../secret", "`blob:../secret` leads out of datastore `blob`"),
        ("file://elsewhere/data", "names a host"),
    ],
)
def test_what_is_not_read_is_said(origin: Path, source: str, said: str) -> None:
    known = {**stores(origin), "az": Datastore(name="az", url="az://account/container")}
    with pytest.raises(UserError) as caught:
        objects_now(dataset(source), known, str(origin))
    assert said in caught.value.text
    assert caught.value.text.startswith("dataset `images`: ")


def test_sql_is_refused(origin: Path) -> None:
    with pytest.raises(UserError, match="does not read SQL datastores"):
        objects_now(dataset("blob", query="select 1"), stores(origin), str(origin))


# -- pins ---------------------------------------------------------------------------------------------------------


def test_a_folder_is_pinned_with_the_digest_that_the_folder_has(origin: Path, cache: StatCache) -> None:
    (origin / "train" / "b.csv").chmod(0o755)
    pinned = pin(dataset("blob:train/**"), stores(origin), str(origin), cache.digest, None)
    assert pinned.digest == cache.digest(str(origin / "train"))
    assert [each.name for each in pinned.objects] == [".h", "a.csv", "b.csv", "deep/c.csv", "deep/er/d.csv"]
    a = pinned.objects[1]
    digest = cache.digest(str(origin / "train" / "a.csv"))
    assert digest is not None and (a.size, a.hash) == (digest.size, digest.text)


def test_a_single_file_is_pinned_with_its_own_digest(origin: Path, cache: StatCache) -> None:
    pinned = pin(dataset("blob:one.csv"), stores(origin), str(origin), cache.digest, None)
    assert pinned.digest == cache.digest(str(origin / "one.csv"))
    assert [each.name for each in pinned.objects] == ["one.csv"]
    assert locate(dataset("blob:one.csv"), pinned, stores(origin), str(origin), cache.digest) == [
        (str(origin / "one.csv"), "")
    ]


def test_a_pin_stays_until_it_is_updated_or_the_definition_changes(origin: Path, cache: StatCache) -> None:
    first = pin(dataset("blob:test/**"), stores(origin), str(origin), cache.digest, None)
    (origin / "test" / "new.csv").write_text("new")
    assert pin(dataset("blob:test/**"), stores(origin), str(origin), cache.digest, first) is first
    edited = pin(dataset("blob:test/*", definition="e"), stores(origin), str(origin), cache.digest, first)
    updated = pin(dataset("blob:test/**"), stores(origin), str(origin), cache.digest, first, update=True)
    assert [each.name for each in updated.objects] == ["e.csv", "new.csv"]
    assert updated.digest == edited.digest != first.digest


def test_what_was_pinned_is_found_and_what_came_since_is_not(origin: Path, cache: StatCache) -> None:
    wanted = dataset("blob:train/**/*.csv", "blob:one.csv")
    pinned = pin(wanted, stores(origin), str(origin), cache.digest, None)
    (origin / "train" / "new.csv").write_text("new")
    found = locate(wanted, pinned, stores(origin), str(origin), cache.digest)
    assert [name for _path, name in found] == ["a.csv", "b.csv", "deep/c.csv", "deep/er/d.csv", "one.csv"]
    assert all(Path(path).read_text().endswith(name) for path, name in found)


def test_links_are_given_as_what_they_lead_to(origin: Path, cache: StatCache) -> None:
    (origin / "link.csv").symlink_to(origin / "one.csv")
    pinned = pin(dataset("blob:link.csv"), stores(origin), str(origin), cache.digest, None)
    assert locate(dataset("blob:link.csv"), pinned, stores(origin), str(origin), cache.digest) == [
        (str(origin / "one.csv"), "")
    ]


@pytest.mark.parametrize("source", ["blob:train/**", "blob:train", "blob:train/*.csv"])
def test_a_changed_object_is_named_and_never_given(origin: Path, cache: StatCache, source: str) -> None:
    pinned = pin(dataset(source), stores(origin), str(origin), cache.digest, None)
    (origin / "train" / "a.csv").write_text("train/A.csv")
    with pytest.raises(StageError) as caught:
        locate(dataset(source), pinned, stores(origin), str(origin), cache.digest)
    assert caught.value.text == "`a.csv` of dataset `images` is no longer what pipe.lock pins"
    assert caught.value.help is not None and "pipe data update images" in caught.value.help


def test_an_object_that_is_gone_is_named(origin: Path, cache: StatCache) -> None:
    pinned = pin(dataset("blob:train/**"), stores(origin), str(origin), cache.digest, None)
    os.unlink(origin / "train" / "deep" / "c.csv")
    with pytest.raises(StageError, match=r"`deep/c.csv` of dataset `images` is gone"):
        locate(dataset("blob:train/**"), pinned, stores(origin), str(origin), cache.digest)


def test_a_whole_origin_that_is_gone_names_an_object_too(origin: Path, cache: StatCache) -> None:
    pinned = pin(dataset("blob:one.csv"), stores(origin), str(origin), cache.digest, None)
    os.rename(origin, origin.parent / "moved")
    with pytest.raises(StageError, match=r"`one.csv` of dataset `images` is gone"):
        locate(dataset("blob:one.csv"), pinned, stores(origin), str(origin), cache.digest)
