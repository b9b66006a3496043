"""Share run history, logs and metrics through a git remote."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from pipesmith.cli.output import Output
from pipesmith.errors import UserError

if TYPE_CHECKING:
    from pipesmith.workspace.sharing import Offer

__all__ = ["add_arguments", "run"]

_NAMED = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "remote",
        metavar="REMOTE",
        nargs="?",
        help="a git remote, or its URL; default: where the branch is pushed to, else `origin`, else the only one",
    )
    add("--runs", action="store_true", help="share the runs that have ended and that the remote does not have")
    add("--yes", action="store_true", help="do not ask before untracked files are shared")
    parser.epilog = """\
The snapshot of a run may hold files that no commit holds. They are listed first; without `--yes` the command asks, and
where there is no terminal it shares nothing and exits with 2. Files that git ignores, and those that look like secrets,
are in no snapshot: see run history (docs/history.md)."""


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.workspace import Workspace
    from pipesmith.workspace.sharing import NO_REMOTE_CACHE, offer_runs, send_runs

    workspace = Workspace.open_history(".")
    if not arguments.runs:
        raise UserError(NO_REMOTE_CACHE, "`pipe push --runs` shares run history, logs and metrics")
    wanted = offer_runs(workspace, arguments.remote)
    for text in wanted.notes:
        out.note(text)
    _list(wanted, out)
    if wanted.untracked and not arguments.yes:
        _ask(wanted, out)
    send_runs(workspace, wanted)
    if out.json_mode:
        out.json(
            {
                "remote": wanted.remote,
                "runs": wanted.runs,
                "logs": wanted.logs,
                "untracked": wanted.untracked,
                "changed": wanted.changed,
                "commits": wanted.commits,
                "notes": wanted.notes,
            }
        )
    elif wanted.runs or wanted.logs:
        out.line(f"sent {_count(wanted.runs, 'run')} to `{wanted.remote}`, logs of {len(wanted.logs)}")
    else:
        out.line(f"`{wanted.remote}` has all runs")
    return 0


def _list(wanted: Offer, out: Output) -> None:
    """Say which files a push would make known."""
    if wanted.untracked:
        out.note(f"untracked files that `{wanted.remote}` would get, in the snapshots of {_count(wanted.runs, 'run')}:")
        for path in wanted.untracked:
            out.note(f"  {path}")
    if wanted.changed:
        out.note(f"uncommitted changes that it would get: {_names(wanted.changed)}")
    if wanted.commits:
        out.note(f"{wanted.commits} commit{'s' if wanted.commits > 1 else ''} that it does not have yet go along")


def _ask(wanted: Offer, out: Output) -> None:
    """Raise UserError unless a person says yes."""
    what = f"{len(wanted.untracked)} untracked file{'s' if len(wanted.untracked) > 1 else ''}"
    if out.json_mode or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UserError(
            f"this would share {what} with `{wanted.remote}`: {_names(wanted.untracked)}",
            "look at them, then add `--yes`",
        )
    print(f"share {what} with `{wanted.remote}`? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError("nothing was shared", "`pipe push --runs --yes` does not ask")


def _names(paths: list[str]) -> str:
    more = len(paths) - _NAMED
    return ", ".join(paths[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _count(names: list[str], noun: str) -> str:
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'}"
