"""Two lockfiles into one, stage by stage: what disagrees is dropped, and so stale; pins that disagree are ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from pipesmith.lockfile.model import Lockfile
from pipesmith.lockfile.reader import parse

__all__ = ["Merged", "merge", "resolve_markers"]

_SIDES = re.compile(
    r"^<{7}(?: [^\n]*)?\n(?P<ours>.*?)"
    r"(?:^\|{7}(?: [^\n]*)?\n(?P<base>.*?))?"
    r"^={7}\n(?P<theirs>.*?)"
    r"^>{7}(?: [^\n]*)?(?:\n|\Z)",
    re.MULTILINE | re.DOTALL,
)
_Entry = TypeVar("_Entry")


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """dropped: stages that both sides changed, each in its own way.

    pins: `environment.NAME` or `dataset.NAME` where the sides disagree, and ours was taken.
    """

    lockfile: Lockfile
    dropped: tuple[str, ...] = ()
    pins: tuple[str, ...] = ()


def merge(ours: Lockfile, theirs: Lockfile, base: Lockfile | None = None) -> Merged:
    """Return what both sides say together.

    base: what both came from. What one side alone changed (or took out) is that side's; without a base, what one side
    alone has is taken.
    """
    old = base or Lockfile()
    stages, dropped = _three(ours.stages, theirs.stages, old.stages)
    environments, wild = _three(ours.environments, theirs.environments, old.environments)
    datasets, lost = _three(ours.datasets, theirs.datasets, old.datasets)
    environments |= {name: ours.environments[name] for name in wild if name in ours.environments}
    datasets |= {name: ours.datasets[name] for name in lost if name in ours.datasets}
    pins = [*(f"dataset.{name}" for name in lost), *(f"environment.{name}" for name in wild)]
    lockfile = Lockfile(stages=stages, environments=environments, datasets=datasets)
    return Merged(lockfile=lockfile, dropped=tuple(dropped), pins=tuple(pins))


def _three(
    ours: Mapping[str, _Entry], theirs: Mapping[str, _Entry], base: Mapping[str, _Entry]
) -> tuple[dict[str, _Entry], list[str]]:
    """Return what can be told, and the names where the sides disagree."""
    agreed: dict[str, _Entry] = {}
    apart = []
    for name in sorted(ours.keys() | theirs.keys()):
        mine, other, old = ours.get(name), theirs.get(name), base.get(name)
        if mine == other or other == old:
            chosen = mine
        elif mine == old:
            chosen = other
        else:
            apart.append(name)
            continue
        if chosen is not None:
            agreed[name] = chosen
    return agreed, apart


def resolve_markers(text: str, *, file: str = "pipe.lock") -> Merged:
    """Return the lockfile of a text with git's conflict markers, in any of git's styles.

    Raises UserError where a side is no lockfile.
    """
    ours, theirs = (parse(_side(text, side), file=file) for side in ("ours", "theirs"))
    whole = all(match["base"] is not None for match in _SIDES.finditer(text))
    return merge(ours, theirs, parse(_side(text, "base"), file=file) if whole else None)


def _side(text: str, side: str) -> str:
    return _SIDES.sub(lambda match: match[side] or "", text)
