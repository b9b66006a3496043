"""What is known of a stage's result at a commit, without building: by the lockfile there, else by the action cache.

A stage whose result is not known is given a made-up one, the same for the same fingerprint, so that the stages after it
have a fingerprint too: equal ones at two commits mean that both must have the same results.
"""

from __future__ import annotations

import os
from _blake2 import blake2b
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipesmith.digest import Digest
from pipesmith.errors import EnvironmentFailure, UserError
from pipesmith.fingerprint.items import input_parts
from pipesmith.git.objects import ObjectReader
from pipesmith.lockfile.model import LockedOut
from pipesmith.pipeline.graph import order as topological
from pipesmith.pipeline.graph import upstream
from pipesmith.pipeline.model import Stage
from pipesmith.records import field, record
from pipesmith.store.action_cache import ActionCache
from pipesmith.verdict.culprit import Made
from pipesmith.verdict.reasons import Reason
from pipesmith.verdict.rebuilder import Question
from pipesmith.verdict.verdict import Result, State
from pipesmith.workspace.at_commit import AtCommit

if TYPE_CHECKING:
    from pipesmith.workspace.workspace import Workspace

__all__ = ["KnownAt", "known_at"]

_MADE_UP = "unknown"  # algorithm of made-up digests


@record
class KnownAt:
    """A stage at a commit. key: equal where the result must be. result: None where it must be built. broken:
    expectations that it does not meet. order: the stage and all before it, topological; stages: what each is made of.
    unusable: why nothing can be told, empty where it can."""

    key: str = ""
    result: Result | None = None
    broken: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    stages: dict[str, Made] = field(default_factory=dict)
    unusable: str = ""


def known_at(workspace: Workspace, commit: str, stage: str, reader: ObjectReader) -> KnownAt:
    """Return what is known of a stage at a commit. Never raises for what is wrong there: that is `unusable`."""
    try:
        return _Looking(workspace, commit, reader).look(stage)
    except (UserError, EnvironmentFailure) as error:
        return KnownAt(unusable=error.findings()[0].headline)


class _Looking(AtCommit):
    def __init__(self, workspace: Workspace, commit: str, reader: ObjectReader) -> None:
        super().__init__(workspace, commit, reader)
        self._actions = ActionCache(os.path.join(workspace.pipe_dir, "cache", "actions"))

    def look(self, wanted: str) -> KnownAt:
        if wanted not in self.pipeline.stages:
            return KnownAt(unusable=f"it has no stage `{wanted}`")
        judgement = self.judgement(
            Question(output=self.tree.output, at_hand=_all_at_hand, actions=self._actions, check_cached_outputs=False)
        )
        among = upstream(self.pipeline, [wanted])
        order = tuple(name for name in topological(self.pipeline) if name in among)
        stages: dict[str, Made] = {}
        verdict = None
        for name in order:
            stage = self.pipeline.stages[name]
            verdict = judgement.judge(stage)
            items = verdict.fingerprint.items if verdict.fingerprint is not None else ()
            known = verdict.result if verdict.state in (State.FRESH, State.RESTORABLE) else None
            if known is None:
                key = verdict.fingerprint.key if verdict.fingerprint is not None else name
                judgement.settle(name, _made_up(stage, key), {})
            stages[name] = Made(
                items=items,
                given=frozenset(part.item for part in input_parts(stage, self.pipeline.stages) if part.stage),
                outs=known.outs if known is not None else (),
                metrics=known.metrics if known is not None else {},
            )
        assert verdict is not None and order[-1] == wanted
        known = verdict.result if verdict.state in (State.FRESH, State.RESTORABLE) else None
        return KnownAt(
            key=verdict.fingerprint.key if verdict.fingerprint is not None else "",
            result=known,
            broken=verdict.broken,
            order=order,
            stages=stages,
        )

    def environment(self, stage: Stage) -> tuple[str | None, Reason | None]:
        text, reason = super().environment(stage)
        if reason is None or stage.environment is None:
            return text, reason
        from pipesmith.environments.definition import definition_digest

        environment = self.pipeline.environments[stage.environment]
        return f"{_MADE_UP}:{definition_digest(environment, self.tree.read)}", reason

    def dataset(self, name: str) -> Digest | None:
        pinned = super().dataset(name)
        return pinned or _digest("dataset", self.pipeline.datasets[name].definition)

    def within(self, digest: Digest, inner: str, path: str) -> Digest | None:
        return super().within(digest, inner, path) or _digest("within", digest.text, inner)


def _all_at_hand(_outs: Sequence[LockedOut]) -> bool:
    """Numbers are known, whatever has become of the files."""
    return True


def _made_up(stage: Stage, key: str) -> tuple[LockedOut, ...]:
    return tuple(
        LockedOut(name=out.name, path=out.path, digest=_digest("output", key, out.name), cache=out.cache)
        for out in stage.outputs.values()
    )


def _digest(*words: str) -> Digest:
    return Digest(_MADE_UP, blake2b("\0".join(words).encode(), digest_size=16).hexdigest(), 0)
