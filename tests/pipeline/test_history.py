"""Texts of one pipeline.toml one after another: whatever is read in short is what reading it as a whole gives."""

from __future__ import annotations

import itertools

import pytest

from pipesmith.errors import ConfigError
from pipesmith.pipeline.history import PipelineHistory
from pipesmith.pipeline.reader import read_pipeline

HEAD = """
[pipeline]
params-files = ["more.json"]
"""
TAIL = """
[stage.a]
run = "train {params.lr} {params.note} > {outputs.o}"
params = ["net"]
outputs = { o = "models/{params.name}.txt" }
[stage.b]
run = ["show", "[params]", "{inputs.i}"]
inputs = { i = "stage:a.o" }
env = { DEPTH = "{params.net.depth}" }
"""
PARAMS = '[params]\nlr = 0.1\nname = "m"\nnote = "x"\n[params.net]\ndepth = 3\nwidth = [1, 2]\n'

# what stands in the place of PARAMS, and whether it is read in short
CASES = {
    "nothing": (PARAMS, True),
    "a value": (PARAMS.replace("0.1", "0.2"), True),
    "a text": (PARAMS.replace('"x"', '"y"'), True),
    "a text that no command can hold": (PARAMS.replace('"x"', r'"\u0000"'), False),
    "a list": (PARAMS.replace("[1, 2]", "[1, 3]"), True),
    "a comment": (PARAMS.replace("[params]", "[params]  # of the model"), True),
    "a value that is an output's path": (PARAMS.replace('"m"', '"n"'), False),
    "a value of the environment": (PARAMS.replace("depth = 3", "depth = 4"), False),
    "another type": (PARAMS.replace("0.1", "1"), False),
    "true for one": (PARAMS.replace("depth = 3", "depth = true"), False),
    "a longer list": (PARAMS.replace("[1, 2]", "[1, 2, 3]"), False),
    "one more": (f"{PARAMS}deeper = 1\n", False),
    "one less": (PARAMS.replace("lr = 0.1\n", ""), False),
    "a table more": (f"{PARAMS}[stage.c]\nrun = 'true'\n", False),
    "a null of a date": (PARAMS.replace("0.1", "2026-01-01"), False),
    "no TOML": (PARAMS.replace("0.1", ""), False),
    "twice": (PARAMS + PARAMS, False),
    "a list that begins a line": (PARAMS.replace("[1, 2]", "[\n[1],\n]"), False),
}


def told(text: str, files: dict[str, bytes]) -> object:
    try:
        return read_pipeline(text, files=files.get, default_name="p", file="f")
    except ConfigError as error:
        return [finding.render() for finding in error.findings()]


@pytest.mark.parametrize(("before", "name"), list(itertools.product(["nothing", "a value", "a longer list"], CASES)))
def test_what_is_read_in_short_is_what_is_read_as_a_whole(before: str, name: str) -> None:
    files = {"more.json": b'{"seed": 1}'}
    history = PipelineHistory()
    first = HEAD + CASES[before][0] + TAIL
    history.take(first, files, read_pipeline(first, files=files.get, default_name="p"))
    text = HEAD + CASES[name][0] + TAIL
    found = history.read(text, files.get, "f")
    if before != "a longer list":
        assert (found is not None) is CASES[name][1]
    if found is not None:
        assert found == told(text, files)


@pytest.mark.parametrize("data", [b'{"seed": 2}', b'{"seed": "2"}', b"{", b'{"seed": 1, "lr": 0.5}', None])
def test_a_params_file_changes(data: bytes | None) -> None:
    files = {"more.json": b'{"seed": 1}'}
    history = PipelineHistory()
    text = HEAD + PARAMS + TAIL
    history.take(text, files, read_pipeline(text, files=files.get, default_name="p"))
    later = {"more.json": data} if data is not None else {}
    found = history.read(text, later.get, "f")
    assert (found is not None) is (data in (b'{"seed": 2}', b'{"seed": 1, "lr": 0.5}'))
    if found is not None:
        assert found == told(text, later)


def test_params_inside_of_a_text_are_none() -> None:
    """What looks like the table of params may be a part of a longer text."""
    first = "[stage.a]\nrun = '''\n[params]\nx = 1\n'''\n"
    history = PipelineHistory()
    history.take(first, {}, read_pipeline(first, files=lambda _path: None, default_name="p"))
    second = first.replace("x = 1", "x = 2")
    assert history.read(second, lambda _path: None, "f") is None
