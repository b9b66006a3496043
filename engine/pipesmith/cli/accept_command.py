"""Say that what differs does not matter: the locked result counts for today's fingerprint, until the stage runs
again."""

from __future__ import annotations

import argparse

from pipesmith.cli.output import Output, reason_text

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stage", metavar="STAGE")
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why it does not matter; kept in pipe.lock")


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.workspace import Workspace
    from pipesmith.workspace.accept import accept

    accepted = accept(Workspace.open("."), arguments.stage, arguments.reason)
    if out.json_mode:
        out.json({"accepted": {name: [reason.as_json() for reason in why] for name, why in accepted.items()}})
        return 0
    for name, why in accepted.items():
        out.line(f"accepted {name}")
        for reason in why:
            out.line(f"  {reason_text(reason)}")
    if not accepted:
        out.line("nothing to accept: the fingerprint is the locked one")
    return 0
