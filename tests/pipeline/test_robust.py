"""Whatever stands in the file: it is read, or its faults are told; the reader itself never breaks."""

from __future__ import annotations

import contextlib
import copy
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipesmith.errors import ConfigError
from pipesmith.pipeline.keys import TABLES
from pipesmith.pipeline.reader import read_pipeline

SAMPLE = tomllib.loads((Path(__file__).parent / "sample.toml").read_text(encoding="utf-8"))
WORDS = [
    "",
    ".",
    "..",
    "/",
    "a",
    "stage:",
    "stage:prepare.",
    "stage:train@*.model",
    "stage:@*.x",
    "dataset:",
    "dataset:images",
]
WORDS += [
    "{",
    "}}",
    "{}",
    "{matrix.}",
    "{params.train}",
    "{params}",
    "{inputs.clean}",
    "data/clean",
    "blob:",
    ":",
    "git+",
    "0s",
]
WORDS += ["train", "train@0.1-3", "prepare", "a.json", "\x00", "\n", "é", "s3://u:p@h", "a" * 300, *TABLES["stage"]]

words = st.one_of(st.sampled_from(WORDS), st.text(max_size=4))
values = st.recursive(
    st.one_of(words, st.integers(-3, 3), st.floats(), st.booleans(), st.dates()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)),
    max_leaves=5,
)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every container of a document with each of its keys."""
    entries = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    return [(value, key) for key, _ in entries] + [place for _, entry in entries for place in _places(entry)]


@settings(max_examples=400)
@given(st.data())
def test_a_changed_document(data: st.DataObject) -> None:
    """Values of a good file replaced, dropped and added anywhere."""
    document = copy.deepcopy(SAMPLE)
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(_places(document)))
        what = data.draw(st.sampled_from(["replace", "drop", "add"]))
        if what == "drop":
            del container[key]
        elif what == "replace" or isinstance(container, list):
            container[key] = data.draw(values)
        else:
            container[data.draw(words)] = data.draw(values)
        if not _places(document):
            break
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(ConfigError):
        patch.setattr("pipesmith.pipeline.reader.tomllib.loads", lambda text: document)
        read_pipeline("", files={"params.yaml": b"x: 1\n"}.get, default_name="x", kinds=lambda: ("plugin",))


@given(st.text(), st.dictionaries(words, words, max_size=3), st.dictionaries(words, words, max_size=3))
def test_any_text_and_any_override(text: str, overrides: dict[str, str], environ: dict[str, str]) -> None:
    named = {f"PIPE_PARAM_{name}": value for name, value in environ.items()}
    for content in (text, "[params]\na = 1\nb = { c = [1] }\n"):
        with contextlib.suppress(ConfigError):
            read_pipeline(content, files=lambda path: None, default_name="x", overrides=overrides, environ=named)


@given(
    st.sampled_from(["p.yaml", "p.json", "p.toml"]),
    st.one_of(st.binary(max_size=40), st.text(max_size=40).map(str.encode)),
)
def test_any_params_file(path: str, data: bytes) -> None:
    with contextlib.suppress(ConfigError):
        read_pipeline(f'[pipeline]\nparams-files = ["{path}"]\n', files=lambda asked: data, default_name="x")
