"""Judging a commit: its pipeline and lockfile, from git's objects alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pipesmith.digest import Digest
from pipesmith.errors import Finding, UserError
from pipesmith.fingerprint.revision import Revision
from pipesmith.git.objects import ObjectReader
from pipesmith.lockfile.model import LockedOut, Lockfile
from pipesmith.lockfile.reader import parse
from pipesmith.pipeline.graph import order as topological
from pipesmith.pipeline.model import Pipeline, Stage
from pipesmith.verdict.judgement import Judgement, Outside
from pipesmith.verdict.reasons import Reason
from pipesmith.verdict.rebuilder import Question
from pipesmith.verdict.verdict import Verdict
from pipesmith.workspace.reading import read
from pipesmith.workspace.results import StageState
from pipesmith.workspace.revisions import lockfile_at

if TYPE_CHECKING:
    from pipesmith.verdict.own_items import OwnItems
    from pipesmith.workspace.workspace import Workspace

__all__ = ["AtCommit", "own_items_at", "state_of", "verdicts_at"]


def state_of(verdict: Verdict, file: str, line: Callable[[str], int | None] = lambda _key: None) -> StageState:
    """Return a verdict as `status` tells it. file: what its pipeline.toml is called. line: where a key stands there."""
    return StageState(
        name=verdict.stage,
        state=verdict.state.value,
        why=verdict.reasons,
        fingerprint=verdict.fingerprint.key if verdict.fingerprint else None,
        outputs=verdict.result.outs if verdict.result else (),
        notes=verdict.notes,
        broken=verdict.broken,
        problems=tuple(
            Finding(file=file, line=line(key), key=key, text=text, help=help) for key, text, help in verdict.problems
        ),
    )


def verdicts_at(
    workspace: Workspace, commit: str, reader: ObjectReader | None = None
) -> tuple[Pipeline, dict[str, Verdict]]:
    """Return the pipeline at a commit and each stage's verdict, in topological order.

    Asks neither the work tree, nor the action cache, nor PIPE_PARAM_*. Raises UserError where there is no pipeline
    there.
    """
    shared = reader or ObjectReader(workspace.repo)
    try:
        return AtCommit(workspace, commit, shared).judge()
    finally:
        if reader is None:
            shared.close()


def own_items_at(workspace: Workspace, commit: str) -> dict[str, OwnItems]:
    """Return what counts of each stage at a commit besides what other stages make.

    Raises UserError where there is no pipeline there, ConfigError where it is wrong."""
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


class AtCommit:
    """A commit's pipeline and lockfile, and what judges its stages."""

    def __init__(self, workspace: Workspace, commit: str, reader: ObjectReader) -> None:
        self.workspace = workspace
        self.commit = commit
        self.tree = Revision(reader, commit, workspace.prefix, "blake3")
        text = self.tree.read("pipeline.toml")
        if text is None:
            raise UserError(f"there is no pipeline.toml at {commit[:10]}", "name a commit that has one")
        within = "" if workspace.prefix == "." else f"{workspace.prefix}/"
        self.pipeline = read(
            text.decode("utf-8", "surrogateescape"),
            root=workspace.root,
            files=self.tree.read,
            overrides={},
            environ={},
            state=workspace.state,
            file=f"{commit[:10]}:{within}pipeline.toml",
        )
        self.tree._algorithm = self.pipeline.cache.hash
        lock = self.tree.read("pipe.lock")
        self.lockfile = (
            parse(
                lock.decode("utf-8", "surrogateescape"), file=f"{commit[:10]}:{within}pipe.lock", cache=workspace.state
            )
            if lock is not None
            else Lockfile()
        )
        self.tree.use_lock(self.lockfile)
        self.tree.exclude(self.pipeline.output_paths)

    def judge(self) -> tuple[Pipeline, dict[str, Verdict]]:
        question = Question(
            output=self.tree.output, at_hand=_nothing_at_hand, actions=None, check_cached_outputs=False, restore=False
        )
        judgement = self.judgement(question)
        return self.pipeline, {name: judgement.judge(self.pipeline.stages[name]) for name in topological(self.pipeline)}

    def judgement(self, question: Question) -> Judgement:
        return Judgement(self.pipeline, self.tree, self.lockfile, question, self.outside)

    @property
    def outside(self) -> Outside:
        return Outside(
            environment=self.environment,
            dataset=self.dataset,
            within=self.within,
            notebook=_notebook_id,
            metric_at=self.metric_at,
        )

    def environment(self, stage: Stage) -> tuple[str | None, Reason | None]:
        if stage.environment is None:
            return None, None
        environment = self.pipeline.environments[stage.environment]
        if environment.python == "system":
            entry = self.lockfile.stages.get(stage.name)
            return (entry.environment if entry else None), None
        if environment.dockerfile:
            from pipesmith.environments.definition import dockerfile_digest

            text = dockerfile_digest(environment, self.tree.source_id)
            return text, None if text is not None else Reason("environment", environment.name, None, None)
        from pipesmith.environments.definition import definition_digest
        from pipesmith.environments.resolve import pin_digest

        pin = self.lockfile.environments.get(environment.name)
        if pin is not None and pin.definition == definition_digest(environment, self.tree.read):
            return pin_digest(pin), None
        return None, Reason("environment", environment.name, pin_digest(pin) if pin else None, None)

    def dataset(self, name: str) -> Digest | None:
        pin = self.lockfile.datasets.get(name)
        return pin.digest if pin is not None and pin.definition == self.pipeline.datasets[name].definition else None

    def within(self, digest: Digest, _inner: str, path: str) -> Digest | None:
        """By the lock's entries of stages that read it from this very content: no manifest is asked, data may be
        elsewhere."""
        for entry in self.lockfile.stages.values():
            for dep in entry.deps:
                if dep.path == path and dep.of == digest.hex:
                    return dep.digest
        return None

    def metric_at(self, revision: str, stage: str, key: str) -> float | None:
        lockfile = lockfile_at(self.workspace, revision)
        entry = lockfile.stages.get(stage) if lockfile else None
        return entry.metrics.get(key) if entry else None


def _nothing_at_hand(_outs: Sequence[LockedOut]) -> bool:
    return False


def _notebook_id(data: bytes) -> str:
    from pipesmith.build.notebook import notebook_source_id

    return notebook_source_id(data)
