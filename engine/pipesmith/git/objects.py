"""Trees and blobs at a revision, by one `git cat-file --batch`: in bare, partial and SHA-256 repositories alike."""

from __future__ import annotations

import os
from typing import Any

from pipesmith.errors import EnvironmentFailure
from pipesmith.git.co_process import CoProcess
from pipesmith.git.repository import Repository

__all__ = ["ObjectReader"]


class ObjectReader:
    """Reads objects; trees are remembered, so that what did not change between revisions is read once."""

    def __init__(self, repo: Repository) -> None:
        self.repo = repo
        self._process: CoProcess | None = None
        self._trees: dict[str, dict[str, tuple[str, str]]] = {}
        self.submodules: dict[str, ObjectReader] = {}  # by path; filled by git.submodules, closed with this one
        self.memo: dict[Any, Any] = {}  # what callers derived from objects, which never change

    def read(self, name: str) -> tuple[str, bytes] | None:
        """Return (type, content) of an object by id or `REV:path`, None where there is none."""
        if self._process is None:
            self._process = CoProcess(self.repo, ["cat-file", "--batch"])
        head = self._process.ask(os.fsencode(name))
        if head.endswith((b" missing", b" ambiguous", b" submodule")):
            return None
        parts = head.split(b" ")
        if len(parts) != 3:
            raise EnvironmentFailure(f"git can't read object `{name}`")
        data = self._process.read(int(parts[2]) + 1)[:-1]
        return parts[1].decode(), data

    def tree_of(self, commit: str) -> str:
        """Return the tree id of a commit; a tree stands for itself. Raises EnvironmentFailure where it is missing."""
        found = self.read(commit)
        if found is not None and found[0] == "tree":
            return commit
        if found is None or found[0] != "commit":
            raise EnvironmentFailure(f"commit {commit[:10]} is not in this repository", help="run `git fetch`")
        return found[1].split(b"\n", 1)[0].removeprefix(b"tree ").decode()

    def tree(self, identity: str) -> dict[str, tuple[str, str]]:
        """Return name to (mode, id) of a tree's entries. Raises EnvironmentFailure where it is missing."""
        known = self._trees.get(identity)
        if known is not None:
            return known
        found = self.read(identity)
        if found is None:
            raise EnvironmentFailure(f"tree {identity[:10]} is not in this repository", "run `git fetch`")
        width = len(identity) // 2
        rows: dict[str, tuple[str, str]] = {}
        data = found[1]
        at = 0
        while at < len(data):
            space = data.index(b" ", at)
            end = data.index(b"\0", space)
            rows[os.fsdecode(data[space + 1 : end])] = (data[at:space].decode(), data[end + 1 : end + 1 + width].hex())
            at = end + 1 + width
        self._trees[identity] = rows
        return rows

    def lookup(self, tree: str, path: str) -> tuple[str, str] | None:
        """Return (mode, id) at a path of a tree, None where nothing lies there; `.` is the tree itself."""
        entry = ("40000", tree)
        if path == ".":
            return entry
        for part in path.split("/"):
            if entry[0] != "40000":
                return None
            found = self.tree(entry[1]).get(part)
            if found is None:
                return None
            entry = found
        return entry

    def blob(self, identity: str) -> bytes:
        """Return a blob's bytes. Raises EnvironmentFailure where it is missing."""
        found = self.read(identity)
        if found is None:
            raise EnvironmentFailure(f"blob {identity[:10]} is not in this repository", "run `git fetch`")
        return found[1]

    def close(self) -> None:
        for reader in self.submodules.values():
            reader.close()
        self.submodules.clear()
        if self._process is not None:
            self._process.close()
            self._process = None
