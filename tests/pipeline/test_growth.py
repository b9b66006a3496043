"""Reading costs as much for each stage, however many there are; line numbers cost nothing where nothing is wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from pipesmith.errors import ConfigError
from pipesmith.pipeline.model import Pipeline
from pipesmith.pipeline.reader import read_pipeline


def chain(count: int) -> str:
    """Stages in a row, each with inputs by name and by path."""
    text = "[params]\nseed = 1\n"
    for n in range(count):
        inputs = f'{{ a = "stage:s{n - 1}.out", raw = "raw/{n}.txt" }}' if n else "{}"
        text += f'[stage.s{n}]\nsource = "src/s{n}"\nrun = "x {{outputs.out}} {{params.seed}}"\n'
        text += f'inputs = {inputs}\noutputs = {{ out = "data/{n}.txt" }}\n'
    return text


def fan_in(count: int) -> str:
    """One stage that reads what all the others make."""
    text = "".join(f'[stage.s{n}]\nrun = "x"\noutputs = {{ out = "data/{n}.txt" }}\n' for n in range(count))
    inputs = ", ".join(f'i{n} = "data/{n}.txt"' for n in range(count))
    return text + f'[stage.all]\nrun = "x"\ninputs = {{ {inputs} }}\n'


def cells(count: int) -> str:
    """One matrix and a stage that reads all of it."""
    text = f'[stage.m]\nrun = "x {{matrix.x}}"\nmatrix = {{ x = {list(range(count))} }}\n'
    text += 'outputs = { out = "data/{matrix.x}.txt" }\n'
    return text + '[stage.all]\nrun = "x"\ninputs = { m = "stage:m@*.out" }\n'


def _lines_run(read: Callable[[], object]) -> int:
    """Return how many function calls reading takes: a measure that knows no busy machine."""
    calls = 0

    def count(frame: object, event: str, arg: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        read()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("make", [chain, fan_in, cells])
def test_growth_is_linear(make: Callable[[int], str], read: Callable[..., Pipeline]) -> None:
    few, many = make(100), make(400)
    read(few)
    assert _lines_run(lambda: read(many)) < 4.4 * _lines_run(lambda: read(few))


@pytest.mark.parametrize("make", [chain, fan_in, cells])
def test_growth_of_string_work_is_linear(make: Callable[[int], str], read: Callable[..., Pipeline]) -> None:
    """No loop over all outputs hides in one call: eight times as much takes far from sixty-four times as long."""
    import time

    def seconds(text: str) -> float:
        best = 9.0
        for _ in range(3):
            start = time.process_time()
            read(text)
            best = min(best, time.process_time() - start)
        return best

    assert seconds(make(1600)) < 24 * seconds(make(200))


def test_many_faults_take_no_longer_than_their_number(read: Callable[..., Pipeline]) -> None:
    def wrong(count: int) -> str:
        return "".join(f'[stage.s{n}]\nrun = "x"\ninputs = {{ x = "../{n}" }}\n' for n in range(count))

    def fails(text: str) -> Callable[[], None]:
        def run() -> None:
            with pytest.raises(ConfigError):
                read_pipeline(text, files=lambda path: None, default_name="x")

        return run

    fails(wrong(10))()
    assert _lines_run(fails(wrong(400))) < 4.4 * _lines_run(fails(wrong(100)))


def test_lines_are_looked_for_only_when_something_is_wrong(
    read: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(text: str) -> dict[object, int]:
        raise AssertionError("the scan ran")

    monkeypatch.setattr("pipesmith.pipeline.positions.positions", never)
    assert len(read(chain(3)).stages) == 3
