"""Print an object of the cache: a file's bytes, or a folder's list."""

from __future__ import annotations

import argparse
import sys

from pipesmith.cli.output import Output

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("hash", metavar="HASH", help="a hash, or its beginning")


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.workspace import Workspace
    from pipesmith.workspace.outputs import find_object

    session, digest = find_object(Workspace.open("."), arguments.hash)
    if digest.is_folder:
        entries = session.store.manifest(digest).entries
        if out.json_mode:
            out.json({"hash": digest.text, "entries": [{"kind": e.kind, "path": e.path, "hash": e.hex, "size": e.size} for e in entries]})
            return 0
        for entry in entries:
            out.line(f"{entry.hex or '-'}  {entry.size:>10}  {entry.path}{f' -> {entry.text}' if entry.kind == 'l' else ''}")
        return 0
    sys.stdout.buffer.write(session.store.read(digest))
    sys.stdout.buffer.flush()
    return 0
