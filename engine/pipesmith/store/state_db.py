"""state.db: stamps, indexes and timings. It may be deleted at any time; nothing in it is needed for rightness.

Format: docs/formats/state-db.md.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["SCHEMA", "StateDB"]

_VERSION = 1

SCHEMA = """
CREATE TABLE IF NOT EXISTS folders(path TEXT PRIMARY KEY, signature BLOB, data BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files(path TEXT PRIMARY KEY, stamp BLOB, data BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS gitmap(key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parsed(key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS objects(hex TEXT PRIMARY KEY, stamp BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS timings(stage TEXT PRIMARY KEY, seconds REAL, at REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS runs(id TEXT PRIMARY KEY, time REAL, status TEXT, body BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS witness(key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
"""
_BROKEN = ("not a database", "malformed", "unable to open", "disk image", "file is encrypted")


class StateDB:
    """One connection, shared by the threads of a process. Never raises: what can't be read is empty, what can't be written is
    dropped. notices: lines for people about what was found wrong."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.writable = False
        self.notices: list[str] = []
        self._guard = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._open()

    def _open(self) -> None:
        try:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
        except OSError:
            pass
        try:
            self._connection = self._connect()
            self.writable = True
            return
        except sqlite3.DatabaseError as error:
            if not os.access(os.path.dirname(self.path), os.W_OK) or "readonly" in str(error):
                self._connection = self._read_only()
                return
            if "locked" in str(error):
                return
        self._put_aside()
        try:
            self._connection = self._connect()
            self.writable = True
        except sqlite3.Error:
            self._connection = None

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        try:
            mode = "DELETE" if _on_network(self.path) else "WAL"
            connection.execute(f"PRAGMA journal_mode={mode}")
            connection.execute("PRAGMA synchronous=NORMAL")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version != _VERSION:
                if version > _VERSION:
                    raise sqlite3.DatabaseError("malformed: of a later version")
                connection.executescript(f"BEGIN IMMEDIATE;{SCHEMA}PRAGMA user_version={_VERSION};COMMIT;")
            connection.execute("SELECT key FROM witness LIMIT 1")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _read_only(self) -> sqlite3.Connection | None:
        for query in ("mode=ro", "immutable=1"):
            try:
                quoted = self.path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
                connection = sqlite3.connect(f"file:{quoted}?{query}", uri=True, isolation_level=None, check_same_thread=False)
                connection.execute("SELECT key FROM witness LIMIT 1")
                return connection
            except sqlite3.Error:
                continue
        return None

    def _put_aside(self) -> None:
        """Move a broken database out of the way: it is only lost time."""
        number = 1
        while os.path.lexists(f"{self.path}.bad-{number}"):
            number += 1
        for suffix in ("", "-wal", "-shm"):
            try:
                os.rename(self.path + suffix, f"{self.path}.bad-{number}{suffix}")
            except OSError:
                pass
        self.notices.append(f"state.db was broken; it lies at `{self.path}.bad-{number}` now and a new one was begun")

    def query(self, sql: str, args: Sequence[Any] = ()) -> list[Any]:
        """Return the rows, none where the database can't be used."""
        with self._guard:
            if self._connection is None:
                return []
            try:
                return self._connection.execute(sql, args).fetchall()
            except sqlite3.DatabaseError as error:
                self._failed(error)
                return []

    def write(self, statements: Iterable[tuple[str, Sequence[Any]]]) -> None:
        """Do all statements in one transaction, or none of them."""
        with self._guard:
            if self._connection is None or not self.writable:
                return
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                for sql, args in statements:
                    self._connection.execute(sql, args)
                self._connection.execute("COMMIT")
            except sqlite3.DatabaseError as error:
                try:
                    self._connection.execute("ROLLBACK")
                except sqlite3.Error:
                    pass
                self._failed(error)

    def write_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Do one statement for many rows, in one transaction."""
        with self._guard:
            if self._connection is None or not self.writable:
                return
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(sql, rows)
                self._connection.execute("COMMIT")
            except sqlite3.DatabaseError as error:
                try:
                    self._connection.execute("ROLLBACK")
                except sqlite3.Error:
                    pass
                self._failed(error)

    def _failed(self, error: sqlite3.DatabaseError) -> None:
        if any(word in str(error) for word in _BROKEN):
            assert self._connection is not None
            self._connection.close()
            self._connection = None
            self._put_aside()
            try:
                self._connection = self._connect()
            except sqlite3.Error:
                self.writable = False

    def close(self) -> None:
        with self._guard:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


def _on_network(path: str) -> bool:
    """Return whether a path lies on a file system where SQLite's shared memory does not work."""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
            mounts = [line.split(" ")[1:3] for line in file]
    except OSError:
        return False
    real = os.path.realpath(os.path.dirname(path))
    best = max(
        (m for m in mounts if real == m[0] or real.startswith(m[0].rstrip("/") + "/")), key=lambda m: len(m[0]), default=None
    )
    return best is not None and best[1] in ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "lustre", "beegfs", "ceph")
