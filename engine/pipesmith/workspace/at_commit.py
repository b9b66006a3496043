"""One commit: judged, or looked at by others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipesmith.verdict.judgement import Judgement
from pipesmith.workspace.commits import Beside, Commits
from pipesmith.workspace.states import state_of

if TYPE_CHECKING:
    from pipesmith.git.objects import ObjectReader
    from pipesmith.pipeline.model import Pipeline
    from pipesmith.verdict.own_items import OwnItems
    from pipesmith.verdict.rebuilder import Question
    from pipesmith.verdict.verdict import Verdict
    from pipesmith.workspace.workspace import Workspace

__all__ = ["AtCommit", "own_items_at", "state_of", "verdicts_at"]


def verdicts_at(
    workspace: Workspace, commit: str, reader: ObjectReader | None = None
) -> tuple[Pipeline, dict[str, Verdict]]:
    """Return the pipeline at a commit and each stage's verdict, in topological order.

    Asks neither the work tree, nor the action cache, nor PIPE_PARAM_*. Raises UserError where there is no pipeline
    there. reader: shared by those who look at the same repository.
    """
    commits = Commits(workspace, reader)
    try:
        judged = commits.judge(commit)
        commits.flush()
        return judged.pipeline, judged.verdicts
    finally:
        commits.close()


def own_items_at(workspace: Workspace, commit: str) -> dict[str, OwnItems]:
    """Return what counts of each stage at a commit besides what other stages make.

    Raises UserError where there is no pipeline there, ConfigError where it is wrong."""
    from pipesmith.git.objects import ObjectReader
    from pipesmith.verdict.own_items import own_items

    reader = ObjectReader(workspace.repo)
    try:
        there = AtCommit(workspace, commit, reader)
        return {
            name: own_items(stage, there.pipeline, there.tree, there.outside, there.tree.read)
            for name, stage in there.pipeline.stages.items()
        }
    finally:
        reader.close()


class AtCommit(Beside):
    """A commit's pipeline and lockfile, and what judges its stages. Raises UserError where there is no pipeline."""

    def __init__(self, workspace: Workspace, commit: str, reader: ObjectReader) -> None:
        self.workspace = workspace
        self.commit = commit
        there = Commits(workspace, reader).look(commit)
        super().__init__(there.tree, there.pipeline, there.lockfile, there.metric_at, there.has_revision)

    def judgement(self, question: Question) -> Judgement:
        return Judgement(self.pipeline, self.tree, self.lockfile, question, self.outside)
