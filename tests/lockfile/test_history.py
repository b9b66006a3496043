"""Law: whatever texts were read before, a text says what reading it alone says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipesmith.digest import Digest
from pipesmith.errors import PipeError
from pipesmith.lockfile.emitter import render
from pipesmith.lockfile.history import LockHistory
from pipesmith.lockfile.model import DatasetPin, EnvironmentPin, LockedDep, Lockfile, StageLock
from pipesmith.lockfile.reader import parse


class Memory:
    """A state database that remembers what it is given."""

    def __init__(self) -> None:
        self.value: bytes | None = None

    def query(self, sql: str, args: Any = ()) -> list[Any]:
        return [(self.value,)] if self.value is not None else []

    def write(self, statements: Any) -> None:
        ((_sql, (_key, self.value)),) = statements


_NAMES = st.sampled_from(["a", "b", "ab", "a.b", "é", "x\udcff", "stage"])
_TEXTS = st.sampled_from(["1", "22", "[stage.a]", "\n\n[stage.a]\n", "x\udcff", "\uf8ff", '"', "fingerprint"])
_STAGES = st.builds(
    lambda text, word, path: StageLock(
        fingerprint="f0",
        run=text,
        env={"WORD": word},
        deps=(LockedDep(name="i", path=path, digest=Digest("blake3", "ab", 1)),),
    ),
    _TEXTS,
    _TEXTS,
    _NAMES,
)
_LOCKS = st.builds(
    lambda stages, environments, datasets: Lockfile(stages=stages, environments=environments, datasets=datasets),
    st.dictionaries(_NAMES, _STAGES, max_size=5),
    st.dictionaries(_NAMES, st.builds(EnvironmentPin, definition=st.just("d"), python=_TEXTS), max_size=2),
    st.dictionaries(
        _NAMES, st.builds(DatasetPin, definition=_TEXTS, digest=st.just(Digest("md5", "cd", 2))), max_size=2
    ),
)
_SPOILT = st.sampled_from(
    [
        lambda text: text,
        lambda text: text,
        lambda text: text,
        lambda text: text.rstrip("\n"),
        lambda text: text + "\n",
        lambda text: text.replace("\n\n[", "\n\n\n["),
        lambda text: text + "\n[stage.a]\nfingerprint = 1\n",
        lambda text: text + "<<<<<<< ours\n",
        lambda text: text.replace("version = 1", "version = 2"),
        lambda text: text.replace("version = 1", "# by hand\nversion = 1"),
        lambda text: text.replace('fingerprint = "f0"', "", 1),
        lambda text: text.replace('run = "1"', 'run = """\n\n[stage.b]\n"""'),
        lambda text: text[: len(text) // 2],
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(_LOCKS, _SPOILT), min_size=1, max_size=6))
def test_a_history_says_what_each_text_says(steps: list[Any]) -> None:
    memory = Memory()
    history = LockHistory(memory)
    for lock, spoil in steps:
        text = spoil(render(lock))
        try:
            alone: Lockfile | None = parse(text)
        except PipeError as error:
            with pytest.raises(type(error)) as caught:
                history.parse(text)
            assert str(caught.value) == str(error)
        else:
            assert history.parse(text) == alone
    history.flush()


def test_tables_that_did_not_change_are_the_same_objects() -> None:
    first = Lockfile(stages={f"s{n}": StageLock(fingerprint="f", run=f"{n}") for n in range(60)})
    second = Lockfile(stages={**first.stages, "s7": StageLock(fingerprint="g", run="7")})
    history = LockHistory(Memory())
    old, new = history.parse(render(first)), history.parse(render(second))
    assert new == second
    assert [name for name in new.stages if new.stages[name] is not old.stages[name]] == ["s7"]


def test_tables_are_remembered_for_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = Lockfile(stages={f"s{n}": StageLock(fingerprint="f", run=f"{n}") for n in range(60)})
    memory = Memory()
    history = LockHistory(memory)
    history.parse(render(lock))
    history.flush()
    monkeypatch.setattr("tomllib.loads", lambda text: pytest.fail("parsed again"))
    assert LockHistory(memory).parse(render(lock)) == lock
