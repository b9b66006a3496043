"""Which stages a save reaches: by what they are made of before and after, never by an event alone."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any

from pipesmith.build.job import CHANGED
from pipesmith.errors import UserError
from pipesmith.fingerprint.items import input_parts, stage_text
from pipesmith.pipeline.model import Pipeline, Stage
from pipesmith.pipeline.params import lookup
from pipesmith.records import record
from pipesmith.verdict.verdict import State, Verdict
from pipesmith.workspace.plan import BuildOptions, wanted_stages
from pipesmith.workspace.results import BuildResult
from pipesmith.workspace.session import Session, select_stages

__all__ = ["Look", "Memory", "look_at"]


@record
class Look:
    """The verdicts of all wanted stages at one moment. given: of those that are not fresh, all that they are made of
    but what other stages make."""

    session: Session
    verdicts: Mapping[str, Verdict]
    given: Mapping[str, tuple[Any, ...]]

    def stage(self, name: str) -> Stage:
        return self.session.pipeline.stages[name]

    def key(self, name: str) -> str | None:
        fingerprint = self.verdicts[name].fingerprint
        return fingerprint.key if fingerprint is not None else None

    def is_given(self, name: str, paths: Collection[str]) -> bool:
        """Return whether a stage is given any of these files. paths: absolute."""
        session, stage = self.session, self.stage(name)
        root = session.workspace.root
        inner = [path[len(root) + 1 :] for path in paths if path.startswith(root + os.sep)]
        places = [part.place for part in input_parts(stage, session.pipeline.stages) if part.place and not part.stage]
        places += [*stage.hash_paths, *([stage.notebook] if stage.notebook else [])]
        if any(path == place or path.startswith(f"{place}/") for path in inner for place in places):
            return True
        for source in stage.source:
            near = [path for path in inner if source == "." or path == source or path.startswith(f"{source}/")]
            if near and not {path for path, _mode in session.tree.source_files(source)}.isdisjoint(near):
                return True
        return False


def look_at(session: Session, options: BuildOptions) -> Look:
    """Return the verdicts of the stages that a build with these options looks at. Runs and writes nothing.

    Raises ConfigError, UserError."""
    pipeline = session.pipeline
    named = select_stages(pipeline, options.stages) if options.stages else pipeline.targets
    judgement = session.judgement()
    wanted = wanted_stages(pipeline, named, options)
    verdicts = {name: judgement.judge(pipeline.stages[name]) for name in wanted}
    given = {name: _given(session, pipeline.stages[name]) for name, verdict in verdicts.items() if not verdict.fresh}
    return Look(session=session, verdicts=verdicts, given=given)


def _given(session: Session, stage: Stage) -> tuple[Any, ...]:
    tree, pipeline = session.tree, session.pipeline
    try:
        sources = tuple(tree.source_id(path) for path in stage.source)
    except UserError as error:
        sources = (error.text,)
    try:
        paths = tuple(tree.hash_path_id(path) for path in stage.hash_paths)
    except UserError as error:
        paths = (error.text,)
    notebook = tree.read(stage.notebook) if stage.notebook is not None else None
    parts = input_parts(stage, pipeline.stages)
    inputs = tuple(tree.input(part.place).digest for part in parts if part.place and not part.stage)
    params = stage_text({key: lookup(pipeline.params, key) for key in stage.params})
    return (
        _definition(pipeline, stage),
        sources,
        paths,
        notebook,
        inputs,
        params,
        session.pins.environment_text(stage),
    )


class Memory:
    """What builds came to, as long as it explains why a stage is not fresh. A stage that it knows nothing of is to be
    built where it is not fresh."""

    def __init__(self) -> None:
        self._failed: dict[str, tuple[str | None, Any]] = {}  # key of the fingerprint, definition
        self._overwritten: set[str] = set()  # failed, since something changed what they were given while they ran
        self._settled: set[str] = set()  # those of them that were looked at just now
        self._left: dict[str, tuple[Any, ...]] = {}  # not reached by its build: what it was given then

    def settle(self, look: Look) -> None:
        """Take in what lies there after a build: what a stage without a sandbox wrote into its source is no save."""
        self._settled, self._overwritten = self._overwritten, set()
        for name in self._settled & look.verdicts.keys():
            key = look.key(name)
            if key is not None and name in self._failed:
                self._failed[name] = (key, self._failed[name][1])

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(self._failed)

    def reached(self, look: Look, written: Collection[str]) -> list[str]:
        """Return the stages that have something to do since the last build, or had and have no more. written: absolute
        paths of files that were written since."""
        found = []
        for name, verdict in look.verdicts.items():
            good = verdict.fresh and not verdict.broken
            if (name in self._failed) if good else not self._explains(look, name, written):
                found.append(name)
        return found

    def _explains(self, look: Look, name: str, written: Collection[str]) -> bool:
        failed = self._failed.get(name)
        if failed is not None:
            key, definition = failed
            if definition != _definition(look.session.pipeline, look.stage(name)):
                return False
            if look.verdicts[name].state is State.PENDING:
                return True  # what comes before it was reached, and decides
            return key == look.key(name) and (name in self._settled or not look.is_given(name, written))
        left = self._left.get(name)
        return left is not None and left == look.given.get(name)

    def held(self, look: Look, written: Collection[str]) -> dict[str, str | None]:
        """Return the failed stages that the next build need not try again, each with the key of its fingerprint."""
        return {
            name: key
            for name, (key, _definition) in self._failed.items()
            if name in look.verdicts and self._explains(look, name, written)
        }

    def learn(self, look: Look, result: BuildResult, held: Collection[str]) -> None:
        """Take in what a build came to. look: the one that it began with."""
        for stage in result.stages:
            if stage.status == "skipped" and stage.name in held:
                continue
            self._failed.pop(stage.name, None)
            self._left.pop(stage.name, None)
            if stage.status == "failed":
                definition = _definition(look.session.pipeline, look.stage(stage.name))
                self._failed[stage.name] = (stage.fingerprint, definition)
                if not look.stage(stage.name).sandbox and (stage.error or "").endswith(CHANGED):
                    self._overwritten.add(stage.name)
            elif stage.status == "skipped":
                self._left[stage.name] = look.given.get(stage.name, ())


def _definition(pipeline: Pipeline, stage: Stage) -> tuple[Any, ...]:
    """Return what is written of a stage: also what never counts, such as its timeout, may be why it failed."""
    return (stage, pipeline.computes.get(stage.compute), pipeline.environments.get(stage.environment or ""))
