"""What is recorded of a run. It is the message of the run's snapshot commit. Format: docs/formats/run-record.md."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pipesmith.errors import UserError

__all__ = ["RECORD_VERSION", "RunRecord", "StageRecord", "message_of", "record_of"]

RECORD_VERSION = 1
_MARK = "pipesmith-run: "


@dataclass(slots=True, kw_only=True)
class StageRecord:
    """One stage of a run. start, end: seconds since the epoch. inputs, outputs: path to digest text."""

    name: str
    status: str
    why: list[dict[str, Any]] = field(default_factory=list)
    fingerprint: str | None = None
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    exit_code: int | None = None
    signal: int | None = None
    error: str | None = None
    start: float = 0.0
    end: float = 0.0
    peak_bytes: int = 0
    cpu_s: float = 0.0
    gpus: list[str] = field(default_factory=list)
    compute: str = "local"
    environment: str | None = None
    log: str | None = None
    attempts: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class RunRecord:
    """One run. status: running, succeeded, failed, cancelled. left_out: path to reason, of what the snapshot has not."""

    id: str
    time: float
    status: str = "running"
    end: float | None = None
    user: str = ""
    host: str = ""
    pid: int = 0
    command: list[str] = field(default_factory=list)
    pipesmith: str = ""
    pipeline: str = ""
    workspace: str = "."
    experiment: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    message: str | None = None
    commit: str | None = None
    branch: str | None = None
    remote: str | None = None
    dirty: bool = False
    snapshot: str | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    stages: list[StageRecord] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {"version": RECORD_VERSION, **asdict(self)}

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> RunRecord:
        """Raises UserError for a record of a later version, TypeError or KeyError for what is none."""
        version = body["version"]
        if version > RECORD_VERSION:
            raise UserError(
                f"a run record of version {version}, this pipesmith reads version {RECORD_VERSION}", "update pipesmith"
            )
        known = {each.name for each in fields(RunRecord)}
        values = {name: value for name, value in body.items() if name in known}
        values["stages"] = [StageRecord(**stage) for stage in body["stages"]]
        return RunRecord(**values)

    def stage(self, name: str) -> StageRecord | None:
        return next((stage for stage in self.stages if stage.name == name), None)


def message_of(record: RunRecord) -> str:
    """Return the commit message: a line and a table for people, then the record as JSON."""
    moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(record.time))
    lines = [f"run {record.id}: {record.status}", "", f"{record.pipeline} by {record.user} on {record.host}, {moment}"]
    if record.message:
        lines += ["", record.message]
    if record.stages:
        lines.append("")
        width = max(len(stage.name) for stage in record.stages)
        lines += [f"{stage.name:{width}}  {stage.status:9}  {stage.end - stage.start:.1f} s" for stage in record.stages]
    body = json.dumps(record.as_json(), sort_keys=True, default=str)
    lines += ["", f"{_MARK}{body}"]
    return "\n".join(lines) + "\n"


def record_of(message: str) -> RunRecord | None:
    """Return the record in a commit message, None where there is none. Raises UserError for one of a later version."""
    at = message.rfind(f"\n{_MARK}")
    if at < 0:
        return None
    try:
        return RunRecord.from_json(json.loads(message[at + len(_MARK) + 1 :].split("\n", 1)[0]))
    except (ValueError, TypeError, KeyError):
        return None
