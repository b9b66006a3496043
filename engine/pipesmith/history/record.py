"""What is recorded of a run. It is the message of the run's snapshot commit. Format: docs/formats/run-record.md."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from typing import Any

from pipesmith.errors import UserError
from pipesmith.records import field, names_of, record

__all__ = ["RECORD_VERSION", "EnvironmentRecord", "RunRecord", "StageRecord", "message_of", "plain", "record_of"]

RECORD_VERSION = 1
_MARK = "pipesmith-run: "
_LISTS = ("environments", "stages")
_OF_GPUS = ("gpu_s", "gpu_peak_bytes", "gpu_percent")  # not written of a stage that had none


@record(frozen=False)
class StageRecord:
    """One stage of a run. start, end: seconds since the epoch. source: path to git id.
    inputs, outputs: path to digest text."""

    name: str
    status: str
    why: list[dict[str, Any]] = field(default_factory=list)
    fingerprint: str | None = None
    source: dict[str, str] = field(default_factory=dict)
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
    gpu_s: float = 0.0
    gpu_peak_bytes: int | None = None
    gpu_percent: float | None = None
    compute: str = "local"
    environment: str | None = None
    log: str | None = None
    attempts: int = 0
    notes: list[str] = field(default_factory=list)

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> StageRecord:
        """Passes over keys that it does not know. Raises TypeError, KeyError or ValueError for what is none."""
        stage = StageRecord(**_known(StageRecord, body))
        stage.metrics = {name: float(number) for name, number in stage.metrics.items()}
        return stage


@record(frozen=False)
class EnvironmentRecord:
    """One environment that was cold: made in this run. where: a compute, empty for this machine. how: built, pulled,
    sent or failed. start, end: seconds since the epoch."""

    name: str
    where: str
    how: str
    start: float = 0.0
    end: float = 0.0


@record(frozen=False)
class RunRecord:
    """One run. time, end: seconds since the epoch. status: running, succeeded, failed, cancelled. pid, process: of the
    `pipe` that wrote it. snapshot: id of the tree. left_out: path to reason, of what the snapshot has not."""

    id: str
    time: float
    status: str = "running"
    end: float | None = None
    user: str = ""
    host: str = ""
    pid: int = 0
    process: str = ""
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
    environments: list[EnvironmentRecord] = field(default_factory=list)
    stages: list[StageRecord] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the record as `--json` prints it and the commit holds it: nothing but what JSON has."""
        body = {name: plain(getattr(self, name)) for name in names_of(RunRecord) if name not in _LISTS}
        if self.environments:
            names = names_of(EnvironmentRecord)
            body["environments"] = [{name: getattr(each, name) for name in names} for each in self.environments]
        names = names_of(StageRecord)
        stages = []
        for stage in self.stages:
            row = {}
            for name in names:
                if not stage.gpu_s and name in _OF_GPUS:
                    continue
                value = getattr(stage, name)
                kind = value.__class__
                if kind is str or kind is int or value is None:
                    row[name] = value
                elif (kind is dict or kind is list) and not value:
                    row[name] = kind()
                else:
                    row[name] = plain(value)
            stages.append(row)
        return {"version": RECORD_VERSION, **body, "stages": stages}

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> RunRecord:
        """Raises UserError for a record of a later version; TypeError, KeyError or ValueError for what is none."""
        version = body["version"]
        if not isinstance(version, int) or isinstance(version, bool):
            raise ValueError("a run record's version is a number")
        if version > RECORD_VERSION:
            raise UserError(
                f"a run record of version {version}, this pipesmith reads version {RECORD_VERSION}", "update pipesmith"
            )
        values = _known(RunRecord, body)
        cold = body.get("environments", ())
        values["environments"] = [EnvironmentRecord(**_known(EnvironmentRecord, each)) for each in cold]
        values["stages"] = [StageRecord.from_json(stage) for stage in body["stages"]]
        return RunRecord(**values)

    def stage(self, name: str) -> StageRecord | None:
        return next((stage for stage in self.stages if stage.name == name), None)


def _known(kind: type, body: Mapping[str, Any]) -> dict[str, Any]:
    names = names_of(kind)
    return {name: value for name, value in body.items() if name in names}


def plain(value: Any) -> Any:
    """Return a value with what JSON lacks as text: dates, and numbers that are none (`nan`, `inf`, `-inf`)."""
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()} if value else {}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value] if value else []
    return str(value)


def message_of(record: RunRecord, body: Mapping[str, Any] | None = None) -> str:
    """Return the commit message: a line and a table for people, then the record as JSON on the last line, in ASCII.

    body: the record as JSON, where it was made already."""
    moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(record.time))
    lines = [f"run {record.id}: {record.status}", "", f"{record.pipeline} by {record.user} on {record.host}, {moment}"]
    if record.message:
        lines += ["", record.message]
    if record.stages:
        lines += ["", *(_cold_line(each) for each in record.environments)]
        width = max(len(stage.name) for stage in record.stages)
        lines += [_line(stage, width) for stage in record.stages]
    text = json.dumps(record.as_json() if body is None else body, sort_keys=True, allow_nan=False)
    lines += ["", f"{_MARK}{text}"]
    return "\n".join(lines) + "\n"


def _cold_line(cold: EnvironmentRecord) -> str:
    where = f", {cold.where}" if cold.where else ""
    return f"environment {cold.name}{where}  {cold.how}  {cold.end - cold.start:.1f} s"


def _line(stage: StageRecord, width: int) -> str:
    seconds = f"  {stage.end - stage.start:.1f} s" if stage.end > stage.start > 0 else ""
    return f"{stage.name:{width}}  {stage.status:9}{seconds}".rstrip()


def record_of(message: str) -> RunRecord | None:
    """Return the record in a commit message, None where there is none. Raises UserError for one of a later version."""
    at = message.rfind(f"\n{_MARK}")
    if at < 0:
        return None
    try:
        return RunRecord.from_json(json.loads(message[at + len(_MARK) + 1 :].split("\n", 1)[0]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
