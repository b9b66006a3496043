"""Git's tree and blob ids, made from listed files without writing any object. Source: git's object format."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

__all__ = ["TreeBuilder", "blob_id", "git_hash"]


def git_hash(object_format: str, kind: bytes, data: bytes) -> str:
    """Return the id of an object. object_format: `sha1` or `sha256`."""
    hasher = hashlib.new(object_format, usedforsecurity=False)
    hasher.update(kind + b" " + str(len(data)).encode() + b"\0")
    hasher.update(data)
    return hasher.hexdigest()


def blob_id(path: str, size: int, object_format: str) -> str | None:
    """Return the blob id of a file's own bytes, read in one pass; None where it changed its size meanwhile."""
    hasher = hashlib.new(object_format, usedforsecurity=False)
    hasher.update(b"blob %d\0" % size)
    read = 0
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(1 << 20):
            hasher.update(chunk)
            read += len(chunk)
    return hasher.hexdigest() if read == size else None


class TreeBuilder:
    """The folders of a listing. entry(path) gives (mode, id) of a listed file, asked for only when its folder's id is."""

    def __init__(
        self, paths: Iterable[str], entry: Callable[[str], tuple[bytes, str] | None], object_format: str
    ) -> None:
        self._entry = entry
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
                    name = _bytes(below.rpartition("/")[2])
                    rows.append((name + b"/", b"40000 " + name + b"\0" + bytes.fromhex(identity)))
            for path in self._files.get(folder, ()):
                entry = self._entry(path)
                if entry is not None:
                    name = _bytes(path.rpartition("/")[2])
                    mode, identity = entry
                    order = name + b"/" if mode == b"40000" else name
                    rows.append((order, mode + b" " + name + b"\0" + bytes.fromhex(identity)))
            rows.sort()
            body = b"".join(row for _name, row in rows)
            self._ids[folder] = git_hash(self._format, b"tree", body) if rows else None
        return self._ids[folder]


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
