"""Two lockfiles into one: what agrees is kept, what disagrees is dropped, and so runs again."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipesmith.errors import UserError
from pipesmith.lockfile import io
from pipesmith.lockfile.emitter import render
from pipesmith.lockfile.merge import merge, resolve_markers
from pipesmith.lockfile.model import EnvironmentPin, Lockfile, StageLock


def locked(**fingerprints: str) -> Lockfile:
    """A lockfile with these stages; a name that begins with `env_` is an environment."""
    stages = {name: text for name, text in fingerprints.items() if not name.startswith("env_")}
    pins = {name[4:]: text for name, text in fingerprints.items() if name.startswith("env_")}
    return Lockfile(
        stages={name: StageLock(fingerprint=text, run=f"run {text}") for name, text in stages.items()},
        environments={name: EnvironmentPin(definition=text, python="3.11") for name, text in pins.items()},
    )


Row = dict[str, str]

# base, ours, theirs -> merged, dropped
ROWS = [
    ({"a": "1"}, {"a": "1"}, {"a": "1"}, {"a": "1"}, ()),
    ({"a": "1"}, {"a": "2"}, {"a": "1"}, {"a": "2"}, ()),
    ({"a": "1"}, {"a": "1"}, {"a": "2"}, {"a": "2"}, ()),
    ({"a": "1"}, {"a": "2"}, {"a": "2"}, {"a": "2"}, ()),
    ({"a": "1"}, {"a": "2"}, {"a": "3"}, {}, ("a",)),
    ({}, {"a": "2"}, {"a": "3"}, {}, ("a",)),
    ({}, {"a": "2"}, {"b": "3"}, {"a": "2", "b": "3"}, ()),
    ({"a": "1"}, {}, {"a": "1"}, {}, ()),
    ({"a": "1"}, {"a": "1"}, {}, {}, ()),
    ({"a": "1"}, {}, {"a": "2"}, {}, ("a",)),
    ({"a": "1"}, {"a": "2"}, {}, {}, ("a",)),
    ({"a": "1", "b": "1"}, {"a": "2", "b": "1"}, {"a": "1", "b": "2"}, {"a": "2", "b": "2"}, ()),
]


@pytest.mark.parametrize(("base", "ours", "theirs", "merged", "dropped"), ROWS)
def test_three_way(base: Row, ours: Row, theirs: Row, merged: Row, dropped: tuple[str, ...]) -> None:
    result = merge(locked(**ours), locked(**theirs), locked(**base))
    assert result.lockfile == locked(**merged)
    assert result.dropped == dropped


@pytest.mark.parametrize(("base", "ours", "theirs", "merged", "dropped"), ROWS)
def test_the_sides_may_be_exchanged(
    base: dict, ours: dict, theirs: dict, merged: dict, dropped: tuple[str, ...]
) -> None:  # type: ignore[type-arg]
    result = merge(locked(**theirs), locked(**ours), locked(**base))
    assert result.lockfile == locked(**merged)


def test_without_a_base_what_differs_is_dropped_and_what_one_side_has_is_taken() -> None:
    result = merge(locked(a="1", b="1", c="1"), locked(a="2", b="1", d="1"))
    assert result.lockfile == locked(b="1", c="1", d="1")
    assert result.dropped == ("a",)


def test_pins_that_disagree_are_ours_and_said() -> None:
    result = merge(locked(env_p="2", env_q="1"), locked(env_p="3", env_q="1"), locked(env_p="1", env_q="1"))
    assert result.lockfile == locked(env_p="2", env_q="1")
    assert result.pins == ("environment.p",)


def test_a_pin_that_one_side_changed_is_that_sides() -> None:
    result = merge(locked(env_p="1"), locked(env_p="3"), locked(env_p="1"))
    assert result.lockfile == locked(env_p="3")
    assert result.pins == ()


@pytest.mark.parametrize("style", ["merge", "diff3"])
def test_markers_of_a_real_merge(workspace, style: str) -> None:  # type: ignore[no-untyped-def]
    path = workspace.path / "pipe.lock"

    def commit(lockfile: Lockfile) -> None:
        io.write(str(path), lockfile)
        workspace.commit("lock")

    commit(locked(a="1", b="1", c="1"))
    workspace.git("checkout", "-q", "-b", "other")
    commit(locked(a="3", b="1", c="3", e="1"))
    workspace.git("checkout", "-q", "main")
    commit(locked(a="2", b="2", c="1", d="1"))
    workspace.git("-c", f"merge.conflictStyle={style}", "merge", "-q", "other", check=False)
    text = Path(path).read_text()
    assert "<<<<<<<" in text
    result = resolve_markers(text)
    assert "a" in result.dropped
    assert "a" not in result.lockfile.stages
    assert result.lockfile.stages["c"] == locked(c="3").stages["c"]
    for name, entry in result.lockfile.stages.items():
        assert entry in (locked(**{name: v}).stages[name] for v in "123"), "no mixture of two sides' entries"


def test_a_side_that_is_no_lockfile_is_an_error() -> None:
    text = render(locked(a="1")) + "<<<<<<< x\n[stage.b\n=======\n[stage.c]\n>>>>>>> y\n"
    with pytest.raises(UserError):
        resolve_markers(text)
