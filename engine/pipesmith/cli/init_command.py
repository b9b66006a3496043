"""Lay out pipeline.toml, stages/ and hooks/ in a git repository. Never over somebody's file."""

from __future__ import annotations

import argparse
import os

from pipesmith.cli.output import Output
from pipesmith.errors import UserError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--example", action="store_true", help="with two stages that build")
    parser.add_argument(
        "--from", dest="source", metavar="FILE", help="from a Makefile, dvc.yaml, requirements.txt or notebook"
    )


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.workspace.scaffold import in_repository, scaffold

    if arguments.source:
        raise UserError("this version has no `pipe init --from` yet", "run `pipe init`, then fill in pipeline.toml")
    written, left = scaffold(os.getcwd(), example=arguments.example)
    if out.json_mode:
        out.json({"written": written, "left": left})
        return 0
    for path in written:
        out.line(f"wrote {path}")
    for path in left:
        out.line(f"left alone {path}: it is there already")
    if not in_repository(os.getcwd()):
        out.line("next: `git init`: pipe works in a git repository")
    if written:
        out.line(
            "next: `pipe build`" if arguments.example else "next: write a stage into pipeline.toml, then `pipe build`"
        )
    return 0
