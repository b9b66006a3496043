"""Why a stage would run now, or why it ran in a recorded run, item by item; and the known result that was nearest."""

from __future__ import annotations

import argparse

from pipesmith.cli.output import Output, reason_text

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stage", metavar="STAGE")
    parser.add_argument("run", metavar="RUN", nargs="?", help="a recorded run; `latest` is the last")


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.workspace import Workspace
    from pipesmith.workspace.why import why

    answers = why(Workspace.open("."), arguments.stage, arguments.run)
    if out.json_mode:
        out.json({"stages": [answer.as_json() for answer in answers]})
        return 0
    for answer in answers:
        reasons = answer.run["why"] if answer.run else answer.now.why if answer.now else ()
        state = answer.run["status"] if answer.run else answer.now.state if answer.now else ""
        out.line(f"{answer.stage}: {state}")
        for reason in reasons:
            out.line(f"  {reason_text(reason)}")
        if answer.now is not None:
            problems = [line for finding in answer.now.problems for line in finding.render().splitlines()]
            for text in (*answer.now.notes, *problems, *answer.now.broken):
                out.line(f"  {text}")
        if answer.nearest and state != "fresh":
            out.line(f"  nearest known result: {answer.nearest['origin']}")
            for reason in answer.nearest["differs"]:
                out.line(f"    {reason_text(reason)}")
    return 0
