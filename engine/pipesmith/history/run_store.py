"""Runs: written as commits under refs/pipe/runs/, indexed in state.db. The refs are the truth and outlive the index."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipesmith.errors import UserError
from pipesmith.git.objects import ObjectReader
from pipesmith.git.refs import commit_message, delete_refs, list_refs, update_ref
from pipesmith.git.repository import Repository
from pipesmith.git.snapshot import commit_tree
from pipesmith.history.record import RunRecord, message_of, record_of
from pipesmith.history.run_id import is_run_id
from pipesmith.liveness import is_alive
from pipesmith.store.modes import make_folders, share
from pipesmith.store.state_db import StateDB

__all__ = ["LATEST", "LOGS", "PREFIX", "RunStore"]

PREFIX = "refs/pipe/runs/"
LOGS = "refs/pipe/logs/"  # of runs that were shared
LATEST = ("latest", "last", "@")
_DAY_S = 86400.0


class RunStore:
    """The runs of one clone. notices: lines for people about runs that can't be read."""

    def __init__(self, repo: Repository, state: StateDB, logs: str) -> None:
        self._repo = repo
        self._state = state
        self.logs = logs
        self.notices: list[str] = []

    def write(self, record: RunRecord, tree: str | None) -> None:
        """Record a run as it is now. tree: of its snapshot, None where none could be made; then only state.db has it.

        Raises EnvironmentFailure where the repository can't be written."""
        commit = None
        body = record.as_json()
        if tree is not None:
            commit = commit_tree(self._repo, tree, record.commit, message_of(record, body))
            update_ref(self._repo, f"{PREFIX}{record.id}", commit)
        self._index([(record, body | {"ref": commit})])

    def _index(self, records: Sequence[tuple[RunRecord, Mapping[str, Any]]]) -> None:
        rows = [(r.id, r.time, r.status, json.dumps(body).encode()) for r, body in records]
        if rows:
            self._state.write_many("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?)", rows)

    def all(self) -> Iterator[RunRecord]:
        """Yield every run, newest first. What can't be read is passed over; `notices` tells of later versions."""
        reading = _Reading(self)
        try:
            for name in reading.names:
                try:
                    record = reading.load(name)
                except UserError as error:
                    self.notices.append(f"run {name} is left out: {error.text}")
                    continue
                if record is not None:
                    yield record
        finally:
            reading.close()

    def list(
        self,
        *,
        n: int | None = None,
        stage: str | None = None,
        failed: bool = False,
        experiment: str | None = None,
        tag: str | None = None,
        branch: str | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> list[RunRecord]:
        """Return runs, newest first, that pass all filters.

        stage: one that the run looked at; a table with a matrix stands for its cells. tag: `K=V` or `K`.
        since, until: seconds since the epoch.
        """
        found: list[RunRecord] = []
        for record in self.all():
            if n is not None and len(found) >= n:
                break
            if stage is not None and not any(
                each.name == stage or each.name.startswith(f"{stage}@") for each in record.stages
            ):
                continue
            if failed and record.status != "failed":
                continue
            if experiment is not None and record.experiment != experiment:
                continue
            if branch is not None and record.branch != branch:
                continue
            if (since is not None and record.time < since) or (until is not None and record.time > until):
                continue
            if tag is not None and not _tagged(record, tag):
                continue
            found.append(record)
        return found

    def get(self, name: str) -> RunRecord:
        """Return a run by its id, the beginning or end of one, or `latest`. Raises UserError."""
        if name in LATEST:
            for record in self.all():
                return record
            raise UserError("there are no runs yet", "run `pipe build`")
        reading = _Reading(self)
        try:
            if name in reading.names:
                matching = [name]
            else:
                matching = [each for each in reading.names if name and (each.startswith(name) or each.endswith(name))]
            if len(matching) > 1:
                raise UserError(f"`{name}` is the beginning of {len(matching)} runs", "give more of the id")
            found = reading.load(matching[0]) if matching else None
        finally:
            reading.close()
        if found is None:
            raise UserError(f"no run `{name}`", "`pipe runs` lists them")
        return found

    def commits(self) -> dict[str, str]:
        """Return id to commit of the runs that git holds."""
        found = ((ref.removeprefix(PREFIX), commit) for ref, commit in list_refs(self._repo, PREFIX).items())
        return {name: commit for name, commit in found if is_run_id(name)}

    def end_cut_off(self) -> None:
        """Write into the records of runs that were cut off here that they were: elsewhere nobody could tell.

        Raises EnvironmentFailure where the repository can't be written."""
        for record in list(self.all()):
            if record.status == "cancelled" and record.end is None and record.snapshot is not None:
                self.write(record, record.snapshot)

    def remove(self, name: str) -> None:
        """Forget a run: its ref, its row, its logs. Raises EnvironmentFailure where the repository can't be written."""
        self._remove((name,))

    def prune(
        self, keep_days: float, *, now: float | None = None, dry_run: bool = False, trash: str | None = None
    ) -> tuple[str, ...]:
        """Forget the runs that ended more than so many days ago, and return their ids. One that goes on stays.

        trash: a folder that takes their logs, and a note of each one's commit."""
        before = (time.time() if now is None else now) - keep_days * _DAY_S
        ended = (each for each in self.all() if each.status != "running")
        old = tuple(each.id for each in ended if max(each.time, each.end or 0.0) < before)
        if not dry_run:
            self._remove(old, trash)
        return old

    def _remove(self, names: Sequence[str], trash: str | None = None) -> None:
        if not names:
            return
        listed = list_refs(self._repo, PREFIX) | list_refs(self._repo, LOGS)
        refs = [f"{prefix}{name}" for name in names for prefix in (PREFIX, LOGS)]
        if trash is not None:
            make_folders(trash)
            for name in names:
                if commit := listed.get(f"{PREFIX}{name}"):
                    _put_away(trash, self.logs, name, f"{commit} {PREFIX}{name}\n")
        delete_refs(self._repo, [ref for ref in refs if ref in listed])
        self._state.write_many("DELETE FROM runs WHERE id = ?", [(name,) for name in names])
        for name in names:
            if is_run_id(name):
                shutil.rmtree(os.path.join(self.logs, name), ignore_errors=True)


def _put_away(trash: str, logs: str, name: str, text: str) -> None:
    """Let what is left of a run rest: `git update-ref` brings it back as long as git has its commit."""
    note = os.path.join(trash, f"run-{name}")
    with open(note, "w", encoding="ascii") as file:
        file.write(text)
    share(note)
    try:
        os.rename(os.path.join(logs, name), os.path.join(trash, f"logs-{name}"))
        os.utime(os.path.join(trash, f"logs-{name}"))
    except OSError:
        pass  # it has none


class _Reading:
    """One look at the runs. names: ids, newest first. Close it: what was read from refs goes into the index then."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._refs = store.commits()
        indexed = {str(row[0]) for row in store._state.query("SELECT id FROM runs")}
        self.names = sorted(self._refs.keys() | indexed, reverse=True)
        self._reader: ObjectReader | None = None
        self._read: list[tuple[RunRecord, str | None]] = []

    def load(self, name: str) -> RunRecord | None:
        """Return a run, None where it can't be read or its ref is gone. Raises UserError for one of a later version."""
        commit = self._refs.get(name)
        record = self._from_index(name, commit)
        if record is None and commit is not None:
            record = self._from_commit(commit)
            if record is not None and record.id == name:
                self._read.append((record, commit))
        if record is None or record.id != name:
            return None
        return _settled(record)

    def _from_index(self, name: str, commit: str | None) -> RunRecord | None:
        """The row counts only as long as its ref is what it was: a run may have been fetched again, or deleted."""
        for (body,) in self._store._state.query("SELECT body FROM runs WHERE id = ?", (name,)):
            try:
                document = json.loads(body)
                if document.get("ref") == commit:
                    return RunRecord.from_json(document)
            except (ValueError, TypeError, KeyError, AttributeError):
                return None
        return None

    def _from_commit(self, commit: str) -> RunRecord | None:
        if self._reader is None:
            self._reader = ObjectReader(self._store._repo)
        message = commit_message(self._reader, commit)
        return record_of(message) if message is not None else None

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._store._index([(record, record.as_json() | {"ref": commit}) for record, commit in self._read])


def _tagged(record: RunRecord, tag: str) -> bool:
    key, equals, value = tag.partition("=")
    return key in record.tags and (not equals or record.tags[key] == value)


def _settled(record: RunRecord) -> RunRecord:
    """A run that says it is running though its process is gone was cut off. Another machine's can't be told here."""
    if record.status == "running" and record.host == socket.gethostname() and not is_alive(record.pid, record.process):
        record.status = "cancelled"
    return record
