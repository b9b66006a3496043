"""Durations and sizes as people write them."""

from __future__ import annotations

import pytest

from pipesmith.pipeline.units import parse_duration_s, parse_size_bytes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("5m", 300), ("2h", 7200), ("7d", 604800), ("1.5h", 5400), (" 10 s ", 10), ("0s", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64K", 64 << 10),
        ("8M", 8 << 20),
        ("2G", 2 << 30),
        ("1T", 1 << 40),
        ("64KB", 64_000),
        ("20GB", 20_000_000_000),
        ("20gb", 20_000_000_000),
        ("1.5K", 1536),
        ("100", 100),
        ("100B", 100),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "5", "5 minutes", "-5m", "m", "5M", "1h30m", "٣s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration: write `30s`, `5m`, `2h` or `7d`"):
        parse_duration_s(text)


@pytest.mark.parametrize("text", ["9" * 400, "9000000000G", "1000000000T"])
def test_a_size_that_nothing_has(text: str) -> None:
    with pytest.raises(ValueError, match="is more than any machine has"):
        parse_size_bytes(text)


@pytest.mark.parametrize("text", ["", "G", "-1G", "1X", "1 GiB", "1e3", "8\u212a", "٣G"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size: write `64K`, `8M`, `2G` or `20GB`"):
        parse_size_bytes(text)
