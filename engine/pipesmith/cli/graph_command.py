"""The stage graph, coloured by state where the format can."""

from __future__ import annotations

import argparse

from pipesmith.cli.output import Output

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", default="text", metavar="FORMAT", help="text, mermaid, dot, json or svg")


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.workspace import Workspace
    from pipesmith.workspace.drawing import FORMATS, draw

    format = "json" if out.json_mode and arguments.format in FORMATS else arguments.format

    print(draw(Workspace.open("."), format), end="")
    return 0
