"""Two lockfiles into one, stage by stage: what disagrees is dropped, and so stale; pins that disagree are ours.

An entry is taken whole or not at all: it is what one build saw and made, and stays true in any other lockfile. A text
merge may take a fingerprint from one side and the outputs from the other, which no build ever saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pipesmith.errors import UserError
from pipesmith.lockfile.emitter import render
from pipesmith.lockfile.markers import first_marker, versions
from pipesmith.lockfile.model import DatasetPin, EnvironmentPin, Lockfile, StageLock
from pipesmith.lockfile.reader import parse
from pipesmith.records import record, replace

__all__ = ["Merged", "merge", "merge_texts", "resolve_markers"]

_Entry = TypeVar("_Entry", StageLock, EnvironmentPin, DatasetPin)


@record
class Merged:
    """dropped: stages that both sides changed, each in its own way. accepted: stages whose results the sides accepted
    for different fingerprints: the entry stays, no `accepted` in it.

    pins: `environment.NAME` or `dataset.NAME` where the sides disagree, and ours was taken.
    """

    lockfile: Lockfile
    dropped: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    pins: tuple[str, ...] = ()


def merge(ours: Lockfile, theirs: Lockfile, base: Lockfile | None = None) -> Merged:
    """Return what both sides say together.

    base: what both came from. What one side alone changed (or took out) is that side's; without a base, what one side
    alone has is taken.
    """
    old = base or Lockfile()
    stages, apart = _three("stages", ours.stages, theirs.stages, old.stages)
    dropped, accepted = [], []
    for name in apart:
        entry = _but_for_accepted(ours.stages.get(name), theirs.stages.get(name), old.stages.get(name))
        if entry is None:
            dropped.append(name)
        else:
            stages[name] = entry
            if entry.accepted is None:
                accepted.append(name)
    stages = {name: _with_git_ids(entry, theirs.stages.get(name)) for name, entry in stages.items()}
    environments, wild = _three("environments", ours.environments, theirs.environments, old.environments)
    datasets, lost = _three("datasets", ours.datasets, theirs.datasets, old.datasets)
    environments |= {name: ours.environments[name] for name in wild if name in ours.environments}
    datasets |= {name: ours.datasets[name] for name in lost if name in ours.datasets}
    pins = [*(f"dataset.{name}" for name in lost), *(f"environment.{name}" for name in wild)]
    lockfile = Lockfile(stages=stages, environments=environments, datasets=datasets)
    return Merged(lockfile=lockfile, dropped=tuple(dropped), accepted=tuple(accepted), pins=tuple(pins))


def _three(
    kind: str, ours: Mapping[str, _Entry], theirs: Mapping[str, _Entry], base: Mapping[str, _Entry]
) -> tuple[dict[str, _Entry], list[str]]:
    """Return what can be told, and the names where the sides disagree."""
    agreed: dict[str, _Entry] = {}
    apart = []
    for name in sorted(ours.keys() | theirs.keys()):
        mine, other, old = ours.get(name), theirs.get(name), base.get(name)
        if _same(kind, mine, other) or _same(kind, other, old):
            chosen = mine
        elif _same(kind, mine, old):
            chosen = other
        else:
            apart.append(name)
            continue
        if chosen is not None:
            agreed[name] = chosen
    return agreed, apart


def _same(kind: str, one: Any, other: Any) -> bool:
    """Return whether two entries say the same. By what is written: a number that is none (`nan`) does not equal
    itself."""
    if one is None or other is None or one == other:
        return bool(one == other)
    texts = (render(Lockfile(**{kind: {"": _without_git_ids(each)}})) for each in (one, other))
    return next(texts) == next(texts)


def _without_git_ids(entry: _Entry) -> _Entry:
    """Return an entry without git's ids of inputs: they are there if git held the input already when it was built."""
    if not isinstance(entry, StageLock):
        return entry
    return replace(entry, deps=tuple(replace(dep, git=None) for dep in entry.deps))


def _with_git_ids(entry: StageLock, other: StageLock | None) -> StageLock:
    """Return an entry with git's ids of inputs that the other side alone knows."""
    known = {(dep.name, dep.path, dep.digest): dep.git for dep in other.deps} if other is not None else {}
    found = [known.get((dep.name, dep.path, dep.digest)) if dep.git is None else dep.git for dep in entry.deps]
    if not any(found):
        return entry
    return replace(entry, deps=tuple(replace(dep, git=git) for dep, git in zip(entry.deps, found, strict=True)))


def _but_for_accepted(mine: StageLock | None, other: StageLock | None, old: StageLock | None) -> StageLock | None:
    """Return the entry of a stage whose sides disagree in what is accepted and in nothing else, None for others."""
    if mine is None or other is None:
        return None
    bare = replace(mine, accepted=None)
    if not _same("stages", bare, replace(other, accepted=None)):
        return None
    known = old is not None and _same("stages", bare, replace(old, accepted=None))
    before = old.accepted if old is not None and known else None
    if other.accepted == before:
        return mine
    return other if mine.accepted == before else bare


# -- texts --------------------------------------------------------------------------------------------------------


class _Tables:
    """Tables that were parsed, for as long as a merge takes: most are the same in all versions."""

    def __init__(self) -> None:
        self._value: bytes | None = None

    def query(self, _sql: str, _args: Any = ()) -> list[Any]:
        return [] if self._value is None else [(self._value,)]

    def write(self, statements: Any) -> None:
        ((_sql, (_key, self._value)),) = statements


def merge_texts(ours: str, theirs: str, base: str | None, *, file: str = "pipe.lock") -> Merged:
    """Return the merge of three texts, any of which may have conflict markers that were committed.

    base: None, or a text that is no lockfile, counts as none. Raises UserError where a side is no lockfile.
    """
    tables = _Tables()
    sides = [_read(text, f"{file} ({name})", tables) for name, text in (("ours", ours), ("theirs", theirs))]
    old = None
    if base:
        try:
            old = _read(base, f"{file} (base)", tables).lockfile
        except UserError:
            pass  # what differs is dropped then
    merged = merge(sides[0].lockfile, sides[1].lockfile, old)
    dropped = {name for side in sides for name in side.dropped} - merged.lockfile.stages.keys()
    return replace(merged, dropped=tuple(sorted({*merged.dropped, *dropped})))


def resolve_markers(text: str, *, file: str = "pipe.lock") -> Merged:
    """Return the lockfile of a text with git's conflict markers, in any of git's styles.

    Raises UserError where a side is no lockfile.
    """
    found = versions(text)
    if found is None:
        raise UserError(f"{file}: its conflict markers don't match")
    return merge_texts(found.ours, found.theirs, found.base, file=file)


def _read(text: str, file: str, tables: _Tables) -> Merged:
    if first_marker(text) is not None:
        return resolve_markers(text, file=file)
    return Merged(lockfile=parse(text, file=file, cache=tables))
