"""A workspace: the folder of a pipeline.toml in a git repository."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from pipesmith.errors import UserError
from pipesmith.git.repository import Repository
from pipesmith.store.locks import LockTable
from pipesmith.store.modes import prepare
from pipesmith.store.state_db import StateDB

if TYPE_CHECKING:
    from pipesmith.events import Event
    from pipesmith.history.record import RunRecord
    from pipesmith.history.run_store import RunStore
    from pipesmith.pipeline.model import Stage
    from pipesmith.workspace.bisect import BisectResult, Step
    from pipesmith.workspace.elsewhere import Place
    from pipesmith.workspace.results import BuildResult, StatusResult
    from pipesmith.workspace.session import Session
    from pipesmith.workspace.watch import Face
    from pipesmith.workspace.what_if import WhatIf

__all__ = ["LOCK_NAME", "PIPELINE_NAME", "Workspace"]

PIPELINE_NAME = "pipeline.toml"
LOCK_NAME = "pipe.lock"


class Workspace:
    """Where a pipeline lives. root: absolute path of its folder. prefix: the same below the top of the git work
    tree. place: of one in a place of its own, None for the user's."""

    def __init__(self, repo: Repository, root: str, place: Place | None = None) -> None:
        self.repo = repo
        self.root = root
        self.place = place
        self.prefix = "." if root == repo.top else os.path.relpath(root, repo.top)
        self.pipe_dir = os.path.join(repo.common_dir, "pipe")
        self.lock_path = os.path.join(root, LOCK_NAME)
        self.all_fresh: tuple[Session, tuple[Stage, ...]] | None = None  # what the last call found all fresh

    @staticmethod
    def open(path: str | os.PathLike[str] = ".", *, rev: str | None = None) -> Workspace:
        """Return the workspace of the nearest pipeline.toml from `path` up to the top of the git work tree.

        rev: where there is none on disk, or no disk as in a bare repository, the one at this revision does, for what
        asks nothing but that. Raises UserError outside a git repository, and where there is no pipeline.toml.
        """
        if rev is not None:
            from pipesmith.workspace.elsewhere import workspace_at

            return workspace_at(os.fspath(path), rev)
        start = os.path.realpath(path)
        if not os.path.isdir(start):
            raise UserError(f"`{os.fspath(path)}` is not a folder")
        repo = Repository.discover(start)
        if repo.is_bare:
            raise UserError(
                f"`{repo.top}` is a bare repository: it has no work tree, and this asks for one",
                "clone it; what needs none is `pipe status --rev REV`, `pipe build --rev REV`, `pipe runs` and "
                "`pipe hooks run`",
            )
        folder = _nearest(repo, start)
        if folder is not None:
            return Workspace(repo, folder)
        raise UserError(
            f"no {PIPELINE_NAME} from `{start}` up to the top of the repository, `{repo.top}`",
            "run `pipe init` to make one",
        )

    @staticmethod
    def open_history(path: str | os.PathLike[str] = ".") -> Workspace:
        """Return the workspace of `open`, for what asks nothing but run history, which is the clone's: a bare
        repository, where commits are built, has one as well. Raises what `open` raises."""
        try:
            return Workspace.open(path)
        except UserError:
            start = os.path.realpath(path)
            if not os.path.isdir(start) or not (repo := Repository.discover(start)).is_bare:
                raise
            return Workspace(repo, repo.top)

    @staticmethod
    def open_at(revision: str, path: str | os.PathLike[str] = ".") -> tuple[Workspace, str]:
        """Return the workspace that a revision or range `A..B` is asked of, and the revision.

        That is the one of `open`; where none lies on disk, the one at the revision. In a bare repository, which has no
        folders to stand in, it is the one pipeline.toml at the revision, or the folder that `REV:FOLDER` names. Raises
        what `open` raises.
        """
        start = os.path.realpath(path)
        if not os.path.isdir(start):
            raise UserError(f"`{os.fspath(path)}` is not a folder")
        repo = Repository.discover(start)
        if repo.is_bare:
            from pipesmith.workspace.bare import bare_prefix

            prefix, revision = bare_prefix(repo, revision)
            return Workspace(repo, os.path.normpath(os.path.join(repo.top, prefix))), revision
        folder = _nearest(repo, start)
        if folder is None:
            last = revision.rpartition("..")[2] if ".." in revision else revision
            return Workspace.open(path, rev=last or "HEAD"), revision
        return Workspace(repo, folder), revision

    def in_repo(self, path: str) -> str:
        """Return a workspace path relative to the top of the repository; of the empty path, what all begin with."""
        return path if self.prefix == "." else f"{self.prefix}/{path}"

    @cached_property
    def state(self) -> StateDB:
        """The state database; opened when first asked for, and usable even where it can't be written."""
        if not os.path.isdir(self.pipe_dir):
            prepare(self.pipe_dir, self.repo.config.get("core.sharedrepository"))
        return StateDB(os.path.join(self.pipe_dir, "state.db"))

    @cached_property
    def stamps(self) -> StateDB:
        """Where stamps of files are remembered: for a place of its own in that place, so that they go with it."""
        return self.state if self.place is None else StateDB(os.path.join(self.place.folder, "state.db"))

    @property
    def home(self) -> Workspace:
        """The workspace that the user has: this one, or the one that a place was made for."""
        return self if self.place is None else self.place.of

    @cached_property
    def locks(self) -> LockTable:
        return LockTable(os.path.join(self.pipe_dir, "locks"))

    def guard(self) -> AbstractContextManager[None]:
        """Return the workspace lock, held while outputs are placed and the lockfile is rewritten."""
        return self.locks.exclusive(f"workspace {self.root}")

    def session(self, overrides: Mapping[str, str] | None = None, compute: str | None = None) -> Session:
        """Return pipeline, lockfile and tree as they are now. compute: where all stages run, whatever pipeline.toml
        says. Raises ConfigError, UserError."""
        from pipesmith.workspace.session import Session

        return Session(self, overrides or {}, compute)

    @cached_property
    def run_store(self) -> RunStore:
        from pipesmith.history.run_store import RunStore

        return RunStore(self.repo, self.state, os.path.join(self.pipe_dir, "logs"))

    def leave_witness(self, args: list[str], answer: str) -> None:
        """Let the next equal command line be answered with `answer`, if the last call found everything fresh."""
        if self.all_fresh is not None:
            from pipesmith.workspace.witnessing import leave_witness

            leave_witness(*self.all_fresh, args, answer)

    # -- the calls of the command line --------------------------------------------------------------------------------

    def build(
        self,
        stages: Sequence[str] = (),
        params: Mapping[str, Any] | None = None,
        on_event: Callable[[Event], None] | None = None,
        **options: Any,
    ) -> BuildResult:
        """Bring stages (all targets without names) up to date, and return what was done.

        stages: names; a text is one.
        params: dotted key to value, over those of pipeline.toml. options: the fields of
        `pipesmith.workspace.plan.BuildOptions`.
        A build that failed returns its result; a wrong pipeline.toml raises ConfigError.
        """
        from pipesmith.workspace.build import build
        from pipesmith.workspace.plan import BuildOptions

        overrides = {key: _override_text(value) for key, value in (params or {}).items()}
        return build(self, BuildOptions(stages=_names(stages), overrides=overrides, **options), on_event)

    def watch(
        self,
        face: Face,
        stages: Sequence[str] = (),
        params: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> NoReturn:
        """Build, and build again at every save that reaches a stage (all targets without names), until a signal comes.

        face: shows what happens. options: the fields of `pipesmith.workspace.watch.WatchOptions`. Raises Cancelled when
        it is ended.
        """
        from pipesmith.workspace.watch import WatchOptions, watch

        overrides = {key: _override_text(value) for key, value in (params or {}).items()}
        watch(self, WatchOptions(stages=_names(stages), overrides=overrides, **options), face)

    def status(self, stages: Sequence[str] = (), *, rev: str | None = None, **options: Any) -> StatusResult:
        """Return the state of stages (all without names) in the work tree, or at a revision."""
        from pipesmith.workspace.status import status

        return status(self, _names(stages), rev=rev, **options)

    def what_if(self, stages: Sequence[str] = (), params: Mapping[str, Any] | None = None, **options: Any) -> WhatIf:
        """Return what a build of stages (all targets without names) would do, and for how long.

        params: as for `build`. options: rev, merge and jobs, as `pipesmith.workspace.what_if.what_if` has them.
        """
        from pipesmith.workspace.what_if import what_if

        overrides = {key: _override_text(value) for key, value in (params or {}).items()}
        return what_if(self, _names(stages), overrides=overrides, **options)

    def bisect(
        self, good: str, bad: str, *, on_step: Callable[[Step], None] | None = None, **options: Any
    ) -> BisectResult:
        """Return the first commit from `good` to `bad` that is bad.

        options: the fields of `pipesmith.workspace.bisect.BisectOptions`: metric with below or above, or stage_fails.
        """
        from pipesmith.workspace.bisect import BisectOptions, bisect

        return bisect(self, BisectOptions(good=good, bad=bad, **options), on_step=on_step)

    def runs(self, n: int | None = None, **filters: Any) -> list[RunRecord]:
        """Return recorded runs, newest first. filters: those of `RunStore.list`."""
        return self.run_store.list(n=n, **filters)

    def metrics(self, revs: Iterable[str] = ()) -> dict[str, dict[str, dict[str, float]]]:
        """Return for the work tree's lockfile, or for each revision (a text is one): stage to metric to number."""
        from pipesmith.workspace.metrics import metrics

        return metrics(self, _names(revs))


def _names(given: Iterable[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _override_text(value: Any) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value)


def _nearest(repo: Repository, start: str) -> str | None:
    """Return the nearest folder with a pipeline.toml from `start` up to the top, None where there is none."""
    folder = start
    while True:
        if os.path.isfile(os.path.join(folder, PIPELINE_NAME)):
            return folder
        if folder == repo.top or os.path.dirname(folder) == folder:
            return None
        folder = os.path.dirname(folder)
