"""Trees and blobs at a revision, by one `git cat-file --batch`: in bare, partial and SHA-256 repositories alike."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

from pipesmith.errors import EnvironmentFailure
from pipesmith.git.co_process import CoProcess
from pipesmith.git.repository import Repository
from pipesmith.git.repository import cause as told_cause

__all__ = ["FOLDER", "GITLINK", "ObjectReader", "RawTree"]

# name to (mode, id) as git has them: what is not looked at is not decoded
RawTree = dict[bytes, tuple[bytes, bytes]]
FOLDER, GITLINK = b"40000", b"160000"

_ROWS = {width: re.compile(rb"([0-7]+) ([^\0]+)\0(.{%d})" % width, re.DOTALL) for width in (20, 32)}
_MOST_BYTES = 64 << 20  # of remembered trees; taken apart they are some five times as large
_AHEAD_BYTES = 4000


class ObjectReader:
    """Reads objects; trees are remembered, so that what did not change between revisions is read once."""

    def __init__(self, repo: Repository) -> None:
        self.repo = repo
        self._process: CoProcess | None = None
        self._trees: dict[str, bytes] = {}
        self._parsed: dict[str, RawTree] = {}
        self._size = 0
        self._tops: dict[str, str] = {}  # commit to its tree, where that was told
        self._ahead: dict[str, bytes] = {}  # blobs that were read ahead
        self.submodules: dict[str, ObjectReader] = {}  # by path; filled by git.submodules, closed with this one
        self.memo: dict[Any, Any] = {}  # what callers derived from objects, which never change

    def read(self, name: str) -> tuple[str, bytes] | None:
        """Return (type, content) of an object by id or `REV:path`, None where there is none.

        Raises EnvironmentFailure where git can't read it: a damaged one, or one of a partial clone whose remote does
        not give it."""
        process = self._started()
        process.ask_ahead([os.fsencode(name)])
        return self._answer(process, name)

    def _started(self) -> CoProcess:
        if self._process is None:
            self._process = CoProcess(self.repo, ["cat-file", "--batch"], listen=True)
        return self._process

    def _answer(self, process: CoProcess, name: str) -> tuple[str, bytes] | None:
        try:
            head = process.answer()
            if head.endswith((b" missing", b" ambiguous", b" submodule")):
                said = process.said()
                if "error: " not in said:
                    return None
                raise self._unreadable(name, said)
            parts = head.split(b" ")
            if len(parts) == 3:
                return parts[1].decode(), process.read(int(parts[2]) + 1)[:-1]
            raise self._unreadable(name, process.said())
        except EnvironmentFailure as failure:
            # What else was asked for would be answered to somebody else.
            self._process = None
            said = process.end()
            raise failure if isinstance(failure, _Unreadable) else self._unreadable(name, said) from None

    def _unreadable(self, name: str, said: str) -> _Unreadable:
        short = name if ":" in name else name[:10]
        cause = next((line for line in said.splitlines() if "from promisor remote" in line), None) or told_cause(said)
        words = cause.removeprefix("fatal: ") or "git ended in the middle of an answer"
        partial = "extensions.partialclone" in self.repo.config or any(
            key.startswith("remote.") and key.endswith(".promisor") for key in self.repo.config
        )
        help = "this is a partial clone, so its remote must be there: see `git remote -v`" if partial else None
        return _Unreadable(f"object {short} can't be read: {words}", help or "run `git fsck` to see what is damaged")

    def read_ahead(self, names: Iterable[str]) -> Iterator[tuple[str, tuple[str, bytes] | None]]:
        """Yield (name, what `read` returns), many asked for at once. All must be taken before anything else is read."""
        waiting: list[str] = []
        size = 0
        for name in names:
            if size + len(name) >= _AHEAD_BYTES:
                yield from self._all(waiting)
                waiting, size = [], 0
            waiting.append(name)
            size += len(os.fsencode(name)) + 1
        yield from self._all(waiting)

    def _all(self, names: list[str]) -> Iterator[tuple[str, tuple[str, bytes] | None]]:
        process = self._started()
        process.ask_ahead([os.fsencode(name) for name in names])
        for name in names:
            yield name, self._answer(process, name)

    # -- commits and trees ----------------------------------------------------------------------------------------

    def tree_of(self, commit: str) -> str:
        """Return the tree id of a commit; a tree stands for itself. Raises EnvironmentFailure where it is missing."""
        known = self._tops.get(commit)
        if known is not None:
            return known
        found = self.read(commit)
        if found is not None and found[0] == "tree":
            return commit
        if found is None or found[0] != "commit":
            raise EnvironmentFailure(f"commit {commit[:10]} is not in this repository", help="run `git fetch`")
        return found[1].split(b"\n", 1)[0].removeprefix(b"tree ").decode()

    def know(self, commit: str, tree: str) -> None:
        """Take somebody's word for the tree of a commit."""
        self._tops[commit] = tree

    def has_tree(self, identity: str) -> bool:
        """Return whether a tree was read already."""
        return identity in self._trees

    def raw_tree(self, identity: str, path: str = "") -> RawTree:
        """Return a tree's entries undecoded. path: where it lies, for messages."""
        known = self._parsed.get(identity)
        if known is None:
            rows = _ROWS[len(identity) // 2].findall(self._tree_bytes(identity, path))
            known = self._parsed[identity] = {name: (mode, oid) for mode, name, oid in rows}
        return known

    def _tree_bytes(self, identity: str, path: str) -> bytes:
        known = self._trees.get(identity)
        return known if known is not None else self._keep_tree(identity, self._wanted(identity, "tree", path))

    def _keep_tree(self, identity: str, data: bytes) -> bytes:
        self._size += len(data)
        if self._size > _MOST_BYTES:
            self._trees.clear()
            self._parsed.clear()
            self._size = len(data)
        self._trees[identity] = data
        return data

    def may_hold(self, identity: str, names: Iterable[bytes], path: str = "") -> bool:
        """Return whether a tree may hold folders, submodules, or something of one of these names: False is sure.

        A tree of nothing but files is not taken apart for it. path: where it lies, for messages."""
        data = self._tree_bytes(identity, path)
        return FOLDER + b" " in data or GITLINK + b" " in data or any(b" " + name + b"\0" in data for name in names)

    def tree(self, identity: str, path: str = "") -> dict[str, tuple[str, str]]:
        """Return name to (mode, id) of a tree's entries, in git's order. path: where it lies, for messages.

        Raises EnvironmentFailure where it is missing."""
        raw = self.raw_tree(identity, path)
        return {os.fsdecode(name): (mode.decode(), oid.hex()) for name, (mode, oid) in raw.items()}

    def entry(self, identity: str, name: str, path: str = "") -> tuple[str, str] | None:
        """Return (mode, id) of what a tree holds under a name, None where it holds no such thing."""
        found = self.raw_tree(identity, path).get(os.fsencode(name))
        return (found[0].decode(), found[1].hex()) if found is not None else None

    def read_trees(self, identities: Iterable[str]) -> None:
        """Read trees ahead. What can't be read is told when it is asked for."""
        unknown = [each for each in dict.fromkeys(identities) if each not in self._trees]
        for name, found in self._readable(unknown):
            if found is not None and found[0] == "tree":
                self._keep_tree(name, found[1])

    def read_blobs(self, identities: Iterable[str]) -> None:
        """Read blobs ahead, and forget those that were before. What can't be read is told when it is asked for."""
        known, self._ahead = self._ahead, {}
        unknown = []
        for each in dict.fromkeys(identities):
            if each in known:
                self._ahead[each] = known[each]
            else:
                unknown.append(each)
        for name, found in self._readable(unknown):
            if found is not None and found[0] == "blob":
                self._ahead[name] = found[1]

    def _readable(self, names: list[str]) -> Iterator[tuple[str, tuple[str, bytes] | None]]:
        try:
            yield from self.read_ahead(names)
        except EnvironmentFailure:
            pass

    def lookup(self, tree: str, path: str) -> tuple[str, str] | None:
        """Return (mode, id) at a path of a tree, None where nothing lies there; `.` is the tree itself."""
        entry = ("40000", tree)
        if path == ".":
            return entry
        for part in path.split("/"):
            if entry[0] != "40000":
                return None
            found = self.entry(entry[1], part)
            if found is None:
                return None
            entry = found
        return entry

    def blob(self, identity: str, path: str = "") -> bytes:
        """Return a blob's bytes. path: where it lies, for messages. Raises EnvironmentFailure where it is missing."""
        known = self._ahead.get(identity)
        return known if known is not None else self._wanted(identity, "blob", path)

    def _wanted(self, identity: str, kind: str, path: str) -> bytes:
        where = f"`{path}`: " if path else ""
        try:
            found = self.read(identity)
        except EnvironmentFailure as failure:
            raise EnvironmentFailure(f"{where}{failure.text}", failure.help) from None
        if found is None or found[0] != kind:
            raise EnvironmentFailure(f"{where}{kind} {identity[:10]} is not in this repository", "run `git fetch`")
        return found[1]

    def close(self) -> None:
        for reader in self.submodules.values():
            reader.close()
        self.submodules.clear()
        if self._process is not None:
            self._process.close()
            self._process = None


class _Unreadable(EnvironmentFailure):
    """Git could not read an object that it should have."""
