"""Digests of files and folders by their own bytes, remembered by stamps: (inode, size, mtime, ctime, mode).

A stamp is evidence, a digest is truth: a stamp that differs is a reason to read, never a verdict. Nothing is
remembered that was written within the clock's tick, and nothing on tmpfs, whose stamps are coarse.
"""

from __future__ import annotations

import marshal
import os
import stat
import threading
import time
from _blake2 import blake2b
from collections.abc import Sequence
from typing import Any

from pipesmith.digest import Digest
from pipesmith.errors import UserError
from pipesmith.store.manifest import Entry, digest_of, link_digest
from pipesmith.store.object_store import hash_file
from pipesmith.store.state_db import StateDB

__all__ = ["StatCache", "has_ticked", "stamp_of"]

RACY_NS = 20_000_000
COARSE_RACY_NS = 2_000_000_000
_ASK_ALL_ABOVE = 16  # single files
_POOL_ABOVE_BYTES = 8 << 20

Stamp = tuple[int, int, int, int, int]


def stamp_of(info: os.stat_result) -> Stamp:
    """Return the stamp of a file."""
    return (info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_mode)


def has_ticked(changed_ns: int, read_ns: int) -> bool:
    """Return whether the clock of the stamps had moved on from a change when something was read. Some file systems
    count whole seconds."""
    return read_ns - changed_ns > (RACY_NS if changed_ns % 1_000_000_000 else COARSE_RACY_NS)


def _loads(data: bytes) -> Any:
    """Return a remembered value, None for a damaged one."""
    try:
        return marshal.loads(data)
    except (ValueError, EOFError, TypeError):
        return None


class _Folder:
    """One folder of a walk: its entries in readdir order."""

    __slots__ = ("files", "inner", "links", "path", "signature", "subfolders")

    def __init__(self, inner: str, path: str) -> None:
        self.inner = inner
        self.path = path
        self.files: list[tuple[str, Stamp]] = []
        self.links: list[tuple[str, str]] = []
        self.subfolders: list[str] = []
        self.signature = b""


class StatCache:
    """algorithm: of the digests. Thread-safe."""

    def __init__(self, state: StateDB, algorithm: str) -> None:
        self.state = state
        self.algorithm = algorithm
        self._guard = threading.Lock()
        self._files: dict[str, tuple[Stamp, str]] = {}
        self._rows: dict[str, Sequence[bytes]] | None = None
        self._asked = 0
        self._new_files: dict[str, tuple[bytes, bytes]] = {}
        self._new_folders: dict[str, tuple[bytes, bytes]] = {}
        self._memory_devices: frozenset[int] | None = None
        self._others: dict[str, StatCache] = {}
        self._git_places: set[str] = set()

    def of_algorithm(self, algorithm: str) -> StatCache:
        """Return the cache of another algorithm's digests, flushed with this one."""
        if algorithm == self.algorithm:
            return self
        with self._guard:
            return self._others.setdefault(algorithm, StatCache(self.state, algorithm))

    def output(self, path: str, algorithm: str | None = None) -> Digest | None:
        """Return the digest of what lies at an output's absolute path, by the algorithm that it is compared by.

        What DVC's format can't hold, and so can't be what was made, counts by BLAKE3. Raises as `digest`."""
        cache = self.of_algorithm(algorithm or self.algorithm)
        try:
            return cache.digest(path)
        except UserError:
            if cache.algorithm == "blake3":
                raise
            return self.of_algorithm("blake3").digest(path)

    def digest(self, path: str) -> Digest | None:
        """Return the digest of what lies at an absolute path, None where nothing lies there. A link counts by its text.

        Raises UserError for what has no content (a socket, a device) or can't be read.
        """
        try:
            info = os.lstat(path)
            if stat.S_ISREG(info.st_mode):
                return Digest(self.algorithm, self._file(path, stamp_of(info), info.st_dev), info.st_size)
            if stat.S_ISLNK(info.st_mode):
                return link_digest(os.readlink(path), self.algorithm)
            if stat.S_ISDIR(info.st_mode):
                return self._folder(path, self._walk(path), info.st_dev, "tree")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError as error:
            raise UserError(f"`{error.filename or path}` can't be read: {error.strerror}") from None
        raise UserError(f"`{path}` is neither file, folder nor link")

    def look(self, path: str) -> FolderLook:
        """Walk a folder that is an input: without what belongs to git, `.git` folders and files. Raises as `digest`."""
        try:
            return FolderLook(self, path, self._walk(path, without_git=True), os.lstat(path).st_dev)
        except PermissionError as error:
            raise UserError(f"`{error.filename or path}` can't be read: {error.strerror}") from None

    def git_places(self, path: str) -> list[str]:
        """Return the `.git` folders and files that looks at a folder passed by, relative to it."""
        prefix = f"{path}/"
        return sorted(place[len(prefix) :] for place in self._git_places.copy() if place.startswith(prefix))

    # -- files ----------------------------------------------------------------------------------------------------

    def _file(self, path: str, stamp: Stamp, device: int) -> str:
        known = self._files.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        packed = marshal.dumps(stamp, 2)
        key = f"{self.algorithm}:{path}"
        row = self._remembered(key)
        if row is not None and row[0] == packed:
            hex = str(row[1].decode())
            self._files[path] = (stamp, hex)
            return hex
        started = time.time_ns()
        found, stamp = self._hash(path)
        if self.is_settled(stamp, device, started):
            with self._guard:
                self._files[path] = (stamp, found)
                self._new_files[key] = (marshal.dumps(stamp, 2), found.encode())
        return found

    def _remembered(self, key: str) -> Sequence[bytes] | None:
        """Return what an earlier process learned of a file. Who asks for many gets them all in one query."""
        if self._rows is None and key.isascii():
            self._asked += 1
            if self._asked > _ASK_ALL_ABOVE:
                self._rows = {path: row for path, *row in self.state.query("SELECT path, stamp, data FROM files")}
        if self._rows is not None and key.isascii():
            return self._rows.get(key)
        for row in self.state.query("SELECT stamp, data FROM files WHERE path = ?", (key,)):
            found: Sequence[bytes] = row
            return found
        return None

    def _hash(self, path: str) -> tuple[str, Stamp]:
        """Return hex and the stamp that the file had before and after it was read."""
        while True:
            before = stamp_of(os.lstat(path))
            hex, _size = hash_file(path, self.algorithm)
            if stamp_of(os.lstat(path)) == before:
                return hex, before

    def is_settled(self, stamp: Stamp, device: int, read_ns: int) -> bool:
        """Return whether a stamp proves content from now on: whether a write after `read_ns`, when the reading began,
        must show.

        The change time alone tells: it can't be set back, and a modification time may lie anywhere."""
        return has_ticked(stamp[3], read_ns) and device not in self._coarse_devices()

    def _coarse_devices(self) -> frozenset[int]:
        if self._memory_devices is None:
            devices = set()
            try:
                with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
                    for line in file:
                        _source, where, kind, *_rest = line.split(" ")
                        if kind in ("tmpfs", "ramfs"):
                            try:
                                devices.add(os.stat(where).st_dev)
                            except OSError:
                                continue
            except OSError:
                pass
            self._memory_devices = frozenset(devices)
        return self._memory_devices

    # -- folders --------------------------------------------------------------------------------------------------

    def _folder(self, path: str, folders: Sequence[_Folder], device: int, kind: str) -> Digest:
        whole = blake2b(digest_size=16)
        for folder in folders:
            whole.update(folder.signature)
        signature = whole.digest()
        key = f"{self.algorithm}:{kind}:{path}"
        known = self._new_folders.get(key)
        rows = [known] if known else self.state.query("SELECT signature, data FROM folders WHERE path = ?", (key,))
        for row_signature, data in rows:
            if row_signature == signature:
                remembered = _loads(data)
                if remembered is not None:
                    return Digest(self.algorithm, *remembered)
        started = time.time_ns()
        entries = self._read_folders(folders, device)
        digest, _data = digest_of(entries, self.algorithm)
        settled = all(has_ticked(stamp[3], started) for folder in folders for _name, stamp in folder.files)
        if settled and device not in self._coarse_devices():
            with self._guard:
                self._new_folders[key] = (signature, marshal.dumps((digest.hex, digest.size, digest.nfiles), 2))
        return digest

    def _walk(self, path: str, *, without_git: bool = False) -> list[_Folder]:
        """Return all folders below `path`, itself first, in readdir order, each with its signature."""
        found: list[_Folder] = []
        stack = [("", path)]
        while stack:
            inner, where = stack.pop()
            folder = _Folder(inner, where)
            flat: list[object] = [inner]
            with os.scandir(where) as children:
                for child in children:
                    name = child.name
                    if without_git and name == ".git":
                        self._git_places.add(child.path)
                        continue
                    if child.is_dir(follow_symlinks=False):
                        folder.subfolders.append(name)
                        flat.append(name)
                        continue
                    info = child.stat(follow_symlinks=False)
                    mode = info.st_mode
                    stamp = (info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns, mode)
                    if stat.S_ISREG(mode):
                        folder.files.append((name, stamp))
                    elif stat.S_ISLNK(mode):
                        folder.links.append((name, os.readlink(child.path)))
                    else:
                        raise UserError(f"`{child.path}` is neither file, folder nor link", "take it out of the folder")
                    flat.append(name)
                    flat += stamp
            folder.signature = blake2b(marshal.dumps(flat, 2), digest_size=16).digest()
            found.append(folder)
            prefix = f"{inner}/" if inner else ""
            stack += [(prefix + name, f"{where}/{name}") for name in reversed(folder.subfolders)]
        return found

    def _read_folders(self, folders: Sequence[_Folder], device: int) -> list[Entry]:
        entries: list[Entry] = []
        for folder in folders:
            prefix = f"{folder.inner}/" if folder.inner else ""
            hexes = self._hexes(folder, device)
            for name, stamp in folder.files:
                entries.append(Entry("f", prefix + name, hexes[name], stamp[1], bool(stamp[4] & 0o100)))
            entries += [Entry("l", prefix + name, text=text) for name, text in folder.links]
            if folder.inner and not (folder.files or folder.links or folder.subfolders):
                entries.append(Entry("d", folder.inner))
        return entries

    def _hexes(self, folder: _Folder, device: int) -> dict[str, str]:
        """Return the hex of each file of one folder; what is not known by its stamp is read."""
        if not folder.files:
            return {}
        key = f"{self.algorithm}:{folder.path}"
        known: dict[str, tuple[Stamp, str]] = {}
        pending = self._new_folders.get(key)
        rows = [pending] if pending else self.state.query("SELECT signature, data FROM folders WHERE path = ?", (key,))
        for signature, data in rows:
            known = _loads(data) or {}
            if known and signature == folder.signature:
                return {name: hex for name, (_stamp, hex) in known.items()}
        hexes: dict[str, str] = {}
        unknown: list[tuple[str, Stamp]] = []
        for name, stamp in folder.files:
            old = known.get(name)
            if old is not None and old[0] == stamp:
                hexes[name] = old[1]
            else:
                unknown.append((name, stamp))
        started = time.time_ns()
        keep = {name: (stamp, hexes[name]) for name, stamp in folder.files if name in hexes}
        for (name, _stamp), (hex, seen) in zip(unknown, self._read_all(folder.path, unknown), strict=True):
            hexes[name] = hex
            if has_ticked(seen[3], started):
                keep[name] = (seen, hex)
        if device not in self._coarse_devices():
            whole = len(keep) == len(folder.files) and all(keep[name][0] == stamp for name, stamp in folder.files)
            with self._guard:
                self._new_folders[key] = (folder.signature if whole else b"", marshal.dumps(keep, 2))
        return hexes

    def _read_all(self, folder: str, files: Sequence[tuple[str, Stamp]]) -> list[tuple[str, Stamp]]:
        paths = [f"{folder}/{name}" for name, _stamp in files]
        if len(paths) > 1 and sum(stamp[1] for _name, stamp in files) > _POOL_ABOVE_BYTES:
            from concurrent.futures import ThreadPoolExecutor  # dear to import, and seldom needed

            with ThreadPoolExecutor(min(4, len(paths))) as pool:
                return list(pool.map(self._hash, paths))
        return [self._hash(path) for path in paths]

    def flush(self) -> None:
        """Remember for later processes what was read."""
        for other in self._others.values():
            other.flush()
        with self._guard:
            files, self._new_files = self._new_files, {}
            folders, self._new_folders = self._new_folders, {}
        if files:
            self.state.write_many("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", [(k, *v) for k, v in files.items()])
        if folders:
            self.state.write_many(
                "INSERT OR REPLACE INTO folders VALUES (?, ?, ?)", [(k, *v) for k, v in folders.items()]
            )


class FolderLook:
    """One walk of a folder, and what follows from it."""

    def __init__(self, cache: StatCache, path: str, folders: Sequence[_Folder], device: int) -> None:
        self._cache = cache
        self._path = path
        self._folders = folders
        self._device = device

    def digest(self) -> Digest:
        """Return the folder's digest. Raises UserError for what can't be read."""
        try:
            return self._cache._folder(self._path, self._folders, self._device, "input")
        except PermissionError as error:
            raise UserError(f"`{error.filename}` can't be read: {error.strerror}") from None

    def entries(self) -> list[Entry]:
        """Return the manifest entries. Raises UserError for what can't be read."""
        try:
            return self._cache._read_folders(self._folders, self._device)
        except PermissionError as error:
            raise UserError(f"`{error.filename}` can't be read: {error.strerror}") from None

    def links(self) -> list[str]:
        """Return the links in it, by path relative to the folder."""
        return [
            f"{folder.inner}/{name}" if folder.inner else name
            for folder in self._folders
            for name, _text in folder.links
        ]

    def has_empty_folders(self) -> bool:
        return any(f.inner and not (f.files or f.links or f.subfolders) for f in self._folders)
