"""Environments: list them, build them, resolve them anew, push their images.

`ls` says of each whether it is resolved, and built on this machine. `build` resolves those that have no pin that holds,
and builds them where stages need them: here, and as images on the daemons of their computes. `update` resolves all
anew, writes the pins, and says which packages are others now. `push` sends images to the `registry` of their
environments.
"""

from __future__ import annotations

import argparse

from pipesmith.cli.output import Output
from pipesmith.pipeline.units import size_text

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("ls", "build", "update", "push"))
    parser.add_argument("names", metavar="NAME", nargs="*", help="default: all of pipeline.toml")


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.workspace import Workspace
    from pipesmith.workspace.envs import (
        build_environments,
        list_environments,
        push_environments,
        update_environments,
    )

    workspace = Workspace.open(".")
    if arguments.action == "push":
        pushed = push_environments(workspace, arguments.names, out.note)
        if out.json_mode:
            out.json({"environments": pushed})
        elif not pushed:
            out.line("no environment has a `registry`")
        for name, image in pushed.items() if not out.json_mode else ():
            out.line(f"{name}: {image}")
        return 0
    if arguments.action == "ls":
        listed = list_environments(workspace, arguments.names)
        if out.json_mode:
            out.json({"environments": listed})
        elif not listed:
            out.line("no environments")
        else:
            out.table(
                [
                    (
                        e["name"],
                        e["python"] or "",
                        str(e["packages"]),
                        e["state"],
                        size_text(e["size"]) if e["size"] else "",
                    )
                    for e in listed
                ],
                ("environment", "python", "packages", "state", "size"),
            )
        return 0
    if arguments.action == "update":
        changes = update_environments(workspace, arguments.names, out.note)
        if out.json_mode:
            out.json(
                {"environments": {n: [{"package": p, "old": o, "new": v} for p, o, v in c] for n, c in changes.items()}}
            )
            return 0
        if not changes:
            out.line("nothing to resolve")
        for name, changed in changes.items():
            out.line(f"{name}: {'nothing changed' if not changed else ''}".rstrip())
            for package, old, new in changed:
                out.line(f"  {package} {old or 'none'} -> {new or 'none'}")
        return 0
    built = build_environments(workspace, arguments.names, out.note)
    if out.json_mode:
        out.json({"environments": built})
    elif not built:
        out.line("no environments")
    else:
        for name, prefix in built.items():
            out.line(f"{name}: {prefix}")
    return 0
