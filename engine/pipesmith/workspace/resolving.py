"""`lock resolve`: both sides of a conflicted lockfile, merged stage by stage."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from pipesmith.lockfile import io
from pipesmith.lockfile.model import Lockfile
from pipesmith.lockfile.reader import has_markers, parse

if TYPE_CHECKING:
    from pipesmith.workspace.workspace import Workspace

__all__ = ["resolve_lock"]

_BLOCK = re.compile(
    r"^<{7}[^\n]*\n(?P<ours>.*?)(?:^\|{7}[^\n]*\n.*?)?^={7}\n(?P<theirs>.*?)^>{7}[^\n]*\n?", re.MULTILINE | re.DOTALL
)


def resolve_lock(workspace: Workspace) -> list[str]:
    """Mend the lockfile and return the stages that were dropped. Pins that disagree: ours. Raises UserError where a side can't be read."""
    text = workspace.session().lock_text or ""
    if not has_markers(text):
        return []
    ours = parse(_BLOCK.sub(lambda match: match["ours"], text))
    theirs = parse(_BLOCK.sub(lambda match: match["theirs"], text))
    stages = {}
    dropped = []
    for name in sorted(ours.stages.keys() | theirs.stages.keys()):
        mine, other = ours.stages.get(name), theirs.stages.get(name)
        if mine is not None and other is not None and mine != other:
            dropped.append(name)
        else:
            entry = mine or other
            assert entry is not None
            stages[name] = entry
    merged = Lockfile(
        stages=stages,
        environments={**theirs.environments, **ours.environments},
        datasets={**theirs.datasets, **ours.datasets},
    )
    with workspace.guard():
        io.write(workspace.lock_path, replace(merged))
    return dropped
