"""The numbers of the lockfile here, at revisions, or of runs, side by side."""

from __future__ import annotations

import argparse

from pipesmith.cli.output import Output

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("revs", metavar="REV", nargs="*", help="revisions or runs; default: the work tree's lockfile")


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.workspace import Workspace

    found = Workspace.open(".").metrics(arguments.revs)
    if out.json_mode:
        out.json({"metrics": found})
        return 0
    keys = sorted({(stage, key) for at in found.values() for stage, numbers in at.items() for key in numbers})
    rows = []
    for stage, key in keys:
        cells = [found[rev].get(stage, {}).get(key) for rev in found]
        rows.append((stage, key, *("-" if cell is None else f"{cell:g}" for cell in cells)))
    if rows:
        out.table(rows, ("stage", "metric", *found))
    else:
        out.line("no metrics")
    return 0
