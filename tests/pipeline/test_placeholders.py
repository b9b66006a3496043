"""What stands in braces: what is filled in while the file is read, what when a stage starts, and how it is quoted."""

from __future__ import annotations

import datetime
import shlex
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipesmith.pipeline.model import Pipeline
from pipesmith.pipeline.placeholders import escape, fill_run, relative_to, unescape

PARAMS = {"lr": 0.1, "on": True, "name": "a b", "list": [1, "x y"], "t": {"k": "v"}, "day": datetime.date(2026, 1, 2)}

RUNS: list[tuple[str | tuple[str, ...], str | tuple[str, ...]]] = [
    ("cp {inputs.i} {outputs.o}", "cp 'my in' out/o"),
    ("x {params.lr} {params.on} {params.name}", "x 0.1 true 'a b'"),
    ("x {params.list} {params.day}", "x 1 'x y' 2026-01-02"),
    ("x {params.t} {params.t.k}", 'x \'{"k": "v"}\' v'),
    ("awk '{{print $1}}' {{ }}", "awk '{print $1}' { }"),
    ("x {{{params.lr}}}", "x {0.1}"),
    (("cp", "{inputs.i}", "{outputs.o}"), ("cp", "my in", "out/o")),
    (("x", "{params.list}", "--l={params.list}"), ("x", "1", "x y", "--l=1 x y")),
    (("x", "{{params.lr}}", "--on={params.on}"), ("x", "{params.lr}", "--on=true")),
]


@pytest.mark.parametrize(("run", "filled"), RUNS)
def test_fill_run(run: str | tuple[str, ...], filled: str | tuple[str, ...]) -> None:
    assert fill_run(run, inputs={"i": "my in"}, outputs={"o": "out/o"}, params=PARAMS) == filled


nasty = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12)


@given(nasty, nasty)
def test_a_shell_sees_the_values_and_nothing_else(value: str, literal: str) -> None:
    run = f"printf %s {escape(shlex.quote(literal))} {{params.v}}"
    filled = fill_run(run, inputs={}, outputs={}, params={"v": value})
    assert isinstance(filled, str)
    assert shlex.split(filled) == ["printf", "%s", literal, value]


@given(st.text())
def test_escape_and_unescape(text: str) -> None:
    assert unescape(escape(text)) == text


@pytest.mark.parametrize(
    ("path", "cwd", "seen"),
    [("data/x", ".", "data/x"), ("data/x", "data", "x"), ("data/x", "lib/a", "../../data/x"), ("lib", "lib", ".")],
)
def test_paths_as_seen_from_a_folder(path: str, cwd: str, seen: str) -> None:
    assert relative_to(path, cwd) == seen


def test_what_is_filled_in_while_the_file_is_read(read: Callable[..., Pipeline]) -> None:
    """Matrix values, the stage's name and resources: quoted for the shell in a string, as they are in a list."""
    text = """
[stage.a]
run = "x {matrix.v} {stage.name} {resources.gpus} {resources.memory} {{matrix.v}} {params.s}"
matrix = { v = ["a b", "{c}"] }
resources = { gpus = 2, memory = "1 G" }
[stage.b]
run = ["x", "{matrix.v}", "--n={stage.name}"]
matrix = { v = ["a b", "{c}"] }
[params]
s = "later"
"""
    stages = read(text).stages
    assert stages["a@a%20b"].run == "x 'a b' a@a%20b 2 '1 G' {{matrix.v}} {params.s}"
    assert stages["a@%7Bc%7D"].run == "x '{{c}}' a@%7Bc%7D 2 '1 G' {{matrix.v}} {params.s}"
    assert stages["b@%7Bc%7D"].run == ("x", "{{c}}", "--n=b@%7Bc%7D")
    filled = fill_run(stages["a@%7Bc%7D"].run or "", inputs={}, outputs={}, params={"s": "now"})
    assert filled == "x '{c}' a@%7Bc%7D 2 '1 G' {matrix.v} now"


def test_params_named_in_a_command_count(read: Callable[..., Pipeline]) -> None:
    text = """
[params]
seed = 7
train = { lr = 1, epochs = 2 }
[stage.a]
run = "x {params.train.lr} {params.seed} {{params.train.epochs}}"
params = ["seed"]
[stage.b]
run = ["x", "{params.train}"]
"""
    stages = read(text).stages
    assert stages["a"].params == ("seed", "train.lr")
    assert stages["b"].params == ("train",)


PLACES: list[tuple[str, Callable[[Any], Any], Any]] = [
    ('source = "src/{matrix.v}"', lambda stage: stage.source, ("src/x",)),
    ('hash-paths = ["{params.dir}/h"]', lambda stage: stage.hash_paths, ("d/h",)),
    ('cwd = "{params.dir}"', lambda stage: stage.cwd, "d"),
    ('env = { V = "{{{matrix.v}}} {stage.name}" }', lambda stage: stage.env, {"V": "{x} a@x"}),
    ('inputs = { i = "in/{matrix.v}" }', lambda stage: stage.inputs["i"].path, "in/x"),
    ('outputs = { o = "{params.dir}/{matrix.v}" }', lambda stage: stage.outputs["o"].path, "d/x"),
    ('after = ["o@{matrix.v}"]', lambda stage: stage.after, ("o@x",)),
    ('mutex = ["m-{matrix.v}"]', lambda stage: stage.mutex, ("m-x",)),
    ('environment = "{matrix.v}"', lambda stage: stage.environment, "x"),
    ('compute = "{matrix.v}"', lambda stage: stage.compute, "x"),
    ('keep = "k-{matrix.v}"', lambda stage: stage.keep, "k-x"),
    (
        'outputs = { o = { path = "o", to = "s3://b/{params.dir}/{matrix.v}/{run.id}/{git.branch}/{git.commit}" } }',
        lambda stage: stage.outputs["o"].to,
        "s3://b/d/x/{run.id}/{git.branch}/{git.commit}",
    ),
]


@pytest.mark.parametrize(("line", "look", "expected"), PLACES)
def test_places(line: str, look: Callable[[Any], Any], expected: Any, read: Callable[..., Pipeline]) -> None:
    text = f"""
[params]
dir = "d"
[environment.x]
python = "3.11"
[compute.x]
kind = "local"
[stage.o]
run = "true"
matrix = {{ v = ["x"] }}
[stage.a]
run = "true"
matrix = {{ v = ["x"] }}
{line}
"""
    assert look(read(text).stages["a@x"]) == expected


def test_inputs_of_one_cell_after_the_same_cell(read: Callable[..., Pipeline]) -> None:
    text = """
[stage.train]
run = "true"
matrix = { lr = [1, 2] }
outputs = { model = "m-{matrix.lr}" }
[stage.score]
run = "true"
matrix = { lr = [1, 2] }
inputs = { model = "stage:train@{matrix.lr}.model" }
"""
    assert read(text).stages["score@2"].inputs["model"].origin.stage == "train@2"


def test_a_real_shell() -> None:
    filled = fill_run("printf '%s|' {params.v} {{}}", inputs={}, outputs={}, params={"v": ["a'b", "$HOME", "*"]})
    assert isinstance(filled, str)
    assert subprocess.run(["/bin/sh", "-c", filled], capture_output=True, text=True).stdout == "a'b|$HOME|*|{}|"
