"""Params: where they come from, and which wins."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipesmith.pipeline.model import Pipeline
from pipesmith.pipeline.params import ParamError, dotted_keys, lookup, merge, override, variable_key
from pipesmith.pipeline.params_files import parse_params_file

DEFAULTS = """
[params]
seed = 7
lr = 0.1
deep = false
name = "x"
layers = [1, 2]
since = 2026-01-01
train = { lr = 0.01, epochs = 5, batch-size = 32 }
"""


def test_who_wins(read: Callable[..., Pipeline]) -> None:
    """`--set` over the variable, the variable over files, a later file over an earlier one, files over the defaults."""
    text = f'[pipeline]\nparams-files = ["a.yaml", "b.json", "c.toml"]\n{DEFAULTS}'
    files = {
        "a.yaml": b"train:\n  lr: 1\n  epochs: 1\nextra: {deep: 1}\n",
        "b.json": b'{"train": {"lr": 2}, "name": "b"}',
        "c.toml": b"[train]\nmomentum = 0.9\n",
    }
    pipeline = read(
        text,
        files=files,
        environ={"PIPE_PARAM_train__epochs": "9", "PIPE_PARAM_seed": "8", "PIPE_CACHE_REMOTE": "x"},
        overrides={"seed": "9"},
    )
    assert pipeline.params == {
        "seed": 9,
        "lr": 0.1,
        "deep": False,
        "name": "b",
        "layers": [1, 2],
        "since": datetime.date(2026, 1, 1),
        "train": {"lr": 2, "epochs": 9, "batch-size": 32, "momentum": 0.9},
        "extra": {"deep": 1},
    }


TYPED = [
    ("seed", "12", 12),
    ("seed", "-1", -1),
    ("lr", "1", 1.0),
    ("lr", "1e-3", 0.001),
    ("deep", "True", True),
    ("name", "12", "12"),
    ("name", "", ""),
    ("layers", "[3]", [3]),
    ("layers", '["a", "b"]', ["a", "b"]),
    ("since", "2026-02-03", datetime.date(2026, 2, 3)),
    ("train", "{ lr = 1.5 }", {"lr": 1.5}),
    ("train", '{"lr": 1.5}', {"lr": 1.5}),
    ("train.lr", "2", 2.0),
]


@pytest.mark.parametrize(("key", "text", "value"), TYPED)
def test_a_text_becomes_the_type_of_the_default(key: str, text: str, value: Any, read: Callable[..., Pipeline]) -> None:
    found = lookup(read(DEFAULTS, overrides={key: text}).params, key)
    assert found == value
    assert type(found) is type(value)


def test_a_default_of_null_takes_anything() -> None:
    assert override({"x": None}, "x", "[1]") == {"x": [1]}
    assert override({"x": None}, "x", "some words") == {"x": "some words"}


def test_an_override_leaves_what_it_was_given_alone() -> None:
    params = {"a": {"b": 1, "c": 2}}
    assert override(params, "a.b", "3") == {"a": {"b": 3, "c": 2}}
    assert params == {"a": {"b": 1, "c": 2}}


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("PIPE_PARAM_train__lr", "train.lr"),
        ("PIPE_PARAM_train__batch_size", "train.batch-size"),
        ("PIPE_PARAM_a_b", "a_b"),
        ("PIPE_PARAM_c__d", "c__d"),
        ("PIPE_PARAM_new__key", "new.key"),
        ("PIPE_PARAMS", None),
        ("HOME", None),
    ],
)
def test_variables(name: str, key: str | None) -> None:
    assert variable_key(name, {"train": {"lr": 1, "batch-size": 2}, "a_b": 1, "c__d": 2}) == key


tables = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=6
).filter(lambda value: isinstance(value, dict))


@given(tables, tables)
def test_merging_keeps_what_is_not_overwritten(base: dict[str, Any], over: dict[str, Any]) -> None:
    merged = merge(base, over)
    assert merge(merged, over) == merged
    for key in dotted_keys(over):
        if not isinstance(lookup(over, key), dict):
            assert lookup(merged, key) == lookup(over, key)
    for key in base.keys() - over.keys():
        assert merged[key] == base[key]


@given(tables)
def test_every_dotted_key_can_be_looked_up(params: dict[str, Any]) -> None:
    for key in dotted_keys(params):
        lookup(params, key)
    with pytest.raises(KeyError):
        lookup(params, "a.b.c.a.b.c.a.b.c.zzz")


YAML = [
    ("1e-3", 0.001),
    ("1.5E+2", 150.0),
    (".5", 0.5),
    ("1.", 1.0),
    ("-12", -12),
    ("010", 10),
    ("0o10", 8),
    ("0xff", 255),
    ("1_000", "1_000"),
    ("1:30", "1:30"),
    ("yes", "yes"),
    ("off", "off"),
    ("true", True),
    ("False", False),
    ("~", None),
    ("", None),
    ("null", None),
    ("2026-01-02", datetime.date(2026, 1, 2)),
    ("'1'", "1"),
    ("[1, a]", [1, "a"]),
    ("{a: 1}", {"a": 1}),
    (".inf", float("inf")),
]


@pytest.mark.parametrize(("text", "value"), YAML)
def test_yaml_is_read_as_dvc_reads_it(text: str, value: Any) -> None:
    """The scalars of YAML 1.2: no octals by a leading 0, no yes and no, no sixties."""
    found = parse_params_file("p.yaml", f"x: {text}\n".encode())["x"]
    assert found == value
    assert type(found) is type(value)


def test_yaml_anchors_and_merges() -> None:
    text = b"base: &b {lr: 1, epochs: 2}\ntrain:\n  <<: *b\n  lr: 3\n"
    assert parse_params_file("p.yml", text)["train"] == {"lr": 3, "epochs": 2}


@pytest.mark.parametrize("path", ["p.yaml", "p.json", "p.toml"])
def test_an_empty_file_has_no_params(path: str) -> None:
    assert parse_params_file(path, b"{}" if path == "p.json" else b"") == {}


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("p.yaml", b"a: !!python/object/apply:os.system [ls]\n"),
        ("p.yaml", b"a: &a [*a]\n"),
        ("p.yaml", b"a: 1\n---\nb: 2\n"),
        ("p.json", b"[" * 100_000),
        (
            "p.yaml",
            b"x0: &x0 [1, 1]\n"
            + b"".join(b"x%d: &x%d [%s]\n" % (n, n, b", ".join([b"*x%d" % (n - 1)] * 9)) for n in range(1, 10)),
        ),
        ("p.json", b'{"x": ' + b"[" * 200 + b"]" * 200 + b"}"),
        ("p.json", b'{"x": ' + b"9" * 5000 + b"}"),
        ("p.toml", b"x = " + b"9" * 5000),
        ("p.toml", b"x = 0x" + b"f" * 5000),
        ("p.yaml", b"x: " + b"9" * 5000),
        ("p.toml", b"a = " + b"[" * 10_000),
    ],
)
def test_hostile_files_are_refused(path: str, data: bytes) -> None:
    with pytest.raises(ParamError):
        parse_params_file(path, data)
