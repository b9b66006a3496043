"""Content put away because it only existed in the workspace: an object, and a small record under `cache/kept/`.

Format: docs/formats/object-store.md.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator

from pipesmith.digest import Digest
from pipesmith.errors import UserError
from pipesmith.records import record
from pipesmith.store.disk import disk_failure, names, write_whole
from pipesmith.store.locks import CACHE, LockTable
from pipesmith.store.object_store import ObjectStore

__all__ = ["Kept", "keep", "kept"]

_VERSION = 1


@record
class Kept:
    """path: of the workspace. at: seconds since the epoch. link: it was a symbolic link, and the content is its text.

    record: absolute path of the record.
    """

    path: str
    stage: str
    digest: Digest
    at: float
    record: str
    link: bool = False


def keep(store: ObjectStore, there: str, *, path: str, stage: str) -> Digest:
    """Put away what lies at an absolute path (a link: its text) and return its digest. It stays where it is.

    Raises EnvironmentFailure where it can't be stored, UserError for what has no content (a socket, a device).
    """
    with LockTable(os.path.join(os.path.dirname(store.root), "locks")).shared(CACHE):
        return _keep(store, there, path, stage)


def _keep(store: ObjectStore, there: str, path: str, stage: str) -> Digest:
    link = os.path.islink(there)
    digest = store.add_bytes(os.fsencode(os.readlink(there))) if link else _take_in(store, there)
    now = time.time()
    body = {
        "version": _VERSION,
        "path": path,
        "stage": stage,
        "hash": digest.algorithm,
        "hex": digest.hex,
        "size": digest.size,
        "nfiles": digest.nfiles,
        "at": now,
        "link": link,
    }
    name = f"{int(now * 1000):014d}-{digest.hex[:12]}-{os.urandom(3).hex()}.json"
    store.sync()
    try:
        write_whole(os.path.join(store.root, "kept", name), json.dumps(body, sort_keys=True).encode("ascii"))
    except OSError as error:
        raise disk_failure(error, store.root) from None
    return digest


def _take_in(store: ObjectStore, there: str) -> Digest:
    """DVC's format can't hold links and empty folders; what a person made is kept all the same."""
    try:
        return store.add_tree(there, move=False)
    except UserError:
        if store.algorithm == "blake3":
            raise
        return store.of_algorithm("blake3").add_tree(there, move=False)


def kept(store: ObjectStore) -> Iterator[Kept]:
    """Yield what was put away, oldest first."""
    folder = os.path.join(store.root, "kept")
    for name in names(folder):
        record = os.path.join(folder, name)
        try:
            with open(record, encoding="utf-8") as file:
                body = json.load(file)
            yield Kept(
                path=body["path"],
                stage=body["stage"],
                digest=Digest(body["hash"], body["hex"], body["size"], body["nfiles"]),
                at=body["at"],
                link=body.get("link", False),
                record=record,
            )
        except (OSError, ValueError, KeyError, TypeError):
            continue
