"""Say of each stage whether it is fresh, restorable, stale or pending, and why."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from pipesmith.cli.output import Output, reason_text

__all__ = ["add_arguments", "run", "show_states"]

_COLORS = {"fresh": "green", "restorable": "cyan", "stale": "yellow", "pending": "yellow"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("stages", nargs="*", metavar="STAGE", help="stages or output paths; default: all")
    add("--rev", metavar="REV", help="judge a commit, or each of A..B, from git's objects and the lockfile there alone")
    add("--check", action="store_true", help="exit 1 unless every stage is fresh")
    add("--allow-missing", action="store_true", help="a locked output that no stale stage needs may be absent")


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.workspace import Workspace

    workspace = Workspace.open(".")
    if arguments.rev is not None and ".." in arguments.rev:
        return _range(arguments, out, workspace)
    result = workspace.status(arguments.stages, rev=arguments.rev, allow_missing=arguments.allow_missing)
    if out.json_mode:
        out.json(result.as_json())
    else:
        _show(result, out)
    if result.fresh and not out.said_more:
        workspace.leave_witness(arguments.args, "".join(out.printed))
    return 1 if arguments.check and not result.fresh else 0


def _range(arguments: argparse.Namespace, out: Output, workspace: Any) -> int:
    from pipesmith.workspace.ranges import status_of_range

    results = status_of_range(workspace, arguments.stages, arguments.rev)
    if out.json_mode:
        out.json({"commits": [result.as_json() for result in results]})
    else:
        for result in results:
            out.line(out.style(f"commit {result.revision}", "bold"))
            _show(result, out)
        if not results:
            out.line("no commits")
    return 1 if arguments.check and not all(result.fresh for result in results) else 0


def _show(result: Any, out: Output) -> None:
    show_states(result.stages, out)
    if not result.stages:
        out.line("no stages")


def show_states(stages: Sequence[Any], out: Output) -> None:
    """Print a line for each stage, and what is behind its state."""
    width = max((len(stage.name) for stage in stages), default=0)
    for stage in stages:
        notes = f"  ({', '.join(stage.notes)})" if stage.notes else ""
        out.line(f"{out.style(f'{stage.state:10}', _COLORS[stage.state])} {stage.name:{width}}{notes}".rstrip())
        for reason in stage.why:
            out.line(f"             {reason_text(reason)}")
        for finding in stage.problems:
            for text in finding.render().splitlines():
                out.line(f"             {text}")
        for text in stage.broken:
            out.line(f"             {text}")
