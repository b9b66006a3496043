"""End a run that goes on elsewhere, as Ctrl-C would."""

from __future__ import annotations

import argparse

from pipesmith.cli.output import Output
from pipesmith.cli.wait_command import show_end

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="its id, the beginning of one, or `latest`")


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.workspace import Workspace
    from pipesmith.workspace.detached import cancel

    ended = cancel(Workspace.open_history("."), arguments.run)
    show_end(ended, out)
    return 1 if ended.status == "running" else 0
