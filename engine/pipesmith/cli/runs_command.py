"""Recorded runs, newest first."""

from __future__ import annotations

import argparse
import time
from typing import Any

from pipesmith.cli.output import Output, seconds_text
from pipesmith.errors import UserError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-n", type=int, default=20, metavar="N", help="at most so many; default 20")
    add("--stage", metavar="STAGE", help="that looked at this stage")
    add("--failed", action="store_true", help="that failed")
    add("--experiment", metavar="NAME")
    add("--tag", metavar="K[=V]")
    add("--branch", metavar="BRANCH")
    add("--since", metavar="DATE", help="YYYY-MM-DD, or a time ago such as 7d")
    add("--until", metavar="DATE")


def _moment(text: str | None) -> float | None:
    if text is None:
        return None
    from datetime import datetime

    from pipesmith.pipeline.units import parse_duration_s

    try:
        return time.time() - parse_duration_s(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise UserError(f"`{text}` is not a date", "write `2026-01-31` or `7d`") from None


def _counted(record: Any) -> str:
    """Return how the stages ended that were not fresh: `2 ran, 1 failed`."""
    found = [stage.status for stage in record.stages]
    order = ("ran", "restored", "failed", "cancelled", "skipped")
    return ", ".join(f"{found.count(status)} {status}" for status in order if status in found)


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.workspace import Workspace

    if arguments.n < 1:
        raise UserError("`-n` needs a number of at least 1", "write `-n 20`")
    workspace = Workspace.open_history(".")
    runs = workspace.runs(
        arguments.n,
        stage=arguments.stage,
        failed=arguments.failed,
        experiment=arguments.experiment,
        tag=arguments.tag,
        branch=arguments.branch,
        since=_moment(arguments.since),
        until=_moment(arguments.until),
    )
    for text in workspace.run_store.notices:
        out.warn(text)
    if out.json_mode:
        out.json({"runs": [record.as_json() for record in runs]})
        return 0
    rows = []
    experiments = any(record.experiment for record in runs)
    for record in runs:
        took = seconds_text(record.end - record.time) if record.end else ""
        moment = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.time))
        rows.append(
            (
                record.id,
                moment,
                record.status,
                _counted(record),
                took,
                (record.commit or "")[:8],
                record.branch or "",
                *([record.experiment or ""] if experiments else []),
                record.message or "",
            )
        )
    if rows:
        extra = ["experiment"] if experiments else []
        out.table(rows, ("run", "time", "status", "stages", "took", "commit", "branch", *extra, "message"))
    else:
        out.line("no runs")
    return 0
