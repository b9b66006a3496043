"""pipe.lock as values. Format: docs/formats/pipe-lock.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipesmith.digest import Digest
from pipesmith.records import field, record

__all__ = [
    "LOCK_VERSION",
    "Accepted",
    "DatasetPin",
    "EnvironmentPin",
    "LockedDep",
    "LockedOut",
    "Lockfile",
    "PinnedObject",
    "StageLock",
]

LOCK_VERSION = 1


@record
class LockedDep:
    """An input as the last good build saw it.

    path: where it lies in the workspace. at: where the stage saw it, if elsewhere. git: git's id of it (or of the part
    git holds), or None. of: hex of the folder output that it is a path inside of, if it is.
    """

    name: str
    path: str
    digest: Digest
    git: str | None = None
    at: str = ""
    of: str = ""


@record
class LockedOut:
    """An output as the last good build made it. cache False: left to git."""

    name: str
    path: str
    digest: Digest
    cache: bool = True


@record
class Accepted:
    """The locked result counts for this fingerprint too, because a person said so."""

    fingerprint: str
    reason: str
    by: str


@record
class StageLock:
    """What the last good build of a stage saw and made.

    fingerprint: hex action key. run: the command as written in the fingerprint.
    """

    fingerprint: str
    run: str | tuple[str, ...] | None
    cwd: str = "."
    kind: str = "command"
    source: Mapping[str, str] = field(default_factory=dict)  # path to git id
    deps: tuple[LockedDep, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)  # dotted key to value
    env: Mapping[str, str] = field(default_factory=dict)
    environment: str | None = None  # digest of what the environment resolved to
    hash_paths: Mapping[str, str] = field(default_factory=dict)
    outs: tuple[LockedOut, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)  # `OUTPUT:dotted.name` to number
    accepted: Accepted | None = None


@record
class EnvironmentPin:
    """definition: digest of the table and the files it names.

    resolved: lines `name==version ; marker` with hashes, sorted. conda: lines `URL ; platforms` with hashes, sorted.
    """

    definition: str
    python: str
    resolved: tuple[str, ...] = ()
    image: str | None = None
    conda: tuple[str, ...] = ()


@record
class PinnedObject:
    """One object of a dataset."""

    name: str
    size: int
    version: str  # etag or version id, empty where the store has none
    hash: str  # `ALGORITHM:HEX`


@record
class DatasetPin:
    """What a dataset held when it was pinned. definition: what the pin holds for."""

    definition: str
    digest: Digest
    objects: tuple[PinnedObject, ...] = ()


@record
class Lockfile:
    """A whole pipe.lock, by name."""

    stages: Mapping[str, StageLock] = field(default_factory=dict)
    environments: Mapping[str, EnvironmentPin] = field(default_factory=dict)
    datasets: Mapping[str, DatasetPin] = field(default_factory=dict)
