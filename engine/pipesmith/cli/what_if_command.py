"""Say what a build would do, and for how long: now, with a commit checked out, a branch merged, or params set.

Nothing runs; work tree, index, refs and objects stay as they are.
"""

from __future__ import annotations

import argparse
from typing import Any

from pipesmith.cli.build_command import pairs
from pipesmith.cli.output import Output, reason_text, seconds_text
from pipesmith.errors import UserError

__all__ = ["add_arguments", "run"]

_MORE = """
Without a flag it judges the work tree as it is. With `--rev` and `--merge` what git holds counts as it is committed
there, changes that are not committed do not; what git does not hold (data and outputs that it ignores, untracked
files) stays as it lies here, as a checkout leaves it. `pipe.lock` is merged stage by stage. The flags go together.
Known results count as they do for a build. What a stage after one that runs will do can't be known for certain: it
would run, unless what is before it makes the same again; with `--json` its `sure` is false.

`--json`: `stages` (in order) with `name`, `would` (`fresh`, `restored` or `run`), `why`, `seconds` (by the history: of
that very action where it is known, else of the stage's last run; null without any, 0 where nothing runs), `sure`,
`fingerprint`, `notes`, `broken` (expectations that the known result does not meet); `seconds` from start to end with
`jobs` stages at once, those in `unknown` not counted; `revision` and `merged`, the commits that were asked about;
`conflicts`, the files that git can't merge without you: then nothing else is told, and the exit code is 1.
Merging needs git 2.38.
"""
_COLORS = {"fresh": "green", "restored": "cyan", "run": "yellow"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _MORE
    add = parser.add_argument
    add("stages", nargs="*", metavar="STAGE", help="stages or output paths; default: the targets of pipeline.toml")
    add("--rev", metavar="REV", help="as if that commit were checked out here")
    add("--merge", metavar="BRANCH", help="as if that branch were merged into HEAD, or into REV")
    add("--set", action="append", default=[], metavar="K=V", help="as if a param had that value")
    add("-j", "--jobs", type=int, metavar="N", help="for how many stages at once to count; default: the cores")


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.workspace import Workspace

    if arguments.jobs is not None and arguments.jobs < 1:
        raise UserError("`-j` needs a number of at least 1", "leave it out for as many as there are cores")
    result = Workspace.open(".").what_if(
        arguments.stages,
        rev=arguments.rev,
        merge=arguments.merge,
        params=pairs(arguments.set, "--set"),
        jobs=arguments.jobs,
    )
    if out.json_mode:
        out.json(result.as_json())
    else:
        _show(result, out)
    return 1 if result.conflicts else 0


def _show(result: Any, out: Output) -> None:
    if result.conflicts:
        out.line("can't be merged without you, these files conflict:")
        for path in result.conflicts:
            out.line(f"  {path}")
        return
    width = max((len(stage.name) for stage in result.stages), default=0)
    for stage in result.stages:
        took = "" if stage.would != "run" else "?" if stage.seconds is None else seconds_text(stage.seconds)
        notes = [*stage.notes, *([] if stage.sure else ["unless what is before it makes the same again"])]
        told = f"  ({', '.join(notes)})" if notes else ""
        out.line(f"{out.style(f'{stage.would:8}', _COLORS[stage.would])} {stage.name:{width}} {took:>8}{told}".rstrip())
        for reason in stage.why:
            out.line(f"           {reason_text(reason)}")
        for text in stage.broken:
            out.line(f"           {text}")
    counts = {word: sum(stage.would == word for stage in result.stages) for word in _COLORS}
    if not result.stages:
        out.line("no stages")
    elif counts["fresh"] == len(result.stages):
        out.line("up to date")
    else:
        said = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        without = f"; without history: {', '.join(result.unknown)}" if result.unknown else ""
        out.line(f"{said}: {seconds_text(result.seconds)} with {result.jobs} at once{without}")
