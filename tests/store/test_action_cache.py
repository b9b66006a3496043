"""Known results: recorded whole, found newest first; what is damaged or of another version is a miss."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pipesmith.digest import Digest
from pipesmith.errors import EnvironmentFailure
from pipesmith.lockfile.model import LockedOut
from pipesmith.store.action_cache import ActionCache, ActionResult, _render

KEY = "ab" * 32
GOLDEN = Path(__file__).parent.parent / "golden" / "action-record"


def out(hex: str, name: str = "o") -> LockedOut:
    return LockedOut(name=name, path=f"out/{name} \udce9", digest=Digest("blake3", hex, 5))


def result(hex: str = "cd" * 32, created: float = 1.0, key: str = KEY) -> ActionResult:
    folder = LockedOut(name="d", path="d", digest=Digest("blake3", "ef" * 32 + ".dir", 9, 2), cache=False)
    return ActionResult(
        key=key,
        stage="train@0.1",
        workspace="sub",
        outs=(out(hex), folder),
        metrics={"o:auc": 0.5, "o:inf": float("inf")},
        items=(("run", "", "python x"), ("source", "src \udce9", "1" * 40)),
        seconds=1.5,
        peak_bytes=100,
        created=created,
        run="r1",
        user="ada",
        host="box",
        commit="2" * 40,
        branch="main",
    )


def test_what_is_recorded_is_found(tmp_path: Path) -> None:
    actions = ActionCache(str(tmp_path / "actions"))
    actions.record(result())
    assert actions.lookup(KEY) == [result()]
    assert actions.lookup("00" * 32) == []
    assert [found for _path, found in actions] == [result()]
    assert result().origin == "run r1 by ada@box at 2222222222"


def test_newest_first_and_the_same_result_once(tmp_path: Path) -> None:
    actions = ActionCache(str(tmp_path / "actions"))
    actions.record(result("11" * 32, created=1.0))
    actions.record(result("22" * 32, created=2.0))
    assert [found.created for found in actions.lookup(KEY)] == [2.0, 1.0]
    actions.record(result("11" * 32, created=3.0))
    assert [found.created for found in actions.lookup(KEY)] == [3.0, 2.0]


def test_the_disk_has_the_documented_layout(tmp_path: Path) -> None:
    actions = ActionCache(str(tmp_path / "actions"))
    actions.record(result())
    (name,) = os.listdir(tmp_path / "actions" / "ab" / KEY)
    assert name.endswith(".json")
    data = (tmp_path / "actions" / "ab" / KEY / name).read_bytes()
    assert (GOLDEN / "v1.json").read_bytes() == data


def test_every_flipped_byte_and_every_cut_makes_a_miss(tmp_path: Path) -> None:
    actions = ActionCache(str(tmp_path / "actions"))
    actions.record(result())
    ((path, _found),) = list(actions)
    data = Path(path).read_bytes()
    for at in range(0, len(data), 7):
        Path(path).write_bytes(data[:at] + bytes((data[at] ^ 4,)) + data[at + 1 :])
        assert actions.lookup(KEY) == [], at
        Path(path).write_bytes(data[:at])
        assert actions.lookup(KEY) == [], at
    Path(path).write_bytes(data)
    assert actions.lookup(KEY) == [result()]


@pytest.mark.parametrize("body", ["[]", "{}", "null", '{"checksum":1}', '{"version":1,"checksum":"x"}', "", "\u00ff"])
def test_what_is_no_record_is_a_miss(tmp_path: Path, body: str) -> None:
    folder = tmp_path / "actions" / "ab" / KEY
    folder.mkdir(parents=True)
    (folder / "x.json").write_text(body)
    assert ActionCache(str(tmp_path / "actions")).lookup(KEY) == []


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"version": "1"},
        {"outs": [1]},
        {"outs": None},
        {"items": [["run"]]},
        {"outs": [{"name": "o"}]},
    ],
)
def test_a_later_version_and_what_is_no_result_are_misses_though_the_checksum_is_right(
    tmp_path: Path, change: dict[str, object]
) -> None:
    actions = ActionCache(str(tmp_path / "actions"))
    actions.record(result())
    ((path, _found),) = list(actions)
    Path(path).write_bytes(_render({**result().as_json(), **change}))
    assert actions.lookup(KEY) == []


def test_a_record_in_the_wrong_folder_is_a_miss(tmp_path: Path) -> None:
    actions = ActionCache(str(tmp_path / "actions"))
    actions.record(result())
    os.rename(tmp_path / "actions/ab" / KEY, tmp_path / "actions/ab" / ("ab" + "00" * 31))
    assert actions.lookup("ab" + "00" * 31) == []


def test_strangers_in_the_folder_do_no_harm(tmp_path: Path) -> None:
    actions = ActionCache(str(tmp_path / "actions"))
    actions.record(result())
    folder = tmp_path / "actions" / "ab" / KEY
    (folder / "folder.json").mkdir()
    (folder / "link.json").symlink_to("nowhere")
    (tmp_path / "actions" / "file").write_text("x")
    assert actions.lookup(KEY) == [result()]
    assert len(list(actions)) == 1


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    actions = ActionCache(str(tmp_path / "actions"))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(EnvironmentFailure, match="no space left on the disk of"):
        actions.record(result())
    assert os.listdir(tmp_path / "actions/ab" / KEY) == []


def test_json_of_it_says_it_all() -> None:
    assert ActionResult.from_json(result().as_json()) == result()
    assert ActionResult.from_json(replace(result(), outs=(), commit=None).as_json()).outs == ()
