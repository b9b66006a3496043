"""A shell in a stage's sandbox, with its environment: what the stage would see; of a stage that runs in a container, in
one. Nothing that it makes is kept, but in the stage's `keep` folder."""

from __future__ import annotations

import argparse

from pipesmith.cli.output import Output

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stage", metavar="STAGE")
    parser.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="run this instead of a shell")


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.workspace import Workspace
    from pipesmith.workspace.shell import shell

    command = [word for index, word in enumerate(arguments.command) if index or word != "--"]
    return shell(Workspace.open("."), arguments.stage, command, out.note)
