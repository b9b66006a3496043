"""What tests of builds share: pipelines that many of them start from."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

import pytest

Toml = Callable[[str], None]


@pytest.fixture(params=["namespaces", "copies"])
def sandbox(request: pytest.FixtureRequest, repo) -> str:
    """Makes every command of the test use this kind of sandbox."""
    repo.env["PIPE_SANDBOX"] = request.param
    return str(request.param)


@pytest.fixture
def toml(repo) -> Toml:
    """Writes pipeline.toml. `NOTE(word)` becomes the command that notes a word."""

    def write(text: str) -> None:
        text = textwrap.dedent(text.removeprefix("\n"))
        while "NOTE(" in text:
            before, _, rest = text.partition("NOTE(")
            word, _, after = rest.partition(")")
            text = f"{before}{repo.note(word)}{after}"
        repo.write("pipeline.toml", text)

    return write


CHAIN = """
    [stage.a]
    source = "a.txt"
    run = "NOTE(a) && head -c 1 a.txt > {outputs.o}"
    outputs = { o = "out/a" }
    [stage.b]
    run = "NOTE(b) && cat {inputs.i} {inputs.i} > {outputs.o}"
    inputs = { i = "stage:a.o" }
    outputs = { o = "out/b" }
    [stage.c]
    run = "NOTE(c) && cat {inputs.i} > {outputs.o}"
    inputs = { i = "out/b" }
    outputs = { o = "out/c" }
"""


@pytest.fixture
def chain(repo, toml: Toml) -> Toml:
    """Three stages a → b → c that are not built yet. a's output is the first character of a.txt."""
    repo.write("a.txt", "1x")
    toml(CHAIN)
    return toml
