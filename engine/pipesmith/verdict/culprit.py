"""What in a stage, or before it, made the difference between two commits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipesmith.fingerprint.fingerprint import Item
from pipesmith.lockfile.model import LockedOut
from pipesmith.records import field, record
from pipesmith.verdict.differences import differences
from pipesmith.verdict.reasons import Reason

__all__ = ["Culprit", "Made", "culprits"]


@record
class Made:
    """What a stage is made of at a commit. given: its inputs that other stages make, by name. outs, metrics: of its
    known result there."""

    items: tuple[Item, ...]
    given: frozenset[str]
    outs: tuple[LockedOut, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)


@record
class Culprit:
    """A stage of which something of its own differs."""

    stage: str
    why: tuple[Reason, ...]

    def as_json(self) -> dict[str, object]:
        return {"name": self.stage, "why": [reason.as_json() for reason in self.why]}


def culprits(order: Sequence[str], old: Mapping[str, Made], new: Mapping[str, Made]) -> tuple[Culprit, ...]:
    """Return the stages of which something differs that no other stage made, first things first.

    order: the stages of the later commit, topological. Where nothing that counts differs, the same action has two
    results, one in each commit's lockfile: then the first stage with another output is the one, and after that metric.
    """
    found = []
    for name in order:
        if name not in old:
            found.append(Culprit(stage=name, why=(Reason("new"),)))
            continue
        mine, theirs = new[name], old[name]
        before = {(item.kind, item.item): item.value for item in theirs.items}
        given = mine.given & theirs.given
        own = tuple(
            reason for reason in differences(before, mine.items) if reason.kind != "input" or reason.item not in given
        )
        if own:
            found.append(Culprit(stage=name, why=own))
    if found:
        return tuple(found)
    for name in order:
        was = {out.path: out.digest.text for out in old[name].outs}
        changed = tuple(
            Reason("output-changed", out.path, was[out.path], out.digest.text)
            for out in new[name].outs
            if was.get(out.path, out.digest.text) != out.digest.text
        )
        if changed:
            return (Culprit(stage=name, why=changed),)
    for name in order:
        numbers = old[name].metrics
        changed = tuple(
            Reason("output-changed", key, repr(numbers[key]), repr(value))
            for key, value in new[name].metrics.items()
            if key in numbers and numbers[key] != value
        )
        if changed:
            return (Culprit(stage=name, why=changed),)
    return ()
