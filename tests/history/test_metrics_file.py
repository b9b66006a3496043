"""Metrics files: which numbers are found, under which names, and what is said of bad content."""

from __future__ import annotations

import json
import math
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipesmith.errors import StageError
from pipesmith.history.metrics_file import read_metrics

SAME = {"auc": 0.9, "loss.train": 0.25, "loss.per_class.0": 1.0, "loss.per_class.1": 2.0, "epochs": 3.0}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("m.json", '{"auc": 0.9, "loss": {"train": 0.25, "per_class": [1, 2]}, "epochs": 3, "name": "x", "ok": true}'),
        (
            "m.yaml",
            "auc: 0.9\nloss:\n  train: 2.5e-1\n  per_class: [1, 2]\nepochs: 3\nname: x\nok: true\nday: 2026-01-31\n",
        ),
        ("m.YML", "{auc: 9e-1, loss: {train: .25, per_class: [1, 2]}, epochs: 3, none: null}"),
        (
            "m.toml",
            "auc = 9e-1\nepochs = 3\nn = ''\nok = true\nday = 2026-01-31\n[loss]\ntrain = 0.25\nper_class = [1, 2]\n",
        ),
    ],
)
def test_numbers_by_dotted_name(path: str, text: str) -> None:
    """Texts, truth values, dates and nulls are no numbers; the format makes no difference."""
    assert read_metrics(text.encode(), path) == SAME
    assert read_metrics(b"\xef\xbb\xbf" + text.encode(), f"some.folder/{path}") == SAME


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("step,loss\n1,0.5\n", {"step": 1.0, "loss": 0.5}),
        ("step,loss\n1,0.5\n2,0.25\n\n", {"step": 2.0, "loss": 0.25}),
        ("step, loss ,name\r\n1, 5e-1 ,best\r\n", {"step": 1.0, "loss": 0.5}),
        ('"a,b",c\n"1","2"\n', {"a,b": 1.0, "c": 2.0}),
        ("a,b\n1\n", {"a": 1.0}),
        ("a\n1,2,3\n", {"a": 1.0}),
        ("a,b\n1_000,True\n", {}),
        ("a,b\n", {}),
        ("", {}),
    ],
)
def test_of_a_csv_the_last_row_counts(text: str, found: dict[str, float]) -> None:
    """Short rows lack numbers, long ones have none without a name; what only Python takes for a number is none."""
    assert read_metrics(text.encode(), "m.csv") == found


def test_tsv() -> None:
    assert read_metrics(b"a\tb\n1\t2,5\n", "m.tsv") == {"a": 1.0}


def test_a_lone_number_is_value() -> None:
    assert read_metrics(b"0.5", "m.json") == {"value": 0.5}
    assert read_metrics(b"[1, [2]]", "m.json") == {"0": 1.0, "1.0": 2.0}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("m.json", '{"a": NaN, "b": -Infinity}'),
        ("m.yaml", "a: .nan\nb: -.inf\n"),
        ("m.toml", "a = nan\nb = -inf\n"),
        ("m.csv", "a,b\nnan,-inf\n"),
    ],
)
def test_nan_and_infinities_are_numbers(path: str, text: str) -> None:
    """A diverged loss is seen, not lost."""
    found = read_metrics(text.encode(), path)
    assert math.isnan(found["a"])
    assert found["b"] == -math.inf


@pytest.mark.parametrize(
    ("path", "data", "said"),
    [
        ("m.json", b"", "can't be read: Expecting value: line 1 column 1 (char 0)"),
        ("m.json", b'{"a": }', "can't be read: Expecting value: line 1 column 7 (char 6)"),
        ("m.json", b"1" * 400, "can't be read: int too large to convert to float"),
        ("m.json", b"[" * 100_000, "can't be read: maximum recursion depth exceeded"),
        ("m.json", b"[" * 150 + b"]" * 150, "can't be read: more than 100 levels, or 100000 entries"),
        ("m.yaml", b"a: [", "can't be read: expected the node content, but found '<stream end>', line 1, column 5"),
        ("m.yaml", b"a: &x [*x]", "can't be read: more than 100 levels"),
        ("m.yaml", b"a: !!python/object/apply:os.system [id]", "can't be read: could not determine a constructor"),
        ("m.toml", b"a = ", "can't be read: Invalid value (at end of document)"),
        ("m.csv", b"a\n" + b"1" * 200_000, "can't be read: field larger than field limit"),
        ("m.json", b"\xff\xfe", "is not UTF-8"),
        ("m.txt", b"0.5", "is neither .json, .yaml, .toml nor .csv"),
        ("metrics.d/report", b"0.5", "is neither .json, .yaml, .toml nor .csv"),
    ],
)
def test_bad_content_is_told_in_one_line(path: str, data: bytes, said: str) -> None:
    with pytest.raises(StageError) as raised:
        read_metrics(data, path)
    assert raised.value.text.startswith(f"metrics file `{path}` {said}")
    assert "\n" not in raised.value.text


@pytest.mark.parametrize("leaf", ["1", "true"])
def test_a_billion_laughs_end_early(leaf: str) -> None:
    """Aliases that unfold to very many entries are refused, not unfolded."""
    text = f"a: &a [{', '.join([leaf] * 9)}]\n"
    names = "abcdefghi"
    text += "".join(f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in pairwise(names))
    with pytest.raises(StageError, match="100000 entries"):
        read_metrics(text.encode(), "m.yaml")


def test_yaml_without_pyyaml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    monkeypatch.delitem(sys.modules, "pipesmith.pipeline.yaml_reader", raising=False)
    with pytest.raises(StageError, match="needs PyYAML") as raised:
        read_metrics(b"a: 1", "m.yaml")
    assert raised.value.help == "run `pip install 'pipesmith[yaml]'`"


names = st.text("abc", min_size=1, max_size=3)


@given(
    st.dictionaries(names, st.floats(allow_nan=False) | st.dictionaries(names, st.floats(allow_nan=False), min_size=1))
)
def test_every_number_of_a_json_is_found(numbers: dict[str, float | dict[str, float]]) -> None:
    """Exactly these, exactly as they were."""
    expected = {}
    for name, value in numbers.items():
        expected |= {f"{name}.{inner}": n for inner, n in value.items()} if isinstance(value, dict) else {name: value}
    assert read_metrics(json.dumps(numbers).encode(), "m.json") == expected


@given(st.binary(max_size=200), st.sampled_from(["json", "yaml", "toml", "csv", "tsv"]))
def test_any_bytes_give_numbers_or_a_stage_error(data: bytes, ending: str) -> None:
    try:
        found = read_metrics(data, f"m.{ending}")
    except StageError as error:
        assert "\n" not in error.text
    else:
        assert all(isinstance(name, str) and isinstance(number, float) for name, number in found.items())
