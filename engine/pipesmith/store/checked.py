"""Which objects were read and found whole, by the stamp that they had then."""

from __future__ import annotations

import marshal
import os

from pipesmith.store.links import HARDLINK_ABOVE_BYTES
from pipesmith.store.state_db import StateDB

__all__ = ["Checked"]


class Checked:
    """Stamps of checked objects: of this process all, of earlier ones those of big objects.

    A stamp is (inode, size, mtime, ctime). A new name of an object changes its ctime: then it is read once more.
    """

    def __init__(self, state: StateDB) -> None:
        self._state = state
        self._stamps: dict[str, bytes] = {}
        self._new: dict[str, bytes] = {}

    def holds(self, hex: str, path: str) -> bool:
        """Return whether an object was checked and not written since."""
        stamp = _stamp(path)
        if stamp is None:
            return False
        known = self._stamps.get(hex)
        if known is None and os.path.getsize(path) > HARDLINK_ABOVE_BYTES:
            rows = self._state.query("SELECT stamp FROM objects WHERE hex = ?", (hex,))
            known = rows[0][0] if rows else None
        return known == stamp

    def add(self, hex: str, path: str) -> None:
        """Remember that an object was just found whole."""
        stamp = _stamp(path)
        if stamp is not None:
            self._stamps[hex] = stamp
            if marshal.loads(stamp)[1] > HARDLINK_ABOVE_BYTES:
                self._new[hex] = stamp

    def forget(self, hex: str) -> None:
        self._stamps.pop(hex, None)
        self._new.pop(hex, None)

    def flush(self) -> None:
        """Remember big objects for later processes."""
        if self._new:
            rows, self._new = list(self._new.items()), {}
            self._state.write_many("INSERT OR REPLACE INTO objects VALUES (?, ?)", rows)


def _stamp(path: str) -> bytes | None:
    try:
        info = os.lstat(path)
    except OSError:
        return None
    return marshal.dumps((info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns), 2)
