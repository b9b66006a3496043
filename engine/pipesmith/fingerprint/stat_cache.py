"""Digests of files and folders by their own bytes, remembered by stamps: (inode, size, mtime, ctime, mode).

A stamp is evidence, a digest is truth: a stamp that differs is a reason to read, never a verdict. Nothing is remembered that was
written within the clock's tick, and nothing on tmpfs, whose stamps are coarse.
"""

from __future__ import annotations

import marshal
import os
import stat
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b

from pipesmith.digest import Digest
from pipesmith.errors import UserError
from pipesmith.store.manifest import Entry, digest_of, link_digest
from pipesmith.store.object_store import hash_file
from pipesmith.store.state_db import StateDB

__all__ = ["RACY_NS", "StatCache", "stamp_of"]

RACY_NS = 20_000_000
_POOL_ABOVE_BYTES = 8 << 20

Stamp = tuple[int, int, int, int, int]


def stamp_of(info: os.stat_result) -> Stamp:
    """Return the stamp of a file."""
    return (info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_mode)


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
        self._state = state
        self.algorithm = algorithm
        self._guard = threading.Lock()
        self._files: dict[str, tuple[Stamp, str]] = {}
        self._new_files: dict[str, tuple[bytes, bytes]] = {}
        self._new_folders: dict[str, tuple[bytes, bytes]] = {}
        self._memory_devices: frozenset[int] | None = None

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
                return self._folder(path, info.st_dev)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError as error:
            raise UserError(f"`{error.filename or path}` can't be read: {error.strerror}") from None
        raise UserError(f"`{path}` is neither file, folder nor link")

    def entries(self, path: str) -> list[Entry]:
        """Return the manifest entries of a folder. Raises as `digest`."""
        return self._read_folders(self._walk(path), os.lstat(path).st_dev)

    # -- files ----------------------------------------------------------------------------------------------------

    def _file(self, path: str, stamp: Stamp, device: int) -> str:
        known = self._files.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        packed = marshal.dumps(stamp, 2)
        key = f"{self.algorithm}:{path}"
        for row_stamp, hex in self._state.query("SELECT stamp, data FROM files WHERE path = ?", (key,)):
            if row_stamp == packed:
                self._files[path] = (stamp, hex.decode())
                return str(hex.decode())
        found, stamp = self._hash(path)
        if self._keepable(stamp, device):
            with self._guard:
                self._files[path] = (stamp, found)
                self._new_files[key] = (marshal.dumps(stamp, 2), found.encode())
        return found

    def _hash(self, path: str) -> tuple[str, Stamp]:
        """Return hex and the stamp that the file had before and after it was read."""
        while True:
            before = stamp_of(os.lstat(path))
            hex, _size = hash_file(path, self.algorithm)
            if stamp_of(os.lstat(path)) == before:
                return hex, before

    def _keepable(self, stamp: Stamp, device: int) -> bool:
        return time.time_ns() - max(stamp[2], stamp[3]) > RACY_NS and device not in self._coarse_devices()

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

    def _folder(self, path: str, device: int) -> Digest:
        folders = self._walk(path)
        whole = blake2b(digest_size=16)
        for folder in folders:
            whole.update(folder.signature)
        signature = whole.digest()
        key = f"{self.algorithm}:tree:{path}"
        known = self._new_folders.get(key)
        rows = [known] if known else self._state.query("SELECT signature, data FROM folders WHERE path = ?", (key,))
        for row_signature, data in rows:
            if row_signature == signature:
                hex, size, count = marshal.loads(data)
                return Digest(self.algorithm, hex, size, count)
        started = time.time_ns()
        entries = self._read_folders(folders, device)
        digest, _data = digest_of(entries, self.algorithm)
        newest = max((max(stamp[2], stamp[3]) for folder in folders for _name, stamp in folder.files), default=0)
        if started - newest > RACY_NS and device not in self._coarse_devices():
            with self._guard:
                self._new_folders[key] = (signature, marshal.dumps((digest.hex, digest.size, digest.nfiles), 2))
        return digest

    def _walk(self, path: str) -> list[_Folder]:
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
                    if child.is_dir(follow_symlinks=False):
                        if name == ".git":
                            continue
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
        rows = [pending] if pending else self._state.query("SELECT signature, data FROM folders WHERE path = ?", (key,))
        for signature, data in rows:
            known = marshal.loads(data)
            if signature == folder.signature:
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
            if started - max(seen[2], seen[3]) > RACY_NS:
                keep[name] = (seen, hex)
        if device not in self._coarse_devices():
            whole = len(keep) == len(folder.files) and all(keep[name][0] == stamp for name, stamp in folder.files)
            with self._guard:
                self._new_folders[key] = (folder.signature if whole else b"", marshal.dumps(keep, 2))
        return hexes

    def _read_all(self, folder: str, files: Sequence[tuple[str, Stamp]]) -> list[tuple[str, Stamp]]:
        paths = [f"{folder}/{name}" for name, _stamp in files]
        if len(paths) > 1 and sum(stamp[1] for _name, stamp in files) > _POOL_ABOVE_BYTES:
            with ThreadPoolExecutor(min(4, len(paths))) as pool:
                return list(pool.map(self._hash, paths))
        return [self._hash(path) for path in paths]

    def flush(self) -> None:
        """Remember for later processes what was read."""
        with self._guard:
            files, self._new_files = self._new_files, {}
            folders, self._new_folders = self._new_folders, {}
        if files:
            self._state.write_many("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", [(k, *v) for k, v in files.items()])
        if folders:
            self._state.write_many("INSERT OR REPLACE INTO folders VALUES (?, ?, ?)", [(k, *v) for k, v in folders.items()])
