"""A verdict as calls return it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pipesmith.errors import Finding
from pipesmith.workspace.results import StageState

if TYPE_CHECKING:
    from pipesmith.verdict.verdict import Verdict

__all__ = ["state_of"]


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
