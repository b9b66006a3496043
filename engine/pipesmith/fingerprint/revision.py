"""The workspace as it is at a commit: git's objects, and the lockfile there for what git does not hold. Reads no work
tree.

Source: docs/formats/object-ids.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from copy import copy

from pipesmith.digest import Digest
from pipesmith.errors import UserError
from pipesmith.fingerprint.blob_digests import BlobDigests
from pipesmith.fingerprint.commit_files import CommitFiles, Place
from pipesmith.fingerprint.pipeignore import PipeIgnore
from pipesmith.fingerprint.sources import NEVER_SOURCE
from pipesmith.fingerprint.tree import Found
from pipesmith.git.objects import ObjectReader
from pipesmith.lockfile.model import LockedDep, Lockfile
from pipesmith.store.manifest import Entry, digest_of, link_digest
from pipesmith.store.state_db import StateDB

__all__ = ["Revision"]


class Revision:
    """prefix: the workspace's folder in the repository, `.` for its top. reader: shared by revisions that are looked at
    together, so that trees which did not change are read once. state: remembers digests of blobs, None does without."""

    def __init__(
        self, reader: ObjectReader, commit: str, prefix: str, algorithm: str, state: StateDB | None = None
    ) -> None:
        self._algorithm = algorithm
        self._reader = reader
        self._files = CommitFiles(reader, commit, prefix)
        self._nothing = self._files.excluded(frozenset())
        self._excluded = self._files.excluded(NEVER_SOURCE)
        self._lockfile = Lockfile()
        self._deps: dict[str, list[LockedDep]] | None = None
        self._ignore: PipeIgnore | None = None
        self._ignore_read = False
        self._memo = reader.memo
        if "blobs" not in self._memo:
            self._memo["blobs"] = BlobDigests(state)
        self._blobs: BlobDigests = self._memo["blobs"]

    @property
    def top(self) -> str:
        """The id of the tree that all this is about: the workspace's folder."""
        return self._files.top

    @property
    def has_submodules(self) -> bool:
        return bool(self._files.summary(self._reader, self.top)[1])

    def has_rules(self, tree: str, path: str) -> bool:
        """Return whether `.pipeignore` files or submodules lie in a tree. path: where it lies, for messages."""
        return any(self._files.summary(self._reader, tree, path))

    def watch(self, looked_at: set[str] | None) -> None:
        """Tell `looked_at` every path that something is asked of from now on; None: nobody."""
        self._files.looked_at = looked_at

    def use_places(self, places: dict[str, tuple[str, str]]) -> None:
        """Say what lies at some paths, (mode, id) each; those that are found are added."""
        self._files.known = places

    def use_lock(self, lockfile: Lockfile) -> None:
        """Take the digests of what git does not hold from this lockfile."""
        self._lockfile = lockfile
        self._deps = None

    def use_algorithm(self, algorithm: str) -> None:
        """Hash by this one: known only when pipeline.toml was read."""
        self._algorithm = algorithm

    def _locked(self, path: str) -> list[LockedDep]:
        """Return what the lockfile's entries say of an input."""
        if self._deps is None:
            self._deps = {}
            for entry in self._lockfile.stages.values():
                for dep in entry.deps:
                    self._deps.setdefault(dep.path, []).append(dep)
        return self._deps.get(path, [])

    def within(self, digest: Digest, path: str) -> Digest | None:
        """Return the digest of a path inside a folder's content, by the lockfile's entries of stages that read it from
        this very content: no manifest is asked, data may be elsewhere."""
        if self._files.looked_at is not None:
            self._files.looked_at.add(path)
        return next((dep.digest for dep in self._locked(path) if dep.of == digest.hex), None)

    def exclude(self, paths: frozenset[str]) -> None:
        self._excluded = self._files.excluded(NEVER_SOURCE | paths)

    def read(self, path: str) -> bytes | None:
        return self._files.read(path)

    def flush(self) -> None:
        """Remember for later processes what was hashed."""
        self._blobs.flush()

    # -- what git holds -------------------------------------------------------------------------------------------

    def find(self, path: str, *, follow: bool = False) -> Place | None:
        """Return what git holds at a path, None where it holds nothing. follow: links among its folders are
        followed."""
        return self._files.find(path, follow=follow)

    def files(self) -> Iterator[tuple[str, Place]]:
        """Yield the path of every file and link of the workspace, those of submodules included, and what lies there."""
        root = self._files.find(".")
        stack = [("", root)] if root is not None else []
        while stack:
            prefix, folder = stack.pop()
            for name, place in self._files.children(folder):
                if place.mode == "40000":
                    stack.append((f"{prefix}{name}/", place))
                else:
                    yield prefix + name, place

    def held_id(self, place: Place) -> str | None:
        """Return git's id of a place, submodules counted as the trees that they are."""
        return self._files.tree_id(place, self._nothing, None) if place.mode == "40000" else place.oid

    def entries(self, folder: Place) -> list[Entry]:
        """Return what git stores below a folder."""
        entries: list[Entry] = []
        self._collect(folder, "", entries)
        return entries

    # -- sources --------------------------------------------------------------------------------------------------

    @property
    def rules(self) -> PipeIgnore | None:
        """The rules of `.pipeignore`: the same object for the same files."""
        return self._pipeignore()

    def use_rules(self, rules: PipeIgnore | None) -> None:
        """Say the rules, where they are known."""
        self._ignore, self._ignore_read = rules, True

    def source_id(self, path: str) -> str | None:
        """Return the id that a source has; a folder without any file that counts has none.

        Raises UserError for a submodule whose commit is not here."""
        place = self._files.find(path)
        if place is None or self._excluded.holds(place.path):
            return None
        ignore = self._pipeignore()
        if place.path and ignore is not None and ignore.ignores(place.path, place.mode == "40000"):
            return None
        return self._files.tree_id(place, self._excluded, ignore) if place.mode == "40000" else place.oid

    def _pipeignore(self) -> PipeIgnore | None:
        if not self._ignore_read:
            self._ignore = self._files.pipeignore()
            self._ignore_read = True
        return self._ignore

    # -- inputs ---------------------------------------------------------------------------------------------------

    def input(self, path: str) -> Found:
        locked = [dep for dep in self._locked(path) if dep.digest.algorithm == self._algorithm]
        try:
            place = self._files.find(path, follow=True)
            if place is None:
                known = {dep.digest.text for dep in locked}
                if len(known) == 1 and all(dep.git is None for dep in locked):
                    return Found(digest=locked[0].digest)
                problem = f"git does not hold `{path}`, and the lockfile's entries for it disagree: build what reads it"
                return Found(digest=None, problem=problem if len(known) > 1 else None)
            identity = self.held_id(place)
            digests = {dep.digest.text: dep.digest for dep in locked if dep.git == identity}
            if identity is not None and len(digests) == 1:
                return Found(digest=next(iter(digests.values())), git=identity)
            return Found(digest=self.content(place), git=identity)
        except UserError as error:
            return Found(digest=None, problem=error.text)

    def content(self, place: Place) -> Digest:
        """Return the digest of what git stores at a place."""
        if place.mode == "40000":
            key = ("content", self._algorithm, self.held_id(place))
            if key not in self._memo:
                self._memo[key] = digest_of(self.entries(place), self._algorithm)[0]
            return self._memo[key]  # type: ignore[no-any-return]
        if place.mode == "120000":
            return link_digest(os.fsdecode(place.reader.blob(place.oid, place.path)), self._algorithm)
        return self._blob(place)

    def _collect(self, folder: Place, prefix: str, entries: list[Entry]) -> None:
        for name, place in self._files.children(folder):
            path = f"{prefix}{name}"
            if place.mode == "40000":
                self._collect(place, f"{path}/", entries)
            elif place.mode == "120000":
                entries.append(Entry("l", path, text=os.fsdecode(place.reader.blob(place.oid, place.path))))
            else:
                digest = self._blob(place)
                entries.append(Entry("f", path, digest.hex, digest.size, place.mode == "100755"))

    def _blob(self, place: Place) -> Digest:
        known = self._blobs.get(self._algorithm, place.oid)
        if known is None:
            data = place.reader.blob(place.oid, place.path)
            known = self._blobs.put_content(self._algorithm, place.oid, data, place.reader.repo.object_format)
        return known

    def hash_path_id(self, path: str) -> str | None:
        """Return git's id; of what git does not hold what the lockfile's entries agree on."""
        place = self._files.find(path, follow=True)
        if place is not None:
            return self.held_id(place)
        entries = self._lockfile.stages.values()
        known = {entry.hash_paths[path] for entry in entries if ":" in entry.hash_paths.get(path, "")}
        return known.pop() if len(known) == 1 else None

    def output(self, path: str, algorithm: str | None = None) -> Digest | None:
        """Return the digest of an output that git holds, by the bytes it stores.

        A work tree's is by its own bytes: an output left to git should have no attributes that change line ends."""
        place = self._files.find(path)
        if place is None:
            return None
        tree = self
        if algorithm not in (None, self._algorithm):
            tree = copy(self)
            tree.use_algorithm(algorithm)
        return tree.content(place)
