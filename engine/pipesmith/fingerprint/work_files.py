"""The files of a repository's work tree below a folder, and the id that git would give to each if it were added now.

Git lists and filters; stamps say which ids are still known. Repositories nested below (submodules or not) are listed
with it, file by file: they count by the tree that their work tree would commit. Writes no object, no index, no lock.
"""

from __future__ import annotations

import marshal
import os
import stat
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property

from pipesmith.digest import Digest
from pipesmith.errors import EnvironmentFailure, UserError
from pipesmith.fingerprint.blob_digests import BlobDigests
from pipesmith.fingerprint.filters import filter_state
from pipesmith.fingerprint.git_trees import blob_id, git_hash
from pipesmith.fingerprint.stat_cache import Stamp, StatCache, stamp_of
from pipesmith.git.cleaned import Cleaner
from pipesmith.git.objects import ObjectReader
from pipesmith.git.repository import IN_PLACING, Repository
from pipesmith.git.submodules import submodule_reader
from pipesmith.store.manifest import link_digest

__all__ = ["Listed", "WorkFiles"]

_GITLINK = "160000"
_LINK = "120000"
_POINTER = b"version https://git-lfs.github.com/spec/"  # source: docs/spec.md of git-lfs
_POINTER_BELOW_BYTES = 1024


class Listed:
    """A file that git lists. mode, oid: of the index, None for an untracked one. skip: left out by a sparse
    checkout."""

    __slots__ = ("mode", "oid", "skip")

    def __init__(self, mode: str | None, oid: str | None, skip: bool) -> None:
        self.mode = mode
        self.oid = oid
        self.skip = skip


class WorkFiles:
    """root: the folder, absolute. The listing is started at once and read when first needed. shown: prefix for
    messages."""

    def __init__(self, repo: Repository, root: str, cache: StatCache, blobs: BlobDigests, shown: str = "") -> None:
        self._repo = repo
        self._root = root
        self._cache = cache
        self._blobs = blobs
        self._shown = shown
        self._process: subprocess.Popen[bytes] | None = repo.start(
            "ls-files", "-s", "-t", "-z", "-c", "-o", "--exclude-standard", cwd=root
        )
        self._own: dict[str, Listed] = {}
        self._all: dict[str, Listed] | None = None
        self._nested: dict[str, WorkFiles] = {}
        self._below = root.rstrip("/") + "/"
        self._real_folders: dict[str, bool] = {"": True}
        self._filters: tuple[bytes, bool, bool] | None = None
        self._remembered: dict[str, tuple[Stamp, str, str]] = {}
        self._seen: dict[str, tuple[Stamp, str, str]] = {}  # path to (stamp, id in the index, id now)
        self._new: dict[str, tuple[Stamp, str, str]] = {}
        self._links: set[str] = set()
        self._entries: dict[str, tuple[bytes, str]] = {}  # what was found, by path of this repository's own files
        self._trusted: dict[str, tuple[bytes, str]] = {}  # what an earlier look found, and still holds
        self._cleaner = Cleaner(repo, root)

    @cached_property
    def _filemode(self) -> bool:
        return self._repo.config_bool("core.filemode", True)

    @cached_property
    def is_plain(self) -> bool:
        """Whether no attribute and no configuration can change a byte of this repository's own files."""
        return self._filter_state()[1]

    def renewed(self, changed: Iterable[str]) -> WorkFiles | None:
        """Return a look of now that trusts this one, where these listed files alone are known to have changed since.

        None where that can't be: with nested repositories or filters, or where a file is none any more."""
        if self._all is None or self.has_nested or not self.is_plain:
            return None
        paths = set(changed)
        for path in paths:
            info = self._lstat(path)
            if path not in self._own or info is None or not stat.S_ISREG(info.st_mode):
                return None
        new = copy(self)
        new._cleaner = Cleaner(self._repo, self._root)
        new.__dict__.pop("_reader", None)  # closed with the old one
        new._entries = {}
        new._trusted = {path: found for path, found in (self._trusted | self._entries).items() if path not in paths}
        new._links, new._seen, new._new = self._links - paths, dict(self._seen), {}
        new._remembered = self._remembered | self._new
        new._real_folders = {"": True}
        return new

    # -- the listing ----------------------------------------------------------------------------------------------

    def listed(self) -> Mapping[str, Listed]:
        """Return all files that git does not ignore, by path relative to the root; those of nested repositories too.

        A submodule that is not checked out is listed itself, with mode 160000."""
        if self._all is None:
            self._own = self._read_listing()
            for path, row in list(self._own.items()):
                if path.endswith("/") or row.mode == _GITLINK:
                    self._open_nested(path, row)
            self._all = dict(self._own)
            for prefix, files in self._nested.items():
                tracked = self._own.get(prefix) is not None
                self._own.pop(prefix, None)
                self._all.pop(prefix, None)
                for inner, row in files.listed().items():
                    self._all[f"{prefix}/{inner}"] = row if tracked else Listed(None, None, row.skip)
        return self._all

    def _read_listing(self) -> dict[str, Listed]:
        assert self._process is not None
        output, _ = self._process.communicate()
        if self._process.returncode != 0:
            self._repo.run("ls-files", "-s", "-z", cwd=self._root)  # says why
            raise EnvironmentFailure("git can't list the files of this work tree", "run `git status` to see why")
        files: dict[str, Listed] = {}
        after = 12 + len(self._repo.empty_id)
        for row in os.fsdecode(output).split("\0"):
            if not row:
                continue
            if row[0] == "?":
                if IN_PLACING not in row or not any(part.startswith(IN_PLACING) for part in row[2:].split("/")):
                    files.setdefault(row[2:], Listed(None, None, False))
                continue
            # `TAG MODE ID STAGE<tab>PATH`, all but the path of known length
            files[row[after:]] = Listed(row[2:8], row[9 : after - 3], row[0] in "Ss")
        return files

    def _open_nested(self, path: str, row: Listed) -> None:
        """Open a repository that lies in this one, if it is there."""
        clean = path.rstrip("/")
        there = os.path.join(self._root, clean)
        if path != clean:
            del self._own[path]
        if clean in self._nested or os.path.islink(there) or not os.path.lexists(os.path.join(there, ".git")):
            return
        try:
            repo = Repository.discover(there, nested=True)
        except UserError:
            return  # what lies there is broken: as if it were not checked out
        if repo.top != os.path.realpath(there):
            return
        self._nested[clean] = WorkFiles(repo, there, self._cache, self._blobs, f"{self._shown}{clean}/")

    def _owner(self, path: str) -> tuple[WorkFiles, str]:
        if self._all is None:
            self.listed()
        for prefix, files in self._nested.items():
            if path.startswith(f"{prefix}/"):
                return files._owner(path[len(prefix) + 1 :])
        return self, path

    def _is_real_folder(self, folder: str) -> bool:
        """Return whether no link stands on the way: what lies behind one is not what git tracks there."""
        known = self._real_folders.get(folder)
        if known is None:
            known = self._is_real_folder(folder.rpartition("/")[0])
            if known:
                try:
                    known = stat.S_ISDIR(os.lstat(os.path.join(self._root, folder)).st_mode)
                except OSError:
                    known = False
            self._real_folders[folder] = known
        return known

    # -- ids ------------------------------------------------------------------------------------------------------

    def entry(self, path: str) -> tuple[bytes, str] | None:
        """Return git's mode and id of a listed file as it would be committed now, None where it is gone.

        Raises UserError for what can't be read and for a submodule that is not checked out."""
        trusted = self._trusted.get(path)
        if trusted is not None:
            return trusted
        owner, inner = self._owner(path)
        try:
            found = owner._entry(inner)
            if found is not None:
                owner._entries[inner] = found
            return found
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError as error:
            raise UserError(f"`{owner._shown}{inner}` can't be read: {error.strerror}") from None

    def _entry(self, path: str) -> tuple[bytes, str] | None:
        row = self._own.get(path)
        if row is None:
            return None
        info = self._lstat(path)
        if info is None:
            return self._unchecked(path, row) if row.skip else None
        mode = info.st_mode
        if not stat.S_ISREG(mode):
            if stat.S_ISDIR(mode):
                return self._unchecked(path, row) if row.mode == _GITLINK else None
            if stat.S_ISLNK(mode):
                self._links.add(path)
                text = os.fsencode(os.readlink(self._below + path))
                return b"120000", git_hash(self._repo.object_format, b"blob", text)
            return None
        identity = self._known(path, stamp_of(info), row) or self._blob(path, row, info)
        if row.mode == _LINK and not self._repo.config_bool("core.symlinks", True):
            return b"120000", identity
        executable = mode & 0o100 if self._filemode else row.mode == "100755"
        return (b"100755" if executable else b"100644"), identity

    def links_among(self, paths: Iterable[str]) -> list[str]:
        """Return which of the paths were links when their entries were asked for."""
        found: list[str] = []
        if not self._links and not self._nested:
            return found
        for path in paths:
            owner, inner = self._owner(path)
            if inner in owner._links:
                found.append(path)
        return found

    def mode(self, path: str) -> int | None:
        """Return a listed file's mode in the work tree, None where it is gone."""
        owner, inner = self._owner(path)
        info = owner._lstat(inner)
        return info.st_mode if info is not None else None

    def _lstat(self, path: str) -> os.stat_result | None:
        parent = path.rpartition("/")[0]
        if not (self._real_folders.get(parent) or self._is_real_folder(parent)):
            return None
        try:
            return os.lstat(self._below + path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _unchecked(self, path: str, row: Listed) -> tuple[bytes, str]:
        """Return the entry of what the index has and the work tree has not."""
        assert row.mode is not None and row.oid is not None
        if row.mode != _GITLINK:
            return row.mode.encode(), row.oid
        if not row.skip:
            shown = f"{self._shown}{path}"
            raise UserError(f"submodule `{shown}` is not checked out", f"run `git submodule update --init -- {shown}`")
        prefix = os.path.relpath(self._root, self._repo.top)
        reader = ObjectReader(self._repo)
        try:
            inner = submodule_reader(reader, os.path.normpath(os.path.join(prefix, path)), row.oid)
            return b"40000", inner.tree_of(row.oid)
        finally:
            reader.close()

    def _blob(self, path: str, row: Listed, info: os.stat_result) -> str:
        while True:
            stamp = stamp_of(info)
            known = self._known(path, stamp, row)
            if known is not None:
                return known
            self._learn([path])
            info = os.lstat(os.path.join(self._root, path))
            if not stat.S_ISREG(info.st_mode):
                raise FileNotFoundError(path)

    @property
    def has_nested(self) -> bool:
        self.listed()
        return bool(self._nested) or any(row.mode == _GITLINK for row in self._own.values())

    def seen_stamp(self, path: str) -> Stamp | None:
        """Return the stamp under which a file's id was found, None for what is no file or was not asked for."""
        owner, inner = self._owner(path)
        found = owner._seen.get(inner) or owner._remembered.get(inner)
        return found[0] if found is not None else None

    def _known(self, path: str, stamp: Stamp, row: Listed) -> str | None:
        if not self._loaded:
            self._load()
        found = self._seen.get(path)
        if found is None or found[0] != stamp:
            found = self._remembered.get(path)
            if found is None or found[0] != stamp:
                return None
        return found[2] if self.is_plain or found[1] == (row.oid or "") else None

    def prepare(self, paths: Iterable[str]) -> None:
        """Learn the ids of many listed files at once, where git must be asked for them."""
        asked: dict[WorkFiles, list[str]] = {}
        if self.is_plain and not self._nested:
            return
        for path in paths:
            owner, inner = self._owner(path)
            if not owner.is_plain:
                asked.setdefault(owner, []).append(inner)
        for owner, inners in asked.items():
            unknown = []
            for path in inners:
                row = owner._own.get(path)
                info = owner._lstat(path) if row is not None else None
                if row is None or info is None or not stat.S_ISREG(info.st_mode):
                    continue
                if owner._known(path, stamp_of(info), row) is None:
                    unknown.append(path)
            if unknown:
                owner._learn(unknown)

    def _learn(self, paths: Sequence[str]) -> None:
        """Hash files. What changes meanwhile is not learned."""
        started = time.time_ns()
        before = {}
        for path in paths:
            info = os.lstat(os.path.join(self._root, path)) if len(paths) == 1 else self._lstat(path)
            if info is not None and stat.S_ISREG(info.st_mode):
                before[path] = info
        if self.is_plain:
            ids = {path: self._own_id(path, info.st_size) for path, info in before.items()}
        else:
            ids = self._filtered_ids(list(before))
        for path, identity in ids.items():
            info = before[path]
            after = self._lstat(path)
            if identity is None or after is None or stamp_of(after) != stamp_of(info):
                continue
            index = "" if self.is_plain else self._own[path].oid or ""
            found = (stamp_of(info), index, identity)
            self._seen[path] = found
            if self._cache.is_settled(found[0], info.st_dev, started):
                self._new[path] = found

    def _own_id(self, path: str, size: int) -> str | None:
        return blob_id(os.path.join(self._root, path), size, self._repo.object_format)

    def _filtered_ids(self, paths: Sequence[str]) -> dict[str, str | None]:
        try:
            found = dict(zip(paths, self._cleaner.ids(paths), strict=True))
        except EnvironmentFailure:
            still = [path for path in paths if self._lstat(path) is not None]
            if len(still) == len(paths):
                raise
            return self._filtered_ids(still) if still else {}
        beside = {}
        for path, identity in found.items():
            row = self._own[path]
            if row.oid is None or row.mode is None or row.oid == identity or not row.mode.startswith("100"):
                continue
            info = self._lstat(path)
            if info is not None and self._own_id(path, info.st_size) != identity:
                beside[path] = (row.mode, row.oid)
        if beside:
            found.update(self._cleaner.ids_beside_index(beside))
        return dict(found)

    def left_out(self, path: str) -> list[tuple[str, Listed]]:
        """Return what a sparse checkout leaves out at or below a path (`` is the whole), sorted by path."""
        if not any(files._is_sparse for files in self._each()):
            return []
        prefix = f"{path}/" if path else ""
        return sorted(
            (
                (name, row)
                for name, row in self.listed().items()
                if row.skip and (name == path or name.startswith(prefix)) and self.mode(name) is None
            ),
            key=lambda found: found[0],
        )

    def _each(self) -> Iterator[WorkFiles]:
        self.listed()
        yield self
        for nested in self._nested.values():
            yield from nested._each()

    @cached_property
    def _is_sparse(self) -> bool:
        return any(row.skip for row in self._own.values())

    def stored_unseen(self, path: str, algorithm: str) -> tuple[str, Digest, bytes]:
        """Return git's mode, the digest and, of a link, the text of a file that is left out, by what the index has."""
        owner, inner = self._owner(path)
        row = owner._own[inner]
        assert row.mode is not None and row.oid is not None
        if row.mode == _GITLINK:
            raise UserError(
                f"the sparse checkout leaves submodule `{path}` out", f"run `git sparse-checkout add {path}`"
            )
        known = owner._blobs.get(algorithm, row.oid) if row.mode != _LINK else None
        if known is not None:
            return row.mode, known, b""
        data = owner._reader.blob(row.oid, path)
        if row.mode == _LINK:
            return row.mode, link_digest(os.fsdecode(data), algorithm), data
        return row.mode, owner._blobs.put_content(algorithm, row.oid, data, owner._repo.object_format), b""

    @cached_property
    def _reader(self) -> ObjectReader:
        return ObjectReader(self._repo)

    # -- bytes ----------------------------------------------------------------------------------------------------

    def stored(self, path: str, own: Digest) -> tuple[Digest, bool | None]:
        """Return the digest of the bytes that git stores for a listed file, and its executable bit (None: as it is).

        own: the digest of its own bytes."""
        owner, inner = self._owner(path)
        if owner.is_plain and owner._filemode:
            return own, None
        entry = self.entry(path)
        if entry is None or entry[0] == b"120000":
            return own, None
        executable = entry[0] == b"100755"
        if owner.is_plain:
            return own, executable
        return owner._stored(inner, own, entry[1]), executable

    def _stored(self, path: str, own: Digest, oid: str) -> Digest:
        known = self._blobs.get(own.algorithm, oid)
        if known is not None:
            return known
        there = os.path.join(self._root, path)
        same = self._blobs.put_if_stored(own.algorithm, oid, there, self._repo.object_format)
        if same is not None:
            return same
        row = self._own[path]
        indexed = (row.mode, row.oid) if row.mode is not None and row.oid is not None else None
        return self._blobs.put_content(own.algorithm, oid, self._cleaner.content(path, oid, indexed))

    @property
    def keeps_bytes(self) -> bool:
        """Whether git stores every file here with its own bytes and mode."""
        self.listed()
        return self.is_plain and self._filemode and all(files.keeps_bytes for files in self._nested.values())

    def pointers(self, paths: Iterable[str]) -> list[str]:
        """Return which of some listed files lie here as git-lfs's pointers, their content not fetched."""
        asked: dict[WorkFiles, dict[str, str]] = {}
        for path in paths:
            owner, inner = self._owner(path)
            if owner._filter_state()[2] and owner._is_pointer(inner):
                asked.setdefault(owner, {})[inner] = path
        found = []
        for owner, names in asked.items():
            input = b"".join(os.fsencode(name) + b"\0" for name in names)
            fields = owner._repo.run("check-attr", "-z", "--stdin", "filter", input=input, cwd=owner._root).split(b"\0")
            kept = {
                os.fsdecode(name) for name, value in zip(fields[::3], fields[2::3], strict=False) if value == b"lfs"
            }
            found += [path for inner, path in names.items() if inner in kept]
        return found

    def _is_pointer(self, path: str) -> bool:
        info = self._lstat(path)
        if info is None or not stat.S_ISREG(info.st_mode) or info.st_size >= _POINTER_BELOW_BYTES:
            return False
        try:
            with open(self._below + path, "rb") as file:
                return file.read(len(_POINTER)) == _POINTER
        except OSError:
            return False

    # -- filters and memory ---------------------------------------------------------------------------------------

    def _filter_state(self) -> tuple[bytes, bool, bool]:
        if self._filters is None:
            self.listed()
            folders = {""}
            for path in self._own:
                folder = path.rpartition("/")[0]
                while folder not in folders:
                    folders.add(folder)
                    folder = folder.rpartition("/")[0]
            sparse = any(row.skip for row in self._own.values())
            self._filters = filter_state(self._repo, self._root, sorted(folders), sparse=sparse)
        return self._filters

    _loaded = False

    def _load(self) -> None:
        """Read what is remembered of ids, if the filters are what they were."""
        if self._loaded:
            return
        self._loaded = True
        digest = self._filter_state()[0]
        rows = self._cache.state.query("SELECT value FROM gitmap WHERE key = ?", (f"ids:{self._root}",))
        for (value,) in rows:
            try:
                filters, remembered = marshal.loads(value)
            except (ValueError, EOFError, TypeError):
                continue
            if filters == digest:
                self._remembered = remembered

    def flush(self) -> None:
        """Remember for later processes what was hashed."""
        for nested in self._nested.values():
            nested.flush()
        self._cleaner.close()
        if self._new:
            kept = {path: found for path, found in self._remembered.items() if path in self._own}
            self._remembered = kept | self._new
            self._new = {}
            value = marshal.dumps((self._filter_state()[0], self._remembered), 2)
            self._cache.state.write([("INSERT OR REPLACE INTO gitmap VALUES (?, ?)", (f"ids:{self._root}", value))])

    def close(self) -> None:
        """End what still runs."""
        if "_reader" in self.__dict__:
            self._reader.close()
        for nested in self._nested.values():
            nested.close()
        self._cleaner.close()
        if self._all is None and self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
