"""The workspace as it would be with a commit checked out: what git holds as at the commit, all else as it lies here.

As `git stash` and `git checkout COMMIT` would leave it: a tracked file that the commit has not is gone, untracked and
ignored ones stay. Writes nothing. Source of the ids: docs/formats/object-ids.md.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from functools import cached_property

from pipesmith.digest import Digest
from pipesmith.errors import EnvironmentFailure, UserError
from pipesmith.fingerprint.commit_files import Place
from pipesmith.fingerprint.git_trees import TreeBuilder, blob_id, git_hash
from pipesmith.fingerprint.pipeignore import NAME as PIPEIGNORE
from pipesmith.fingerprint.pipeignore import PipeIgnore
from pipesmith.fingerprint.revision import Revision
from pipesmith.fingerprint.sources import NEVER_SOURCE, Excluded
from pipesmith.fingerprint.stat_cache import StatCache
from pipesmith.fingerprint.tree import Found
from pipesmith.fingerprint.work_tree import WorkTree
from pipesmith.git.repository import Repository
from pipesmith.store.manifest import Entry, digest_of

__all__ = ["CheckedOut"]

_FOLDER = "40000"


class CheckedOut(WorkTree):
    """at: the commit, without a lockfile to take digests from. untracked: the files that would be neither tracked nor
    ignored, None where that is asked of the ignore rules as they lie here."""

    def __init__(
        self,
        repo: Repository,
        root: str,
        stat_cache: StatCache,
        at: Revision,
        untracked: Sequence[str] | None = None,
    ) -> None:
        super().__init__(repo, root, stat_cache)
        self._at = at
        self._named_untracked = untracked
        self._paths: frozenset[str] = frozenset()

    def exclude(self, paths: frozenset[str]) -> None:
        super().exclude(paths)
        self._at.exclude(paths)
        self._paths = paths

    def flush(self) -> None:
        super().flush()
        self._at.flush()

    def read(self, path: str) -> bytes | None:
        if self._at.find(path) is not None:
            return self._at.read(path)
        return None if self._is_tracked(path) else super().read(path)

    # -- what lies here -------------------------------------------------------------------------------------------

    @cached_property
    def _index(self) -> TreeBuilder:
        """The files that git tracks here, and a checkout would take away."""
        paths = [path for path, row in self._files.listed().items() if row.oid is not None]
        return TreeBuilder(paths, self._files.entry, self._format)

    def _is_tracked(self, path: str) -> bool:
        inner = _inner(path)
        return self._index.is_file(inner) or self._index.is_folder(inner)

    @cached_property
    def _extra(self) -> list[str]:
        """The files of the workspace that would be neither tracked nor ignored."""
        listed = self._files.listed()
        names = self._named_untracked
        if names is None:
            names = [path for path, row in listed.items() if row.oid is None]
        return [path for path in names if self._at.find(path) is None]

    def _kept(self, path: str) -> list[Entry]:
        """Return what would stay at a path that is no file of the commit: all that git does not track here."""
        there = os.path.join(self._root, path) if path else self._root
        prefix = f"{path}/" if path else ""
        try:
            if not stat.S_ISDIR(os.lstat(there).st_mode):
                return []
        except (FileNotFoundError, NotADirectoryError):
            return []
        entries = self._cache.look(there).entries()
        return [entry for entry in entries if not self._index.is_file(prefix + entry.path)]

    # -- sources --------------------------------------------------------------------------------------------------

    def source_id(self, path: str) -> str | None:
        inner = _inner(path)
        below = f"{inner}/" if inner else ""
        for name in self._extra:
            if name == inner or name.startswith(below) or os.path.basename(name) == PIPEIGNORE:
                return _id(self._source_trees, inner)
        return self._at.source_id(path)

    @cached_property
    def _held_entries(self) -> dict[str, tuple[bytes, str] | None]:
        """All that would be tracked or not ignored: path to (mode, id)."""
        held: dict[str, tuple[bytes, str] | None] = {
            name: (place.mode.encode(), place.oid) for name, place in self._at.files()
        }
        self._files.prepare(name for name in self._extra if name in self._files.listed())
        for name in self._extra:
            held[name] = self._files.entry(name) or self._own_entry(name)
        return held

    def _own_entry(self, path: str) -> tuple[bytes, str] | None:
        """Return the entry of a file that git ignores as the rules are here, by its own bytes."""
        there = os.path.join(self._root, path)
        try:
            info = os.lstat(there)
            if stat.S_ISLNK(info.st_mode):
                return b"120000", git_hash(self._format, b"blob", os.fsencode(os.readlink(there)))
            identity = blob_id(there, info.st_size, self._format) if stat.S_ISREG(info.st_mode) else None
        except (FileNotFoundError, NotADirectoryError):
            return None
        return (b"100755" if info.st_mode & 0o100 else b"100644", identity) if identity is not None else None

    @cached_property
    def _held_trees(self) -> TreeBuilder:
        return TreeBuilder(self._held_entries, self._held_entries.__getitem__, self._format)

    @cached_property
    def _source_trees(self) -> TreeBuilder:
        held = self._held_entries
        texts = {}
        for name in held:
            if os.path.basename(name) == PIPEIGNORE:
                texts[name] = (self.read(name) or b"").decode("utf-8", "surrogateescape")
        ignore, excluded = PipeIgnore(texts), Excluded(NEVER_SOURCE | self._paths)
        wanted = [path for path in held if not excluded.holds(path) and not ignore.ignores(path)]
        return TreeBuilder(wanted, held.__getitem__, self._format)

    def hash_path_id(self, path: str) -> str | None:
        inner = _inner(path)
        below = f"{inner}/" if inner else ""
        if any(name == inner or name.startswith(below) for name in self._extra):
            return _id(self._held_trees, inner)
        if self._at.find(path, follow=True) is not None:
            return self._at.hash_path_id(path)
        if not self._is_tracked(path):
            return super().hash_path_id(path)
        kept = self._kept(inner)
        return digest_of(kept, self._cache.algorithm)[0].text if kept else None

    # -- inputs and outputs ---------------------------------------------------------------------------------------

    def input(self, path: str) -> Found:
        try:
            place = self._at.find(path, follow=True)
            here = super().input(path)
            held = self._at.held_id(place) if place is not None else None
            if held == here.git and (held is not None or not self._is_tracked(path)):
                return here
            if place is not None and place.mode != _FOLDER:
                return Found(digest=self._at.content(place), git=held)
            real = place.path if place is not None else _inner(path)
            kept = self._kept(real)
            names = set(self._extra)
            listed = any(f"{real}/{entry.path}" in names for entry in kept)
            if place is not None or listed:
                kept = self._as_listed(real, [entry for entry in kept if entry.kind != "d"])
            if place is None and not any(entry.kind != "d" for entry in kept):
                return Found(digest=None)
            return Found(digest=self._together(place, kept), git=held)
        except UserError as error:
            return Found(digest=None, problem=error.text.replace(f"`{self._root}/", "`"))
        except EnvironmentFailure as error:
            return Found(digest=None, problem=error.text)

    def _as_listed(self, folder: str, entries: list[Entry]) -> list[Entry]:
        """Return entries with the bytes that git would store of those that it lists."""
        listed, prefix, found = self._files.listed(), f"{folder}/" if folder else "", []
        for entry in entries:
            if entry.kind == "f" and prefix + entry.path in listed:
                own = Digest(self._cache.algorithm, entry.hex, entry.size)
                digest, bit = self._files.stored(prefix + entry.path, own)
                executable = entry.executable if bit is None else bit
                entry = Entry("f", entry.path, digest.hex, digest.size, executable)
            found.append(entry)
        return found

    def _together(self, place: Place | None, kept: list[Entry]) -> Digest:
        """Return the digest of a folder of the commit with what would stay in it."""
        entries = self._at.entries(place) if place is not None else []
        taken = {entry.path for entry in entries}
        entries += [entry for entry in kept if entry.path not in taken]
        return digest_of(entries, self._cache.algorithm)[0]

    def output(self, path: str, algorithm: str | None = None) -> Digest | None:
        place = self._at.find(path)
        if place is None and not self._is_tracked(path):
            return super().output(path, algorithm)
        if place is not None and place.mode != _FOLDER:
            entry = self._files.entry(path) if self._index.is_file(path) else None
            same = entry is not None and entry == (place.mode.encode(), place.oid)
            return (
                super().output(path, algorithm) if same else self._at.content(place)
            )  # as it lies here: by its own bytes
        if place is not None and self._index.tree_id(path) == self._at.held_id(place):
            return super().output(path, algorithm)
        kept = self._kept(path)
        if place is None and not any(entry.kind != "d" for entry in kept):
            return None
        return self._together(place, kept)


def _id(trees: TreeBuilder, path: str) -> str | None:
    if trees.is_file(path):
        entry = trees.entry(path)
        return entry[1] if entry is not None else None
    return trees.tree_id(path) if trees.is_folder(path) else None


def _inner(path: str) -> str:
    return "" if path == "." else path
