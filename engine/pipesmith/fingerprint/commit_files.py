"""The files of a workspace at a commit, those of its submodules included, from git's objects alone."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator

from pipesmith.errors import UserError
from pipesmith.fingerprint.git_trees import tree_id, tree_row
from pipesmith.fingerprint.pipeignore import NAME as PIPEIGNORE
from pipesmith.fingerprint.pipeignore import PipeIgnore
from pipesmith.fingerprint.sources import Excluded
from pipesmith.git.objects import FOLDER, GITLINK, ObjectReader
from pipesmith.git.submodules import submodule_reader
from pipesmith.records import record

__all__ = ["CommitFiles", "Place"]

_TREE = "40000"
_GITLINK = "160000"
_LINK = "120000"
_RULES = (PIPEIGNORE.encode(),)
FILE_MODES = ("100644", "100755", "100664")
_MOST_LINKS = 40


@record(kw_only=False)
class Place:
    """What lies at a path. reader: of the repository whose object it is. mode: never a gitlink's, whose tree stands
    for it.

    path: relative to the workspace, links among its folders followed. within: the same relative to that repository's
    top."""

    reader: ObjectReader
    mode: str
    oid: str
    path: str
    within: str


class CommitFiles:
    """prefix: the workspace's folder in the repository, `.` for its top. reader.memo shares what is derived from a
    tree. looked_at: where it is a set, it is told every path that something is asked of. known: where it is a dict,
    what lies at paths that were found before, links and submodules apart; what is found is added."""

    def __init__(self, reader: ObjectReader, commit: str, prefix: str) -> None:
        self.looked_at: set[str] | None = None
        self.known: dict[str, tuple[str, str]] | None = None
        self._memo = reader.memo
        place = Place(reader, _TREE, reader.tree_of(commit), "", "")
        for name in prefix.split("/") if prefix != "." else ():
            below = self._step(place, name)
            if below is None or below.mode != _TREE:
                raise UserError(f"there is no folder `{prefix}` at {commit[:10]}")
            place = below
        self._root = Place(place.reader, place.mode, place.oid, "", place.within)

    @property
    def top(self) -> str:
        """The tree id of the workspace's folder, which decides all that is found here."""
        return self._root.oid

    def _step(self, place: Place, name: str) -> Place | None:
        """Return what a folder holds under a name. Raises UserError for a submodule that is not here."""
        found = place.reader.entry(place.oid, name, place.path)
        if found is None:
            return None
        path = f"{place.path}/{name}" if place.path else name
        within = f"{place.within}/{name}" if place.within else name
        if found[0] == _GITLINK:
            inner = submodule_reader(place.reader, within, found[1])
            return Place(inner, _TREE, inner.tree_of(found[1]), path, "")
        return Place(place.reader, *found, path, within)

    def children(self, folder: Place) -> Iterator[tuple[str, Place]]:
        """Yield (name, what lies there) of a folder. Raises UserError for a submodule that is not here."""
        for name in folder.reader.tree(folder.oid, folder.path):
            place = self._step(folder, name)
            assert place is not None
            yield name, place

    def find(self, path: str, *, follow: bool = False) -> Place | None:
        """Return what lies at a path of the workspace. follow: links among its folders are followed, as the system
        does."""
        for _hop in range(_MOST_LINKS):
            if self.looked_at is not None:
                self.looked_at.add(path)
            if self.known is not None and (entry := self.known.get(path)) is not None:
                within = f"{self._root.within}/{path}" if self._root.within else path
                return Place(self._root.reader, *entry, path, within)
            place: Place | None = self._root
            parts = path.split("/") if path not in (".", "") else []
            for index, name in enumerate(parts):
                assert place is not None
                if place.mode == _LINK and follow:
                    rest = parts[index:]
                    break
                if place.mode != _TREE:
                    return None
                place = self._step(place, name)
                if place is None:
                    return None
            else:
                if self.known is not None and parts and place is not None and place.reader is self._root.reader:
                    self.known[path] = (place.mode, place.oid)
                return place
            assert place is not None
            target = os.fsdecode(place.reader.blob(place.oid, place.path))
            path = posixpath.normpath(posixpath.join(posixpath.dirname(place.path), target, *rest))
            if path.startswith(("/", "../")) or path == "..":
                return None
        return None

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes, a link to it followed; None where there is none."""
        place = self.find(posixpath.normpath(path), follow=True)
        for _hop in range(_MOST_LINKS):
            if place is None or place.mode in FILE_MODES:
                break
            if place.mode != _LINK:
                return None
            target = os.fsdecode(place.reader.blob(place.oid, place.path))
            place = self.find(posixpath.normpath(posixpath.join(posixpath.dirname(place.path), target)), follow=True)
        return place.reader.blob(place.oid, place.path) if place is not None and place.mode in FILE_MODES else None

    # -- ids ------------------------------------------------------------------------------------------------------

    def tree_id(self, place: Place, excluded: Excluded, ignore: PipeIgnore | None) -> str | None:
        """Return a folder's id with submodules as trees and without what is left out, None where nothing is left."""
        if not ignore and not excluded.lies_below(place.path) and not self._gitlinks(place):
            return place.oid
        key = (excluded, ignore, place.path, place.oid)
        if key in self._memo:
            return self._memo[key]  # type: ignore[no-any-return]
        rows: list[tuple[bytes, bytes]] = []
        for name, (mode, _oid) in place.reader.tree(place.oid, place.path).items():
            path = f"{place.path}/{name}" if place.path else name
            if path in excluded.paths or (ignore and ignore.ignores(path, mode in (_TREE, _GITLINK))):
                continue
            below = self._step(place, name)
            assert below is not None
            oid = self.tree_id(below, excluded, ignore) if below.mode == _TREE else below.oid
            if oid is not None:
                rows.append(tree_row(name, below.mode.encode(), oid))
        self._memo[key] = tree_id(rows, place.reader.repo.object_format)
        return self._memo[key]  # type: ignore[no-any-return]

    def excluded(self, paths: frozenset[str]) -> Excluded:
        """Return the same object for the same paths, so that revisions share what was found with it."""
        key = ("excluded", paths)
        if key not in self._memo:
            self._memo[key] = Excluded(paths)
        return self._memo[key]  # type: ignore[no-any-return]

    def pipeignore(self) -> PipeIgnore | None:
        """Return the rules of all `.pipeignore` files, None where there are none; the same object for the same
        files."""
        found: list[tuple[str, ObjectReader, str]] = []
        self._find_ignores(self._root, found)
        if not found:
            return None
        key = ("pipeignore", tuple((path, oid) for path, _reader, oid in found))
        if key not in self._memo:
            texts = {path: reader.blob(oid, path).decode("utf-8", "surrogateescape") for path, reader, oid in found}
            self._memo[key] = PipeIgnore(texts)
        return self._memo[key] or None

    def _find_ignores(self, place: Place, found: list[tuple[str, ObjectReader, str]]) -> None:
        ignores, gitlinks = self.summary(place.reader, place.oid, place.path)
        prefix = f"{place.path}/" if place.path else ""
        found += [(prefix + path, place.reader, oid) for path, oid in ignores]
        for path in gitlinks:
            try:
                below: Place | None = place
                for name in path.split("/"):
                    below = self._step(below, name) if below is not None else None
            except UserError:
                continue  # told when its id is asked for
            if below is not None:
                self._find_ignores(below, found)

    def _gitlinks(self, place: Place) -> bool:
        return bool(self.summary(place.reader, place.oid, place.path)[1])

    def summary(
        self, reader: ObjectReader, tree: str, place: str = ""
    ) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
        """Return the `.pipeignore` files as (path, blob id) and the submodules' paths below a tree of one
        repository. place: where the tree lies, for messages."""
        key = ("summary", tree)
        known = reader.memo.get(key)
        if known is None:
            ignores: list[tuple[str, str]] = []
            gitlinks: list[str] = []
            raw = reader.raw_tree(tree, place) if reader.may_hold(tree, _RULES, place) else {}
            inner = [oid.hex() for mode, oid in raw.values() if mode == FOLDER]
            if len(inner) > 1:
                reader.read_trees(each for each in inner if ("summary", each) not in reader.memo)
            for raw_name, (mode, oid) in raw.items():
                if mode == FOLDER:
                    found = reader.memo.get(("summary", oid.hex()))
                    if found is None:
                        name = os.fsdecode(raw_name)
                        found = self.summary(reader, oid.hex(), f"{place}/{name}" if place else name)
                    below, links = found
                    if below or links:
                        name = os.fsdecode(raw_name)
                        ignores += [(f"{name}/{path}", blob) for path, blob in below]
                        gitlinks += [f"{name}/{path}" for path in links]
                elif mode == GITLINK:
                    gitlinks.append(os.fsdecode(raw_name))
                elif raw_name in _RULES and mode.decode() in FILE_MODES:
                    ignores.append((PIPEIGNORE, oid.hex()))
            known = reader.memo[key] = (tuple(ignores), tuple(gitlinks))
        return known
