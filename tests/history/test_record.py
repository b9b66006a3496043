"""A run record survives the commit message, whatever names and numbers are in it."""

from __future__ import annotations

import json
import math
import os
import re
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipesmith.errors import UserError
from pipesmith.history.record import RECORD_VERSION, RunRecord, StageRecord, message_of, record_of
from pipesmith.history.run_id import is_run_id, new_run_id

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "run-record" / "v1.txt"

texts = st.text(st.characters(), max_size=20) | st.binary(max_size=10).map(os.fsdecode)
lines = st.lists(texts | st.just("pipesmith-run: {}") | st.just("\n"), max_size=4).map("\n".join)
numbers = st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
stages = st.builds(
    StageRecord,
    name=texts,
    status=st.sampled_from(["ran", "failed", "fresh"]),
    why=st.lists(st.dictionaries(texts, texts, max_size=3), max_size=2),
    inputs=st.dictionaries(texts, texts, max_size=3),
    params=st.dictionaries(texts, plain, max_size=3),
    metrics=st.dictionaries(texts, numbers, max_size=3),
    start=numbers,
    end=numbers,
    error=st.none() | lines,
)
records = st.builds(
    RunRecord,
    id=texts,
    time=st.floats(0, 4e9),
    user=texts,
    command=st.lists(texts, max_size=4),
    message=st.none() | lines,
    tags=st.dictionaries(texts, texts, max_size=3),
    left_out=st.dictionaries(texts, texts, max_size=3),
    stages=st.lists(stages, max_size=3),
)


@given(records)
def test_message_round_trips(record: RunRecord) -> None:
    """Read back equal, also after git has made valid UTF-8 of it."""
    message = message_of(record)
    assert record_of(message) == record
    stored = message.encode("utf-8", "backslashreplace").replace(b"\0", b"\\0").decode()
    assert record_of(stored) == record


@given(st.text(max_size=60))
def test_any_other_message_is_no_record(text: str) -> None:
    assert record_of(text) is None
    assert record_of(f"{text}\npipesmith-run: {text}") is None


@pytest.mark.parametrize(
    "body", ["{}", "[]", "1", '{"version": 1}', '{"version": true, "id": "a", "time": 1, "stages": []}']
)
def test_a_damaged_record_is_none(body: str) -> None:
    assert record_of(f"a run\n\npipesmith-run: {body}\n") is None


def test_numbers_that_are_none_come_back() -> None:
    """The message is JSON to every reader: no bare NaN in it."""
    stage = StageRecord(
        name="a",
        status="ran",
        metrics={"nan": math.nan, "inf": math.inf, "small": -math.inf, "one": 1.0},
        params={"since": date(2026, 1, 31), "top": math.inf},
    )
    message = message_of(RunRecord(id="r", time=0.0, stages=[stage]))
    json.loads(message.splitlines()[-1].partition(" ")[2], parse_constant=lambda name: pytest.fail(name))
    found = record_of(message)
    assert found is not None
    assert math.isnan(found.stages[0].metrics["nan"])
    assert found.stages[0].metrics | {"nan": 0.0} == {"nan": 0.0, "inf": math.inf, "small": -math.inf, "one": 1.0}
    assert found.stages[0].params == {"since": "2026-01-31", "top": "inf"}


def test_the_last_mark_counts() -> None:
    """A message that quotes another record does not become it."""
    inner = message_of(RunRecord(id="inner", time=0.0))
    found = record_of(message_of(RunRecord(id="outer", time=0.0, message=inner)))
    assert found is not None
    assert (found.id, found.message) == ("outer", inner)


def test_what_people_see() -> None:
    record = RunRecord(id="r1", time=0.0, status="failed", pipeline="pets", user="ada", host="box", message="try it")
    record.stages = [
        StageRecord(name="a", status="ran", start=10.0, end=12.25),
        StageRecord(name="longer", status="skipped"),
    ]
    shown = message_of(record).partition("\npipesmith-run: ")[0]
    assert shown.splitlines() == [
        "run r1: failed",
        "",
        "pets by ada on box, 1970-01-01 00:00:00 UTC",
        "",
        "try it",
        "",
        "a       ran        2.2 s",
        "longer  skipped",
    ]


def test_a_record_of_a_later_version_is_refused_with_both_versions() -> None:
    body = RunRecord(id="r", time=0.0).as_json() | {"version": RECORD_VERSION + 1}
    with pytest.raises(UserError, match=f"version {RECORD_VERSION + 1}.*version {RECORD_VERSION}"):
        record_of(f"run\n\npipesmith-run: {json.dumps(body)}\n")


def test_keys_that_this_version_does_not_know_are_passed_over() -> None:
    """An additional key is no new version."""
    stage = StageRecord(name="a", status="ran")
    body = RunRecord(id="r", time=0.0, stages=[stage]).as_json() | {"later": 1}
    body["stages"][0]["later"] = 1
    found = record_of(f"run\n\npipesmith-run: {json.dumps(body)}\n")
    assert found == RunRecord(id="r", time=0.0, stages=[stage])


def test_the_first_versions_golden_record_is_read() -> None:
    """A record as version 1 wrote it; this file never changes."""
    found = record_of(GOLDEN.read_text())
    assert found is not None
    assert (found.id, found.status, found.branch, found.tags) == (
        "20261124-213055-k3f9xq2a",
        "failed",
        "main",
        {"k": "v"},
    )
    train = found.stage("train@0.1-3")
    assert train is not None
    assert (train.exit_code, train.metrics, train.gpus) == (2, {"report:auc": 0.5}, ["0"])
    assert found.stage("other") is None
    assert message_of(found) == GOLDEN.read_text()


def test_ids_sort_as_they_were_made() -> None:
    """Within one second too, and over the turn of one."""
    base = 1_795_560_171.0
    moments = [base - 0.0001, base, base + 0.0001, base + 0.5, base + 0.9999, base + 1]
    ids = [new_run_id(moment) for moment in moments]
    assert ids == sorted(ids)
    first = new_run_id()
    time.sleep(0.001)
    assert first < new_run_id()


def test_ids_are_random_and_name_refs() -> None:
    ids = {new_run_id(1_795_560_171.25) for _ in range(200)}
    assert len(ids) == 200
    assert all(re.fullmatch(r"20261124-224251-[0-9a-hjkmnp-tv-z]{8}", each) for each in ids)
    assert all(is_run_id(each) for each in ids)
    for bad in ("", "a/b", "../x", "a..b", ".a", "a.lock", "-a", "a b", "a\n"):
        assert not is_run_id(bad)


def test_stages_are_found_by_name() -> None:
    record = RunRecord(id="r", time=0.0, stages=[StageRecord(name="a", status="ran")])
    assert record.stage("a") == record.stages[0]
    assert replace(record, stages=[]).stage("a") is None
