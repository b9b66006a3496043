"""A lockfile's text taken apart table by table, so that only the tables that changed are parsed again.

Only a shortcut: a text of another shape than the emitter's, or one with a fault, is left to the whole reading.
"""

from __future__ import annotations

import marshal
from _blake2 import blake2b
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pipesmith.lockfile.emitter import HEADER
from pipesmith.lockfile.model import LOCK_VERSION

__all__ = ["Memory", "Tables", "document_of", "tables_of"]

_WORTH_CHARS = 20_000
_WORTH_TABLES = 30
_KEY = "lock-tables"


class Memory(Protocol):
    """Where parsed tables are remembered: the state database."""

    def query(self, sql: str, args: Any = ()) -> list[Any]: ...
    def write(self, statements: Any) -> None: ...


def tables_of(text: str) -> list[str] | None:
    """Return the text of each table, from behind its first bracket; None where the emitter did not write it."""
    if not text.startswith(HEADER):
        return None
    head, *tables = text.removesuffix("\n").split("\n\n[")
    return tables if tables and head == f"{HEADER}version = {LOCK_VERSION}" else None


class Tables:
    """Tables and what they say. memory: where that is remembered."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._known: dict[bytes, Any] | None = None
        self._found: dict[bytes, Any] = {}
        self._changed = False

    def documents(self, tables: Sequence[str], many: int) -> list[dict[str, Any]] | None:
        """Return what each table says, as tomllib would; None where one says nothing.

        many: of how many tables these are some; few are not worth the asking."""
        if self._known is None:
            self._known = _load(self._memory) if many >= _WORTH_TABLES else {}
        found = []
        for table in tables:
            key = _key(table)
            document = self._known.get(key)
            if document is None:
                import tomllib

                try:
                    document = tomllib.loads(f"[{table}")
                except (ValueError, RecursionError):
                    return None
                self._known[key] = document
                self._changed = many >= _WORTH_TABLES
            self._found[key] = document
            found.append(document)
        return found

    def flush(self) -> None:
        """Remember the tables that were asked for last, for later processes."""
        if self._changed and self._known is not None:
            _store(self._memory, self._known, self._found)
            self._changed = False


def document_of(text: str, memory: Memory) -> dict[str, Any] | None:
    """Return what the text says, as tomllib would; None where it must be read as a whole."""
    if len(text) < _WORTH_CHARS or not text.startswith(HEADER):
        return None
    head, *tables = text.split("\n\n[")
    if head != f"{HEADER}version = {LOCK_VERSION}":
        return None
    known = _load(memory)
    keys = [_key(table) for table in tables]
    unknown = [index for index, key in enumerate(keys) if key not in known]
    found = {key: known[key] for key in keys if key in known}
    if unknown or not tables:
        import tomllib

        try:
            for index in unknown:
                found[keys[index]] = tomllib.loads(f"[{tables[index]}")
        except tomllib.TOMLDecodeError:
            return None
    document: dict[str, Any] = {"version": LOCK_VERSION}
    for key in keys:
        if not _merge(document, found[key]):
            return None
    if unknown:
        _store(memory, known, found)
    return document


def _key(table: str) -> bytes:
    return blake2b(table.encode("utf-8", "surrogateescape"), digest_size=16).digest()


def _merge(document: dict[str, Any], table: Mapping[str, Any]) -> bool:
    """Take one `[kind.name]` in; False for anything else, and for a name that is there already."""
    if len(table) != 1:
        return False
    (kind, named), *_ = table.items()
    if not isinstance(named, dict) or len(named) != 1:
        return False
    (name, entry), *_ = named.items()
    tables = document.setdefault(kind, {})
    if not isinstance(tables, dict) or name in tables:
        return False
    tables[name] = entry
    return True


def _load(memory: Memory) -> dict[bytes, Any]:
    for (value,) in memory.query("SELECT value FROM parsed WHERE key = ?", (_KEY,)):
        try:
            loaded = marshal.loads(value)
            return loaded if isinstance(loaded, dict) else {}
        except (ValueError, EOFError, TypeError):
            break
    return {}


def _store(memory: Memory, known: Mapping[bytes, Any], found: Mapping[bytes, Any]) -> None:
    """Remember the tables of this text, and older ones as long as they are no more than twice as many."""
    kept = {**dict(list(known.items())[-2 * len(found) :]), **found}
    try:
        value = marshal.dumps(kept, 2)
    except ValueError:  # dates among the params
        return
    memory.write([("INSERT OR REPLACE INTO parsed VALUES (?, ?)", (_KEY, value))])
