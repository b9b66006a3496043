"""What was decided of a stage before a build, and why."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from pipesmith.digest import Digest
from pipesmith.fingerprint.fingerprint import Fingerprint
from pipesmith.lockfile.model import LockedDep, LockedOut
from pipesmith.records import field, record
from pipesmith.verdict.reasons import Reason

__all__ = ["Result", "Seen", "State", "Verdict"]


class State(Enum):
    """What a stage is before a build."""

    FRESH = "fresh"  # locked, and the outputs are what was locked
    RESTORABLE = "restorable"  # a result of this fingerprint is known and at hand
    STALE = "stale"  # must run
    PENDING = "pending"  # something before it is stale, so it can't be known yet


@record
class Result:
    """A known result of a fingerprint. locked: it is the lockfile's own. instead: the lockfile's own could not be had.
    origin: for people, who made it where. seconds: how long making it took."""

    outs: tuple[LockedOut, ...]
    metrics: Mapping[str, float] = field(default_factory=dict)
    locked: bool = True
    instead: bool = False
    origin: str = ""
    seconds: float | None = None


@record
class Seen:
    """What a stage was seen to be made of when it was judged: goes into the lockfile when the result is taken."""

    source: Mapping[str, str]
    deps: tuple[LockedDep, ...]
    params: Mapping[str, object]
    hash_paths: Mapping[str, str]
    environment: str | None


@record
class Verdict:
    """reasons: empty exactly when fresh. result: what a fresh or restorable stage has or gets. absent: names of outputs
    that are locked but not in the workspace and need not be (temporary, or `--allow-missing`). notes: `frozen`,
    `accepted`, broken expectations and the like. problems: what makes it impossible to run, one line each, with the key
    it is about."""

    stage: str
    state: State
    reasons: tuple[Reason, ...] = ()
    fingerprint: Fingerprint | None = None
    seen: Seen | None = None
    result: Result | None = None
    absent: tuple[str, ...] = ()
    changed: tuple[tuple[str, Digest | None], ...] = ()  # outputs in the workspace that are not the locked ones
    notes: tuple[str, ...] = ()
    problems: tuple[tuple[str, str, str | None], ...] = ()  # (key, text, help)
    broken: tuple[str, ...] = ()  # expectations that the result does not meet, one line each

    @property
    def fresh(self) -> bool:
        return self.state is State.FRESH
