"""Wait for a run that goes on elsewhere, and exit as its build did."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pipesmith.cli.output import Output
from pipesmith.errors import UserError

if TYPE_CHECKING:
    from pipesmith.workspace.detached import Ended

__all__ = ["add_arguments", "run", "seconds_of", "show_end"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="its id, as `pipe build --detach` gave it")
    parser.add_argument("--timeout", metavar="T", help="give up after so long, such as 30s or 2h, and exit with 1")


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.workspace import Workspace
    from pipesmith.workspace.detached import wait

    timeout_s = seconds_of(arguments.timeout, "--timeout") if arguments.timeout is not None else None
    ended = wait(Workspace.open_history("."), arguments.run, timeout_s)
    show_end(ended, out)
    if ended.said and ended.exit_code and not out.json_mode:
        out.note(ended.said)
    return ended.exit_code


def seconds_of(text: str, flag: str) -> float:
    """Return the seconds that a duration such as `30s` means. Raises UserError."""
    from pipesmith.pipeline.units import parse_duration_s

    try:
        return parse_duration_s(text)
    except ValueError as error:
        raise UserError(f"`{flag} {text}`: {error}") from None


def show_end(ended: Ended, out: Output) -> None:
    """Print how a run ended."""
    if out.json_mode:
        out.json({"run": ended.run, "status": ended.status})
    else:
        out.line(f"{ended.status} {ended.run}")
