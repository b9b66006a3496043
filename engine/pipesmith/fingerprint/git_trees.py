"""Git's tree and blob ids, made from listed files without writing any object. Source: git's object format."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from pipesmith.digest import Hasher
from pipesmith.store.hashing import read_small

__all__ = ["TreeBuilder", "blob_id", "chunks_of", "git_hash", "git_hasher", "tree_id", "tree_row"]

_CHUNK = 1 << 20


def git_hasher(object_format: str, kind: bytes, size: int) -> Hasher:
    """Return what makes the id of an object of `size` bytes, to be given them. object_format: `sha1` or `sha256`."""
    import hashlib  # dear, and not asked for where ids are remembered

    hasher = hashlib.new(object_format, usedforsecurity=False)
    hasher.update(b"%b %d\0" % (kind, size))
    return hasher


def git_hash(object_format: str, kind: bytes, data: bytes) -> str:
    """Return the id of an object. object_format: `sha1` or `sha256`."""
    hasher = git_hasher(object_format, kind, len(data))
    hasher.update(data)
    return hasher.hexdigest()


def chunks_of(path: str, size: int) -> Iterator[bytes | memoryview]:
    """Yield a file's bytes, each chunk good until the next is asked for.

    size: what the file had, so that a small one takes one read and no big buffer."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if size < _CHUNK:
            yield read_small(fd, size)
            return
        buffer = bytearray(_CHUNK)
        view = memoryview(buffer)
        while count := os.readv(fd, [buffer]):
            yield view[:count]
    finally:
        os.close(fd)


def blob_id(path: str, size: int, object_format: str) -> str | None:
    """Return the blob id of a file's own bytes, read in one pass; None where it changed its size meanwhile."""
    hasher = git_hasher(object_format, b"blob", size)
    read = 0
    for chunk in chunks_of(path, size):
        hasher.update(chunk)
        read += len(chunk)
    return hasher.hexdigest() if read == size else None


class TreeBuilder:
    """The folders of a listing. entry(path) gives (mode, id) of a listed file, asked for only when its folder's id
    is."""

    def __init__(
        self, paths: Iterable[str], entry: Callable[[str], tuple[bytes, str] | None], object_format: str
    ) -> None:
        self.entry = entry
        self._format = object_format
        self._files: dict[str, list[str]] = {}
        self._folders: dict[str, set[str]] = {"": set()}
        for path in paths:
            parent = path.rpartition("/")[0]
            listed = self._files.get(parent)
            if listed is None:
                self._files[parent] = listed = []
                self._register(parent)
            listed.append(path)
        self._ids: dict[str, str | None] = {}

    def renewed(self, changed: Iterable[str], entry: Callable[[str], tuple[bytes, str] | None]) -> TreeBuilder:
        """Return the same listing with other entries: of the changed files. The ids of all other folders stand."""
        new = TreeBuilder((), entry, self._format)
        new._files, new._folders, new._ids = self._files, self._folders, dict(self._ids)
        for path in changed:
            while path:
                path = path.rpartition("/")[0]
                new._ids.pop(path, None)
        return new

    def _register(self, folder: str) -> None:
        while folder:
            parent = folder.rpartition("/")[0]
            below = self._folders.setdefault(parent, set())
            if folder in below:
                return
            below.add(folder)
            folder = parent

    def is_folder(self, path: str) -> bool:
        return path in self._files or path in self._folders

    def is_file(self, path: str) -> bool:
        return path in self._files.get(path.rpartition("/")[0], ())

    def files_below(self, folder: str) -> list[str]:
        """Return all listed files below a folder (`` is the whole), sorted."""
        found: list[str] = []
        stack = [folder]
        while stack:
            where = stack.pop()
            found += self._files.get(where, ())
            stack += self._folders.get(where, ())
        return sorted(found)

    def tree_id(self, folder: str) -> str | None:
        """Return the id of a folder (`` is the whole), None where it holds no file."""
        if folder not in self._ids:
            rows: list[tuple[bytes, bytes]] = []
            for below in self._folders.get(folder, ()):
                identity = self.tree_id(below)
                if identity is not None:
                    rows.append(tree_row(below.rpartition("/")[2], b"40000", identity))
            for path in self._files.get(folder, ()):
                entry = self.entry(path)
                if entry is not None:
                    rows.append(tree_row(path.rpartition("/")[2], *entry))
            self._ids[folder] = tree_id(rows, self._format)
        return self._ids[folder]


def tree_id(rows: list[tuple[bytes, bytes]], object_format: str) -> str | None:
    """Return the id of a tree from (name to sort by, entry) rows, None where there are none."""
    rows.sort()
    return git_hash(object_format, b"tree", b"".join(row for _name, row in rows)) if rows else None


def tree_row(name: str, mode: bytes, identity: str) -> tuple[bytes, bytes]:
    """Return a row of a tree; folders are sorted as if their names ended with a slash."""
    raw = _bytes(name)
    return (raw + b"/" if mode == b"40000" else raw), mode + b" " + raw + b"\0" + bytes.fromhex(identity)


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
