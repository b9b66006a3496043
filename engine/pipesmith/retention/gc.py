"""Garbage collection of the cache: what nothing needs goes to the trash, and from there, after a week, for good.

Safe beside builds. Where none goes on, a collection holds the cache's lock, and builds wait the moment that it takes.
While one goes on, what is younger than an hour, or than the oldest build, stays; and who restores an object that was
just dropped takes it back from the trash.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from pipesmith.errors import UserError
from pipesmith.git.repository import Repository
from pipesmith.history.record import RunRecord
from pipesmith.pipeline.units import size_text
from pipesmith.records import as_dict, field, record
from pipesmith.retention import trash
from pipesmith.retention.leftovers import remove_leftovers
from pipesmith.retention.places import sweep_places
from pipesmith.retention.roots import Inside, Roots, find_roots
from pipesmith.store.action_cache import ActionCache
from pipesmith.store.disk import disk_failure
from pipesmith.store.kept import kept
from pipesmith.store.locks import CACHE, Hold, LockTable
from pipesmith.store.object_store import ObjectStore
from pipesmith.store.state_db import StateDB

__all__ = ["Report", "Runs", "collect"]

_DAY_S = 86_400.0
_FRESH_S = 3_600.0
_ELSEWHERE_DAYS = 7.0
_BEFORE_START_S = 600.0  # a build looks at the cache before it is a recorded run


class Runs(Protocol):
    """The recorded runs. One whose process on this machine is gone does not say `running`."""

    def all(self) -> Iterable[RunRecord]: ...

    def prune(self, keep_days: float, *, dry_run: bool, trash: str) -> Sequence[str]: ...


@record(frozen=False)
class Report:
    """What was dropped, or would be. objects, bytes: to the trash. left_bytes: what stays in the cache.

    records: known results dropped with their objects. kept: entries of what was put away whose days are over.
    emptied, emptied_bytes: what left the trash for good. runs: recorded runs that were forgotten, with their logs.
    """

    objects: int = 0
    bytes: int = 0
    left_bytes: int = 0
    records: int = 0
    kept: int = 0
    emptied: int = 0
    emptied_bytes: int = 0
    runs: int = 0
    dry_run: bool = False
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return as_dict(self)


@record(kw_only=False)
class _Object:
    """One object of the store. used: when it was stored, or last needed by a recent run."""

    algorithm: str
    hex: str
    size: int
    used: float

    @property
    def text(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def collect(
    *,
    repo: Repository,
    pipe_dir: str,
    store: ObjectStore,
    actions: ActionCache,
    runs: Runs,
    state: StateDB,
    keep_days: float = 30.0,
    kept_days: float = 30.0,
    max_size_bytes: int | None = None,
    only_over_size: bool = False,
    dry_run: bool = False,
) -> Report:
    """Drop what nothing needs, and return what that was.

    max_size_bytes: then also what only recent runs need, least recently used first, until the cache is smaller.
    only_over_size: drop nothing while the cache is smaller, and no more than it takes.
    Raises EnvironmentFailure where git can't tell what is needed, UserError while another collection is at work.
    """
    hold, alone = _locks(pipe_dir, dry_run=dry_run)
    try:
        now = time.time()
        recorded = list(runs.all())
        live = [record.time for record in recorded if alone is None and _goes_on(record, now)]
        young = min([now - _FRESH_S, *(started - _BEFORE_START_S for started in live)])
        fresh_since = young if alone is None else now
        found = [
            _Object(algorithm, hex, info.st_size, max(info.st_mtime, info.st_ctime))
            for algorithm, hex, info in store.objects()
        ]
        report = Report(dry_run=dry_run, left_bytes=sum(each.size for each in found))
        if not (only_over_size and max_size_bytes is not None and report.left_bytes <= max_size_bytes):
            put_away = list(kept(store))
            inside = Inside(store)
            roots = find_roots(
                repo,
                inside,
                actions,
                recorded,
                put_away,
                runs_since=now - keep_days * _DAY_S,
                kept_since=now - kept_days * _DAY_S,
                fresh_since=fresh_since,
            )
            report.notes += roots.notes
            for entry in put_away:
                if entry.at < now - kept_days * _DAY_S:
                    report.kept += 1
                    if not dry_run:
                        os.unlink(entry.record)
            plan = _plan(found, roots, fresh_since, max_size_bytes, only_over_size)
            gone = _drop(store, plan, fresh_since, report, dry_run=dry_run)
            present = {each.text for each in found} - gone
            _drop_records(actions, store, inside, present, fresh_since, report)
            if not dry_run:
                state.write_many("DELETE FROM objects WHERE hex = ?", [(each.hex,) for each in plan])
            if max_size_bytes is not None and report.left_bytes > max_size_bytes:
                report.notes.append(_too_big(found, gone, roots, report.left_bytes - max_size_bytes))
        if not only_over_size:
            report.runs = len(runs.prune(keep_days, dry_run=dry_run, trash=os.path.join(pipe_dir, "trash")))
        report.emptied, report.emptied_bytes = trash.empty(os.path.join(pipe_dir, "trash"), dry_run=dry_run)
        if not dry_run:
            remove_leftovers(pipe_dir, young, live=alone is None)
            sweep_places(pipe_dir, repo.common_dir, LockTable(os.path.join(pipe_dir, "locks")))
        return report
    finally:
        for each in (alone, hold):
            if each is not None:
                each.release()


def _locks(pipe_dir: str, *, dry_run: bool) -> tuple[Hold | None, Hold | None]:
    """Return the lock of the one collection of a clone, and that of the cache where nobody uses it."""
    locks = LockTable(os.path.join(pipe_dir, "locks"))
    try:
        hold = locks.try_acquire("gc")
        if hold is None and not dry_run:
            raise UserError(f"another `pipe gc` is at work in this clone: {locks.holder('gc')}", "wait for its end")
        return hold, locks.try_acquire(CACHE)
    except OSError as error:
        if dry_run:
            return None, None
        raise disk_failure(error, pipe_dir) from None


def _goes_on(record: RunRecord, now: float) -> bool:
    """Return whether a build may still be going on. Of another machine's nobody knows: it counts for some days."""
    here = record.host == socket.gethostname()
    return record.status == "running" and (here or record.time > now - _ELSEWHERE_DAYS * _DAY_S)


def _plan(
    found: list[_Object], roots: Roots, fresh_since: float, max_size: int | None, only_over_size: bool
) -> list[_Object]:
    """Return what to drop, least recently used first."""
    old = [each for each in found if each.used < fresh_since]
    unneeded = sorted((each for each in old if each.text not in roots), key=lambda each: each.used)
    size = sum(each.size for each in found)
    if not only_over_size:
        plan = unneeded
        size -= sum(each.size for each in plan)
        candidates: list[_Object] = []
    else:
        plan = []
        candidates = unneeded
    if max_size is None:
        return plan
    only_runs = [each for each in old if each.text in roots.runs and each.text not in roots.tips | roots.kept]
    for each in [*candidates, *sorted(only_runs, key=lambda each: roots.runs[each.text])]:
        if size <= max_size:
            break
        plan.append(each)
        size -= each.size
    return plan


def _drop(store: ObjectStore, plan: list[_Object], fresh_since: float, report: Report, *, dry_run: bool) -> set[str]:
    """Move objects to the trash, unless one was used again meanwhile; return the texts of what is gone."""
    gone = set()
    for each in plan:
        if not dry_run and not store.drop(each.algorithm, each.hex, unless_since=fresh_since):
            continue
        gone.add(each.text)
        report.objects += 1
        report.bytes += each.size
        report.left_bytes -= each.size
    return gone


def _drop_records(
    actions: ActionCache, store: ObjectStore, inside: Inside, present: set[str], fresh_since: float, report: Report
) -> None:
    """Remove known results that can't be restored any more."""
    for path, result in list(actions):
        if result.created >= fresh_since:
            continue
        if all(text in present for out in result.outs for text in inside.all(out.digest.text)):
            continue
        if report.dry_run:
            report.records += 1
            continue
        if all(store.has(out.digest) for out in result.outs):  # stored again meanwhile
            continue
        report.records += 1
        try:
            os.unlink(path)
            os.rmdir(os.path.dirname(path))
        except OSError:
            continue  # gone already, or other results of the same fingerprint are there


def _too_big(found: list[_Object], gone: set[str], roots: Roots, over: int) -> str:
    """Say why the cache is still larger than it should be."""
    tips = sum(each.size for each in found if each.text in roots.tips)
    kept_bytes = sum(each.size for each in found if each.text in roots.kept and each.text not in roots.tips)
    return (
        f"the cache is {size_text(over)} larger than asked for: tips of branches, tags, worktrees and stashes need "
        f"{size_text(tips)} that no remote has; {size_text(kept_bytes)} are new or were put away by hand-edits"
    )
