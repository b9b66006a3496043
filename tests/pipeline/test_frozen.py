"""A pipeline that was read before is remembered as bytes: thawed, it equals what was frozen."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipesmith.pipeline.frozen import freeze, thaw
from pipesmith.pipeline.reader import read_pipeline

SAMPLE = Path(__file__).parent / "sample.toml"


def pipeline(text: str):  # type: ignore[no-untyped-def]
    return read_pipeline(text, files=lambda path: b"{}" if path.endswith("json") else b"", default_name="x")


@pytest.mark.parametrize(
    "text",
    [
        SAMPLE.read_text(),
        '[stage.a]\nrun = ["x", "{params.p}"]\n[params]\np = [1, { q = [[2.5, true]] }]\n',
        "",
    ],
    ids=["sample", "small", "empty"],
)
def test_thawed_equals_frozen(text: str) -> None:
    """Every record, enum, tuple and mapping of the model comes back as it was."""
    found = pipeline(text)
    data = freeze(found)
    assert data is not None
    thawed = thaw(data)
    assert thawed == found
    assert repr(thawed) == repr(found)


def test_what_can_not_be_frozen_is_read_each_time() -> None:
    """A date among the params has no bytes of its own."""
    assert freeze(pipeline('[params]\nday = 2024-01-02\n[stage.a]\nrun = "x"\n')) is None


def test_damaged_bytes_are_no_pipeline() -> None:
    """Half of it, and something else."""
    data = freeze(pipeline('[stage.a]\nrun = "x"\n'))
    assert data is not None
    assert thaw(data[: len(data) // 2]) is None
    assert thaw(b"i\x01\x00\x00\x00") is None
