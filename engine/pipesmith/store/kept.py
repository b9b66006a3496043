"""Content put away because it only existed in the workspace: an object, and a small record under `cache/kept/`."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass

from pipesmith.digest import Digest
from pipesmith.store.object_store import ObjectStore

__all__ = ["Kept", "keep", "kept"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """path: of the workspace. at: seconds since the epoch. record: absolute path of the record."""

    path: str
    stage: str
    digest: Digest
    at: float
    record: str


def keep(store: ObjectStore, there: str, *, path: str, stage: str) -> Digest:
    """Put away what lies at an absolute path (a link: its text) and return its digest. It stays where it is."""
    digest = store.add_bytes(os.fsencode(os.readlink(there))) if os.path.islink(there) else store.add_tree(there, move=False)
    folder = os.path.join(store.root, "kept")
    os.makedirs(folder, exist_ok=True)
    now = time.time()
    body = {
        "version": 1,
        "path": path,
        "stage": stage,
        "hash": digest.algorithm,
        "hex": digest.hex,
        "size": digest.size,
        "nfiles": digest.nfiles,
        "at": now,
    }
    target = os.path.join(folder, f"{int(now * 1000):014d}-{digest.hex[:12]}-{secrets.token_hex(3)}.json")
    with open(f"{target}.tmp", "w", encoding="utf-8") as file:
        json.dump(body, file)
    os.rename(f"{target}.tmp", target)
    store.sync()
    return digest


def kept(store: ObjectStore) -> Iterator[Kept]:
    """Yield what was put away, oldest first."""
    folder = os.path.join(store.root, "kept")
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    for name in names:
        try:
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                body = json.load(file)
            digest = Digest(body["hash"], body["hex"], body["size"], body["nfiles"])
            yield Kept(path=body["path"], stage=body["stage"], digest=digest, at=body["at"], record=os.path.join(folder, name))
        except (OSError, ValueError, KeyError):
            continue
