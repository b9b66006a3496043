"""What was derived from git's trees, kept in state.db: trees never change, so a later push looks at new ones alone."""

from __future__ import annotations

import marshal
from _blake2 import blake2b
from typing import Any

from pipesmith.store.state_db import StateDB

__all__ = ["TreeMemory"]

_MISSING = object()


class TreeMemory(dict[Any, Any]):
    """Stands for `ObjectReader.memo`, of a reader that git shows no replaced objects.

    Kept are: `("pipelines", tree)`, `("summary", tree)`, and (what is left out, ignore rules, path, tree) to a source's
    id. sign: of the program; what another one derived does not count. alone: False where submodules are looked into,
    whose objects may be here or not; then nothing is kept.
    """

    def __init__(self, state: StateDB, sign: bytes) -> None:
        super().__init__()
        self.alone = True
        self._state = state
        self._sign = sign
        self._rules: dict[int, bytes] = {}  # id of an object that stands for rules, to a digest of them
        self._new: list[tuple[str, bytes]] = []

    def __contains__(self, key: object) -> bool:
        return self.get(key, _MISSING) is not _MISSING

    def get(self, key: Any, default: Any = None) -> Any:
        if super().__contains__(key):
            return super().__getitem__(key)
        name = self._name(key)
        if name is not None:
            for (value,) in self._state.query("SELECT value FROM gitmap WHERE key = ?", (name,)):
                if value[:16] == self._sign:
                    found = marshal.loads(value[16:])
                    super().__setitem__(key, found)
                    return found
        return default

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        if key[0] in ("excluded", "pipeignore"):
            what = sorted(key[1]) if key[0] == "excluded" else key[1]
            self._rules[id(value)] = blake2b(repr(what).encode("utf-8", "surrogateescape"), digest_size=16).digest()
        elif (name := self._name(key)) is not None:
            self._new.append((name, self._sign + marshal.dumps(value)))

    def _name(self, key: Any) -> str | None:
        """Return what a key is called in the database, None for what is not kept."""
        if not self.alone or not isinstance(key, tuple):
            return None
        if key[0] in ("pipelines", "summary"):
            return f"{key[0]}:{key[1]}"
        if len(key) == 4 and id(key[0]) in self._rules and (key[1] is None or id(key[1]) in self._rules):
            rules = self._rules[id(key[0])] + self._rules.get(id(key[1]), b"")
            return f"source:{rules.hex()}:{key[2]}:{key[3]}"
        return None

    def flush(self) -> None:
        """Remember for later processes what was derived."""
        if self._new:
            self._state.write_many("INSERT OR REPLACE INTO gitmap VALUES (?, ?)", self._new)
            self._new = []
