"""The lockfile and git: mend one with conflict markers, merge two, show one as people read it."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from pipesmith.cli.output import Output
from pipesmith.errors import UserError

if TYPE_CHECKING:
    from pipesmith.lockfile.merge import Merged

__all__ = ["add_arguments", "run"]

_FILES = {"resolve": (0, 0), "merge": (3, 4), "show": (0, 1)}

_MORE = """
- `resolve` mends the workspace's lockfile: what both sides agree on is kept, what they disagree on is dropped and so
  stale; pins that disagree are ours. Then `git add pipe.lock` says to git that it is merged; `pipe` never does.
- `merge BASE OURS THEIRS [NAME]` does the same with three files, into OURS: git's merge driver. Exit 2 where a side is
  no lockfile: OURS stays as it is, and git calls it a conflict.
- `show [FILE]` prints a lockfile (the workspace's without FILE), one fact a line: git's diff driver. What can't be read
  is printed as it is.

`pipe hooks install` sets both drivers. [Merging branches](../how-to/merging.md) says more.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=tuple(_FILES), help="mend the workspace's lockfile; merge files; show one")
    parser.add_argument("files", nargs="*", metavar="FILE", help="of `merge`: base, ours, theirs, and a name to tell")
    parser.epilog = _MORE


def run(arguments: argparse.Namespace, out: Output) -> int:
    action, files = arguments.action, arguments.files
    least, most = _FILES[action]
    if not least <= len(files) <= most:
        raise UserError(
            f"`pipe lock {action}` takes {_count(least, most)}, not {len(files)}", "`pipe lock --help` says how"
        )
    if action == "merge":
        return _merge(out, *files)
    if action == "show":
        return _show(out, *files)
    return _resolve(out)


def _count(least: int, most: int) -> str:
    if most == 0:
        return "no files"
    return f"{least} or {most} files" if most > 1 else "one file at most"


def _resolve(out: Output) -> int:
    from pipesmith.workspace import Workspace
    from pipesmith.workspace.resolving import resolve_lock

    workspace = Workspace.open(".")
    resolved = resolve_lock(workspace)
    merged = resolved.merged
    path = os.path.relpath(workspace.lock_path)
    next = f"`git add {path}`, then `pipe build`" if resolved.unmerged else "`pipe build`"
    if out.json_mode:
        dropped, accepted, pins = (merged.dropped, merged.accepted, merged.pins) if merged else ((), (), ())
        told = {"dropped": list(dropped), "accepted": list(accepted), "pins": list(pins)}
        out.json({"mended": merged is not None, "unmerged": resolved.unmerged, **told})
    elif merged is None:
        then = f", but to say to git that it is merged: {next}" if resolved.unmerged else ""
        out.line(f"pipe.lock has no conflict markers: nothing to do{then}")
    else:
        for line in _told(merged):
            out.line(line)
        made = " makes what is stale" if merged.dropped else ""
        out.line(f"pipe.lock is mended; next: {next}{made}")
        if not resolved.driver:
            out.line("`pipe hooks install` lets git merge lockfiles this way by itself, in this clone")
    return 0


def _merge(out: Output, base: str, ours: str, theirs: str, name: str = "pipe.lock") -> int:
    from pipesmith.workspace.lock_files import merge_files

    merged = merge_files(base, ours, theirs, name)
    for line in _told(merged):
        out.note(f"{name}: {line}")
    if merged.dropped:
        out.note(f"{name}: `pipe build` makes what was dropped")
    if out.json_mode:
        out.json({"dropped": list(merged.dropped), "accepted": list(merged.accepted), "pins": list(merged.pins)})
    return 0


def _told(merged: Merged) -> list[str]:
    lines = [f"dropped {name}: the two sides disagree" for name in merged.dropped]
    lines += [f"{name}: the two sides accepted different things, neither counts" for name in merged.accepted]
    return lines + [f"{name}: the two sides disagree, ours was taken" for name in merged.pins]


def _show(out: Output, path: str | None = None) -> int:
    from pipesmith.workspace.lock_files import show_file

    if path is None:
        from pipesmith.workspace import Workspace

        path = Workspace.open(".").lock_path
        if not os.path.exists(path):
            raise UserError("there is no pipe.lock yet", "run `pipe build`")
    elif not os.path.exists(path):
        raise UserError(f"`{path}`: no such file or directory", "`pipe lock show` shows the workspace's")
    shown = show_file(path)
    data = shown.encode("utf-8", "backslashreplace") if isinstance(shown, str) else shown
    if out.json_mode:
        out.json({"text": data.decode("utf-8", "backslashreplace")})
    else:
        sys.stdout.buffer.write(data)
    return 0
