"""The workspace as it is at a commit, from git's objects and the lockfile there. Reads no work tree."""

from __future__ import annotations

import os
import posixpath

from pipesmith.digest import Digest, new_hasher
from pipesmith.errors import EnvironmentFailure, UserError
from pipesmith.fingerprint.git_trees import git_hash
from pipesmith.fingerprint.pipeignore import NAME as PIPEIGNORE
from pipesmith.fingerprint.pipeignore import PipeIgnore
from pipesmith.fingerprint.tree import Found
from pipesmith.fingerprint.work_tree import NEVER_SOURCE
from pipesmith.git.objects import ObjectReader
from pipesmith.lockfile.model import LockedDep, Lockfile
from pipesmith.store.manifest import Entry, digest_of, link_digest

__all__ = ["Revision"]


class Revision:
    """prefix: the workspace's folder in the repository, `.` for its top. reader: shared by revisions that are looked at together."""

    def __init__(self, reader: ObjectReader, commit: str, prefix: str, algorithm: str) -> None:
        self._reader = reader
        self._algorithm = algorithm
        self._top = reader.tree_of(commit)
        found = reader.lookup(self._top, prefix)
        if found is None or found[0] != "40000":
            raise UserError(f"there is no `{prefix}` at {commit[:10]}")
        self._tree = found[1]
        self._excluded: frozenset[str] = NEVER_SOURCE
        self._deps: dict[str, list[LockedDep]] = {}
        self._ignore: PipeIgnore | None = None
        self._ids: dict[tuple[str, str], str | None] = {}

    def use_lock(self, lockfile: Lockfile) -> None:
        """Take the digests of what git does not hold from this lockfile."""
        for entry in lockfile.stages.values():
            for dep in entry.deps:
                self._deps.setdefault(dep.path, []).append(dep)

    def exclude(self, paths: frozenset[str]) -> None:
        self._excluded = NEVER_SOURCE | paths
        self._ids.clear()

    def read(self, path: str) -> bytes | None:
        found = self._reader.lookup(self._tree, posixpath.normpath(path))
        return self._reader.blob(found[1]) if found is not None and found[0] in ("100644", "100755") else None

    # -- sources --------------------------------------------------------------------------------------------------

    def _pipeignore(self) -> PipeIgnore:
        if self._ignore is None:
            texts: dict[str, str] = {}
            self._find_ignores("", self._tree, texts)
            self._ignore = PipeIgnore(texts)
        return self._ignore

    def _find_ignores(self, folder: str, tree: str, texts: dict[str, str]) -> None:
        for name, (mode, identity) in self._reader.tree(tree).items():
            path = f"{folder}/{name}" if folder else name
            if mode == "40000":
                self._find_ignores(path, identity, texts)
            elif name == PIPEIGNORE and mode in ("100644", "100755"):
                texts[path] = self._reader.blob(identity).decode("utf-8", "surrogateescape")

    def source_id(self, path: str) -> str | None:
        found = self._reader.lookup(self._tree, path)
        if found is None:
            return None
        inner = "" if path == "." else path
        if inner in self._excluded or (inner and self._pipeignore().ignores(inner, found[0] == "40000")):
            return None
        if found[0] == "40000":
            return self._counting(inner, found[1])
        return self._submodule(inner, found[1]) if found[0] == "160000" else found[1]

    def _counting(self, folder: str, tree: str) -> str | None:
        """Return a tree's id without what never counts, None where nothing is left."""
        key = (folder, tree)
        if key in self._ids:
            return self._ids[key]
        ignore = self._pipeignore()
        rows: list[tuple[bytes, bytes]] = []
        for name, (mode, identity) in self._reader.tree(tree).items():
            path = f"{folder}/{name}" if folder else name
            if path in self._excluded or (ignore and ignore.ignores(path, mode == "40000")):
                continue
            found: str | None = identity
            if mode == "40000":
                found = self._counting(path, identity)
            elif mode == "160000":
                mode, found = "40000", self._submodule(path, identity)
            if found is None:
                continue
            raw = os.fsencode(name)
            rows.append((raw + b"/" if mode == "40000" else raw, mode.encode() + b" " + raw + b"\0" + bytes.fromhex(found)))
        rows.sort()
        body = b"".join(row for _name, row in rows)
        self._ids[key] = git_hash(self._reader.repo.object_format, b"tree", body) if rows else None
        return self._ids[key]

    def _submodule(self, path: str, commit: str) -> str:
        """Return the tree of a submodule's commit, from wherever this clone has its objects."""
        repo = self._reader.repo
        places = [os.path.join(repo.top, path), *_modules(os.path.join(repo.common_dir, "modules"))]
        for place in places:
            if not os.path.lexists(place):
                continue
            done = repo.process("rev-parse", "--verify", "--quiet", f"{commit}^{{tree}}", cwd=place)
            if done.returncode == 0:
                return done.stdout.decode().strip()
        raise UserError(
            f"submodule `{path}` is not here, so what it held at this revision can't be known",
            f"run `git submodule update --init {path}`",
        )

    # -- inputs ---------------------------------------------------------------------------------------------------

    def input(self, path: str) -> Found:
        found = self._reader.lookup(self._tree, path)
        locked = self._deps.get(path, [])
        if found is None:
            texts = {dep.digest.text for dep in locked}
            held = {dep.git for dep in locked}
            if len(texts) == 1 and held == {None}:
                return Found(digest=locked[0].digest)
            return Found(digest=None)
        for dep in locked:
            if dep.git == found[1]:
                return Found(digest=dep.digest, git=found[1])
        try:
            return Found(digest=self._content(found), git=found[1])
        except EnvironmentFailure as error:
            return Found(digest=None, problem=error.text)

    def _content(self, entry: tuple[str, str]) -> Digest:
        mode, identity = entry
        if mode == "40000":
            entries: list[Entry] = []
            self._entries("", identity, entries)
            return digest_of(entries, self._algorithm)[0]
        data = self._reader.blob(identity)
        if mode == "120000":
            return link_digest(os.fsdecode(data), self._algorithm)
        return Digest(self._algorithm, self._hex(data), len(data))

    def _entries(self, folder: str, tree: str, entries: list[Entry]) -> None:
        for name, (mode, identity) in self._reader.tree(tree).items():
            path = f"{folder}/{name}" if folder else name
            if mode == "40000":
                self._entries(path, identity, entries)
            elif mode == "160000":
                self._entries(path, self._submodule(path, identity), entries)
            else:
                data = self._reader.blob(identity)
                if mode == "120000":
                    entries.append(Entry("l", path, text=os.fsdecode(data)))
                else:
                    entries.append(Entry("f", path, self._hex(data), len(data), mode == "100755"))

    def _hex(self, data: bytes) -> str:
        hasher = new_hasher(self._algorithm)
        hasher.update(data)
        return hasher.hexdigest()

    def hash_path_id(self, path: str) -> str | None:
        found = self._reader.lookup(self._tree, path)
        return found[1] if found is not None else None

    def output(self, path: str) -> Digest | None:
        found = self._reader.lookup(self._tree, path)
        return self._content(found) if found is not None and found[0] != "160000" else None


def _modules(folder: str) -> list[str]:
    """Return the git folders of submodules that this clone keeps below `modules`."""
    found = []
    for where, folders, files in os.walk(folder):
        if "HEAD" in files and "objects" in folders:
            found.append(where)
            folders[:] = ["modules"] if "modules" in folders else []
    return sorted(found)
