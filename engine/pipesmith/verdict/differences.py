"""From what was locked and what is now to the reasons between them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pipesmith.fingerprint.fingerprint import Item
from pipesmith.fingerprint.items import ABSENT, stage_text
from pipesmith.lockfile.model import StageLock
from pipesmith.verdict.reasons import Reason

__all__ = ["differences", "locked_items"]

_NOTHING = object()  # in the place of a value that is not there
_ORDER = ("run", "source", "input", "param", "env", "environment", "hash-path")


def locked_items(entry: StageLock) -> dict[tuple[str, str], str]:
    """Return the items of a locked fingerprint, as far as the lockfile holds them."""
    run = entry.run
    items = {
        ("run", ""): run if isinstance(run, str) else stage_text(list(run or ())),
        ("run", "cwd"): entry.cwd,
    }
    items |= {("run", f"outs.{out.name}"): out.path for out in entry.outs}
    items |= {("source", path): identity for path, identity in entry.source.items()}
    items |= {("input", dep.name): f"{dep.at or dep.path} {dep.digest.text}" for dep in entry.deps}
    items |= {("param", key): stage_text(value) for key, value in entry.params.items()}
    items |= {("env", name): value for name, value in entry.env.items()}
    items |= {("hash-path", path): identity for path, identity in entry.hash_paths.items()}
    if entry.environment is not None:
        items[("environment", "")] = entry.environment
    return items


def differences(old: dict[tuple[str, str], str], new: tuple[Item, ...]) -> tuple[Reason, ...]:
    """Return one reason an item that differs, in the order of the contract's kinds, then by item."""
    now = {(item.kind, item.item): item.value for item in new}
    found: list[Reason] = []
    for kind, item in sorted(old.keys() | now.keys()):
        before, after = old.get((kind, item)), now.get((kind, item))
        if before == after:
            continue
        if kind == "param" and before is not None and after is not None:
            found += _param(item, json.loads(before), json.loads(after))
        else:
            shown = (_shown(kind, before), _shown(kind, after))
            found.append(Reason(kind, item, *(shown if shown[0] != shown[1] else (before, after))))
    return tuple(sorted(found, key=lambda reason: (_ORDER.index(reason.kind), reason.item)))


def _param(name: str, before: Any, after: Any) -> Iterator[Reason]:
    """Yield a reason for each value that differs: of a table, for those in it."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from _param(f"{name}.{key}", before.get(key, _NOTHING), after.get(key, _NOTHING))
        return
    old, new = (None if value is _NOTHING else stage_text(value) for value in (before, after))
    if old != new:
        yield Reason("param", name, old, new)


def _shown(kind: str, value: str | None) -> str | None:
    """Return a value for people and programs: an input by its digest alone, what is not there as None."""
    if value is None or value == ABSENT or value.endswith(f" {ABSENT}"):
        return None
    return value.rsplit(" ", 1)[-1] if kind == "input" else value
