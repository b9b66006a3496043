"""Bring run history, logs and metrics that others shared through a git remote."""

from __future__ import annotations

import argparse

from pipesmith.cli.output import Output
from pipesmith.errors import UserError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "remote",
        metavar="REMOTE",
        nargs="?",
        help="a git remote, or its URL; default: that of the branch, else `origin`, else the only one",
    )
    parser.add_argument("--runs", action="store_true", help="bring the runs that are not here yet, with their logs")
    parser.epilog = """\
A run of yours is never replaced by another one; one that was still going on when it was shared is replaced by what
became of it."""


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.workspace import Workspace
    from pipesmith.workspace.sharing import NO_REMOTE_CACHE, fetch_runs

    workspace = Workspace.open_history(".")
    if not arguments.runs:
        raise UserError(NO_REMOTE_CACHE, "`pipe fetch --runs` brings run history, logs and metrics")
    found = fetch_runs(workspace, arguments.remote)
    for text in found.notes:
        out.note(text)
    if out.json_mode:
        out.json(
            {
                "remote": found.remote,
                "runs": found.runs,
                "updated": found.updated,
                "logs": found.logs,
                "notes": found.notes,
            }
        )
        return 0
    if found.runs or found.updated or found.logs:
        count = len(found.runs)
        more = f", {len(found.updated)} that had gone on" if found.updated else ""
        out.line(f"{count} run{'' if count == 1 else 's'} from `{found.remote}`{more}, logs of {len(found.logs)}")
    else:
        out.line(f"`{found.remote}` has no run that is not here")
    return 0
