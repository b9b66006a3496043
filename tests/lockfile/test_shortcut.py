"""Remembered tables are a shortcut: whatever a text is, it is read as it would be without them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipesmith.errors import UserError
from pipesmith.lockfile.emitter import render
from pipesmith.lockfile.model import Lockfile
from pipesmith.lockfile.reader import parse
from pipesmith.store.state_db import StateDB

from .test_round_trip import many

TEXT = render(many(40))
LINES = TEXT.splitlines(keepends=True)
PIECES = (
    "\n",
    "[stage.stage-1]\n",
    "[[stage.x]]\n",
    "\n[dataset.d]\n",
    "version = 1\n",
    "version = 2\n",
    "<<<<<<< a\n",
    "=======\n",
    ">>>>>>> b\n",
    "# said\n",
    "x = 1\n",
    '"\n',
    "[stage]\n",
    "[stage.stage-1.params]\n",
    "[stage.new]\nfingerprint = 'f'\n",
    "\r\n",
    "[a]\n[b]\n",
)


EDITS = st.lists(
    st.tuples(
        st.sampled_from(("drop", "double", "insert", "cut", "move")),
        st.integers(0, len(LINES) - 3),
        st.integers(0, len(LINES) - 3),
        st.sampled_from(PIECES),
    ),
    min_size=1,
    max_size=3,
)


def edited(edits: list[tuple[str, int, int, str]]) -> str:
    """Return the lockfile's text with a few lines changed."""
    lines = list(LINES)
    for kind, at, other, piece in edits:
        at, other = at % len(lines), other % len(lines)
        if kind == "drop":
            del lines[at]
        elif kind == "double":
            lines.insert(at, lines[at])
        elif kind == "insert":
            lines.insert(at, piece)
        elif kind == "cut":
            lines[at] = lines[at][: other % (len(lines[at]) + 1)]
        else:
            lines.insert(other, lines.pop(at))
    return "".join(lines)


def outcome(text: str, cache: StateDB | None) -> Lockfile | list[str]:
    try:
        return parse(text, cache=cache)
    except UserError as error:
        return [finding.render() for finding in error.findings()]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> StateDB:
    state = StateDB(str(tmp_path_factory.mktemp("state") / "state.db"))
    parse(TEXT, cache=state)
    return state


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(EDITS)
def test_any_edit_is_read_as_without_the_shortcut(state: StateDB, edits: list[tuple[str, int, int, str]]) -> None:
    text = edited(edits)
    expected = outcome(text, None)
    for _twice in range(2):  # the second time it may be remembered
        same = outcome(text, state) == expected
        assert same


def test_one_changed_table_among_many_is_the_only_one_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tomllib

    path = str(tmp_path / "state.db")
    parse(TEXT, cache=StateDB(path))
    read: list[str] = []
    loads = tomllib.loads

    def counting(text: str) -> dict[str, object]:
        read.append(text)
        return loads(text)

    monkeypatch.setattr(tomllib, "loads", counting)
    changed = TEXT.replace("seed = 7\n", "seed = 70\n", 1)
    assert changed != TEXT
    parse(changed, cache=StateDB(path))
    assert len(read) == 1 and "seed = 70" in read[0]
