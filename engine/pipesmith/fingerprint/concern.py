"""Whom a change from one commit's tree to another's concerns, of those who looked at paths of the first.

A question about a path is answered by what lies at it, above it and below it. So where nothing of that differs, the
answer is what it was, and nobody need ask again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from pipesmith.fingerprint.pipeignore import NAME as PIPEIGNORE
from pipesmith.git.objects import ObjectReader, RawTree
from pipesmith.records import record

__all__ = ["Change", "Concern", "changes"]

_TREE = b"40000"
_GITLINK = b"160000"
_IGNORE = PIPEIGNORE.encode()


@record
class Change:
    """What differs at a path: (mode, id) before and now, None where nothing lies there."""

    path: str
    old: tuple[bytes, bytes] | None
    new: tuple[bytes, bytes] | None

    @property
    def trees(self) -> Iterator[str]:
        """The ids of the folders that lie there, before and now."""
        return (side[1].hex() for side in (self.old, self.new) if side is not None and side[0] == _TREE)

    @property
    def blobs(self) -> Iterator[str]:
        """The id of the file that lies there now."""
        return (side[1].hex() for side in (self.new,) if side is not None and side[0] not in (_TREE, _GITLINK))

    @property
    def of_trees(self) -> bool:
        return self.old is not None and self.new is not None and self.old[0] == self.new[0] == _TREE

    @property
    def of_rules(self) -> bool:
        """Whether it is one of a `.pipeignore`, or of a submodule, which may have some."""
        name = os.fsencode(self.path.rpartition("/")[2])
        return name == _IGNORE or any(side is not None and side[0] == _GITLINK for side in (self.old, self.new))


def changes(reader: ObjectReader, old: str, new: str, path: str = "") -> list[Change]:
    """Return what differs between two trees, not looking into their folders. path: of these trees."""
    before, now = reader.raw_tree(old, path), reader.raw_tree(new, path)
    prefix = f"{path}/" if path else ""
    return [
        Change(path=prefix + os.fsdecode(name), old=before.get(name), new=now.get(name))
        for name in _differing(before, now)
    ]


def _differing(before: RawTree, now: RawTree) -> list[bytes]:
    found = [name for name, entry in now.items() if before.get(name) != entry]
    if len(before) + sum(name not in before for name in found) != len(now):
        found += [name for name in before if name not in now]
    return found


class Concern:
    """Who looked at which paths, relative to the workspace."""

    def __init__(self) -> None:
        self._paths: dict[str, frozenset[str]] = {}
        self._at: dict[str, set[str]] = {}
        self._above: dict[str, set[str]] = {}  # folder to who looked at something below it

    def looked(self, who: str, paths: Iterable[str]) -> None:
        """Say all that somebody looked at; what was said of it before is forgotten."""
        wanted = frozenset("" if path == "." else path for path in paths)
        known = self._paths.get(who, frozenset())
        if wanted == known:
            return
        self.forget(who)
        self._paths[who] = wanted
        for path in wanted:
            self._at.setdefault(path, set()).add(who)
            while path:
                path = path.rpartition("/")[0]
                self._above.setdefault(path, set()).add(who)

    def forget(self, who: str) -> None:
        for path in self._paths.pop(who, ()):
            self._at[path].discard(who)
            while path:
                path = path.rpartition("/")[0]
                self._above[path].discard(who)

    def at(self, path: str) -> set[str]:
        """Return who looked at this very path."""
        return self._at.get("" if path == "." else path, set())

    def below(self, path: str) -> set[str]:
        """Return who looked at something below a path."""
        return self._above.get(path, set())

    def of(self, path: str) -> set[str]:
        """Return who looked at a path, at something above it, or at something below it."""
        found = self._at.get(path, set()) | self._above.get(path, set())
        while path:
            path = path.rpartition("/")[0]
            found |= self._at.get(path, set())
        return found
