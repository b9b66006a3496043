"""Drop what neither a branch, tag, worktree or stash, nor a recent run needs, and runs that are not recent. It rests in
trash/ for a week."""

from __future__ import annotations

import argparse

from pipesmith.cli.output import Output
from pipesmith.errors import UserError
from pipesmith.pipeline.units import size_text

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dry-run", action="store_true", help="say what would be dropped")
    add("--auto", action="store_true", help="only where the cache is larger than `[cache] max-size`")
    add("--max-size", metavar="SIZE", help="drop recent runs' results too until the cache is smaller")
    add(
        "--keep-days",
        type=float,
        default=30.0,
        metavar="N",
        help="runs of the last N days are kept, and what they made; default 30",
    )
    add("--kept", type=float, default=30.0, metavar="N", help="what was put away is kept for N days; default 30")


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.pipeline.units import parse_size_bytes
    from pipesmith.workspace import Workspace
    from pipesmith.workspace.collecting import Report, collect_garbage

    for flag, days in (("--keep-days", arguments.keep_days), ("--kept", arguments.kept)):
        if not 0 <= days < 1e6:
            raise UserError(f"`{flag}` needs a number of days, 0 or more", f"write `{flag} 30`")
    try:
        max_size = parse_size_bytes(arguments.max_size) if arguments.max_size is not None else None
    except ValueError as error:
        raise UserError(f"`--max-size`: {error}", "write `--max-size 20GB`") from None
    workspace = Workspace.open(".")
    session = workspace.session()
    if arguments.auto:
        max_size = session.pipeline.cache.max_size_bytes
        if max_size is None:
            text = "no `[cache] max-size`: nothing to do"
            if out.json_mode:
                left_bytes = sum(info.st_size for _algorithm, _hex, info in session.store.objects())
                out.json(Report(left_bytes=left_bytes, dry_run=arguments.dry_run, notes=[text]).as_json())
            else:
                out.line(text)
            return 0
    report = collect_garbage(
        session,
        keep_days=arguments.keep_days,
        kept_days=arguments.kept,
        max_size_bytes=max_size,
        only_over_size=arguments.auto,
        dry_run=arguments.dry_run,
    )
    if out.json_mode:
        out.json(report.as_json())
    else:
        verb = "would drop" if arguments.dry_run else "dropped"
        objects = f"{report.objects} object{'s' if report.objects != 1 else ''}"
        out.line(f"{verb} {objects}, {size_text(report.bytes)}; {size_text(report.left_bytes)} stay")
        if report.runs:
            runs = f"{report.runs} run{'s' if report.runs != 1 else ''}"
            out.line(f"{'would forget' if arguments.dry_run else 'forgot'} {runs}")
        for text in report.notes:
            out.line(text)
    return 0
