"""What calls return: the same objects that `--json` prints, typed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipesmith.errors import Finding, PipeError
from pipesmith.lockfile.model import LockedOut
from pipesmith.records import field, record
from pipesmith.verdict.reasons import Reason

__all__ = ["BuildResult", "StageResult", "StageState", "StatusResult", "error_json", "output_json"]


def error_json(error: PipeError) -> dict[str, Any]:
    """Return an error as `--json` prints it."""
    return {"kind": error.kind, "messages": [finding.as_json() for finding in error.findings()]}


def output_json(out: LockedOut) -> dict[str, Any]:
    """Return an output as `--json` prints it."""
    return {"name": out.name, "path": out.path, "hash": out.digest.text, "size": out.digest.size}


@record
class StageResult:
    """How a stage of a build ended. seconds: wall time. error, help: of a failed one."""

    name: str
    status: str
    why: tuple[Reason, ...] = ()
    fingerprint: str | None = None
    seconds: float = 0.0
    outputs: tuple[LockedOut, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error: str | None = None
    help: str | None = None
    exit_code: int | None = None
    tail: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "name": self.name,
            "status": self.status,
            "why": [reason.as_json() for reason in self.why],
            "fingerprint": self.fingerprint,
            "seconds": round(self.seconds, 3),
            "outputs": [output_json(out) for out in self.outputs],
            "metrics": dict(self.metrics),
            "notes": list(self.notes),
        }
        if self.error is not None:
            document |= {"error": self.error, "help": self.help, "exit_code": self.exit_code, "tail": list(self.tail)}
        return document


@record
class BuildResult:
    """What a build did. run: its id, None when nothing was to do. status: succeeded, failed, cancelled, up-to-date, or
    planned for a dry run. stages: in the order they ended. revision: the commit that was built in a place of its own.
    not_locked: the stages that are built now, and that the lockfile at that commit does not have so."""

    run: str | None
    status: str
    stages: tuple[StageResult, ...] = ()
    seconds: float = 0.0
    revision: str | None = None
    not_locked: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        return {"failed": 1, "cancelled": 130}.get(self.status, 0)

    def __getitem__(self, name: str) -> StageResult:
        """Return the result of a stage by its name. Raises KeyError."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)

    def as_json(self) -> dict[str, Any]:
        return {"run": self.run, "status": self.status, "stages": [stage.as_json() for stage in self.stages]}


@record
class StageState:
    """What a stage is before a build. broken: expectations that its locked metrics do not meet. problems: why it can't
    run at all."""

    name: str
    state: str
    why: tuple[Reason, ...] = ()
    fingerprint: str | None = None
    outputs: tuple[LockedOut, ...] = ()
    notes: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    problems: tuple[Finding, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "state": self.state,
            "why": [reason.as_json() for reason in self.why],
            "fingerprint": self.fingerprint,
            "outputs": [output_json(out) for out in self.outputs],
            "notes": list(self.notes),
            "broken": list(self.broken),
            "problems": [finding.as_json() for finding in self.problems],
        }


@record
class StatusResult:
    """revision: the commit id that was judged, None for the work tree. Of a commit of a range also short (its id as git
    shortens it), subject, and error: why it can't be judged, None where it can."""

    stages: tuple[StageState, ...]
    revision: str | None = None
    short: str = ""
    subject: str = ""
    error: PipeError | None = None

    @property
    def fresh(self) -> bool:
        """Whether `--check` passes: every stage is fresh, no expectation is broken, and nothing kept it from being
        judged."""
        return self.error is None and all(stage.state == "fresh" and not stage.broken for stage in self.stages)

    def as_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {"revision": self.revision, "stages": [stage.as_json() for stage in self.stages]}
        return document if self.error is None else document | {"error": error_json(self.error)}
