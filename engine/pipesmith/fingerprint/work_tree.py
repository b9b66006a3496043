"""The workspace as it is now: git lists and filters, our own stamps and trees. Writes no object, no index, no lock."""

from __future__ import annotations

import marshal
import os
import stat
import subprocess
import time
from hashlib import blake2b

from pipesmith.digest import Digest, new_hasher
from pipesmith.errors import UserError
from pipesmith.fingerprint.git_trees import TreeBuilder, blob_id, git_hash
from pipesmith.fingerprint.pipeignore import NAME as PIPEIGNORE
from pipesmith.fingerprint.pipeignore import PipeIgnore
from pipesmith.fingerprint.stat_cache import RACY_NS, Stamp, StatCache, stamp_of
from pipesmith.fingerprint.tree import Found
from pipesmith.git.cleaned import cleaned_bytes
from pipesmith.git.repository import CoProcess, Repository
from pipesmith.store.manifest import Entry, digest_of, link_digest

__all__ = ["NEVER_SOURCE", "WorkTree"]

NEVER_SOURCE = frozenset({"pipeline.toml", "pipe.lock"})
_FILTER_CONFIG = ("core.autocrlf", "core.eol", "core.safecrlf", "core.attributesfile", "core.filemode", "core.symlinks")


class _Listed:
    """A file that git lists. mode, oid: of the index, None for an untracked one."""

    __slots__ = ("mode", "oid", "skip")

    def __init__(self, mode: str | None, oid: str | None, skip: bool) -> None:
        self.mode = mode
        self.oid = oid
        self.skip = skip


class WorkTree:
    """root: the workspace, absolute. The listing is started at once and read when first needed."""

    def __init__(self, repo: Repository, root: str, stat_cache: StatCache) -> None:
        self._repo = repo
        self._root = root
        self._cache = stat_cache
        self._excluded: frozenset[str] = NEVER_SOURCE
        self._process: subprocess.Popen[bytes] | None = repo.start(
            "ls-files", "-s", "-t", "-z", "-c", "-o", "--exclude-standard", cwd=root
        )
        self._files: dict[str, _Listed] | None = None
        self._source: TreeBuilder | None = None
        self._tracked: TreeBuilder | None = None
        self._stamps: dict[str, tuple[Stamp, str]] = {}  # remembered ids of this run's filters
        self._fresh: dict[str, tuple[Stamp, str]] = {}
        self.seen: dict[str, Stamp] = {}
        self._hasher: CoProcess | None = None
        self._nested: dict[str, WorkTree] = {}
        self._loaded = False
        self._filters: bytes = b""
        self._plain = True

    def exclude(self, paths: frozenset[str]) -> None:
        self._excluded = NEVER_SOURCE | paths
        self._source = None

    def read(self, path: str) -> bytes | None:
        try:
            with open(os.path.join(self._root, path), "rb") as file:
                return file.read()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    # -- git's listing --------------------------------------------------------------------------------------------

    def _listing(self) -> dict[str, _Listed]:
        if self._files is not None:
            return self._files
        assert self._process is not None
        output, _ = self._process.communicate()
        if self._process.returncode != 0:
            raise UserError("git can't list the files of this work tree", "run `git status` to see why")
        files: dict[str, _Listed] = {}
        for row in os.fsdecode(output).split("\0"):
            if not row:
                continue
            if row[0] == "?":
                files.setdefault(row[2:], _Listed(None, None, False))
                continue
            head, _, path = row.partition("\t")
            tag, mode, oid, _stage = head.split(" ")
            files[path] = _Listed(mode, oid, tag in ("S", "s"))
        self._files = files
        return files

    def _pipeignore(self) -> PipeIgnore:
        texts = {}
        for path in self._listing():
            if path == PIPEIGNORE or path.endswith(f"/{PIPEIGNORE}"):
                data = self.read(path)
                if data is not None:
                    texts[path] = data.decode("utf-8", "surrogateescape")
        if PIPEIGNORE not in texts:
            data = self.read(PIPEIGNORE)
            if data is not None:
                texts[PIPEIGNORE] = data.decode("utf-8", "surrogateescape")
        return PipeIgnore(texts)

    def _builder(self) -> TreeBuilder:
        """Return the trees of what counts as source."""
        if self._source is None:
            ignore = self._pipeignore()
            excluded = self._excluded
            folders = tuple(f"{path}/" for path in excluded)
            wanted = []
            check = bool(ignore)
            for path in self._listing():
                clean = path.rstrip("/")
                if clean in excluded or clean.startswith(folders):
                    continue
                if check and ignore.ignores(clean, path.endswith("/")):
                    continue
                wanted.append(clean)
            self._source = TreeBuilder(wanted, self._entry, self._repo.object_format)
        return self._source

    def _tracked_builder(self) -> TreeBuilder:
        if self._tracked is None:
            paths = [path.rstrip("/") for path, listed in self._listing().items() if listed.oid is not None]
            self._tracked = TreeBuilder(paths, self._entry, self._repo.object_format)
        return self._tracked

    # -- ids ------------------------------------------------------------------------------------------------------

    def _entry(self, path: str) -> tuple[bytes, str] | None:
        """Return git's mode and id of a listed file as it would be committed now, None where it is gone."""
        files = self._listing()
        listed = files.get(path) or files.get(f"{path}/")
        there = os.path.join(self._root, path)
        try:
            info = os.lstat(there)
        except (FileNotFoundError, NotADirectoryError):
            if listed is not None and listed.skip and listed.oid is not None and listed.mode is not None:
                return listed.mode.encode(), listed.oid
            return None
        mode = info.st_mode
        if stat.S_ISDIR(mode):
            if listed is not None and listed.oid is not None and listed.mode != "160000":
                return None  # a folder where a file is tracked: its files are listed themselves
            return self._nested_entry(path, listed)
        if stat.S_ISLNK(mode):
            text = os.fsencode(os.readlink(there))
            self.seen[path] = stamp_of(info)
            return b"120000", git_hash(self._repo.object_format, b"blob", text)
        if not stat.S_ISREG(mode):
            return None
        executable = bool(mode & 0o100)
        if listed is not None and listed.mode and self._repo.config.get("core.filemode") == "false":
            executable = listed.mode == "100755"
        return (b"100755" if executable else b"100644"), self._blob(path, there, stamp_of(info), info.st_dev)

    def _nested_entry(self, path: str, listed: _Listed | None) -> tuple[bytes, str] | None:
        """A submodule or nested repository counts by the tree that its work tree would commit."""
        if path not in self._nested:
            there = os.path.join(self._root, path)
            if not os.path.lexists(os.path.join(there, ".git")):
                if listed is not None and listed.mode == "160000":
                    raise UserError(f"submodule `{path}` is not checked out", f"run `git submodule update --init {path}`")
                return None
            self._nested[path] = WorkTree(Repository.discover(there), there, self._cache)
        nested = self._nested[path]
        nested._excluded = frozenset()
        identity = nested.source_id(".")
        return (b"40000", identity) if identity is not None else None

    def _blob(self, path: str, there: str, stamp: Stamp, device: int) -> str:
        self._load()
        self.seen[path] = stamp
        known = self._fresh.get(path) or self._stamps.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        while True:
            identity = self._hash_blob(path, there, stamp[1])
            after = stamp_of(os.lstat(there))
            if identity is not None and after == stamp:
                break
            stamp = after
        self.seen[path] = stamp
        if time.time_ns() - max(stamp[2], stamp[3]) > RACY_NS and device not in self._cache._coarse_devices():
            self._fresh[path] = (stamp, identity)
        return identity

    def _hash_blob(self, path: str, there: str, size: int) -> str | None:
        if self._plain:
            return blob_id(there, size, self._repo.object_format)
        if "\n" in path:
            return self._repo.run("hash-object", "--", path, cwd=self._root).decode().strip()
        if self._hasher is None:
            self._hasher = CoProcess(self._repo, ["hash-object", "--stdin-paths"], cwd=self._root)
        return self._hasher.ask(os.fsencode(path)).decode()

    # -- filters and memory -----------------------------------------------------------------------------------------

    def _load(self) -> None:
        """Read what is remembered of ids, if the filters are what they were."""
        if self._loaded:
            return
        self._loaded = True
        self._filters, self._plain = self._filter_state()
        for (value,) in self._cache._state.query("SELECT value FROM gitmap WHERE key = ?", (f"oids:{self._root}",)):
            try:
                filters, stamps = marshal.loads(value)
            except (ValueError, EOFError, TypeError):
                continue
            if filters == self._filters:
                self._stamps = stamps

    def _filter_state(self) -> tuple[bytes, bool]:
        """Return a digest of all that decides how git filters files, and whether none of it can change a byte."""
        config = self._repo.config
        hasher = blake2b(digest_size=16)
        plain = config.get("core.autocrlf", "false").lower() in ("false", "no", "off", "0")
        for key in sorted(config):
            if key in _FILTER_CONFIG or key.startswith("filter."):
                hasher.update(f"{key}={config[key]}\n".encode("utf-8", "surrogateescape"))
        home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        places = [
            os.path.join(self._repo.common_dir, "info", "attributes"),
            os.path.expanduser(config.get("core.attributesfile", os.path.join(home, "git", "attributes"))),
            "/etc/gitattributes",
        ]
        folder = self._root
        while folder != self._repo.top and folder.startswith(self._repo.top):
            folder = os.path.dirname(folder)
            places.append(os.path.join(folder, ".gitattributes"))
        for path in self._listing():
            if path == ".gitattributes" or path.endswith("/.gitattributes"):
                places.append(os.path.join(self._root, path))
        for place in places:
            try:
                with open(place, "rb") as file:
                    data = file.read()
            except OSError:
                continue
            plain = plain and not _may_filter(data)
            hasher.update(os.fsencode(place) + b"\0" + data)
        return hasher.digest(), plain

    def flush(self) -> None:
        """Remember for later processes what was hashed."""
        for nested in self._nested.values():
            nested.flush()
        if self._hasher is not None:
            self._hasher.close()
            self._hasher = None
        if self._fresh:
            kept = {path: entry for path, entry in self._stamps.items() if path in (self._files or ())}
            value = marshal.dumps((self._filters, kept | self._fresh), 2)
            self._cache._state.write([("INSERT OR REPLACE INTO gitmap VALUES (?, ?)", (f"oids:{self._root}", value))])
            self._stamps = kept | self._fresh
            self._fresh = {}

    # -- the protocol -----------------------------------------------------------------------------------------------

    def source_id(self, path: str) -> str | None:
        inner = "" if path == "." else path
        builder = self._builder()
        if builder.is_folder(inner):
            self._check_links(inner)
            return builder.tree_id(inner)
        listed = self._listing()
        if inner not in listed and f"{inner}/" not in listed:
            return None
        self._check_links(inner)
        entry = self._entry(inner)
        return entry[1] if entry is not None else None

    def source_files(self, path: str) -> list[tuple[str, int]]:
        """Return (path, mode) of exactly the files that belong to a source, those of nested repositories included."""
        inner = "" if path == "." else path
        builder = self._builder()
        found: list[tuple[str, int]] = []
        for name in builder.files_below(inner) if builder.is_folder(inner) else [inner]:
            try:
                mode = os.lstat(os.path.join(self._root, name)).st_mode
            except (FileNotFoundError, NotADirectoryError):
                continue
            if stat.S_ISDIR(mode):
                self._entry(name)
                nested = self._nested.get(name)
                if nested is not None:
                    found += [(f"{name}/{below}", below_mode) for below, below_mode in nested.source_files(".")]
            elif stat.S_ISREG(mode) or stat.S_ISLNK(mode):
                found.append((name, mode))
        return found

    def _check_links(self, inner: str) -> None:
        """Raise UserError for a link in a source that dangles or leads out of the workspace."""
        builder = self._builder()
        for name in builder.files_below(inner) if builder.is_folder(inner) else [inner]:
            there = os.path.join(self._root, name)
            if os.path.islink(there):
                problem = self._link_problem(name, there)
                if problem is not None:
                    raise UserError(problem, "make it lead to a file of the workspace, or name it in .pipeignore")

    def _link_problem(self, path: str, there: str) -> str | None:
        target = os.path.realpath(there)
        root = os.path.realpath(self._root)
        if target != root and not target.startswith(root + os.sep):
            name = os.path.basename(path)
            return (
                f"`{path}` is a link that leads out of the workspace, to `{os.readlink(there)}`; declare it: "
                f'[dataset.{name}] with from = "{target}", and the input `dataset:{name}`'
            )
        if not os.path.exists(there):
            return f"`{path}` is a link to `{os.readlink(there)}`, which does not exist"
        return None

    def hash_path_id(self, path: str) -> str | None:
        builder = self._builder_for_inputs()
        if builder.is_folder(path):
            return builder.tree_id(path)
        if path in self._listing():
            entry = self._entry(path)
            return entry[1] if entry is not None else None
        digest = self._cache.digest(os.path.join(self._root, path))
        return digest.text if digest is not None else None

    _inputs: TreeBuilder | None = None

    def _builder_for_inputs(self) -> TreeBuilder:
        """Return the trees of all that git does not ignore."""
        if self._inputs is None:
            self._inputs = TreeBuilder(
                [path.rstrip("/") for path in self._listing()], self._entry, self._repo.object_format
            )
        return self._inputs

    def input(self, path: str) -> Found:
        there = os.path.join(self._root, path)
        problem = self._way_problem(path)
        if problem is not None:
            return Found(digest=None, problem=problem)
        try:
            if os.path.islink(there):
                problem = self._link_problem(path, there)
                digest: Digest | None = link_digest(os.readlink(there), self._cache.algorithm)
            elif os.path.isdir(there):
                return self._input_folder(path, there)
            else:
                digest = self._cache.digest(there)
        except UserError as error:
            return Found(digest=None, problem=error.text)
        if digest is None:
            return Found(digest=None)
        git = None
        listed = self._listing().get(path)
        if listed is not None:
            if listed.oid is not None:
                entry = self._entry(path)
                git = entry[1] if entry is not None else None
            if not digest.is_link:
                digest = self._as_git_stores(path, there, digest)
        return Found(digest=digest, git=git, problem=problem)

    def _way_problem(self, path: str) -> str | None:
        """Return what is wrong with the folders on the way to a path: a link that leads out of the workspace."""
        parent = os.path.dirname(os.path.join(self._root, path))
        real = os.path.realpath(parent)
        if real == self._root or real.startswith(self._root + os.sep):
            return None
        walked = self._root
        for part in path.split("/"):
            walked = os.path.join(walked, part)
            if os.path.islink(walked):
                return self._link_problem(os.path.relpath(walked, self._root), walked)
        return None

    def _input_folder(self, path: str, there: str) -> Found:
        tracked = self._tracked_builder()
        git = tracked.tree_id(path) if tracked.is_folder(path) else None
        digest = self._cache.digest(there)
        held = self._builder_for_inputs()
        entries: list[Entry] | None = None
        if held.is_folder(path):
            self._load()
            if not self._plain:
                entries = self._cache.entries(there)
                changed = [self._entry_as_git_stores(path, entry) for entry in entries]
                if changed != entries:
                    digest = digest_of(changed, self._cache.algorithm)[0]
        problem = None
        for name in self._links_below(there):
            problem = problem or self._link_problem(os.path.relpath(name, self._root), name)
        return Found(digest=digest, git=git, problem=problem)

    def _links_below(self, there: str) -> list[str]:
        return [f"{folder.path}/{name}" for folder in self._cache._walk(there) for name, _text in folder.links]

    def _entry_as_git_stores(self, folder: str, entry: Entry) -> Entry:
        path = f"{folder}/{entry.path}"
        if entry.kind != "f" or path not in self._listing():
            return entry
        before = Digest(self._cache.algorithm, entry.hex, entry.size)
        after = self._as_git_stores(path, os.path.join(self._root, path), before)
        return Entry("f", entry.path, after.hex, after.size, entry.executable)

    def _as_git_stores(self, path: str, there: str, own: Digest) -> Digest:
        """Return the digest of the bytes that git stores for a file: its own, unless a filter changes them."""
        self._load()
        if self._plain:
            return own
        entry = self._entry(path)
        if entry is None or entry[1] == blob_id(there, os.lstat(there).st_size, self._repo.object_format):
            return own
        data = cleaned_bytes(self._repo, self._root, path, entry[1])
        hasher = new_hasher(self._cache.algorithm)
        hasher.update(data)
        return Digest(self._cache.algorithm, hasher.hexdigest(), len(data))

    def output(self, path: str) -> Digest | None:
        return self._cache.digest(os.path.join(self._root, path))


def _may_filter(attributes: bytes) -> bool:
    """Return whether an attributes file names anything that changes bytes on their way into git."""
    for line in attributes.splitlines():
        words = line.split()
        if words and not words[0].startswith(b"#"):
            for word in words[1:]:
                name = word.lstrip(b"-!").partition(b"=")[0]
                if name in (b"text", b"eol", b"crlf", b"ident", b"filter", b"working-tree-encoding") and word not in (b"-text",):
                    return True
                if line.startswith(b"[attr]"):
                    return True
    return False
