"""Datasets: list them, show one's pin, take new content, ask whether the origin has moved on."""

from __future__ import annotations

import argparse

from pipesmith.cli.output import Output
from pipesmith.errors import UserError
from pipesmith.pipeline.units import size_text

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("ls", "show", "update", "status", "add", "diff"))
    parser.add_argument("names", metavar="NAME", nargs="*", help="default: all of pipeline.toml")


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.workspace import Workspace
    from pipesmith.workspace.datasets import list_datasets, update_datasets

    if arguments.action in ("add", "diff"):
        raise UserError(
            f"this version has no `pipe data {arguments.action}` yet", "`pipe data --help` lists what it has"
        )
    workspace = Workspace.open(".")
    if arguments.action == "update":
        changed = update_datasets(workspace, arguments.names)
        if out.json_mode:
            out.json({"datasets": changed})
            return 0
        if not changed:
            out.line("no datasets")
        for name, state in changed.items():
            out.line(f"{name}: {state}")
        return 0
    listed = list_datasets(workspace, arguments.names, compare=arguments.action == "status")
    if out.json_mode:
        out.json({"datasets": listed})
        return 0
    if not listed:
        out.line("no datasets")
    for entry in listed:
        count = len(entry["objects"])
        objects = f"{count} object{'s' if count != 1 else ''}"
        out.line(f"{entry['name']}  {entry['state']}  {objects}, {size_text(entry['size'])}")
        if arguments.action == "show":
            for each in entry["objects"]:
                out.line(f"  {each['hash']}  {each['size']:>10}  {each['name']}")
    return 0
