"""Collects what a call that found everything fresh has looked at, for the witness."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pipesmith.errors import UserError
from pipesmith.fingerprint import witness
from pipesmith.fingerprint.items import input_parts
from pipesmith.git.deciding import files_that_decide, ignored_folders
from pipesmith.pipeline.model import Stage

if TYPE_CHECKING:
    from pipesmith.workspace.session import Session

__all__ = ["leave_witness"]

_KEPT = 64  # witnesses of different calls in one clone


def leave_witness(session: Session, stages: Iterable[Stage], args: list[str], answer: str) -> None:
    """Let the next equal call be answered by what this one looked at, where that can be told by stamps."""
    where = witness.place(args)
    listed = list(stages)
    if where is None or not _can_be_told(session, listed):
        return
    try:
        looked, sizes, newest = _Look(session).at(listed)
    except (OSError, UserError):  # gone meanwhile, or left out by a sparse checkout: nothing there to look at
        return
    if newest > session.began_ns - witness.RACY_NS:
        return
    _prune(os.path.dirname(where))
    witness.store(where, looked, sizes, answer)


def _can_be_told(session: Session, stages: list[Stage]) -> bool:
    environments = session.pipeline.environments
    if any(stage.environment and environments[stage.environment].dockerfile for stage in stages):
        return False
    if any(not stage.reuse or any(each.vs for each in stage.expect) for stage in stages):
        return False
    return not session.tree.has_nested and session.workspace.state.writable


def _prune(folder: str) -> None:
    try:
        names = os.listdir(folder)
    except OSError:
        return
    if len(names) > _KEPT:
        for name in names:
            witness.forget(os.path.join(folder, name))


class _Look:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._root = session.workspace.root
        self._looked = witness.Looked()
        self._sizes: dict[str, int] = {}
        self._newest = 0
        self._ignored: set[str] | None = None

    def at(self, stages: list[Stage]) -> tuple[witness.Looked, dict[str, int], int]:
        """Return what was looked at, the number of entries of each folder, and the newest time stamp, in
        nanoseconds."""
        session, pipeline = self._session, self._session.pipeline
        for path in ("pipeline.toml", "pipe.lock", ".pipeignore", *pipeline.params_files):
            self._file(os.path.join(self._root, path))
        for environment in pipeline.environments.values():
            if environment.requirements:
                self._file(os.path.join(self._root, environment.requirements))
        if any(stage.environment and pipeline.environments[stage.environment].python == "system" for stage in stages):
            for folder in sys.path:
                self._file(folder)
        for path in files_that_decide(session.workspace.repo, self._root):
            self._file(path)
        self._sources(stages)
        for stage in stages:
            for part in input_parts(stage, pipeline.stages):
                if part.place:
                    self._content(os.path.join(self._root, part.place))
            for output in stage.outputs.values():
                self._content(os.path.join(self._root, output.path))
            for path in (*stage.hash_paths, *([stage.notebook] if stage.notebook else ())):
                self._content(os.path.join(self._root, path))
        return self._looked, self._sizes, self._newest

    def _file(self, path: str) -> None:
        seen = witness.stamp(path)
        self._looked.files[path] = seen
        if seen is not None:
            self._newest = max(self._newest, seen[3], seen[4])

    def _content(self, path: str) -> None:
        """A file, or a folder and all below it."""
        stack = [path]
        while stack:
            there = stack.pop()
            if there in self._looked.folders or there in self._looked.files:
                continue
            if not os.path.isdir(there) or os.path.islink(there):
                self._file(there)
                if os.path.islink(there):
                    self._file(os.path.realpath(there))
                continue
            stack += self._folder(there)

    def _folder(self, path: str) -> list[str]:
        """Take a whole folder, and return the folders in it."""
        below = []
        count = 1
        with os.scandir(path) as entries:
            for entry in entries:
                count += 1
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.path)
                    continue
                info = entry.stat(follow_symlinks=False)
                self._newest = max(self._newest, info.st_mtime_ns, info.st_ctime_ns)
                if entry.is_symlink():
                    self._file(os.path.realpath(entry.path))
        self._newest = max(self._newest, os.lstat(path).st_mtime_ns, os.lstat(path).st_ctime_ns)
        self._looked.folders[path] = witness.folder_signatures(path, count)
        self._sizes[path] = count
        return below

    def _sources(self, stages: list[Stage]) -> None:
        """Take the files that git lists of the sources, by folder, and the folders' own stamps, which new names
        change."""
        names: dict[str, list[str]] = {}
        for source in dict.fromkeys(path for stage in stages for path in stage.source):
            self._file(os.path.join(self._root, source))
            folder = os.path.dirname(source)
            while folder:
                self._ignore_files(os.path.join(self._root, folder), only_present=False)
                folder = os.path.dirname(folder)
            for path, _mode in self._session.tree.source_files(source):
                folder, _, name = path.rpartition("/")
                names.setdefault(folder, []).append(name)
            self._subfolders(os.path.join(self._root, source))
        for folder, listed in names.items():
            there = os.path.join(self._root, folder) if folder else self._root
            if _files_of(there) == set(listed):
                self._folder(there)  # one look at the folder is cheaper than one at each name
                continue
            unique = tuple(sorted(set(listed)))
            own = witness.stamp(there)
            if own is None:
                raise FileNotFoundError(there)
            self._newest = max(self._newest, own[3], own[4])
            for name in unique:
                info = os.lstat(os.path.join(there, name))
                self._newest = max(self._newest, info.st_mtime_ns, info.st_ctime_ns)
                if os.path.islink(os.path.join(there, name)):
                    self._file(os.path.realpath(os.path.join(there, name)))
            self._looked.listed[there] = (own, unique, witness.names_signature(there, unique))

    def _ignore_files(self, folder: str, *, only_present: bool) -> None:
        """Take a folder's ignore and attributes files; those that are not there too, where its own stamp is not
        taken."""
        for name in (".gitignore", ".gitattributes", ".pipeignore"):
            path = os.path.join(folder, name)
            if not only_present or os.path.lexists(path):
                self._file(path)

    def _subfolders(self, source: str) -> None:
        """Take every folder of a source, those without listed files too: a file may appear there."""
        if not os.path.isdir(source):
            return
        if self._ignored is None:
            self._ignored = ignored_folders(self._session.workspace.repo, self._root)
        for where, folders, _files in os.walk(source):
            folders[:] = [name for name in folders if name != ".git" and os.path.join(where, name) not in self._ignored]
            self._file(where)
            self._ignore_files(where, only_present=True)


def _files_of(folder: str) -> set[str]:
    """Return the names of what is no folder in a folder."""
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)}
