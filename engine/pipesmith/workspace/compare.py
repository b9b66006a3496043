"""`diff`: what differs between two runs, revisions, or the work tree's lockfile."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipesmith.errors import UserError
from pipesmith.history.record import RunRecord
from pipesmith.lockfile.model import Lockfile
from pipesmith.records import as_dict, record
from pipesmith.workspace.revisions import lockfile_at, run_named

if TYPE_CHECKING:
    from pipesmith.workspace.workspace import Workspace

__all__ = ["Change", "compare"]

_Facts = dict[str, dict[tuple[str, str], str]]
_KINDS = ("stage", "run", "source", "input", "param", "environment", "metric", "output")


@record(kw_only=False)
class Change:
    """kind: stage, run, source, input, param, environment, metric or output. old, new: None where it is not there."""

    stage: str
    kind: str
    item: str
    old: str | None
    new: str | None

    def as_json(self) -> dict[str, Any]:
        return as_dict(self)


def compare(workspace: Workspace, a: str, b: str | None = None) -> list[Change]:
    """Return what differs from `a` to `b`, each a run or a revision; without `b`, to the work tree's lockfile.

    Raises UserError for what is neither."""
    old = _facts(workspace, a)
    new = _facts(workspace, b) if b is not None else _of_lockfile(workspace.session().lockfile)
    changes = []
    for stage in sorted(old.keys() | new.keys()):
        before, after = old.get(stage), new.get(stage)
        if before is None or after is None:
            changes.append(
                Change(stage, "stage", "", None if before is None else "there", None if after is None else "there")
            )
            continue
        for kind, item in sorted(before.keys() | after.keys(), key=lambda key: (_KINDS.index(key[0]), key[1])):
            one, other = before.get((kind, item)), after.get((kind, item))
            if kind == "run" and (one is None or other is None):
                continue  # run records do not hold the command
            if one != other:
                changes.append(Change(stage, kind, item, one, other))
    return changes


def _facts(workspace: Workspace, name: str) -> _Facts:
    lockfile = lockfile_at(workspace, name)
    if lockfile is not None:
        return _of_lockfile(lockfile)
    run = run_named(workspace, name)
    if run is None:
        raise UserError(f"there is no pipe.lock at `{name}`", "commit it after a build")
    return _of_run(run)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def _flat(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = _text(value)
    return found


def _of_lockfile(lockfile: Lockfile) -> _Facts:
    facts: _Facts = {}
    for name, entry in lockfile.stages.items():
        found = {("run", ""): _text(list(entry.run) if isinstance(entry.run, tuple) else entry.run)}
        found |= {("source", path): identity for path, identity in entry.source.items()}
        found |= {("input", dep.path): dep.digest.text for dep in entry.deps}
        found |= {("output", out.path): out.digest.text for out in entry.outs}
        found |= {("param", key): value for key, value in _flat(entry.params).items()}
        found |= {("metric", key): repr(float(number)) for key, number in entry.metrics.items()}
        if entry.environment:
            found[("environment", "")] = entry.environment
        facts[name] = found
    return facts


def _of_run(record: RunRecord) -> _Facts:
    facts: _Facts = {}
    for stage in record.stages:
        found = {("source", path): identity for path, identity in stage.source.items()}
        found |= {("input", path): text for path, text in stage.inputs.items()}
        found |= {("output", path): text for path, text in stage.outputs.items()}
        found |= {("param", key): value for key, value in _flat(stage.params).items()}
        found |= {("metric", key): repr(float(number)) for key, number in stage.metrics.items()}
        if stage.environment:
            found[("environment", "")] = stage.environment
        facts[stage.name] = found
    return facts
