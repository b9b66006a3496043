"""Known results by action key: one file a result. A damaged record is a miss. Format: docs/formats/action-cache.md."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from pipesmith.digest import Digest, new_hasher
from pipesmith.lockfile.model import LockedOut
from pipesmith.records import field, record
from pipesmith.store.disk import disk_failure, names, write_whole

__all__ = ["ActionCache", "ActionResult"]

_VERSION = 1


@record
class ActionResult:
    """What a stage of this fingerprint made.

    items: (kind, item, value) of the fingerprint. created: seconds since the epoch.
    """

    key: str
    stage: str
    workspace: str = "."
    outs: tuple[LockedOut, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    items: tuple[tuple[str, str, str], ...] = ()
    seconds: float = 0.0
    peak_bytes: int = 0
    created: float = 0.0
    run: str = ""
    user: str = ""
    host: str = ""
    commit: str | None = None
    branch: str | None = None

    @property
    def origin(self) -> str:
        """Who made it where, for people."""
        where = f" at {self.commit[:10]}" if self.commit else ""
        return f"run {self.run} by {self.user}@{self.host}{where}"

    def as_json(self) -> dict[str, Any]:
        return {
            "version": _VERSION,
            "key": self.key,
            "stage": self.stage,
            "workspace": self.workspace,
            "outs": [_out_json(out) for out in self.outs],
            "metrics": dict(self.metrics),
            "items": [list(item) for item in self.items],
            "seconds": self.seconds,
            "peak_bytes": self.peak_bytes,
            "created": self.created,
            "run": self.run,
            "user": self.user,
            "host": self.host,
            "commit": self.commit,
            "branch": self.branch,
        }

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> ActionResult:
        """Raises KeyError, TypeError or ValueError for what is no record of this version."""
        if body["version"] != _VERSION:
            raise ValueError("a record of another version")
        return ActionResult(
            key=body["key"],
            stage=body["stage"],
            workspace=body["workspace"],
            outs=tuple(_out(entry) for entry in body["outs"]),
            metrics=body["metrics"],
            items=tuple((kind, item, value) for kind, item, value in body["items"]),
            seconds=body["seconds"],
            peak_bytes=body["peak_bytes"],
            created=body["created"],
            run=body["run"],
            user=body["user"],
            host=body["host"],
            commit=body["commit"],
            branch=body["branch"],
        )


def _out_json(out: LockedOut) -> dict[str, Any]:
    digest = out.digest
    entry: dict[str, Any] = {
        "name": out.name,
        "path": out.path,
        "hash": digest.algorithm,
        "hex": digest.hex,
        "size": digest.size,
    }
    if digest.nfiles is not None:
        entry["nfiles"] = digest.nfiles
    if digest.executable:
        entry["executable"] = True
    if not out.cache:
        entry["cache"] = False
    return entry


def _out(entry: Mapping[str, Any]) -> LockedOut:
    digest = Digest(entry["hash"], entry["hex"], entry["size"], entry.get("nfiles"), entry.get("executable", False))
    return LockedOut(name=entry["name"], path=entry["path"], digest=digest, cache=entry.get("cache", True))


def _checksum(text: str) -> str:
    hasher = new_hasher("blake3")
    hasher.update(text.encode("utf-8", "surrogateescape"))
    return hasher.hexdigest()


class ActionCache:
    """root: the folder `cache/actions`."""

    def __init__(self, root: str) -> None:
        self.root = root

    def _folder(self, key: str) -> str:
        return os.path.join(self.root, key[:2], key)

    def record(self, result: ActionResult) -> None:
        """Write a result down. Raises EnvironmentFailure where it can't be written."""
        outs = json.dumps([_out_json(out) for out in result.outs], sort_keys=True)
        path = os.path.join(self._folder(result.key), f"{_checksum(outs)[:32]}.json")
        try:
            write_whole(path, _render(result.as_json()))
        except OSError as error:
            raise disk_failure(error, self.root) from None

    def lookup(self, key: str) -> list[ActionResult]:
        """Return the known results of a key, newest first. Never raises."""
        folder = self._folder(key)
        found = [
            result for name in names(folder) if (result := _read(os.path.join(folder, name))) and result.key == key
        ]
        return sorted(found, key=lambda result: result.created, reverse=True)

    def __iter__(self) -> Iterator[tuple[str, ActionResult]]:
        """Yield (path of the record, result) of every known result."""
        for first in names(self.root):
            for key in names(os.path.join(self.root, first)):
                folder = os.path.join(self.root, first, key)
                for name in names(folder):
                    result = _read(os.path.join(folder, name))
                    if result is not None:
                        yield os.path.join(folder, name), result


def _render(body: Mapping[str, Any]) -> bytes:
    """Return the canonical bytes of a record: one line of JSON with the hash of all else in it as `checksum`."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return (json.dumps({**body, "checksum": _checksum(text)}, sort_keys=True, separators=(",", ":")) + "\n").encode()


def _read(path: str) -> ActionResult | None:
    if not path.endswith(".json"):
        return None
    try:
        with open(path, "rb") as file:
            data = file.read()
        body = json.loads(data)
        del body["checksum"]
        return ActionResult.from_json(body) if _render(body) == data else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
