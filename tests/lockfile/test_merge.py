"""Two lockfiles into one: what agrees is kept, what disagrees is dropped, and so runs again."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipesmith.digest import Digest
from pipesmith.errors import UserError
from pipesmith.lockfile import io
from pipesmith.lockfile.emitter import render
from pipesmith.lockfile.markers import first_marker, versions
from pipesmith.lockfile.merge import merge, merge_texts, resolve_markers
from pipesmith.lockfile.model import Accepted, EnvironmentPin, LockedDep, Lockfile, StageLock

from .test_round_trip import many


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


# -- what is left out of the comparison, and what is not ----------------------------------------------------------


def entry(fingerprint: str = "1", **fields: Any) -> Lockfile:
    return Lockfile(stages={"a": StageLock(fingerprint=fingerprint, run="x", **fields)})


def dep(git: str | None, hex: str = "00") -> dict[str, Any]:
    return {"deps": (LockedDep(name="i", path="p", digest=Digest("blake3", hex, 1), git=git),)}


def accepted(word: str) -> dict[str, Any]:
    return {"accepted": Accepted(fingerprint=word, reason="r", by="b")}


NAN = {"metrics": {"o:x": float("nan")}}
NOTHING = Lockfile()

# base, ours, theirs -> merged, stages dropped, stages of which nothing is accepted any more
FIELDS = [
    # a number that is none is not equal to itself
    (
        entry(metrics={"o:x": float("nan")}),
        entry(metrics={"o:x": float("nan")}),
        entry("2", **NAN),
        entry("2", **NAN),
        0,
        0,
    ),
    # git's ids: known where git held the input when it was built
    (NOTHING, entry(**dep(None)), entry(**dep("g")), entry(**dep("g")), 0, 0),
    (NOTHING, entry(**dep("g")), entry(**dep(None)), entry(**dep("g")), 0, 0),
    (entry(**dep(None)), entry(**dep("g")), entry("2", **dep("h", "01")), entry("2", **dep("h", "01")), 0, 0),
    (entry("1"), entry("2", **dep("g")), entry("2", **dep("h", "01")), NOTHING, 1, 0),
    # what is accepted
    (entry(), entry(**accepted("7")), entry(), entry(**accepted("7")), 0, 0),
    (entry(), entry(), entry(**accepted("7")), entry(**accepted("7")), 0, 0),
    (entry(), entry(**accepted("7")), entry(**accepted("8")), entry(), 0, 1),
    (entry(**accepted("6")), entry(**accepted("7")), entry(), entry(), 0, 1),
    (entry(**accepted("6")), entry(**accepted("6")), entry(), entry(), 0, 0),
    (entry("0"), entry("1", **accepted("7")), entry("1"), entry("1", **accepted("7")), 0, 0),
    (entry("0", **accepted("7")), entry("1"), entry("1", **accepted("7")), entry("1", **accepted("7")), 0, 0),
    (entry(), entry("2"), entry(**accepted("7")), NOTHING, 1, 0),
]


@pytest.mark.parametrize(("base", "ours", "theirs", "merged", "dropped", "unaccepted"), FIELDS)
def test_fields(
    base: Lockfile, ours: Lockfile, theirs: Lockfile, merged: Lockfile, dropped: int, unaccepted: int
) -> None:
    result = merge(ours, theirs, base)
    assert render(result.lockfile) == render(merged)
    assert (len(result.dropped), len(result.accepted)) == (dropped, unaccepted)


# -- laws ---------------------------------------------------------------------------------------------------------


POOL = [
    each.stages["a"]
    for each in (
        *(entry(word, **dep(git)) for word in "12" for git in (None, "g")),
        *(entry(word, **accepted(other)) for word in "12" for other in "78"),
        entry(**NAN),
        entry(),
    )
]
PINS = [EnvironmentPin(definition=word, python="3.11") for word in "123"]
NEAR = st.builds(
    Lockfile,
    stages=st.dictionaries(st.sampled_from("abc"), st.sampled_from(POOL)),
    environments=st.dictionaries(st.sampled_from("pq"), st.sampled_from(PINS)),
)


def bare(lockfile: Lockfile) -> str:
    """The text without git's ids of inputs."""
    return re.sub(r', git = "[^"]*"(?= \}|, at|, of)', "", render(lockfile))


@given(NEAR, NEAR)
def test_what_both_sides_did_is_done(one: Lockfile, base: Lockfile) -> None:
    result = merge(one, one, base)
    assert render(result.lockfile) == render(one)
    assert result.dropped == result.pins == result.accepted == ()


@given(NEAR, NEAR)
def test_what_one_side_did_is_done(one: Lockfile, base: Lockfile) -> None:
    assert bare(merge(one, base, base).lockfile) == bare(one)
    assert bare(merge(base, one, base).lockfile) == bare(one)


@given(NEAR, NEAR, NEAR)
def test_every_entry_is_one_side_s_or_dropped(base: Lockfile, ours: Lockfile, theirs: Lockfile) -> None:
    result = merge(ours, theirs, base)
    back = merge(theirs, ours, base)
    assert bare(Lockfile(stages=result.lockfile.stages)) == bare(Lockfile(stages=back.lockfile.stages))
    assert (result.dropped, result.accepted, result.pins) == (back.dropped, back.accepted, back.pins)
    assert not set(result.dropped) & result.lockfile.stages.keys()
    for name in ours.stages.keys() | theirs.stages.keys():
        sides = [bare(Lockfile(stages={name: side.stages[name]})) for side in (ours, theirs) if name in side.stages]
        if name in result.accepted:
            assert len(sides) == 2
        elif name in result.lockfile.stages:
            assert bare(Lockfile(stages={name: result.lockfile.stages[name]})) in sides
        elif name not in result.dropped:
            assert name in base.stages and len(sides) == 1, "one side took it out, the other left it as it was"


# -- markers ------------------------------------------------------------------------------------------------------

LINES = st.lists(
    st.sampled_from(["a\n", "= b\n", "<<<<<< six\n", "======= \u2028\n", "\x0c\n", "======\n"]), max_size=3
).map("".join)
CHUNK = st.tuples(LINES, LINES, LINES)


@given(st.lists(st.one_of(LINES, CHUNK), max_size=6), st.integers(7, 12), st.booleans(), st.booleans(), st.booleans())
def test_versions_of_marked_text(parts: list[Any], size: int, based: bool, crlf: bool, nested: bool) -> None:
    """Whatever lies between the markers, each version is what it was made of."""
    ours = theirs = base = text = ""
    inner = f"{'<' * 9} x\n1\n{'|' * 9} y\n{'=' * 9}\n2\n{'>' * 9} z\n" if nested else ""
    conflicts = 0
    for part in parts:
        if isinstance(part, str):
            ours, theirs, base, text = (each + part for each in (ours, theirs, base, text))
            continue
        conflicts += 1
        mine, old, other = part[0], part[1] + inner, part[2]
        shown = f"{'|' * size} base\n{old}" if based else ""
        text += f"{'<' * size} HEAD\n{mine}{shown}{'=' * size}\n{other}{'>' * size} x y\n"
        ours, base, theirs = ours + mine, base + old, theirs + other
    if crlf:
        ours, theirs, base, text = (each.replace("\n", "\r\n") for each in (ours, theirs, base, text))
    found = versions(text)
    assert (first_marker(text) is not None) == (conflicts > 0)
    assert found is not None
    assert (found.ours, found.theirs) == (ours, theirs)
    assert found.base == (base if based or not conflicts else None)


@pytest.mark.parametrize(
    "text",
    [
        "<<<<<<< a\n",
        "<<<<<<< a\n=======\n",
        "<<<<<<< a\n>>>>>>> b\n",
        "<<<<<<< a\n======== \n>>>>>>> b\n",
        "<<<<<<< a\n=======\n>>>>>>>> b\n",
    ],
)
def test_markers_that_do_not_match(text: str) -> None:
    assert versions(text) is None
    with pytest.raises(UserError, match="don't match"):
        resolve_markers(text)


def test_markers_within_markers() -> None:
    """Committed by mistake, and in conflict again: each side is mended first."""
    inner = f"<<<<<<< x\n{table('b')}=======\n{table('c')}>>>>>>> y\n"
    text = f"{render(locked(a='1'))}<<<<<<< x\n{inner}=======\n{table('d')}>>>>>>> y\n"
    assert resolve_markers(text).lockfile == locked(a="1", b="1", c="1", d="1")


def table(name: str) -> str:
    return render(locked(**{name: "1"})).removeprefix(render(NOTHING))


def test_a_base_that_can_t_be_read_counts_as_none() -> None:
    result = merge_texts(render(locked(a="1", b="1")), render(locked(a="2", b="1")), "nonsense")
    assert result.lockfile == locked(b="1") and result.dropped == ("a",)


def test_long_lockfiles_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables that all versions share are parsed with the first of them; the result is that of reading each whole."""
    base = many(200)
    names = sorted(base.stages)
    ours, theirs = dict(base.stages), dict(base.stages)
    ours[names[3]] = replace(ours[names[3]], fingerprint="ours")
    theirs[names[4]] = replace(theirs[names[4]], fingerprint="theirs")
    del theirs[names[5]]
    sides = [Lockfile(stages=ours), Lockfile(stages=theirs), base]
    parsed: list[str] = []
    loads = tomllib.loads
    monkeypatch.setattr("tomllib.loads", lambda text: parsed.append(text) or loads(text))
    result = merge_texts(*(render(each) for each in sides))
    assert result.lockfile == merge(*sides).lockfile
    assert len(parsed) == 200 + 1 + 1, "all of ours, what theirs has otherwise, and what the base has of ours"
    assert all("\n[" not in text for text in parsed)
