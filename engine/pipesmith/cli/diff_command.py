"""What differs between two runs or revisions: stages, params, metrics old -> new, inputs, outputs."""

from __future__ import annotations

import argparse

from pipesmith.cli.output import Output, short

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help="a run or a revision")
    parser.add_argument("b", metavar="B", nargs="?", help="another; default: the work tree's lockfile")


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.workspace import Workspace
    from pipesmith.workspace.compare import compare

    changes = compare(Workspace.open("."), arguments.a, arguments.b)
    if out.json_mode:
        out.json({"changes": [change.as_json() for change in changes]})
        return 0
    stage = None
    for change in changes:
        if change.stage != stage:
            stage = change.stage
            out.line(out.style(stage, "bold"))
        if change.kind == "stage":
            side = arguments.a if change.new is None else arguments.b
            out.line(f"  only in {f'`{side}`' if side else 'the workspace'}")
            continue
        out.line(f"  {change.kind} {change.item}: {short(change.old)} -> {short(change.new)}".replace(" :", ":"))
    if not changes:
        out.line("no difference")
    return 0
