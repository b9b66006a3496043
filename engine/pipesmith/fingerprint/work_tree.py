"""The workspace as it is now. Source: docs/formats/object-ids.md."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Sequence
from copy import copy

from pipesmith.digest import Digest
from pipesmith.errors import EnvironmentFailure, UserError
from pipesmith.fingerprint.blob_digests import BlobDigests
from pipesmith.fingerprint.git_trees import TreeBuilder
from pipesmith.fingerprint.pipeignore import NAME as PIPEIGNORE
from pipesmith.fingerprint.pipeignore import PipeIgnore
from pipesmith.fingerprint.sources import NEVER_SOURCE, Excluded
from pipesmith.fingerprint.stat_cache import FolderLook, Stamp, StatCache
from pipesmith.fingerprint.tree import Found, Lending
from pipesmith.fingerprint.work_files import WorkFiles
from pipesmith.git.repository import Repository
from pipesmith.store.manifest import Entry, digest_of, link_digest

__all__ = ["NEVER_SOURCE", "WorkTree"]


class WorkTree:
    """root: the workspace, absolute, a real path. One look: what was found once is not looked at again.

    lending: inputs that are not there, but lent."""

    def __init__(self, repo: Repository, root: str, stat_cache: StatCache, lending: Lending | None = None) -> None:
        self._lending = lending
        self._root = root
        self._cache = stat_cache
        self._format = repo.object_format
        self._blobs = BlobDigests(stat_cache.state)
        self.started_ns = time.time_ns()  # nothing older than this is missed
        self._files = WorkFiles(repo, root, stat_cache, self._blobs)
        self._excluded = Excluded(NEVER_SOURCE)
        self._source: TreeBuilder | None = None
        self._held: TreeBuilder | None = None
        self._tracked: TreeBuilder | None = None

    def exclude(self, paths: frozenset[str]) -> None:
        self._excluded = Excluded(NEVER_SOURCE | paths)
        self._source = None

    def renewed(self, changed: Iterable[str]) -> WorkTree | None:
        """Return a look of now that trusts this one, where these listed files alone are known to have changed since: by
        the system's events, say. None where that can't be."""
        paths = set(changed)
        started_ns = time.time_ns()
        files = self._files.renewed(paths)
        if files is None:
            return None
        new = copy(self)
        new.started_ns, new._files = started_ns, files
        new._source = self._source.renewed(paths, files.entry) if self._source is not None else None
        new._held = self._held.renewed(paths, files.entry) if self._held is not None else None
        new._tracked = self._tracked.renewed(paths, files.entry) if self._tracked is not None else None
        return new

    def lists(self, path: str) -> bool:
        """Return whether git lists a file of this path."""
        return path in self._files.listed()

    def holds(self, path: str) -> bool:
        """Return whether git lists files below a folder of this path."""
        return self._held_builder().is_folder(path)

    def read(self, path: str) -> bytes | None:
        try:
            with open(os.path.join(self._root, path), "rb") as file:
                return file.read()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    def flush(self) -> None:
        """Remember for later processes what was hashed."""
        self._files.flush()
        self._blobs.flush()

    def close(self) -> None:
        """End the git processes that still run."""
        self._files.close()

    # -- sources --------------------------------------------------------------------------------------------------

    def source_id(self, path: str) -> str | None:
        """Return the id that a source has; a folder without any file that counts has none.

        Raises UserError for a link that dangles or leads out of the workspace, and a submodule that is not checked
        out."""
        builder = self._source_builder()
        inner = _inner(path)
        names = builder.files_below(inner)
        identity = self._id(builder, inner)
        for name in self._files.links_among([inner, *names]):
            problem = self._link_problem(name)
            if problem is not None:
                raise UserError(problem, "make it lead to a file of the workspace, or name it in .pipeignore")
        return identity

    def _id(self, builder: TreeBuilder, path: str) -> str | None:
        """Return the id of what lies at a path now: a listed folder may have become a file or link, and the other
        way."""
        if builder.is_file(path):
            entry = self._files.entry(path)
            if entry is not None:
                return entry[1]
        if not builder.is_folder(path):
            return None
        self._files.prepare(builder.files_below(path))
        return builder.tree_id(path)

    def source_files(self, path: str) -> list[tuple[str, int]]:
        """Return (path, mode) of exactly the files that belong to a source, those of nested repositories included.

        Raises UserError where the work tree lacks a file that counts: one that a sparse checkout left out."""
        builder = self._source_builder()
        inner = _inner(path)
        names = builder.files_below(inner)
        if builder.is_file(inner):
            names.append(inner)
        listed = self._files.listed()
        found: list[tuple[str, int]] = []
        for name in names:
            mode = self._files.mode(name)
            if mode is not None and (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
                found.append((name, mode))
            elif mode is None and listed[name].skip:
                raise _left_out(name, f"source `{path}`")
        return found

    def check_given(self, path: str) -> None:
        """Raise UserError where the work tree lacks some of an input: what a sparse checkout left out, or
        git-lfs has not fetched."""
        inner = _inner(path)
        for name, _row in self._files.left_out(inner):
            raise _left_out(name, f"input `{path}`")
        below = f"{inner}/" if inner else ""
        self.check_fetched(name for name in self._files.listed() if name == inner or name.startswith(below))

    def git_places(self, path: str) -> list[str]:
        """Return the `.git` folders and files in an input that was looked at, relative to it: no part of it."""
        real, _problem = self._resolve(path)
        return self._cache.git_places(os.path.join(self._root, real) if real else self._root)

    def check_fetched(self, paths: Iterable[str]) -> None:
        """Raise UserError where one of some listed files is git-lfs's pointer: its content is not here."""
        for name in self._files.pointers(paths):
            raise UserError(
                f"`{name}` is git-lfs's pointer to content that is not here", "run `git lfs pull`, then build again"
            )

    @property
    def has_nested(self) -> bool:
        """Whether submodules or nested repositories lie in the workspace."""
        return self._files.has_nested

    def seen_stamp(self, path: str) -> Stamp | None:
        """Return the stamp under which a file's id was found, None for what is no file or was not asked for."""
        return self._files.seen_stamp(path)

    def _source_builder(self) -> TreeBuilder:
        """Return the trees of what counts as source."""
        if self._source is None:
            listed = self._files.listed()
            ignore = self._pipeignore()
            excluded = self._excluded
            wanted = [path for path in listed if not excluded.holds(path)]
            if ignore:
                wanted = [path for path in wanted if not ignore.ignores(path, listed[path].mode == "160000")]
            self._source = TreeBuilder(wanted, self._files.entry, self._format)
        return self._source

    def _pipeignore(self) -> PipeIgnore:
        texts = {}
        for path in self._files.listed():
            if path == PIPEIGNORE or path.endswith(f"/{PIPEIGNORE}"):
                mode = self._files.mode(path)
                data = self.read(path) if mode is not None and stat.S_ISREG(mode) else None
                if data is not None:
                    texts[path] = data.decode("utf-8", "surrogateescape")
        return PipeIgnore(texts)

    def _link_problem(self, path: str) -> str | None:
        there = os.path.join(self._root, path)
        target = os.path.realpath(there)
        if not _is_inside(target, self._root):
            name = os.path.basename(path)
            return (
                f"`{path}` is a link that leads out of the workspace, to `{os.readlink(there)}`; declare it: "
                f'[dataset.{name}] with from = "{target}", and the input `dataset:{name}`'
            )
        if not os.path.exists(there):
            return f"`{path}` is a link to `{os.readlink(there)}`, which does not exist"
        return None

    # -- inputs ---------------------------------------------------------------------------------------------------

    def input(self, path: str) -> Found:
        lent = self._lending.input(path) if self._lending is not None else None
        if lent is not None:
            return lent
        try:
            real, problem = self._resolve(path)
            if problem is not None:
                return Found(digest=None, problem=problem)
            return self._input(real)
        except (FileNotFoundError, NotADirectoryError):
            return Found(digest=None)
        except UserError as error:
            return Found(digest=None, problem=error.text.replace(f"`{self._root}/", "`"))
        except EnvironmentFailure as error:
            return Found(digest=None, problem=error.text)

    def _resolve(self, path: str) -> tuple[str, str | None]:
        """Return where a path really lies, links among its folders followed, and what is wrong with the way."""
        if path == ".":
            return "", None
        folder, name = os.path.split(os.path.join(self._root, path))
        real = os.path.realpath(folder)
        if real == self._root:
            return name, None
        if _is_inside(real, self._root):
            return f"{real[len(self._root) + 1 :]}/{name}", None
        walked = ""
        for part in path.split("/"):
            walked = f"{walked}/{part}" if walked else part
            if os.path.islink(os.path.join(self._root, walked)):
                problem = self._link_problem(walked)
                if problem is not None:
                    return path, problem
        return path, f"`{path}` leads out of the workspace"

    def _input(self, path: str) -> Found:
        there = os.path.join(self._root, path) if path else self._root
        try:
            mode = os.lstat(there).st_mode
        except (FileNotFoundError, NotADirectoryError):
            if not self._files.left_out(path):
                raise
            return self._input_left_out(path)
        if stat.S_ISDIR(mode):
            return self._input_folder(path, self._cache.look(there))
        row = self._files.listed().get(path)
        git = None
        if row is not None and row.oid is not None:
            entry = self._files.entry(path)
            git = entry[1] if entry is not None else None
        if stat.S_ISLNK(mode):
            digest = link_digest(os.readlink(there), self._cache.algorithm)
            return Found(digest=digest, git=git, problem=self._link_problem(path))
        own = self._cache.digest(there)
        if own is not None and row is not None:
            own, _executable = self._files.stored(path, own)
        return Found(digest=own, git=git)

    def _input_folder(self, path: str, look: FolderLook) -> Found:
        problem = None
        for name in look.links():
            problem = problem or self._link_problem(f"{path}/{name}" if path else name)
        git = None
        if self._tracked_builder().is_folder(path):
            held = self._held_builder()  # the digest counts what is not tracked yet, so its id must
            self._files.prepare(held.files_below(path))
            git = held.tree_id(path)
        unseen = self._unseen(path)
        if unseen:
            digest = self._as_git_stores(path, look.entries(), unseen)
        elif self._held_builder().is_folder(path) and (not self._files.keeps_bytes or look.has_empty_folders()):
            digest = self._as_git_stores(path, look.entries())
        else:
            digest = look.digest()
        return Found(digest=digest, git=git, problem=problem)

    def _input_left_out(self, path: str) -> Found:
        """Return what the index has of an input of which nothing lies in the work tree."""
        entry = self._files.entry(path)
        if entry is not None:
            return Found(digest=self._files.stored_unseen(path, self._cache.algorithm)[1], git=entry[1])
        digest = self._as_git_stores(path, [], self._unseen(path))
        return Found(digest=digest, git=self._tracked_builder().tree_id(path))

    def _unseen(self, folder: str) -> list[Entry]:
        """Return the entries of what a sparse checkout leaves out below a folder."""
        found = []
        for name, _row in self._files.left_out(folder):
            inner = name[len(folder) + 1 :] if folder else name
            mode, digest, text = self._files.stored_unseen(name, self._cache.algorithm)
            if mode == "120000":
                found.append(Entry("l", inner, text=os.fsdecode(text)))
            else:
                found.append(Entry("f", inner, digest.hex, digest.size, mode == "100755"))
        return found

    def _as_git_stores(self, folder: str, entries: list[Entry], unseen: Sequence[Entry] = ()) -> Digest:
        """Return the digest of a folder that git holds some of: listed files as git stores them, and no empty
        folders. unseen: what is not in the work tree and counts all the same."""
        listed = self._files.listed()
        prefix = f"{folder}/" if folder else ""
        self._files.prepare(prefix + entry.path for entry in entries if prefix + entry.path in listed)
        stored = list(unseen)
        for entry in entries:
            if entry.kind == "f" and prefix + entry.path in listed:
                own = Digest(self._cache.algorithm, entry.hex, entry.size)
                digest, bit = self._files.stored(prefix + entry.path, own)
                executable = entry.executable if bit is None else bit
                stored.append(Entry("f", entry.path, digest.hex, digest.size, executable))
            elif entry.kind != "d":
                stored.append(entry)
        return digest_of(stored, self._cache.algorithm)[0]

    def _held_builder(self) -> TreeBuilder:
        """Return the trees of all that git does not ignore."""
        if self._held is None:
            self._held = TreeBuilder(self._files.listed(), self._files.entry, self._format)
        return self._held

    def _tracked_builder(self) -> TreeBuilder:
        """Return the trees of all that git tracks."""
        if self._tracked is None:
            paths = [path for path, row in self._files.listed().items() if row.oid is not None]
            self._tracked = TreeBuilder(paths, self._files.entry, self._format)
        return self._tracked

    def hash_path_id(self, path: str) -> str | None:
        held = self._held_builder()
        real, problem = self._resolve(path)
        if problem is not None:
            raise UserError(problem)
        if held.is_folder(real) or held.is_file(real):
            return self._id(held, real)
        digest = self._cache.digest(os.path.join(self._root, path))
        if digest is None and self._lending is not None:
            return self._lending.hash_path_id(path)
        return digest.text if digest is not None else None

    def output(self, path: str, algorithm: str | None = None) -> Digest | None:
        return self._cache.output(os.path.join(self._root, path), algorithm)


def _left_out(name: str, what: str) -> UserError:
    """Return the error for a file that a stage is to be given and a sparse checkout left out."""
    folder = os.path.dirname(name) or "."
    return UserError(
        f"`{name}` belongs to the {what}, and the sparse checkout leaves it out",
        f"run `git sparse-checkout add {folder}`",
    )


def _inner(path: str) -> str:
    return "" if path == "." else path


def _is_inside(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)
