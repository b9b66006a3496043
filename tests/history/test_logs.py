"""Logs: one file a stage, whatever its name, and following one while it grows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipesmith.history.logs import follow, log_path
from pipesmith.history.timings import last_seconds, remember_seconds
from pipesmith.store.state_db import StateDB


def test_each_stage_has_a_file_of_its_own(tmp_path: Path) -> None:
    """Slashes, dots, percent signs and names beyond what file systems take."""
    names = ["train", "train@0.1-3", "a/b", "a%2Fb", "..", "é", "x" * 300, "x" * 299 + "y", "%" * 250]
    paths = [log_path(str(tmp_path), "run", name) for name in names]
    assert len(set(paths)) == len(names)
    folder = tmp_path / "logs" / "run"
    folder.mkdir(parents=True)
    for path in paths:
        assert os.path.dirname(path) == str(folder)
        Path(f"{path}.jsonl").touch()
    assert paths[0] == str(folder / "train.log")
    assert paths[1] == str(folder / "train@0.1-3.log")
    assert paths[2] == str(folder / "a%2Fb.log")


def test_a_finished_log_is_given_once(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"x" * 200_000)
    assert b"".join(follow(str(log), lambda: True)) == b"x" * 200_000


def test_no_log_is_an_empty_one(tmp_path: Path) -> None:
    assert list(follow(str(tmp_path / "none"), lambda: True)) == []


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Things to do in place of sleeping."""
    todo: list[object] = []

    def sleep(_seconds: float) -> None:
        todo.pop(0)()  # type: ignore[operator]

    monkeypatch.setattr("pipesmith.history.logs.time.sleep", sleep)
    return todo


def test_what_comes_is_followed_to_the_last_byte(tmp_path: Path, steps: list[object]) -> None:
    """A log that is not there yet, that grows, and whose last bytes come just before the end."""
    log = tmp_path / "a.log"
    finished: list[bool] = []

    def end() -> None:
        with log.open("ab") as file:
            file.write(b"last")
        finished.append(True)

    steps += [lambda: log.write_bytes(b"one "), lambda: None, end]
    assert b"".join(follow(str(log), lambda: bool(finished))) == b"one last"
    assert steps == []


def test_a_log_begun_anew_is_read_anew(tmp_path: Path, steps: list[object]) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"first try, long\n")
    finished: list[bool] = []
    steps += [lambda: log.write_bytes(b"second\n"), lambda: finished.append(True)]
    assert b"".join(follow(str(log), lambda: bool(finished))) == b"first try, long\nsecond\n"


def test_how_long_stages_took_last_time(tmp_path: Path) -> None:
    """By name, the newest counts; stages that never ran have none."""
    state = StateDB(str(tmp_path / "state.db"))
    remember_seconds(state, {"a": 1.5, "b": 2.0})
    remember_seconds(state, {"a": 3.5})
    remember_seconds(state, {})
    again = StateDB(str(tmp_path / "state.db"))
    assert last_seconds(again, ["a", "c"]) == {"a": 3.5}
