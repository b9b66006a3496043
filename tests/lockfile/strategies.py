"""Lockfiles at random, for the laws."""

from __future__ import annotations

import datetime
from typing import Any

from hypothesis import strategies as st

from pipesmith.digest import Digest
from pipesmith.lockfile.model import (
    Accepted,
    DatasetPin,
    EnvironmentPin,
    LockedDep,
    LockedOut,
    Lockfile,
    PinnedObject,
    StageLock,
)

ODD = "\udc80\udcff\ud800\uf8ff\ue000\ue7ff\ue800\uf780\"'\\\n\r\t\x00\x1f\x7f\x85\u2028\ufffe# =[]{}.é😀"
TEXT = st.text(st.one_of(st.sampled_from(ODD), st.characters()), max_size=12)
NAMES = st.one_of(st.from_regex(r"[a-z][a-z0-9-]{0,6}", fullmatch=True), TEXT.filter(bool))
HEX = st.text("0123456789abcdef", min_size=8, max_size=8)
FLOATS = st.floats(allow_nan=False)
DATES = st.one_of(
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=st.just(datetime.timezone(datetime.timedelta(hours=2)))),
    st.times(),
)
SCALARS = st.one_of(TEXT, st.booleans(), st.integers(-(2**70), 2**70), FLOATS, DATES, st.none())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=6,
)


@st.composite
def digests(draw: st.DrawFn, *, executable: bool = False) -> Digest:
    algorithm = draw(st.sampled_from(("blake3", "md5")))
    kind = draw(st.sampled_from(("", ".dir", ".link")))
    nfiles = draw(st.integers(0, 9)) if kind == ".dir" else None
    bit = executable and not kind and draw(st.booleans())
    return Digest(algorithm, draw(HEX) + kind, draw(st.integers(0, 2**50)), nfiles, bit)


DEPS = st.builds(LockedDep, name=NAMES, path=NAMES, digest=digests(), git=st.one_of(st.none(), HEX), at=TEXT)
OUTS = st.builds(LockedOut, name=NAMES, path=NAMES, digest=digests(executable=True), cache=st.booleans())


def _by_name(entries: list[Any]) -> tuple[Any, ...]:
    return tuple(sorted({entry.name: entry for entry in entries}.values(), key=lambda entry: entry.name))


STAGES = st.builds(
    StageLock,
    fingerprint=HEX,
    run=st.one_of(st.none(), TEXT, st.lists(TEXT, max_size=3).map(tuple)),
    cwd=NAMES,
    kind=st.sampled_from(("command", "notebook")),
    source=st.dictionaries(NAMES, HEX, max_size=3),
    deps=st.lists(DEPS, max_size=3).map(_by_name),
    params=st.dictionaries(NAMES, VALUES, max_size=3),
    env=st.dictionaries(NAMES, TEXT, max_size=2),
    environment=st.one_of(st.none(), HEX),
    hash_paths=st.dictionaries(NAMES, HEX, max_size=2),
    outs=st.lists(OUTS, max_size=3).map(_by_name),
    metrics=st.dictionaries(NAMES, FLOATS, max_size=2),
    accepted=st.one_of(st.none(), st.builds(Accepted, fingerprint=HEX, reason=TEXT, by=TEXT)),
)
ENVIRONMENTS = st.builds(
    EnvironmentPin,
    definition=HEX,
    python=TEXT,
    resolved=st.lists(TEXT, max_size=3).map(tuple),
    image=st.one_of(st.none(), TEXT),
)
OBJECTS = st.builds(PinnedObject, name=NAMES, size=st.integers(0, 9), version=TEXT, hash=HEX)
DATASETS = st.builds(DatasetPin, definition=HEX, digest=digests(), objects=st.lists(OBJECTS, max_size=3).map(_by_name))
LOCKFILES = st.builds(
    Lockfile,
    stages=st.dictionaries(NAMES, STAGES, max_size=3),
    environments=st.dictionaries(NAMES, ENVIRONMENTS, max_size=2),
    datasets=st.dictionaries(NAMES, DATASETS, max_size=2),
)
