"""Which paths count, and which folders must be watched to hear of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

__all__ = ["Coverage"]


@dataclass(frozen=True)
class Coverage:
    """What is to be watched; all paths are absolute, of things that are there or not.

    root: the folder that all begins at; folders on the way from it to a path count as well, since they may be moved.
    exact: paths that count themselves. whole: with all below them. listed: with all below them but `skipped` folders.
    Folders named `.git` are never entered, links never followed.
    """

    root: str
    exact: frozenset[str] = frozenset()
    whole: frozenset[str] = frozenset()
    listed: frozenset[str] = frozenset()
    skipped: frozenset[str] = frozenset()
    _ways: frozenset[str] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        ways = {self.root}
        for path in (*self.exact, *self.whole, *self.listed):
            for folder in _above(path):
                if folder in ways or not _is_below(folder, self.root):
                    break
                ways.add(folder)
        object.__setattr__(self, "_ways", frozenset(ways))

    def also(self, paths: frozenset[str]) -> Coverage:
        """Return this with more paths that count themselves."""
        return replace(self, exact=self.exact | paths)

    def counts(self, path: str) -> bool:
        """Return whether a change of this path is one to hear of."""
        if path in self.exact or path in self._ways:
            return True
        return self._inside(path)

    def is_whole(self, path: str) -> bool:
        """Return whether a path counts whatever git ignores."""
        return (
            path in self.exact or path in self.whole or any(folder in self.whole for folder in _above(path, self.root))
        )

    def _inside(self, path: str) -> bool:
        skipped = path in self.skipped
        place = path
        while True:
            if place in self.whole or (place in self.listed and not skipped):
                return True
            parent, name = os.path.split(place)
            if name == ".git" or parent == place:
                return False
            place = parent
            skipped = skipped or place in self.skipped

    def folders(self, start: str | None = None) -> Iterator[str]:
        """Yield the folders to be watched that are there now, each once. start: only those that are it or lie below.

        A folder is yielded before it is looked into: who watches it at once misses none that is made in it meanwhile.
        """
        seen: set[str] = set()
        for folder in self._folders(start):
            if folder not in seen and (start is None or folder == start or _is_below(folder, start)):
                seen.add(folder)
                yield folder

    def _folders(self, start: str | None) -> Iterator[str]:
        if start is not None and self._inside(start):
            yield from self._walk([start], skip=not self.is_whole(start))
            return
        yield from (way for way in sorted(self._ways, key=len) if os.path.isdir(way))
        for path in (*self.exact, *self.whole, *self.listed):
            yield from _nearest(os.path.dirname(path))
        yield from self._walk(self.whole, skip=False)
        yield from self._walk(self.listed, skip=True)

    def _walk(self, starts: Iterable[str], *, skip: bool) -> Iterator[str]:
        stack = [path for path in starts if os.path.isdir(path) and not os.path.islink(path)]
        while stack:
            folder = stack.pop()
            if skip and folder in self.skipped:
                continue
            yield folder
            try:
                with os.scandir(folder) as entries:
                    stack += [e.path for e in entries if e.is_dir(follow_symlinks=False) and e.name != ".git"]
            except OSError:
                continue  # gone meanwhile, or nobody's to read


def _above(path: str, top: str | None = None) -> Iterator[str]:
    """Yield the folders that a path lies in, the nearest first, up to `top`."""
    while path != top:
        parent = os.path.dirname(path)
        if parent == path:
            return
        yield parent
        path = parent


def _nearest(folder: str) -> Iterator[str]:
    """Yield the folder if it is there, else the nearest one above it that is."""
    while not os.path.isdir(folder):
        parent = os.path.dirname(folder)
        if parent == folder:
            return
        folder = parent
    yield folder


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip(os.sep) + os.sep)
