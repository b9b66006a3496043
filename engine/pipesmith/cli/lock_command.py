"""Mend a lockfile with conflict markers: what both sides agree on is kept, what they disagree on is dropped and so
stale."""

from __future__ import annotations

import argparse

from pipesmith.cli.output import Output

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("resolve",))


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.workspace import Workspace
    from pipesmith.workspace.resolving import resolve_lock

    resolved = resolve_lock(Workspace.open("."))
    if out.json_mode:
        out.json({"dropped": list(resolved.dropped), "pins": list(resolved.pins)})
    elif not resolved.conflict:
        out.line("pipe.lock has no conflict markers: nothing to do")
    else:
        for name in resolved.dropped:
            out.line(f"dropped {name}: the two sides disagree")
        for name in resolved.pins:
            out.line(f"{name}: the two sides disagree, ours was taken")
        out.line("pipe.lock is mended; `pipe build` makes what is stale")
    return 0
