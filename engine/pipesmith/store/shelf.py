"""Where objects lie: their names, what is there, and the trash beside it. Layout: docs/formats/object-store.md."""

from __future__ import annotations

import os
from collections.abc import Iterator

from pipesmith.digest import ALGORITHMS, Digest
from pipesmith.store.disk import names, unfinished
from pipesmith.store.hashing import hash_file
from pipesmith.store.modes import make_folders, share

__all__ = ["Shelf"]

_SHORTEST_PREFIX = 4


class Shelf:
    """root: the cache folder."""

    def __init__(self, root: str) -> None:
        self.root = root

    def path(self, digest: Digest) -> str:
        """Return where an object lies, or would lie."""
        return self._path(digest.algorithm, digest.hex)

    def _path(self, algorithm: str, hex: str) -> str:
        return os.path.join(self.root, "files", algorithm, hex[:2], hex[2:])

    def objects(self) -> Iterator[tuple[str, str, os.stat_result]]:
        """Yield (algorithm, hex, stat) of every object."""
        files = os.path.join(self.root, "files")
        for algorithm in names(files):
            for first in names(os.path.join(files, algorithm)):
                folder = os.path.join(files, algorithm, first)
                for rest in names(folder):
                    try:
                        yield algorithm, first + rest, os.lstat(os.path.join(folder, rest))
                    except OSError:
                        continue

    def find(self, prefix: str) -> list[Digest]:
        """Return the objects whose hex begins with `prefix`: four digits at least; `ALGORITHM:` may stand before."""
        algorithm, _, hex = prefix.rpartition(":")
        found: list[Digest] = []
        if len(hex) < _SHORTEST_PREFIX or not hex.removesuffix(".dir").isalnum():
            return found
        for name in [algorithm] if algorithm in ALGORITHMS else names(os.path.join(self.root, "files")):
            folder = os.path.join(self.root, "files", name, hex[:2])
            for rest in names(folder):
                if rest.startswith(hex[2:]):
                    found.append(Digest(name, hex[:2] + rest, os.lstat(os.path.join(folder, rest)).st_size))
        return found

    # -- trash ----------------------------------------------------------------------------------------------------

    def discard(self, algorithm: str, hex: str) -> None:
        """Move an object to the trash."""
        path, resting = self._path(algorithm, hex), self._resting(algorithm, hex)
        try:
            make_folders(os.path.dirname(resting))
            if os.path.isdir(path) or os.path.isdir(resting):
                resting += unfinished()  # no object of ours; a file and a folder don't change places
            os.rename(path, resting)
            _rest_begins(resting)
        except OSError:
            pass

    def drop(self, algorithm: str, hex: str, *, unless_since: float) -> bool:
        """Move an object to the trash, unless it was stored again since a time; return whether it went."""
        try:
            info = os.lstat(self._path(algorithm, hex))
        except OSError:
            return False
        if max(info.st_mtime, info.st_ctime) >= unless_since:
            return False
        self.discard(algorithm, hex)
        return not os.path.exists(self._path(algorithm, hex))

    def _resting(self, algorithm: str, hex: str) -> str:
        return os.path.join(os.path.dirname(self.root), "trash", f"{algorithm}-{hex}")

    def _take_back(self, algorithm: str, hex: str) -> bool:
        """Bring back from the trash what a collection dropped while it was being restored; not what is damaged."""
        resting = self._resting(algorithm, hex)
        try:
            if hash_file(resting, algorithm)[0] != hex.partition(".")[0]:
                return False
            path = self._path(algorithm, hex)
            make_folders(os.path.dirname(path))
            os.rename(resting, path)
            os.utime(path)
        except OSError:
            return False
        return True


def _rest_begins(resting: str) -> None:
    """Set the time of what came to the trash. A colleague's can't be set: a copy takes its place."""
    try:
        os.utime(resting)
    except PermissionError:
        import shutil  # dear, and seldom needed

        copy = resting + unfinished()
        shutil.copyfile(resting, copy)
        share(copy, read_only=True)
        os.rename(copy, resting)
