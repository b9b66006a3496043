"""Content by digest: files and folder manifests, each stored once. Layout: docs/formats/object-store.md.

An object is there under its name only when it is whole. What comes out is checked against its name; a damaged object
is moved to the trash and counts as missing.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from functools import cache

from pipesmith.digest import Digest, new_hasher
from pipesmith.errors import StageError, UserError
from pipesmith.pipeline.model import CacheConfig
from pipesmith.records import replace
from pipesmith.store.checked import Checked
from pipesmith.store.disk import disk_failure, sync_disk, unfinished
from pipesmith.store.hashing import hash_file, read_small
from pipesmith.store.links import HARDLINK_ABOVE_BYTES, copy_hashing, reflink, write_all
from pipesmith.store.manifest import Entry, Manifest, digest_of, parse
from pipesmith.store.modes import make_folders, share
from pipesmith.store.shelf import Shelf
from pipesmith.store.state_db import StateDB

__all__ = ["ObjectDamaged", "ObjectMissing", "ObjectStore", "hash_file"]

_SMALL_BYTES = 1 << 20
_POOL_ABOVE = 64
_FRESH_S = 1_800.0  # half of what a collection calls young


class ObjectMissing(StageError):
    """An object is not in the store."""


class ObjectDamaged(StageError):
    """An object is not what its name says; it lies in the trash now."""


class ObjectStore(Shelf):
    """root: the cache folder. tmp: where trees wait to be taken in. state: remembers which objects were checked.

    An object is written beside its place under a name that begins with `.tmp-`, and renamed when it is whole.
    """

    def __init__(self, root: str, tmp: str, state: StateDB, config: CacheConfig) -> None:
        super().__init__(root)
        self.tmp = tmp
        self.algorithm = config.hash
        self._config = config
        self._ways = config.link
        self._state = state
        self._manifests: dict[str, Manifest] = {}
        self._made: dict[str, bool] = {}
        self._checked = Checked(state)
        self.on_damage: Callable[[str], None] = lambda _hex: None  # told of objects that were found damaged

    def of_algorithm(self, algorithm: str) -> ObjectStore:
        """Return the same store, taking in by another hash."""
        return ObjectStore(self.root, self.tmp, self._state, replace(self._config, hash=algorithm))

    # -- there or not ---------------------------------------------------------------------------------------------

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

        move: the bytes may be taken away (the caller drops what is left). Raises EnvironmentFailure on a full disk,
        UserError for what can't be stored (sockets, devices; links and empty folders in md5 mode).
        """
        self._made.clear()  # folders that were there the last time may be gone
        try:
            info = os.lstat(path)
            if stat.S_ISDIR(info.st_mode):
                return self._add_folder(path, move)
            if not stat.S_ISREG(info.st_mode):
                raise UserError(f"`{path}` is neither a file nor a folder", "write a file or a folder there")
            hex, size = self._add_file(path, move, info)
            return Digest(self.algorithm, hex, size, executable=bool(info.st_mode & 0o100))
        except OSError as error:
            raise disk_failure(error, self.root, path) from None

    def add_bytes(self, data: bytes) -> Digest:
        """Take in a file's bytes."""
        hasher = new_hasher(self.algorithm)
        hasher.update(data)
        hex = hasher.hexdigest()
        self._made.clear()
        try:
            self._write(hex, data)
        except OSError as error:
            raise disk_failure(error, self.root) from None
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
                        what = f"`{name}` in `{path}` is neither file, folder nor link"
                        raise UserError(what, "leave it out of the output")
            if empty and inner:
                entries.append(Entry("d", inner))

        def add(item: tuple[str, str, os.stat_result]) -> Entry:
            name, place, info = item
            hex, size = self._add_file(place, move, info)
            return Entry("f", name, hex, size, bool(info.st_mode & 0o100))

        if len(files) > _POOL_ABOVE and any(info.st_size > _SMALL_BYTES for _n, _p, info in files):
            from concurrent.futures import ThreadPoolExecutor  # dear to import, and seldom needed

            with ThreadPoolExecutor(4) as pool:
                entries += pool.map(add, files)
        else:
            entries += map(add, files)
        digest, data = digest_of(entries, self.algorithm)
        self._write(digest.hex, data)
        self._manifests[digest.hex] = Manifest(entries)
        return digest

    def _add_file(self, path: str, move: bool, info: os.stat_result) -> tuple[str, int]:
        if move and info.st_nlink == 1:
            hex, size = hash_file(path, self.algorithm)
            self._settle(path, hex)
            return hex, size
        if info.st_size <= _SMALL_BYTES:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                data = read_small(fd, info.st_size)
            finally:
                os.close(fd)
            hasher = new_hasher(self.algorithm)
            hasher.update(data)
            hex = hasher.hexdigest()
            self._write(hex, data)
            return hex, len(data)
        ready = os.path.join(self._folder(os.path.join(self.root, "files", self.algorithm)), unfinished())
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

    def _settle(self, ready: str, hex: str) -> None:
        """Give a whole file its name as an object; one that is there already stays, if it is whole."""
        target = self._path(self.algorithm, hex)
        if self._has_whole(hex, target):
            return
        folder = self._folder(os.path.dirname(target))
        try:
            os.chmod(ready, 0o444 & ~_umask())
            os.rename(ready, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            inside = os.path.join(folder, unfinished())
            if copy_hashing(ready, inside, 0o444, self.algorithm) != hex:
                os.unlink(inside)
                raise StageError(f"`{ready}` changed while it was read", "build again") from None
            os.rename(inside, target)
        self._named(hex, target)

    def _write(self, hex: str, data: bytes) -> None:
        target = self._path(self.algorithm, hex)
        if self._has_whole(hex, target):
            return
        ready = os.path.join(self._folder(os.path.dirname(target)), unfinished())
        fd = os.open(ready, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
        try:
            try:
                write_all(fd, data)
            finally:
                os.close(fd)
            os.rename(ready, target)
        except OSError:
            os.unlink(ready)
            raise
        self._named(hex, target)

    def _has_whole(self, hex: str, target: str) -> bool:
        return os.path.exists(target) and self._whole(self.algorithm, hex, target) and self._again(hex, target)

    def _named(self, hex: str, target: str) -> None:
        """An object has its name now."""
        if self._made.get(os.path.dirname(target), True):
            share(target, read_only=True)
        self._checked.add(hex, target)

    def _folder(self, folder: str) -> str:
        """Return a folder of objects, made if need be."""
        if folder not in self._made:
            make_folders(folder)
            self._made[folder] = bool(os.stat(folder).st_mode & stat.S_ISGID)
        return folder

    # -- out ------------------------------------------------------------------------------------------------------

    def manifest(self, digest: Digest) -> Manifest:
        """Return a folder's entries. Raises ObjectMissing, ObjectDamaged."""
        known = self._manifests.get(digest.hex)
        if known is None:
            known = Manifest(self.read_manifest(digest))
            self._manifests[digest.hex] = known
        return known

    def read_manifest(self, digest: Digest) -> list[Entry]:
        """Return a folder's entries without remembering them. Raises ObjectMissing, ObjectDamaged."""
        return parse(self.read(digest), digest.algorithm)

    def read(self, digest: Digest) -> bytes:
        """Return an object's bytes, checked. Raises ObjectMissing, ObjectDamaged."""
        path = self.path(digest)
        try:
            if not os.path.exists(path):
                self._take_back(digest.algorithm, digest.hex)
            with open(path, "rb") as file:
                data: bytes | None = file.read()
        except FileNotFoundError:
            raise ObjectMissing(f"object {digest.short} is not in the cache", "build again") from None
        except IsADirectoryError:
            data = None
        hasher = new_hasher(digest.algorithm)
        hasher.update(data or b"")
        if data is None or hasher.hexdigest() != digest.hex.partition(".")[0]:
            self._discard_damaged(digest.algorithm, digest.hex)
            raise ObjectDamaged(f"object {digest.short} in the cache was damaged", "build again")
        return data

    def place(self, digest: Digest, target: str, *, link: bool) -> None:
        """Write content to `target`, which must not exist.

        link: big files may share their bytes with the store, read-only.
        Raises ObjectMissing, ObjectDamaged or (a full disk) EnvironmentFailure, with nothing at `target` then.
        """
        try:
            if digest.is_folder:
                self._place_folder(digest.algorithm, self.manifest(digest).entries, target, link)
            else:
                self._place_file(digest.algorithm, digest.hex, None, target, digest.executable, link)
        except OSError as error:
            raise disk_failure(error, os.path.dirname(target), target) from None
        self._checked.flush()

    def _place_folder(self, algorithm: str, entries: list[Entry], target: str, link: bool) -> None:
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
                    self._place_file(algorithm, entry.hex, entry.size or None, place, entry.executable, link)
                elif entry.kind == "l":
                    os.symlink(entry.text, place)
                else:
                    os.makedirs(place, exist_ok=True)
        except BaseException:
            import shutil

            shutil.rmtree(target, ignore_errors=True)
            raise

    def _place_file(
        self, algorithm: str, hex: str, size: int | None, target: str, executable: bool, link: bool
    ) -> None:
        path = self._path(algorithm, hex)
        mode = 0o777 if executable else 0o666
        try:
            big = link and (size is None or size > HARDLINK_ABOVE_BYTES)
            if (
                big
                and os.stat(path).st_size > HARDLINK_ABOVE_BYTES
                and self._link(algorithm, hex, path, target, mode, executable)
            ):
                return
            copied = copy_hashing(path, target, mode, algorithm)
        except FileNotFoundError as error:
            if error.filename != path:
                raise
            if self._take_back(algorithm, hex):
                self._place_file(algorithm, hex, size, target, executable, link)
                return
            raise ObjectMissing(f"object {hex[:8]} is not in the cache", "build again") from None
        except IsADirectoryError:
            copied = ""
        if copied != hex:
            if copied:
                os.unlink(target)
            self._discard_damaged(algorithm, hex)
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
                self._checked.add(hex, path)
                return True
        return False

    # -- checking -------------------------------------------------------------------------------------------------

    def _whole(self, algorithm: str, hex: str, path: str) -> bool:
        """Return whether an object is what its name says: by its stamp where it was checked before, else by reading it.

        A damaged one goes to the trash.
        """
        return self._checked.holds(hex, path) or self.check(algorithm, hex)

    def flush(self) -> None:
        """Remember for later processes which big objects were checked."""
        self._checked.flush()

    def check(self, algorithm: str, hex: str) -> bool:
        """Read an object and return whether it is there and what its name says; a damaged one goes to the trash."""
        path = self._path(algorithm, hex)
        try:
            found = hash_file(path, algorithm)[0]
        except FileNotFoundError:
            return False
        except IsADirectoryError:
            found = ""
        if found == hex.partition(".")[0]:
            self._checked.add(hex, path)
            return True
        self._discard_damaged(algorithm, hex)
        return False

    def _discard_damaged(self, algorithm: str, hex: str) -> None:
        self.discard(algorithm, hex)
        self.on_damage(hex)

    def discard(self, algorithm: str, hex: str) -> None:
        """Move an object to the trash."""
        self._checked.forget(hex)
        self._manifests.pop(hex, None)
        super().discard(algorithm, hex)

    def _again(self, hex: str, target: str) -> bool:
        """An object is stored once more: a collection must not take it for old. Return False where it has to be written
        anew for that, since it is a colleague's."""
        try:
            info = os.lstat(target)
            if time.time() - max(info.st_mtime, info.st_ctime) > _FRESH_S:
                os.utime(target)
                self._checked.add(hex, target)
        except PermissionError:
            return not os.access(os.path.dirname(target), os.W_OK)
        except OSError:
            pass
        return True

    def sync(self) -> None:
        """Bring what was stored to the disk: one syncfs; and remember what was checked. Raises EnvironmentFailure."""
        sync_disk(self.root)
        self._checked.flush()


@cache
def _umask() -> int:
    """Return the process's umask, without changing it for the time of a call as os.umask does."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("Umask:"):
                    return int(line.split()[1], 8)
    except OSError:
        pass
    return 0o022
