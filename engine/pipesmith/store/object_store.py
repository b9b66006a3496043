"""Content by digest: files and folder manifests, each stored once. Layout: docs/formats/object-store.md.

An object is there under its name only when it is whole. What comes out is checked against its name; a damaged object is moved to
the trash and counts as missing.
"""

from __future__ import annotations

import ctypes
import errno
import marshal
import os
import secrets
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from pipesmith.digest import Digest, new_hasher
from pipesmith.errors import EnvironmentFailure, StageError, UserError
from pipesmith.pipeline.model import CacheConfig
from pipesmith.store.links import HARDLINK_ABOVE_BYTES, copy_hashing, reflink
from pipesmith.store.manifest import Entry, Manifest, digest_of, parse
from pipesmith.store.state_db import StateDB

__all__ = ["ObjectDamaged", "ObjectMissing", "ObjectStore", "hash_file"]

_CHUNK = 1 << 20
_THREADED_ABOVE_BYTES = 64 << 20
_POOL_ABOVE = 64


class ObjectMissing(StageError):
    """An object is not in the store."""


class ObjectDamaged(StageError):
    """An object is not what its name says; it lies in the trash now."""


def hash_file(path: str, algorithm: str) -> tuple[str, int]:
    """Return hex hash and size of a file's bytes, read in one pass."""
    fd = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        if algorithm == "blake3" and size >= _THREADED_ABOVE_BYTES:
            from blake3 import blake3

            hasher = blake3(max_threads=blake3.AUTO)
            hasher.update_mmap(path)
            return hasher.hexdigest(), size
        hasher = new_hasher(algorithm)  # type: ignore[assignment]
        read = 0
        if size < _CHUNK:
            data = os.read(fd, _CHUNK)
            while data:
                hasher.update(data)
                read += len(data)
                data = os.read(fd, _CHUNK) if len(data) == _CHUNK else b""
            return hasher.hexdigest(), read
        buffer = bytearray(_CHUNK)
        view = memoryview(buffer)
        with os.fdopen(os.dup(fd), "rb", buffering=0) as file:
            while count := file.readinto(buffer):
                hasher.update(view[:count])
                read += count
        return hasher.hexdigest(), read
    finally:
        os.close(fd)


class ObjectStore:
    """root: the cache folder. tmp: a folder on the same file system. state: remembers which objects were checked."""

    def __init__(self, root: str, tmp: str, state: StateDB, config: CacheConfig) -> None:
        self.root = root
        self.tmp = tmp
        self.algorithm = config.hash
        self._ways = config.link
        self._state = state
        self._manifests: dict[str, Manifest] = {}
        self._made: set[str] = set()
        self._checked: dict[str, bytes] = {}

    # -- names ----------------------------------------------------------------------------------------------------

    def path(self, digest: Digest) -> str:
        """Return where an object lies, or would lie."""
        return self._path(digest.algorithm, digest.hex)

    def _path(self, algorithm: str, hex: str) -> str:
        return os.path.join(self.root, "files", algorithm, hex[:2], hex[2:])

    def has(self, digest: Digest) -> bool:
        """Return whether content is there: of a folder all of it."""
        return not self.missing(digest, first=True)

    def has_manifest(self, digest: Digest) -> bool:
        return os.path.exists(self.path(digest))

    def missing(self, digest: Digest, *, first: bool = False) -> list[str]:
        """Return the hexes of what is not there. first: stop at the first."""
        if not os.path.exists(self.path(digest)):
            return [digest.hex]
        if not digest.is_folder:
            return []
        try:
            entries = self.manifest(digest).entries
        except StageError:
            return [digest.hex]
        lost = []
        for entry in entries:
            if entry.kind == "f" and not os.path.exists(self._path(digest.algorithm, entry.hex)):
                lost.append(entry.hex)
                if first:
                    break
        return lost

    # -- in -------------------------------------------------------------------------------------------------------

    def add_tree(self, path: str, *, move: bool) -> Digest:
        """Take in a file or a whole folder and return its digest.

        move: the bytes may be taken away (the caller drops what is left). Raises EnvironmentFailure on a full disk, UserError for
        what can't be stored (sockets, devices, unreadable files; links and empty folders in md5 mode).
        """
        try:
            info = os.lstat(path)
            if stat.S_ISDIR(info.st_mode):
                return self._add_folder(path, move)
            if not stat.S_ISREG(info.st_mode):
                raise UserError(f"`{path}` is neither a file nor a folder", "write a file or a folder there")
            hex, size = self._add_file(path, move, info)
            return Digest(self.algorithm, hex, size)
        except OSError as error:
            raise self._disk(error, path) from None

    def add_bytes(self, data: bytes) -> Digest:
        """Take in a file's bytes."""
        hasher = new_hasher(self.algorithm)
        hasher.update(data)
        hex = hasher.hexdigest()
        try:
            self._write(hex, data)
        except OSError as error:
            raise self._disk(error, self.root) from None
        return Digest(self.algorithm, hex, len(data))

    def _add_folder(self, path: str, move: bool) -> Digest:
        entries: list[Entry] = []
        files: list[tuple[str, str, os.stat_result]] = []
        stack = [("", path)]
        while stack:
            inner, folder = stack.pop()
            empty = True
            with os.scandir(folder) as found:
                for child in found:
                    empty = False
                    name = f"{inner}/{child.name}" if inner else child.name
                    if child.is_symlink():
                        entries.append(Entry("l", name, text=os.readlink(child.path)))
                    elif child.is_dir(follow_symlinks=False):
                        stack.append((name, child.path))
                    elif child.is_file(follow_symlinks=False):
                        files.append((name, child.path, child.stat(follow_symlinks=False)))
                    else:
                        raise UserError(f"`{name}` in `{path}` is neither file, folder nor link", "leave it out of the output")
            if empty and inner:
                entries.append(Entry("d", inner))

        def add(item: tuple[str, str, os.stat_result]) -> Entry:
            name, place, info = item
            hex, size = self._add_file(place, move, info)
            return Entry("f", name, hex, size, bool(info.st_mode & 0o100))

        if len(files) > _POOL_ABOVE and any(info.st_size > _CHUNK for _n, _p, info in files):
            with ThreadPoolExecutor(4) as pool:
                entries += pool.map(add, files)
        else:
            entries += map(add, files)
        digest, data = digest_of(entries, self.algorithm)
        self._write(digest.hex, data)
        self._manifests[digest.hex] = Manifest(entries)
        return digest

    def _add_file(self, path: str, move: bool, info: os.stat_result) -> tuple[str, int]:
        if not move and info.st_size <= _CHUNK:
            with open(path, "rb") as file:
                data = file.read()
            hasher = new_hasher(self.algorithm)
            hasher.update(data)
            hex = hasher.hexdigest()
            self._write(hex, data)
            return hex, len(data)
        if not move:
            ready = os.path.join(self.tmp, f"object-{secrets.token_hex(8)}")
            try:
                if reflink(path, ready, 0o600):
                    hex, size = hash_file(ready, self.algorithm)
                else:
                    hex, size = copy_hashing(path, ready, 0o600, self.algorithm), os.stat(ready).st_size
                self._settle(ready, hex)
            finally:
                if os.path.lexists(ready):
                    os.unlink(ready)
            return hex, size
        hex, size = hash_file(path, self.algorithm)
        if info.st_nlink > 1:
            return self._add_file(path, False, info)
        self._settle(path, hex)
        return hex, size

    def _settle(self, ready: str, hex: str) -> None:
        """Give a whole file its name as an object; one that is there already stays, if it is whole."""
        target = self._path(self.algorithm, hex)
        if os.path.exists(target) and self._whole(self.algorithm, hex, target):
            return
        os.chmod(ready, 0o444)
        self._folder(target)
        try:
            os.rename(ready, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            inside = os.path.join(self.tmp, f"object-{secrets.token_hex(8)}")
            if copy_hashing(ready, inside, 0o444, self.algorithm) != hex:
                raise StageError(f"`{ready}` changed while it was read", "build again") from None
            os.rename(inside, target)
        self._remember(hex, target)

    def _write(self, hex: str, data: bytes) -> None:
        target = self._path(self.algorithm, hex)
        if os.path.exists(target) and self._whole(self.algorithm, hex, target):
            return
        self._folder(target)
        ready = os.path.join(self.tmp, f"object-{secrets.token_hex(8)}")
        fd = os.open(ready, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
        try:
            try:
                view = memoryview(data)
                while len(view):
                    view = view[os.write(fd, view) :]
            finally:
                os.close(fd)
            os.rename(ready, target)
        except OSError:
            os.unlink(ready)
            raise
        self._remember(hex, target)

    def _folder(self, target: str) -> None:
        folder = os.path.dirname(target)
        if folder not in self._made:
            os.makedirs(folder, exist_ok=True)
            os.makedirs(self.tmp, exist_ok=True)
            self._made.add(folder)

    def _disk(self, error: OSError, path: str) -> EnvironmentFailure:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return EnvironmentFailure(f"no space left on the disk of `{self.root}`", "free some space (`pipe gc`), then build again")
        return EnvironmentFailure(f"`{error.filename or path}`: {error.strerror}")

    # -- out ------------------------------------------------------------------------------------------------------

    def manifest(self, digest: Digest) -> Manifest:
        """Return a folder's entries. Raises ObjectMissing, ObjectDamaged."""
        known = self._manifests.get(digest.hex)
        if known is None:
            entries = parse(self.read(digest), digest.algorithm)
            known = Manifest(entries)
            self._manifests[digest.hex] = known
        return known

    def read(self, digest: Digest) -> bytes:
        """Return an object's bytes, checked. Raises ObjectMissing, ObjectDamaged."""
        path = self.path(digest)
        try:
            with open(path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            raise ObjectMissing(f"object {digest.short} is not in the cache", "build again") from None
        hasher = new_hasher(digest.algorithm)
        hasher.update(data)
        if hasher.hexdigest() != digest.hex.partition(".")[0]:
            self.discard(digest.algorithm, digest.hex)
            raise ObjectDamaged(f"object {digest.short} in the cache was damaged", "build again")
        return data

    def place(self, digest: Digest, target: str, *, link: bool) -> None:
        """Write content to `target`, which must not exist. link: big files may share their bytes with the store, read-only.

        Raises ObjectMissing or ObjectDamaged, with nothing at `target` then.
        """
        if not digest.is_folder:
            self._place_file(digest.algorithm, digest.hex, digest.size, target, False, link)
            return
        entries = self.manifest(digest).entries
        os.mkdir(target)
        made = {""}
        try:
            for entry in entries:
                place = f"{target}/{entry.path}"
                parent = entry.path.rpartition("/")[0]
                if parent not in made:
                    os.makedirs(f"{target}/{parent}", exist_ok=True)
                    made.add(parent)
                if entry.kind == "f":
                    self._place_file(digest.algorithm, entry.hex, entry.size, place, entry.executable, link)
                elif entry.kind == "l":
                    os.symlink(entry.text, place)
                else:
                    os.makedirs(place, exist_ok=True)
        except BaseException:
            import shutil

            shutil.rmtree(target, ignore_errors=True)
            raise

    def _place_file(self, algorithm: str, hex: str, size: int, target: str, executable: bool, link: bool) -> None:
        path = self._path(algorithm, hex)
        mode = 0o777 if executable else 0o666
        try:
            big = os.stat(path).st_size > HARDLINK_ABOVE_BYTES
        except FileNotFoundError:
            raise ObjectMissing(f"object {hex[:8]} is not in the cache", "build again") from None
        if big and link and self._link(algorithm, hex, path, target, mode, executable):
            return
        if copy_hashing(path, target, mode, algorithm) != hex:
            os.unlink(target)
            self.discard(algorithm, hex)
            raise ObjectDamaged(f"object {hex[:8]} in the cache was damaged", "build again")

    def _link(self, algorithm: str, hex: str, path: str, target: str, mode: int, executable: bool) -> bool:
        for way in self._ways:
            if way == "copy":
                return False
            if way == "hardlink" and executable:
                continue  # the bit belongs to the object's other names as well
            if not self._whole(algorithm, hex, path):
                raise ObjectDamaged(f"object {hex[:8]} in the cache was damaged", "build again")
            if way == "reflink" and reflink(path, target, mode):
                return True
            if way == "hardlink":
                try:
                    os.link(path, target)
                except OSError:
                    continue
                self._remember(hex, path)
                return True
        return False

    # -- checking -------------------------------------------------------------------------------------------------

    def _whole(self, algorithm: str, hex: str, path: str) -> bool:
        """Return whether an object is what its name says: by its stamp when it was checked before, else by reading it. A damaged one
        goes to the trash."""
        stamp = _stamp(path)
        if stamp is not None and (self._checked.get(hex) or self._stored_stamp(hex)) == stamp:
            return True
        if hash_file(path, algorithm)[0] != hex.partition(".")[0]:
            self.discard(algorithm, hex)
            return False
        self._remember(hex, path)
        return True

    def _stored_stamp(self, hex: str) -> bytes | None:
        rows = self._state.query("SELECT stamp FROM objects WHERE hex = ?", (hex,))
        return rows[0][0] if rows else None

    def _remember(self, hex: str, path: str) -> None:
        stamp = _stamp(path)
        if stamp is not None:
            self._checked[hex] = stamp

    def flush(self) -> None:
        """Remember for later processes which big objects were checked."""
        rows = [(hex, stamp) for hex, stamp in self._checked.items() if marshal.loads(stamp)[1] > HARDLINK_ABOVE_BYTES]
        if rows:
            self._state.write_many("INSERT OR REPLACE INTO objects VALUES (?, ?)", rows)

    def check(self, algorithm: str, hex: str) -> bool:
        """Read an object and return whether it is what its name says; a damaged one goes to the trash."""
        path = self._path(algorithm, hex)
        if hash_file(path, algorithm)[0] == hex.partition(".")[0]:
            self._remember(hex, path)
            return True
        self.discard(algorithm, hex)
        return False

    def discard(self, algorithm: str, hex: str) -> None:
        """Move an object to the trash."""
        trash = os.path.join(os.path.dirname(self.root), "trash")
        self._checked.pop(hex, None)
        self._manifests.pop(hex, None)
        self._made.clear()
        try:
            os.makedirs(trash, exist_ok=True)
            os.rename(self._path(algorithm, hex), os.path.join(trash, f"{algorithm}-{hex}"))
        except OSError:
            pass

    def objects(self) -> Iterator[tuple[str, str, os.stat_result]]:
        """Yield (algorithm, hex, stat) of every object."""
        files = os.path.join(self.root, "files")
        for algorithm in _names(files):
            for first in _names(os.path.join(files, algorithm)):
                folder = os.path.join(files, algorithm, first)
                for rest in _names(folder):
                    try:
                        yield algorithm, first + rest, os.lstat(os.path.join(folder, rest))
                    except OSError:
                        continue

    def find(self, prefix: str) -> list[Digest]:
        """Return the objects whose hex begins with `prefix` (`ALGORITHM:` before it is allowed), at most a few."""
        algorithm, _, hex = prefix.rpartition(":")
        found = []
        for name in [algorithm] if algorithm else _names(os.path.join(self.root, "files")):
            folder = os.path.join(self.root, "files", name, hex[:2])
            for rest in _names(folder):
                if (hex[:2] + rest).startswith(hex) and len(hex) >= 4:
                    found.append(Digest(name, hex[:2] + rest, os.path.getsize(os.path.join(folder, rest))))
        return found

    def sync(self) -> None:
        """Bring what was stored to the disk: one syncfs."""
        try:
            fd = os.open(self.root, os.O_RDONLY)
        except OSError:
            return
        try:
            libc = ctypes.CDLL(None)
            if hasattr(libc, "syncfs"):
                libc.syncfs(fd)
        finally:
            os.close(fd)


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _stamp(path: str) -> bytes | None:
    """Return what proves that a file was not written since. A new name of it changes its ctime: then it is read once more."""
    try:
        info = os.lstat(path)
    except OSError:
        return None
    return marshal.dumps((info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns), 2)
