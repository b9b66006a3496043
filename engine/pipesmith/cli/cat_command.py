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
            out.json(
                {
                    "hash": digest.text,
                    "entries": [{"kind": e.kind, "path": e.path, "hash": e.hex, "size": e.size} for e in entries],
                }
            )
            return 0
        for entry in entries:
            out.line(
                f"{entry.hex or '-'}  {entry.size:>10}  {entry.path}{f' -> {entry.text}' if entry.kind == 'l' else ''}"
            )
        return 0
    data = session.store.read(digest)
    if out.json_mode:
        out.json({"hash": digest.text, "size": len(data), **_content(data)})
        return 0
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return 0


def _content(data: bytes) -> dict[str, str]:
    """Return bytes as JSON can hold them: `text`, or `base64` for what is not UTF-8."""
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        from base64 import b64encode

        return {"base64": b64encode(data).decode()}
