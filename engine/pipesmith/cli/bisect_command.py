"""Find the commit that made a number worse, or a stage fail: what is known costs nothing, the rest is built in a place
of its own.

Work tree, index and branches stay as they are.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

from pipesmith.cli.output import Output, reason_text, seconds_text
from pipesmith.errors import UserError

__all__ = ["add_arguments", "run"]

_MORE = """
As with `git bisect`, GOOD is a commit that is good and BAD one that is bad; GOOD need not be before BAD: where the two
parted is asked then. A metric at a commit is the one of its committed lockfile where that is fresh, else that of a
known result, else the stage is built (`pipe build --rev`, with all that it needs): commits in which the stage and all
before it are the same are one candidate, and what a build made is known from then on. A commit that can't be told of (a
broken pipeline.toml, no such metric, a stage that fails before there is a number) is skipped.

NAME is `OUTPUT:dotted.name` as in `expect`, or `dotted.name`, with `STAGE:` or `STAGE.` before it where it needs that
to be the only one.

Exit: 0 the commit is found; 1 GOOD is not good, BAD is not bad, or it can't be told which of some commits it is; 2
wrong use. `--json`: `found`, `commit` (`id`, `author`, `date`, `subject`), `good` (the commit that it was compared
with), `stage` and `why` (the first stage with something of its own that differs, and what), `culprits` (all such
stages), `target` and `metric`, `value` and `good_value`, `steps` (each commit that was asked: `outcome` good, bad or
skip, `value`, `known`, `ran`, `seconds`, `text`, `left`), `ran` (stages that ran in all), `suspects`, `problem`.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _MORE
    add = parser.add_argument
    add("good", metavar="GOOD", help="a commit that is good")
    add("bad", metavar="BAD", help="a commit that is bad")
    add("--metric", metavar="NAME", help="the number, as `expect` names it: `OUTPUT:dotted.name`")
    add("--below", metavar="V", help="the number is bad where it is below V")
    add("--above", metavar="V", help="the number is bad where it is above V")
    add("--stage-fails", metavar="STAGE", help="bad is where this stage fails")
    add("--first-parent", action="store_true", help="of merges follow the first parent only")
    add("-j", "--jobs", type=int, metavar="N", help="most stages at once; default: the cores")


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.cli.console import console_for
    from pipesmith.workspace import Workspace
    from pipesmith.workspace.bisect import BisectOptions, bisect

    _check(arguments)
    options = BisectOptions(
        good=arguments.good,
        bad=arguments.bad,
        metric=arguments.metric,
        below=_number("--below", arguments.below),
        above=_number("--above", arguments.above),
        stage_fails=arguments.stage_fails,
        first_parent=arguments.first_parent,
        jobs=arguments.jobs,
        command_line=tuple(arguments.command_line),
    )
    console = console_for(out) if out.verbose else None
    try:
        result = bisect(
            Workspace.open("."),
            options,
            on_step=lambda step: _show_step(step, out),
            on_build=lambda commit: out.note(f"building {commit[:10]}"),
            on_event=console,
        )
    finally:
        if console is not None:
            console.close()
    if out.json_mode:
        out.json(result.as_json())
    else:
        _show(result, out)
    return result.exit_code


def _check(arguments: argparse.Namespace) -> None:
    """Raise UserError for flags that do not go together."""
    how = "`pipe bisect --metric NAME --below V GOOD BAD`, or `--stage-fails STAGE`"
    bounds = sum(bound is not None for bound in (arguments.below, arguments.above))
    if arguments.stage_fails is not None:
        if arguments.metric is not None or bounds:
            raise UserError("`--stage-fails` goes without `--metric`, `--below` and `--above`", how)
    elif arguments.metric is None:
        raise UserError("what is bad? neither `--metric` nor `--stage-fails` is given", how)
    elif bounds != 1:
        said = "`--below` and `--above` exclude each other" if bounds else "`--metric` needs `--below` or `--above`"
        raise UserError(said, how)
    if arguments.jobs is not None and arguments.jobs < 1:
        raise UserError("`-j` needs a number of at least 1", "leave it out for as many as there are cores")


def _number(flag: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise UserError(f"`{flag}` needs a number, `{text}` is not", f"write `{flag} 0.9`")
    return value


def _show_step(step: Any, out: Output) -> None:
    value = "" if step.value is None else f" {step.value:g}"
    if step.known:
        cost = "known"
    else:
        cost = f"built {step.ran} stage{'' if step.ran == 1 else 's'}, {seconds_text(step.seconds)}"
    left = f", {step.left} left" if step.left is not None else ""
    text = f": {step.text}" if step.text else ""
    out.note(f"{step.commit[:10]} {step.outcome.value}{value} ({cost}{left}){text}")


def _show(result: Any, out: Output) -> None:
    if not result.found:
        out.line(result.problem)
        for commit in result.suspects:
            out.line(f"  {commit.id[:10]} {commit.date[:10]} {commit.author}: {commit.subject}")
        return
    commit = result.commit
    out.line(f"{out.style(commit.id, 'bold')} is the first bad commit")
    out.line(f"  {commit.author}, {commit.date}")
    out.line(f"  {commit.subject}")
    if result.metric is not None and result.value is not None:
        before = "" if result.good_value is None else f" {result.good_value:g} ->"
        out.line(f"{result.metric} of {result.target}:{before} {result.value:g}")
    for culprit in result.culprits:
        out.line(f"stage {out.style(culprit.stage, 'bold')}")
        for reason in culprit.why:
            out.line(f"  {reason_text(reason)}")
    if not result.culprits:
        out.line(f"nothing that counts for {result.target} differs from the commit before")
    asked = len(result.steps)
    ran = f"{result.ran} stage{'s' if result.ran != 1 else ''} run"
    out.line(f"{asked} commits asked, {ran}, {seconds_text(result.seconds)}")
