"""Read every object of the cache and compare outputs with the lockfile. Exit 1 where something is damaged, missing or
changed."""

from __future__ import annotations

import argparse

from pipesmith.cli.output import Output
from pipesmith.errors import UserError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--remote", action="store_true", help="the shared cache too")
    parser.add_argument("--full", action="store_true", help="read outputs whatever their stamps say")


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.workspace import Workspace
    from pipesmith.workspace.outputs import verify

    if arguments.remote:
        raise UserError("this version has no `pipe verify --remote` yet: it has no shared cache", "run `pipe verify`")
    result = verify(Workspace.open("."), full=arguments.full)
    if out.json_mode:
        out.json(
            {
                "ok": result.ok,
                "objects": result.objects,
                "damaged": result.damaged,
                "missing": result.missing,
                "changed": result.changed,
            }
        )
    else:
        for text in (*result.damaged, *result.missing, *result.changed):
            out.line(text)
        objects = f"{result.objects} object{'s' if result.objects != 1 else ''}"
        out.line(f"{objects} read: {'all well' if result.ok else 'not all well'}")
    return 0 if result.ok else 1
