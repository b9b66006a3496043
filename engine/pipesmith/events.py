"""The typed events of a build: the one stream that console, `--json`, logs, history and pages listen to.

Events are plain values; `time` is seconds since the epoch. A listener is a callable taking one event; it must not
raise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipesmith.records import field, record

__all__ = [
    "BuildFinished",
    "BuildStarted",
    "EnvironmentFinished",
    "EnvironmentStarted",
    "Event",
    "Listener",
    "Notice",
    "StageFinished",
    "StageOutput",
    "StageStarted",
    "StageWaiting",
]

EVENTS_VERSION = 1


@record
class BuildStarted:
    """total: stages looked at. to_run: those expected to run, with the seconds the last run of each took (None: never
    ran)."""

    time: float
    run: str
    total: int
    to_run: dict[str, float | None] = field(default_factory=dict)


@record
class StageWaiting:
    """for_: text such as `mutex db` or `pid 123 on host (pipe build)`."""

    time: float
    stage: str
    for_: str


@record
class StageStarted:
    time: float
    stage: str
    why: tuple[Any, ...] = ()  # Reason values
    last_seconds: float | None = None


@record
class StageOutput:
    """stream: `stdout` or `stderr`. text: one line without its newline, secrets masked."""

    time: float
    stage: str
    stream: str
    text: str


@record
class StageFinished:
    """result: a StageResult (pipesmith.workspace), as `--json` prints it."""

    time: float
    stage: str
    result: Any


@record
class EnvironmentStarted:
    """A cold environment: it is not where a stage needs it, and is made there. where: a compute, empty for this
    machine. text: what is done, such as `building an image of 3 packages on `python:3.11-slim``."""

    time: float
    environment: str
    where: str
    text: str


@record
class EnvironmentFinished:
    """how: `built`, `pulled`, `sent` (by another daemon that had it) or `failed`."""

    time: float
    environment: str
    where: str
    how: str
    seconds: float


@record
class Notice:
    """level: `info` or `warning`. text: one line. help: one line or None."""

    time: float
    level: str
    text: str
    help: str | None = None
    stage: str | None = None


@record
class BuildFinished:
    time: float
    run: str
    status: str


Event = (
    BuildStarted
    | StageWaiting
    | StageStarted
    | StageOutput
    | StageFinished
    | EnvironmentStarted
    | EnvironmentFinished
    | Notice
    | BuildFinished
)
Listener = Callable[[Event], None]
