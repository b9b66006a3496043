"""Cells of a matrix: what they are, and what they are called."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipesmith.pipeline.matrix import cell_name, cells
from pipesmith.pipeline.model import Pipeline

NAMES = [
    ({"lr": 0.01, "depth": 3}, "0.01-3"),
    ({"x": True, "y": -1}, "true--1"),
    ({"x": "a/b"}, "a%2Fb"),
    ({"x": "50%"}, "50%25"),
    ({"x": "a b~c@d"}, "a%20b%7Ec%40d"),
    ({"x": "é"}, "%C3%A9"),
    ({"x": "A_b.c+d-e"}, "A_b.c+d-e"),
    ({"x": [1, "a"]}, "%5B1%2C%22a%22%5D"),
    ({"x": 1e-05}, "1e-05"),
]


@pytest.mark.parametrize(("cell", "name"), NAMES)
def test_names(cell: dict[str, Any], name: str) -> None:
    assert cell_name(cell) == name


def test_dates_have_no_spaces_in_names(read: Callable[..., Pipeline]) -> None:
    stages = read('[stage.a]\nrun = "echo {matrix.d}"\nmatrix = { d = [2026-01-01, 2026-01-01 10:00:00] }\n').stages
    assert list(stages) == ["a@2026-01-01", "a@2026-01-01T10%3A00%3A00"]
    assert stages["a@2026-01-01T10%3A00%3A00"].run == "echo 2026-01-01T10:00:00"


@given(st.dictionaries(st.sampled_from("abc"), st.text(max_size=5), min_size=1))
def test_a_name_can_stand_in_a_path(cell: dict[str, str]) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_.+%-]*", cell_name(cell))
    assert unquote(cell_name(cell)) == "-".join(cell.values())


INCLUDE_AND_EXCLUDE = {
    "include joins cells that it does not overwrite": (
        {"fruit": ["apple", "pear"], "animal": ["cat", "dog"], "include": [{"color": "green"}]},
        [
            {"fruit": "apple", "animal": "cat", "color": "green"},
            {"fruit": "apple", "animal": "dog", "color": "green"},
            {"fruit": "pear", "animal": "cat", "color": "green"},
            {"fruit": "pear", "animal": "dog", "color": "green"},
        ],
    ),
    "the example of GitHub's documentation": (
        {
            "fruit": ["apple", "pear"],
            "animal": ["cat", "dog"],
            "include": [
                {"color": "green"},
                {"color": "pink", "animal": "cat"},
                {"fruit": "apple", "shape": "circle"},
                {"fruit": "banana"},
                {"fruit": "banana", "animal": "cat"},
            ],
        },
        [
            {"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"},
            {"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"},
            {"fruit": "pear", "animal": "cat", "color": "pink"},
            {"fruit": "pear", "animal": "dog", "color": "green"},
            {"fruit": "banana"},
            {"fruit": "banana", "animal": "cat"},
        ],
    ),
    "include alone": ({"include": [{"x": 1}, {"x": 2, "y": 3}]}, [{"x": 1}, {"x": 2, "y": 3}]),
    "exclude by some of the keys": (
        {"x": [1, 2], "y": [3, 4], "exclude": [{"x": 1}, {"x": 2, "y": 4}]},
        [{"x": 2, "y": 3}],
    ),
    "exclude comes before include": ({"x": [1, 2], "exclude": [{"x": 1}], "include": [{"x": 1}]}, [{"x": 2}, {"x": 1}]),
    "true is not 1": ({"x": [1, True], "exclude": [{"x": True}]}, [{"x": 1}]),
    "1.0 is 1": ({"x": [1, 2], "exclude": [{"x": 1.0}]}, [{"x": 2}]),
}


@pytest.mark.parametrize("name", INCLUDE_AND_EXCLUDE)
def test_include_and_exclude(name: str) -> None:
    matrix, expected = INCLUDE_AND_EXCLUDE[name]
    assert cells(matrix) == expected


axes = st.dictionaries(
    st.sampled_from("abc"), st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True), min_size=1
)


@given(axes, st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 2), min_size=1), max_size=3))
def test_cells_are_the_product_without_the_excluded(axes: dict[str, list[int]], exclude: list[dict[str, int]]) -> None:
    everything = [dict(zip(axes, choice, strict=True)) for choice in product(*axes.values())]
    left = [cell for cell in everything if not any(entry.items() <= cell.items() for entry in exclude)]
    assert cells({**axes, "exclude": exclude}) == left


@given(axes, st.lists(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3), min_size=1), max_size=3))
def test_include_never_changes_an_original_value(axes: dict[str, list[int]], include: list[dict[str, int]]) -> None:
    plain = cells(axes)
    found = cells({**axes, "include": include})
    assert [{key: cell[key] for key in axes} for cell in found[: len(plain)]] == plain
    for entry in include:
        assert any(entry.keys() <= cell.keys() for cell in found)
