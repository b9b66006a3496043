"""docs/formats/pipeline-toml.md has every key as the reader knows it, and its examples can be read."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pipesmith.pipeline.curated import curated
from pipesmith.pipeline.keys import KIND_KEYS, TABLES, TYPES, Key
from pipesmith.pipeline.model import Pipeline

PAGE = (Path(__file__).parents[2] / "docs" / "formats" / "pipeline-toml.md").read_text(encoding="utf-8")


def row(name: str, key: Key) -> str:
    kind = TYPES[key.type][0] if not key.choices else ", ".join(f'`"{choice}"`' for choice in key.choices)
    return f"| `{name}` | {kind} | {key.doc} |"


def rendered(table: str) -> str:
    """Return a table of keys as it has to stand in the page, under the comment `<!-- keys: TABLE -->`."""
    head = "| key | value | what |\n|---|---|---|\n"
    return head + "".join(f"{row(name, key)}\n" for name, key in TABLES[table].items())


@pytest.mark.parametrize("table", TABLES)
def test_every_key_has_its_row(table: str) -> None:
    assert f"<!-- keys: {table} -->\n{rendered(table)}\n" in PAGE


def test_no_other_table_of_keys() -> None:
    assert sorted(re.findall(r"<!-- keys: (\S+) -->", PAGE)) == sorted(TABLES)


def test_keys_of_each_kind_of_compute() -> None:
    for kind, keys in KIND_KEYS.items():
        assert f"- `{kind}`: {', '.join(f'`{key}`' for key in keys)}\n" in PAGE


def test_curated_environments() -> None:
    for name, table in curated().items():
        assert (
            f"- `curated:{name}`: Python {table['python']}, {', '.join(f'`{p}`' for p in table['packages'])}\n" in PAGE
        )


EXAMPLES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_examples_can_be_read(number: int, read: Callable[..., Pipeline]) -> None:
    files = {"params.yaml": b"batch: 32\n", "requirements.txt": b"numpy\n"}
    assert read(EXAMPLES[number], files=files).stages


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 5
