"""`hooks run pre-push`: whether the lockfiles of what is pushed belong to their pipelines, by git's objects alone.

What makes a commit pass is its tree, so one that passed is remembered by that, and passes again. That is so for the
same program, and where nothing else was asked: no other revision (`expect … vs`), no submodule.
"""

from __future__ import annotations

import os

from pipesmith.errors import PipeError
from pipesmith.fingerprint.tree_memory import TreeMemory
from pipesmith.git.objects import ObjectReader
from pipesmith.git.repository import Repository
from pipesmith.store.state_db import StateDB
from pipesmith.workspace.program import program_sign
from pipesmith.workspace.pushed import Tip, commits_of, folders_of, repository_of_hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pipesmith.pipeline.model import Pipeline
    from pipesmith.workspace.results import StageState

__all__ = ["Judged", "judge_push"]


class Judged:
    """One workspace at one commit that is pushed. refs: what the commit will be called there. folder: relative to the
    top, `.` for the top. error: why it can't be judged."""

    __slots__ = ("commit", "error", "folder", "refs", "stages")

    def __init__(
        self,
        commit: str,
        refs: Sequence[str],
        folder: str,
        stages: tuple[StageState, ...] = (),
        error: PipeError | None = None,
    ) -> None:
        self.commit = commit
        self.refs = tuple(refs)
        self.folder = folder
        self.stages = stages
        self.error = error

    @property
    def lock(self) -> str:
        """The lockfile's path in the repository."""
        return "pipe.lock" if self.folder == "." else f"{self.folder}/pipe.lock"

    @property
    def passes(self) -> bool:
        return self.error is None and all(stage.state == "fresh" and not stage.broken for stage in self.stages)

    def as_json(self) -> dict[str, Any]:
        return {
            "commit": self.commit,
            "refs": list(self.refs),
            "workspace": self.folder,
            "passes": self.passes,
            "stages": [stage.as_json() for stage in self.stages],
            "errors": [finding.as_json() for finding in self.error.findings()] if self.error else [],
        }


def judge_push(folder: str, tips: Sequence[Tip], *, anew: bool = False) -> list[Judged]:
    """Return a judgement of each pushed commit, once, in each folder of it that holds a pipeline.toml and a pipe.lock.

    folder: in the repository. Commits that are known to pass are left out, unless all are to be judged `anew`.
    Raises UserError outside of a repository, EnvironmentFailure where objects of a tip are missing.
    """
    if not tips:
        return []
    repo = repository_of_hook(os.path.realpath(folder))
    gate = _Gate(repo)
    try:
        return [
            judged
            for commit, refs in commits_of(gate.reader, tips).items()
            for judged in gate.judge(commit, refs, anew=anew)
        ]
    finally:
        gate.close()


class _Gate:
    def __init__(self, repo: Repository) -> None:
        self.reader = ObjectReader(repo)
        self._repo = repo
        self._state = _state_of(repo)
        self._sign = program_sign()
        self._memory = self.reader.memo = TreeMemory(self._state, self._sign)

    def judge(self, commit: str, refs: Sequence[str], *, anew: bool) -> list[Judged]:
        tree = self.reader.tree_of(commit)
        key = f"passed:{tree}"
        if not anew and (self._sign,) in self._state.query("SELECT value FROM gitmap WHERE key = ?", (key,)):
            return []
        folders, has_submodules = folders_of(self.reader, tree)
        self._memory.alone = not has_submodules
        found, same_again = [], not has_submodules
        for where in folders:
            judged, pipeline = self._look(commit, refs, where)
            found.append(judged)
            if pipeline is not None and any(e.vs for stage in pipeline.stages.values() for e in stage.expect):
                same_again = False
        if same_again and all(judged.passes for judged in found):
            self._state.write([("INSERT OR REPLACE INTO gitmap VALUES (?, ?)", (key, self._sign))])
        return found

    def _look(self, commit: str, refs: Sequence[str], where: str) -> tuple[Judged, Pipeline | None]:
        from pipesmith.workspace.at_commit import state_of, verdicts_at
        from pipesmith.workspace.workspace import Workspace

        workspace = Workspace(self._repo, self._repo.top if where == "." else os.path.join(self._repo.top, where))
        workspace.state = self._state
        try:
            pipeline, verdicts = verdicts_at(workspace, commit, self.reader)
        except PipeError as error:
            return Judged(commit, refs, where, error=error), None
        states = tuple(state_of(verdict, pipeline.file) for verdict in verdicts.values())
        return Judged(commit, refs, where, states), pipeline

    def close(self) -> None:
        self._memory.flush()
        self._state.close()
        self.reader.close()


def _state_of(repo: Repository) -> StateDB:
    """Return the clone's state database. Where nothing was ever built, none is made for a push."""
    path = os.path.join(repo.common_dir, "pipe", "state.db")
    return StateDB(path if os.path.exists(path) else os.devnull + "/none")
