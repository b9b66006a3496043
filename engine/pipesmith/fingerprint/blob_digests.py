"""Which digest the content of a git blob has: a map between two names of the same bytes, never out of date."""

from __future__ import annotations

import os

from pipesmith.digest import Digest, new_hasher
from pipesmith.fingerprint.git_trees import chunks_of, git_hash, git_hasher
from pipesmith.store.state_db import StateDB

__all__ = ["BlobDigests"]


class BlobDigests:
    """state: where it is remembered; None keeps it in memory alone."""

    def __init__(self, state: StateDB | None) -> None:
        self._state = state
        self._known: dict[str, Digest] = {}
        self._new: dict[str, Digest] = {}

    def get(self, algorithm: str, oid: str) -> Digest | None:
        key = f"blob:{algorithm}:{oid}"
        found = self._known.get(key)
        if found is None and self._state is not None:
            for (value,) in self._state.query("SELECT value FROM gitmap WHERE key = ?", (key,)):
                size, _, hex = bytes(value).decode().partition(" ")
                found = self._known[key] = Digest(algorithm, hex, int(size))
        return found

    def put_content(self, algorithm: str, oid: str, data: bytes, object_format: str | None = None) -> Digest:
        """Remember and return the digest of a blob's content.

        object_format: where the bytes may be another's, since git replaces objects (`git replace`): then it is
        remembered for this process alone."""
        hasher = new_hasher(algorithm)
        hasher.update(data)
        digest = Digest(algorithm, hasher.hexdigest(), len(data))
        if object_format is not None and git_hash(object_format, b"blob", data) != oid:
            self._known[f"blob:{algorithm}:{oid}"] = digest
            return digest
        return self._put(oid, digest)

    def put_if_stored(self, algorithm: str, oid: str, path: str, object_format: str) -> Digest | None:
        """Remember and return a file's digest if its own bytes are that blob's; both are hashed from one reading."""
        size = os.stat(path).st_size
        git = git_hasher(object_format, b"blob", size)
        own = new_hasher(algorithm)
        for chunk in chunks_of(path, size):
            git.update(chunk)
            own.update(chunk)
        if git.hexdigest() != oid:
            return None
        return self._put(oid, Digest(algorithm, own.hexdigest(), size))

    def _put(self, oid: str, digest: Digest) -> Digest:
        key = f"blob:{digest.algorithm}:{oid}"
        self._known[key] = self._new[key] = digest
        return digest

    def flush(self) -> None:
        """Remember for later processes what was learned."""
        if self._new and self._state is not None:
            rows = [(key, f"{digest.size} {digest.hex}".encode()) for key, digest in self._new.items()]
            self._state.write_many("INSERT OR REPLACE INTO gitmap VALUES (?, ?)", rows)
        self._new = {}
