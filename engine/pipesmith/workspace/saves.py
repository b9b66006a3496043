"""The saves that wait to be looked at: which changes are saves at all, and how they are told."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pipesmith.errors import PipeError
from pipesmith.git.activity import GitActivity, is_git_sign
from pipesmith.git.ignore import ignored
from pipesmith.pipeline.model import Pipeline
from pipesmith.watching.change import Change, Kind
from pipesmith.watching.coverage import Coverage
from pipesmith.workspace.plan import BuildOptions, wanted_stages
from pipesmith.workspace.session import Session, select_stages
from pipesmith.workspace.watched_places import IGNORING, coverage_of

if TYPE_CHECKING:
    from pipesmith.workspace.workspace import Workspace

__all__ = ["Saves"]

# What editors lay beside a file while they have it open or write it: vim's swap files, its test file `4913` and backup,
# Emacs's locks and auto-saves, JetBrains's two. And our own, of outputs on their way into the workspace.
_BESIDE = re.compile(r"\..*\.sw[a-p]|4913|.*~|\.#.*|#.*#|.*___jb_(tmp|old)___|\.goutputstream-.*|\.pipe-tmp-.*")
_TOLD = 3  # most paths in a line


class Saves:
    """pending: whether any wait to be looked at. written: absolute paths of files whose bytes were written since the
    last build. coverage: what is watched."""

    def __init__(self, workspace: Workspace, git: GitActivity) -> None:
        self._workspace = workspace
        self._git = git
        self._git_folders = {workspace.repo.git_dir, workspace.repo.common_dir}
        self._head = git.head()
        self._ignored: dict[str, bool] = {}
        self._followed: tuple[Any, ...] | None = None
        self._stale_folders = True  # whether git may ignore other folders than it did
        self._made: frozenset[str] = frozenset()  # what builds themselves write
        self._paths: dict[str, None] = {}  # since the last build, the newest last
        self._lost = False
        self._since_look: set[str] | None = None  # all that was told since the last look; None: more than was told
        self.coverage: Coverage | None = None
        self.pending = False
        self.written: set[str] = set()
        self.touched_description = False  # whether pipeline.toml or its like is among those not told yet
        self.may_configure = False

    def add(self, changes: Iterable[Change]) -> bool:
        """Take in changes, and return whether any of them is one to look at."""
        found = False
        unknown: dict[str, list[Change]] = {}
        for change in changes:
            if change.kind is Kind.LOST:
                self._lost = self._stale_folders = self.may_configure = found = True
                self._since_look = None
                self._ignored.clear()
                continue
            if self._since_look is not None:
                self._since_look.add(change.path)
            if self._is_beside(change.path):
                continue
            if self._counts_anyway(change.path):
                self._note(change)
                found = True
            else:
                unknown.setdefault(change.path, []).append(change)
        for path in self._not_ignored(unknown):
            for change in unknown[path]:
                self._note(change)
                found = True
        self.pending = self.pending or found
        return found

    def _is_beside(self, path: str) -> bool:
        return _BESIDE.fullmatch(os.path.basename(path)) is not None and not (
            self.coverage is not None and path in self.coverage.exact | self.coverage.whole
        )

    def _counts_anyway(self, path: str) -> bool:
        return self.coverage is None or self.coverage.is_whole(path) or os.path.dirname(path) in self._git_folders

    def _not_ignored(self, paths: Iterable[str]) -> list[str]:
        """Return those of the paths below sources that git does not ignore; it is asked once for each."""
        root = self._workspace.root
        inner = {path: path[len(root) + 1 :] for path in paths if path.startswith(root + os.sep)}
        asked = {path: name for path, name in inner.items() if path not in self._ignored}
        if asked:
            try:
                known = ignored(self._workspace.repo, root, asked.values())
            except PipeError:
                known = set()
            self._ignored.update({path: name in known for path, name in asked.items()})
        return [path for path in paths if not self._ignored.get(path, False)]

    def _note(self, change: Change) -> None:
        path = change.path
        name = os.path.basename(path)
        self._paths.pop(path, None)
        self._paths[path] = None
        if change.kind is Kind.WRITTEN:
            self.written.add(path)
        if name in IGNORING or is_git_sign(name):
            self._ignored.clear()
            self._stale_folders = True
        if name == "config" or name == "config.worktree":
            self.may_configure = True
        if self.coverage is None or (path in self.coverage.exact and not self._is_of_git(path)):
            self.touched_description = True
        if os.path.isdir(path):
            self._stale_folders = True

    def _is_of_git(self, path: str) -> bool:
        return any(path.startswith(folder + os.sep) for folder in self._git_folders)

    def since_look(self) -> set[str] | None:
        """Return the paths of all that was told since this was last asked, None where that may not be all."""
        told, self._since_look = self._since_look, set()
        return told

    def look_alone(self) -> None:
        """What is told is not all that there is."""
        self._since_look = None

    def is_ignored(self, path: str) -> bool:
        """Return whether git ignores a path of the workspace."""
        return not self._not_ignored([path])

    def take(self) -> None:
        """They are being looked at now."""
        self.pending = False

    def seen(self) -> None:
        """They were looked at and told, but could not be built."""
        self.touched_description = False

    def forget(self) -> None:
        """They are dealt with."""
        self._paths.clear()
        self.written = set()
        self._lost = self.touched_description = self.may_configure = False
        self._head = self._git.head()

    def revive(self) -> None:
        """They are to be looked at once more."""
        self.pending = True

    def follow(self, session: Session, options: BuildOptions) -> Coverage:
        """Let `coverage` be that of a pipeline as it is now, and return it."""
        pipeline = session.pipeline
        now = (pipeline, options.stages, session.pins.unpinned())
        if now == self._followed and not self._stale_folders and self.coverage is not None:
            return self.coverage
        named = select_stages(pipeline, options.stages) if options.stages else pipeline.targets
        stages = [pipeline.stages[name] for name in wanted_stages(pipeline, named, options)]
        coverage = coverage_of(session, stages)
        if coverage != self.coverage:
            self.coverage, self._since_look = coverage, None  # what is covered from now on may have changed before
        self._made = _made(self._workspace.root, pipeline)
        self._followed, self._stale_folders = now, False
        return self.coverage

    def description(self) -> str:
        """Return what was saved, for a line: a branch that was switched to, else files."""
        head = self._git.head()
        if head != self._head and head:
            return f"switched to `{head}`"
        paths = [path for path in reversed(self._paths) if not self._is_of_git(path) and path != self._workspace.root]
        others = [path for path in paths if not self.is_made(path)]
        told = [self._short(path) for path in (others or paths)]
        if not told:
            return "something changed" if self._lost or self._paths else ""
        more = f" and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
        return f"{', '.join(told[:_TOLD])}{more} changed"

    def _short(self, path: str) -> str:
        root = self._workspace.root + os.sep
        return f"`{path.removeprefix(root)}`"

    def is_made(self, path: str) -> bool:
        while path not in self._made:
            parent = os.path.dirname(path)
            if parent == path:
                return False
            path = parent
        return True

    def only_made(self) -> bool:
        """Return whether all of them can be what a build writes itself."""
        return not self._lost and all(self.is_made(path) for path in self._paths)


def _made(root: str, pipeline: Pipeline) -> frozenset[str]:
    outputs = [out.path for stage in pipeline.stages.values() for out in stage.outputs.values()]
    return frozenset(os.path.join(root, path) for path in ("pipe.lock", ".gitignore", *outputs))
