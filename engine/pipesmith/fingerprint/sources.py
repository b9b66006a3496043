"""What is never part of a source, whatever git says of it."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["NEVER_SOURCE", "Excluded"]

NEVER_SOURCE = frozenset({"pipeline.toml", "pipe.lock"})


class Excluded:
    """Paths that are left out with all that lies below them."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.paths = frozenset(paths)
        self._folders: dict[str, bool] = {"": False}
        self._above = {""}
        for path in self.paths:
            while path:
                path = path.rpartition("/")[0]
                self._above.add(path)

    def holds(self, path: str) -> bool:
        """Return whether a path is left out."""
        return path in self.paths or self._folder(path.rpartition("/")[0])

    def lies_below(self, folder: str) -> bool:
        """Return whether something that is left out may lie below a folder."""
        return folder in self._above

    def _folder(self, folder: str) -> bool:
        known = self._folders.get(folder)
        if known is None:
            known = folder in self.paths or self._folder(folder.rpartition("/")[0])
            self._folders[folder] = known
        return known
