"""A workspace that is not there: as it would be with a commit, or a merge of two, checked out in it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from pipesmith.errors import UserError
from pipesmith.executors.plugins import installed_kinds
from pipesmith.fingerprint.checked_out import CheckedOut
from pipesmith.fingerprint.revision import Revision
from pipesmith.fingerprint.stat_cache import StatCache
from pipesmith.git.commits import merge_bases
from pipesmith.git.ignore import untracked_under
from pipesmith.git.merging import merge_trees
from pipesmith.git.objects import ObjectReader
from pipesmith.git.repository import Repository
from pipesmith.lockfile.merge import merge
from pipesmith.lockfile.model import Lockfile
from pipesmith.lockfile.reader import parse
from pipesmith.pipeline.model import Pipeline
from pipesmith.pipeline.reader import read_pipeline
from pipesmith.workspace.reading import text_of
from pipesmith.workspace.revisions import lockfile_at
from pipesmith.workspace.session import Session
from pipesmith.workspace.workspace import LOCK_NAME

if TYPE_CHECKING:
    from pipesmith.workspace.workspace import Workspace

__all__ = ["Conflict", "ProposedSession", "proposed"]


class Conflict(Exception):
    """Two commits can't be merged without a person. files: relative to the top of the work tree."""

    def __init__(self, files: tuple[str, ...]) -> None:
        super().__init__(", ".join(files))
        self.files = files


class ProposedSession(Session):
    """tree: a commit or tree id; shown: what to call it. repo: reads its objects. merged: the lockfile there, where
    that is not the tree's own."""

    def __init__(
        self,
        workspace: Workspace,
        overrides: Mapping[str, str],
        *,
        repo: Repository,
        tree: str,
        shown: str,
        merged: Lockfile | None = None,
    ) -> None:
        super().__init__(workspace, overrides)
        self._shown = shown
        self._tree_id = tree
        self._objects = repo
        self._reader = ObjectReader(repo)
        self._merged = merged
        self._at = Revision(self._reader, tree, workspace.prefix, "blake3", workspace.state)

    def close(self) -> None:
        self._reader.close()

    @cached_property
    def pipeline(self) -> Pipeline:
        data = self.read_file("pipeline.toml")
        if data is None:
            raise UserError(f"there is no pipeline.toml at {self._shown}", "name a commit that has one")
        file = f"{self._shown}:pipeline.toml"
        self._text = text_of(data, file)
        return read_pipeline(
            self._text,
            files=self.read_file,
            default_name=os.path.basename(self.workspace.root),
            file=file,
            overrides=self.overrides,
            environ={name: value for name, value in os.environ.items() if name.startswith("PIPE_PARAM_")},
            kinds=installed_kinds,
        )

    def read_file(self, path: str) -> bytes | None:
        path = os.path.normpath(path)
        return self._at.read(path) if self._at.find(path) is not None else self._files.read(path)

    @cached_property
    def _files(self) -> CheckedOut:
        """For reading files whose hashes nobody asks for: which hash the pipeline wants is in one of them."""
        return self._checked_out(self._at, StatCache(self.workspace.state, "blake3"))

    @cached_property
    def lockfile(self) -> Lockfile:
        if self._merged is not None:
            return self._merged
        text = self.lock_text
        return parse(text, file=f"{self._shown}:{LOCK_NAME}") if text is not None else Lockfile()

    @cached_property
    def _untracked(self) -> list[str] | None:
        return untracked_under(self._objects, self._tree_id, self.workspace.root)

    def _checked_out(self, at: Revision, stat_cache: StatCache) -> CheckedOut:
        return CheckedOut(self.workspace.repo, self.workspace.root, stat_cache, at, self._untracked)

    def tracked(self, paths: Collection[str]) -> set[str]:
        return {path for path in paths if self._at.find(path) is not None}

    def fresh_tree(self) -> CheckedOut:
        algorithm = self.pipeline.cache.hash
        at = Revision(self._reader, self._tree_id, self.workspace.prefix, algorithm, self.workspace.state)
        tree = self._checked_out(at, self.stat_cache)
        tree.exclude(self.pipeline.output_paths)
        return tree


@contextmanager
def proposed(
    workspace: Workspace, overrides: Mapping[str, str], *, rev: str | None, merged: str | None
) -> Iterator[ProposedSession]:
    """Give the session of a commit (default: HEAD), with another one merged into it where that is named.

    Raises Conflict where git can't merge them, UserError for what is no revision."""
    repo = workspace.repo
    ours = repo.resolve(rev if rev is not None else "HEAD")
    theirs = repo.resolve(merged) if merged is not None else None
    with tempfile.TemporaryDirectory(prefix="pipe-objects-") as folder:
        tree, lockfile, shown = ours, None, ours[:10]
        if theirs is not None:
            repo = workspace.repo.with_scratch(folder)
            tree, lockfile = _merge(workspace, repo, ours, theirs)
            shown = f"{ours[:10]}+{theirs[:10]}"
        session = ProposedSession(workspace, overrides, repo=repo, tree=tree, shown=shown, merged=lockfile)
        try:
            yield session
        finally:
            session.close()


def _merge(workspace: Workspace, scratch: Repository, ours: str, theirs: str) -> tuple[str, Lockfile | None]:
    """Return the tree of a merge, and its lockfile where both sides have one: merged stage by stage."""
    done = merge_trees(scratch, ours, theirs)
    mine, other = lockfile_at(workspace, ours), lockfile_at(workspace, theirs)
    both = mine is not None and other is not None
    conflicts = tuple(path for path in done.conflicts if not (both and os.path.basename(path) == LOCK_NAME))
    if conflicts:
        raise Conflict(conflicts)
    if mine is None or other is None:
        return done.tree, None
    return done.tree, merge(mine, other, _base(workspace, ours, theirs)).lockfile


def _base(workspace: Workspace, ours: str, theirs: str) -> Lockfile | None:
    """Return the lockfile of what two commits came from: of several commits, theirs merged."""
    bases = merge_bases(workspace.repo, ours, theirs)
    base = lockfile_at(workspace, bases[0]) if bases else None
    for other in bases[1:]:
        there = lockfile_at(workspace, other)
        if base is not None and there is not None:
            base = merge(base, there, _base(workspace, bases[0], other)).lockfile
    return base
