"""One run: what was built, from which code, and how each stage ended."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from pipesmith.cli.output import Output, reason_text, seconds_text
from pipesmith.pipeline.units import size_text

if TYPE_CHECKING:
    from pipesmith.history.record import StageRecord

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", metavar="RUN", nargs="?", default="latest", help="an id or the beginning of one; default: the last run"
    )


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.workspace import Workspace
    from pipesmith.workspace.detached import recorded

    record = recorded(Workspace.open_history("."), arguments.run)
    if out.json_mode:
        out.json(record.as_json())
        return 0
    out.line(f"run {record.id}: {record.status}")
    out.line(f"  {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(record.time))} by {record.user} on {record.host}")
    if record.command:
        out.line(f"  {' '.join(record.command)}")
    dirty = " with uncommitted changes" if record.dirty else ""
    out.line(f"  commit {record.commit or 'none'}{f' on {record.branch}' if record.branch else ''}{dirty}")
    if record.snapshot:
        out.line(f"  source: git show refs/pipe/runs/{record.id}")
    for path, why in record.left_out.items():
        out.line(f"  not in the snapshot: {path} ({why})")
    if record.experiment:
        out.line(f"  experiment {record.experiment}")
    if record.tags:
        out.line(f"  {', '.join(f'{key}={value}' for key, value in sorted(record.tags.items()))}")
    if record.message:
        for line in record.message.splitlines():
            out.line(f"  {line}")
    for cold in record.environments:
        where = f", {cold.where}" if cold.where else ""
        out.line(f"{cold.how:9} environment {cold.name}{where}  {seconds_text(cold.end - cold.start)}")
    for stage in record.stages:
        took = f"  {seconds_text(stage.end - stage.start)}" if stage.start else ""
        peak = f", {size_text(stage.peak_bytes)} at most" if stage.peak_bytes else ""
        out.line(f"{stage.status:9} {stage.name}{took}{peak}")
        if stage.gpus:
            out.line(f"            {_gpus_text(stage)}")
        for reason in stage.why:
            out.line(f"            {reason_text(reason)}")
        if stage.error:
            out.line(f"            {stage.error}")
        for note in stage.notes:
            out.line(f"            {note}")
        for name, number in sorted(stage.metrics.items()):
            out.line(f"            {name} = {number:g}")
    return 0


def _gpus_text(stage: StageRecord) -> str:
    """Return what a stage had of GPUs: `2 GPUs for 3.0 min in all, 31.2 GB of their memory at most, 87 % busy`."""
    parts = [f"{len(stage.gpus)} GPU{'s' if len(stage.gpus) > 1 else ''}"]
    if stage.gpu_s:
        parts[0] += f" for {seconds_text(stage.gpu_s)}{' in all' if len(stage.gpus) > 1 else ''}"
    if stage.gpu_peak_bytes is not None:
        parts.append(f"{size_text(stage.gpu_peak_bytes)} of GPU memory at most")
    if stage.gpu_percent is not None:
        parts.append(f"{stage.gpu_percent:.0f} % busy")
    return ", ".join(parts)
