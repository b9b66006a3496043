"""state.db: stamps, indexes and timings. It may be deleted at any time; nothing in it is needed for rightness.

Format: docs/formats/state-db.md.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pipesmith.store.modes import make_folders, share

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
"""
_BROKEN = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
_NETWORK = frozenset(("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "lustre", "beegfs", "ceph"))


class _LaterVersion(Exception):
    """The database is of a pipesmith that is newer than this one."""


class StateDB:
    """One connection, shared by the threads of a process.

    Never raises: what can't be read is empty, what can't be written is dropped. notices: lines for people about what
    was found wrong. Text that is no UTF-8 (a path with odd bytes) is stored as those bytes.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.writable = False
        self.notices: list[str] = []
        self._guard = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._open()

    def _open(self) -> None:
        """Open for reading and writing, after putting aside what is broken; else for reading; else not at all."""
        try:
            self._make()
        except _LaterVersion as later:
            self.notices.append(
                f"state.db is of version {later}, this pipesmith reads version {_VERSION}; it does without"
            )
        except (sqlite3.Error, OSError) as error:
            try:
                if self._is_broken(error) and self._mend():
                    return
            except (sqlite3.Error, OSError, _LaterVersion):
                pass
            self._connection = self._read_only()
            if self._connection is None and os.path.exists(self.path):
                self.notices.append(f"state.db can't be used ({error}); this goes on without it")

    def _make(self) -> None:
        make_folders(os.path.dirname(self.path))
        if not os.path.exists(self.path):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
            share(self.path)  # now: what SQLite makes beside it gets the same mode
        self._connection = self._connect()
        self.writable = True

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > _VERSION:
                raise _LaterVersion(version)
            mode = "DELETE" if _on_network(self.path) else "WAL"
            if version != _VERSION:
                connection.execute("PRAGMA synchronous=OFF")  # nothing is lost yet if the machine goes down now
            connection.execute(f"PRAGMA journal_mode={mode}")
            if version != _VERSION:
                connection.executescript(f"BEGIN IMMEDIATE;{SCHEMA}PRAGMA user_version={_VERSION};COMMIT;")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("SELECT hex FROM objects LIMIT 1")
        except BaseException:
            connection.close()
            raise
        return connection

    def _read_only(self) -> sqlite3.Connection | None:
        quoted = self.path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        for query in ("mode=ro", "immutable=1"):
            try:
                address = f"file:{quoted}?{query}"
                connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
            except sqlite3.Error:
                continue
            try:
                if connection.execute("PRAGMA user_version").fetchone()[0] <= _VERSION:
                    connection.execute("SELECT hex FROM objects LIMIT 1")
                    return connection
            except sqlite3.Error:
                pass
            connection.close()
        return None

    def _is_broken(self, error: Exception) -> bool:
        """Return whether an error means that the file holds no database. A full or read-only disk is no such thing."""
        if isinstance(error, OSError):
            return False
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_CANTOPEN:
            return os.path.isdir(self.path)
        return code in _BROKEN or (code == sqlite3.SQLITE_ERROR and "no such table" in str(error))

    def _mend(self) -> bool:
        """Move a broken database out of the way and begin a new one; return whether that was done.

        Another process may have done it meanwhile: whoever gets the lock looks again.
        """
        with open(f"{self.path}.mend", "a") as guard:
            share(f"{self.path}.mend")
            fcntl.flock(guard, fcntl.LOCK_EX)
            try:
                self._make()
                return True
            except sqlite3.Error as error:
                if not self._is_broken(error):
                    raise
            number = 1
            while os.path.lexists(f"{self.path}.bad-{number}"):
                number += 1
            for suffix in ("", "-wal", "-shm"):
                if os.path.lexists(self.path + suffix):
                    os.rename(self.path + suffix, f"{self.path}.bad-{number}{suffix}")
            self.notices.append(
                f"state.db was broken; it lies at `{self.path}.bad-{number}` now and a new one was begun"
            )
            self._make()
            return True

    def query(self, sql: str, args: Sequence[Any] = ()) -> list[Any]:
        """Return the rows, none where the database can't be used."""
        with self._guard:
            if self._connection is None:
                return []
            try:
                return self._connection.execute(sql, _storable(args)).fetchall()
            except sqlite3.Error as error:
                self._failed(error)
                return []

    def write(self, statements: Iterable[tuple[str, Sequence[Any]]]) -> None:
        """Do all statements in one transaction, or none of them."""

        def run(connection: sqlite3.Connection) -> None:
            for sql, args in statements:
                connection.execute(sql, _storable(args))

        self._transact(run)

    def write_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Do one statement for many rows, in one transaction."""
        self._transact(lambda connection: connection.executemany(sql, map(_storable, rows)))

    def _transact(self, run: Callable[[sqlite3.Connection], object]) -> None:
        with self._guard:
            connection = self._connection
            if connection is None or not self.writable:
                return
            try:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    run(connection)
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                self._failed(error)

    def _failed(self, error: sqlite3.Error) -> None:
        """Begin anew after damage that showed only now; do without writing where the disk can't be written."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_READONLY:
            self.writable = False
        elif code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            if self.writable:
                self.writable = False
                self.notices.append(f"state.db can't be written ({error}); what this command learns is not remembered")
        elif self._is_broken(error):
            assert self._connection is not None
            self._connection.close()
            self._connection = None
            self.writable = False
            try:
                self._mend()
            except (sqlite3.Error, OSError, _LaterVersion):
                self.notices.append(f"state.db can't be used ({error}); this goes on without it")

    def close(self) -> None:
        with self._guard:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


def _storable(args: Sequence[Any]) -> Sequence[Any]:
    """Return arguments with each text that is no UTF-8 as its bytes."""
    for arg in args:
        if isinstance(arg, str) and not arg.isascii():
            return [_bytes(each) if isinstance(each, str) else each for each in args]
    return args


def _bytes(text: str) -> str | bytes:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape")
    return text


def _on_network(path: str) -> bool:
    """Return whether a path lies on a file system where SQLite's shared memory does not work."""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
            mounts = [line.split(" ")[1:3] for line in file]
    except OSError:
        return False
    real = os.path.realpath(os.path.dirname(path))
    above = [mount for mount in mounts if real == mount[0] or real.startswith(mount[0].rstrip("/") + "/")]
    return bool(above) and max(above, key=lambda mount: len(mount[0]))[1] in _NETWORK
