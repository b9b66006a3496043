"""The position scan finds exactly the keys that tomllib finds, each where it stands."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipesmith.pipeline.model import Pipeline
from pipesmith.pipeline.positions import Path as KeyPath
from pipesmith.pipeline.positions import positions

NASTY = (Path(__file__).parent / "nasty.toml").read_text(encoding="utf-8")


def flattened(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """All key paths of a parsed text: keys of tables, indexes of lists."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield (*path, key)
        yield from flattened(entry, (*path, key))


def test_all_that_toml_can_do() -> None:
    assert set(positions(NASTY)) == set(flattened(tomllib.loads(NASTY)))


def test_line_ends_of_windows() -> None:
    text = NASTY.replace("\n", "\r\n")
    assert set(positions(text)) == set(flattened(tomllib.loads(text)))


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("a",), "a = 1"),
        (("b c",), '"b c" = """'),
        (("f", "g", "h.i"), 'f.g."h.i" = [ # a comment with ] in it'),
        (("f", "g", "h.i", 2, "y", "z", 0, "w"), '  1, [2, 3], { x = 1, y.z = [ { w = "]}," } ] },'),
        (("t", "u"), '[ t . u . "v.w" ]'),
        (("many", 1), "[[many]]"),
        (("many", 1, "inner", 1, "z"), "z = 2"),
        (("late",), "[late.super.table]"),
        (("late", "y"), "y = 1"),
    ],
)
def test_lines(path: KeyPath, line: str) -> None:
    offset = positions(NASTY)[path]
    assert NASTY[:offset].rpartition("\n")[2] + NASTY[offset:].partition("\n")[0] == line


# -- any document ------------------------------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8", exclude_characters="\r", exclude_categories=("Cs",)), max_size=6)
keys = st.one_of(st.from_regex(r"[A-Za-z0-9_-]{1,4}", fullmatch=True), texts)
numbers = st.one_of(st.integers(-99, 99), st.floats(allow_nan=False, allow_infinity=False))
scalars = st.one_of(texts, numbers, st.booleans(), st.dates())
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=8,
)
documents = st.dictionaries(keys, values, max_size=5)


class Writer:
    """Writes a document as TOML, choosing among the ways of writing each thing."""

    def __init__(self, choose: Callable[[int], int]) -> None:
        self.choose = choose

    def key(self, key: str) -> str:
        if key and key.isascii() and key.replace("-", "a").replace("_", "a").isalnum() and self.choose(2):
            return key
        if "'" not in key and key.isprintable() and self.choose(2):
            return f"'{key}'"
        return self.basic(key)

    def basic(self, text: str) -> str:
        escaped = "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text)
        return f'"{escaped}"'

    def scalar(self, value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if not isinstance(value, str):
            return str(value)
        if value.isprintable() and "'" not in value and self.choose(2):
            return f"'''{value}'''" if self.choose(2) else f"'{value}'"
        if self.choose(2):
            return f'""{self.basic(value)}""'
        return self.basic(value)

    def value(self, value: Any) -> str:
        if isinstance(value, list):
            gap = ("", " ", ' # a ], } or " here\n', "\n")[self.choose(4)]
            comma = "," if value and self.choose(2) else ""
            return f"[{gap}{f',{gap}'.join(self.value(entry) + gap for entry in value)}{comma}{gap}]"
        if isinstance(value, dict):
            return "{ " + ", ".join(f"{self.key(key)} = {self.value(entry)}" for key, entry in value.items()) + " }"
        return self.scalar(value)

    def body(self, table: dict[str, Any], path: tuple[str, ...]) -> str:
        """A table: first what is written inside it, then tables of their own."""
        lines, after = [], []
        for key, entry in table.items():
            whole = isinstance(entry, list) and entry and all(isinstance(part, dict) for part in entry)
            header = ".".join((*path, self.key(key)))
            if isinstance(entry, dict) and self.choose(2):
                after.append(f"[{header}]\n" + self.body(entry, (*path, self.key(key))))
            elif whole and self.choose(2):
                after += [f"[[ {header} ]]\n" + self.body(part, (*path, self.key(key))) for part in entry]
            elif isinstance(entry, dict) and len(entry) == 1 and self.choose(2):
                ((inner, deep),) = entry.items()
                lines.append(f"{self.key(key)} . {self.key(inner)} = {self.value(deep)}")
            else:
                lines.append(f"{self.key(key)}={self.value(entry)} # [x]")
        return "\n".join([*lines, *after]) + "\n"


@given(documents, st.data())
def test_paths_are_those_of_tomllib(document: dict[str, Any], data: st.DataObject) -> None:
    text = Writer(lambda ways: data.draw(st.integers(0, ways - 1))).body(document, ())
    parsed = tomllib.loads(text)
    found = positions(text)
    assert set(found) == set(flattened(parsed)), text
    for path, offset in found.items():
        if isinstance(path[-1], str):
            here = text[offset:].lstrip("[ ")
            assert here[0] in "\"'" or text[offset] == "[" or here.startswith(tuple(map(str, path[-2:])))


def test_the_line_of_a_key_that_is_not_there(read: Callable[..., Pipeline]) -> None:
    """What is asked for a key without a line is told the line of the nearest one above it."""
    from pipesmith.pipeline.reader import line_of

    text = '[stage.a]\nrun = "true"\n[stage.b]\nrun = "true"\ninputs = { x = "x" }\n'
    assert line_of(text, "stage.b.inputs.x") == 5
    assert line_of(text, "stage.b.outputs.y") == 3
    assert line_of(text, "cache.remote") is None
