"""What must stay in the cache, and why: tips of git, recent runs, what was put away, builds that go on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from pipesmith.digest import Digest
from pipesmith.errors import StageError, UserError
from pipesmith.git.repository import Repository
from pipesmith.history.record import RunRecord
from pipesmith.lockfile.model import Lockfile
from pipesmith.lockfile.reader import parse
from pipesmith.records import field, record
from pipesmith.retention.locks_of_git import lock_texts
from pipesmith.store.action_cache import ActionCache
from pipesmith.store.kept import Kept
from pipesmith.store.object_store import ObjectStore

__all__ = ["Inside", "Roots", "find_roots", "needed_by"]

_HEX = re.compile(r"(?<![0-9a-f])(?:[0-9a-f]{64}|[0-9a-f]{32})(?:\.dir)?(?![0-9a-f])")
_ALGORITHM = {64: "blake3", 32: "md5"}


@record(frozen=False)
class Roots:
    """Texts of needed digests (`ALGORITHM:HEX`), files inside folders included.

    tips: for ever. kept: until their days are over. runs: to the time of the last recent run that needs it.
    notes: what could not be read, for people.
    """

    tips: set[str] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)
    runs: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __contains__(self, text: str) -> bool:
        return text in self.tips or text in self.kept or text in self.runs


class Inside:
    """Digests with what lies inside: the files of a folder, as far as it is in the store. Each folder is read once."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._known: dict[str, tuple[str, ...]] = {}

    def all(self, text: str) -> tuple[str, ...]:
        if not text.endswith(".dir"):
            return (text,)
        known = self._known.get(text)
        if known is None:
            algorithm, _, hex = text.partition(":")
            digest = Digest(algorithm, hex, 0)
            try:
                entries = self._store.read_manifest(digest) if self._store.has_manifest(digest) else []
            except StageError:
                entries = []  # damaged: nothing inside can be told, nor restored
            known = (text, *(f"{algorithm}:{entry.hex}" for entry in entries if entry.kind == "f"))
            self._known[text] = known
        return known


def needed_by(lockfile: Lockfile) -> Iterator[str]:
    """Yield the digest texts of all content that a lockfile names."""
    for stage in lockfile.stages.values():
        yield from (out.digest.text for out in stage.outs)
        yield from (dep.digest.text for dep in stage.deps)
    for pin in lockfile.datasets.values():
        yield pin.digest.text
        yield from (each.hash for each in pin.objects)


def find_roots(
    repo: Repository,
    inside: Inside,
    actions: ActionCache,
    runs: Iterable[RunRecord],
    kept: Iterable[Kept],
    *,
    runs_since: float,
    kept_since: float,
    fresh_since: float,
) -> Roots:
    """Return what is needed. inside: finds what folders hold. The times are seconds since the epoch.

    runs_since, kept_since: what is older counts no more. fresh_since: known results recorded later stay in any case.
    Raises EnvironmentFailure where git can't read what it must.
    """
    roots = Roots()
    for where, data in lock_texts(repo):
        for text in _texts_in(data, where, roots.notes):
            roots.tips.update(inside.all(text))
    for entry in kept:
        if entry.at >= kept_since:
            roots.kept.update(inside.all(entry.digest.text))
    for run in runs:
        last = max(run.time, run.end or 0.0)
        if last >= runs_since:
            for stage in run.stages:
                for text in (*stage.outputs.values(), *stage.inputs.values()):
                    for each in inside.all(text):
                        roots.runs[each] = max(last, roots.runs.get(each, 0.0))
    for _path, result in actions:
        if result.created >= fresh_since:
            for out in result.outs:
                roots.kept.update(inside.all(out.digest.text))
    return roots


def _texts_in(data: bytes, where: str, notes: list[str]) -> list[str]:
    """Return what a lockfile's text needs: of one that can't be read, everything in it that looks like a digest."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        return list(needed_by(parse(text)))
    except UserError as error:
        found = [f"{_ALGORITHM[len(hex.removesuffix('.dir'))]}:{hex}" for hex in _HEX.findall(text)]
        notes.append(f"pipe.lock in {where} {error.text.removeprefix('pipe.lock ')}; all that it names is kept")
        return found
