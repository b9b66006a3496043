"""Runs: written as commits under refs/pipe/runs/, indexed in state.db. The refs outlive the index."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator

from pipesmith.errors import EnvironmentFailure, UserError
from pipesmith.git.repository import Repository
from pipesmith.git.snapshot import commit_tree
from pipesmith.history.record import RunRecord, message_of, record_of
from pipesmith.store.state_db import StateDB

__all__ = ["PREFIX", "RunStore"]

PREFIX = "refs/pipe/runs/"


class RunStore:
    """The runs of one clone."""

    def __init__(self, repo: Repository, state: StateDB, logs: str) -> None:
        self._repo = repo
        self._state = state
        self.logs = logs

    def write(self, record: RunRecord, tree: str | None) -> None:
        """Record a run as it is now. tree: of its snapshot, None where none could be made; then only state.db has it."""
        if tree is not None:
            commit = commit_tree(self._repo, tree, record.commit, message_of(record))
            self._repo.run("update-ref", f"{PREFIX}{record.id}", commit)
        self._index(record)

    def _index(self, record: RunRecord) -> None:
        body = json.dumps(record.as_json(), default=str).encode("utf-8", "surrogateescape")
        self._state.write([("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?)", (record.id, record.time, record.status, body))])

    def all(self) -> Iterator[RunRecord]:
        """Yield every run, newest first. What the refs have and the index has not is read from the refs."""
        indexed = {row[0]: row[1] for row in self._state.query("SELECT id, body FROM runs")}
        listed = self._repo.run("for-each-ref", "--format=%(refname)", PREFIX).decode().split()
        names = {ref.removeprefix(PREFIX) for ref in listed}
        for name in sorted(names | set(indexed), reverse=True):
            record = self._from_index(indexed.get(name)) or self._from_ref(name)
            if record is not None:
                yield _settled(record)

    @staticmethod
    def _from_index(body: bytes | None) -> RunRecord | None:
        if body is None:
            return None
        try:
            return RunRecord.from_json(json.loads(body.decode("utf-8", "surrogateescape")))
        except (ValueError, TypeError, KeyError):
            return None

    def _from_ref(self, name: str) -> RunRecord | None:
        done = self._repo.process("log", "-1", "--format=%B", f"{PREFIX}{name}", "--")
        if done.returncode != 0:
            return None
        record = record_of(done.stdout.decode("utf-8", "surrogateescape"))
        if record is not None:
            self._index(record)
        return record

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
        """Return runs, newest first, that pass all filters. tag: `K=V` or `K`. since, until: seconds since the epoch."""
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
            if since is not None and record.time < since or until is not None and record.time > until:
                continue
            if tag is not None and not _tagged(record, tag):
                continue
            found.append(record)
        return found

    def get(self, name: str) -> RunRecord:
        """Return a run by its id, the beginning of one, or `latest`. Raises UserError."""
        if name in ("latest", "last", "@"):
            for record in self.all():
                return record
            raise UserError("there are no runs yet", "run `pipe build`")
        found = [record for record in self.all() if record.id.startswith(name) or record.id.endswith(name)]
        exact = [record for record in found if record.id == name]
        if exact or len(found) == 1:
            return (exact or found)[0]
        if found:
            raise UserError(f"`{name}` is the beginning of {len(found)} runs", "give more of the id")
        raise UserError(f"no run `{name}`", "`pipe runs` lists them")

    def remove(self, name: str) -> None:
        """Forget a run: its ref, its row, its logs."""
        import shutil

        try:
            self._repo.run("update-ref", "-d", f"{PREFIX}{name}")
        except EnvironmentFailure:
            pass
        self._state.write([("DELETE FROM runs WHERE id = ?", (name,))])
        shutil.rmtree(os.path.join(self.logs, name), ignore_errors=True)


def _tagged(record: RunRecord, tag: str) -> bool:
    key, equals, value = tag.partition("=")
    return key in record.tags and (not equals or record.tags[key] == value)


def _settled(record: RunRecord) -> RunRecord:
    """A run that still says it is running but whose process is gone was cut off."""
    if record.status == "running" and record.host == socket.gethostname() and not _alive(record.pid):
        record.status = "cancelled"
    return record


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0


