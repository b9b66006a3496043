"""Bring stages up to date: run what is stale, restore what is known, leave what is fresh."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from pipesmith.cli.console import console_for
from pipesmith.cli.output import Output, reason_text, seconds_text
from pipesmith.errors import UserError

if TYPE_CHECKING:
    from pipesmith.workspace.workspace import Workspace

_EPILOG = """\
`--rev` and `--experiment` build in a place of their own: a commit, or the work tree as it is with uncommitted and
untracked files. What they make is in the cache and in history, so that `pipe checkout --run RUN --to DIR` has it, and
a build of the same state runs nothing; files, index, branch and pipe.lock stay as they are. Data that git does not hold
is taken from the workspace or the cache, for a commit only if it is what the lockfile there says. Both together build a
commit as an experiment.

`--since` builds the stages whose sources, inputs, params, commands or environments are not what they are at REV, and
what reads what those make. Others are left alone, stale or not, and are not in the result; what a stage that runs needs
of them is restored, or made, where it is not there. A REV without a pipeline.toml means every stage.
"""

__all__ = ["add_arguments", "pairs", "run", "summary"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("stages", nargs="*", metavar="STAGE", help="stages or output paths; default: the targets of pipeline.toml")
    add("-j", "--jobs", type=int, metavar="N", help="most stages at once; default: the cores")
    add("-k", "--keep-going", action="store_true", help="after a failure go on with all that does not depend on it")
    add(
        "-f", "--force", action="store_true", help="run the named stages (without names every target) whatever is known"
    )
    add("--dry-run", action="store_true", help="say what would be done")
    add("--set", action="append", default=[], metavar="K=V", help="override a param")
    add("--rev", metavar="REV", help="build a commit in a place of its own; neither work tree nor lock changes")
    add("--since", metavar="REV", help="only the stages that what differs from REV reaches")
    add("--compute", metavar="NAME", help="where stages run")
    add("--upstream-only", action="store_true", help="only what comes before the named stages")
    add("--downstream", action="store_true", help="also what comes after the named stages")
    add("--no-restore", action="store_true", help="run stale stages even where a result is known")
    add("--allow-missing", action="store_true", help="a locked output that no stale stage needs may be absent")
    add("--experiment", metavar="NAME", help="build the work tree as it is, with its --set, in a place of its own")
    add("--tag", action="append", default=[], metavar="K=V", help="tag the run")
    add("-m", "--message", metavar="TEXT", help="a note kept with the run")
    add("--detach", action="store_true", help="return the run's id at once")


def pairs(texts: list[str], flag: str) -> dict[str, str]:
    """Return `K=V` texts as a mapping. Raises UserError."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(f"`{flag} {text}` is not `K=V`", f"write `{flag} name=value`")
        found[key] = value
    return found


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.workspace import Workspace
    from pipesmith.workspace.build import refuse_inside_a_stage

    refuse_inside_a_stage("pipe build")  # before anything is looked for: a sandbox is no git repository
    for flag in ("rev", "since", "experiment"):
        if getattr(arguments, flag) == "":
            raise UserError(f"`--{flag}` needs a {'name' if flag == 'experiment' else 'revision'}")
    if arguments.jobs is not None and arguments.jobs < 1:
        raise UserError("`-j` needs a number of at least 1", "leave it out for as many as there are cores")
    for one, other in (("upstream_only", "downstream"), ("detach", "dry_run")):
        if getattr(arguments, one) and getattr(arguments, other):
            flags = [f"--{name.replace('_', '-')}" for name in (one, other)]
            raise UserError(f"`{flags[0]}` and `{flags[1]}` don't go together", f"leave out `{flags[0]}`, or the other")
    workspace = Workspace.open(".", rev=arguments.rev)
    if arguments.detach:
        return _detach(workspace, arguments, out)
    if "PIPE_DETACHED_RUN" in os.environ:
        from pipesmith.workspace.detached import kept_exit

        with kept_exit(workspace) as (run_id, asked, code):
            arguments.command_line = asked or arguments.command_line
            code.append(_build(workspace, arguments, out, run_id))
            return code[-1]
    return _build(workspace, arguments, out, None)


def _detach(workspace: Workspace, arguments: argparse.Namespace, out: Output) -> int:
    """Start the same command without `--detach`. What is wrong with the pipeline or the words is told here and now."""
    from pipesmith.workspace.detached import detach
    from pipesmith.workspace.session import select_stages

    overrides, _tags = pairs(arguments.set, "--set"), pairs(arguments.tag, "--tag")
    for revision in (arguments.rev, arguments.since):
        if revision is not None:
            workspace.repo.resolve(revision)
    if arguments.rev is None:
        session = workspace.session(overrides, arguments.compute)
        select_stages(session.pipeline, arguments.stages)
    run_id = detach(workspace, [word for word in arguments.words if word != "--detach"], arguments.command_line)
    if out.json_mode:
        out.json({"run": run_id})
    else:
        print(run_id, flush=True)  # the answer, `-q` or not
        out.note(f"`pipe logs {run_id} -f` follows it, `pipe wait {run_id}` waits for its end")
    return 0


def _build(workspace: Workspace, arguments: argparse.Namespace, out: Output, run_id: str | None) -> int:
    if out.verbose:
        from pipesmith.workspace.doctor import sandbox_text

        out.note(f"sandbox: {sandbox_text()}")
    console = console_for(out)
    try:
        result = workspace.build(
            arguments.stages,
            jobs=arguments.jobs,
            keep_going=arguments.keep_going,
            force=arguments.force,
            dry_run=arguments.dry_run,
            params=pairs(arguments.set, "--set"),
            compute=arguments.compute,
            upstream_only=arguments.upstream_only,
            downstream=arguments.downstream,
            restore=not arguments.no_restore,
            allow_missing=arguments.allow_missing,
            rev=arguments.rev,
            since=arguments.since,
            experiment=arguments.experiment,
            tags=pairs(arguments.tag, "--tag"),
            message=arguments.message,
            run_id=run_id,
            command_line=tuple(arguments.command_line),
            on_event=console,
        )
    finally:
        console.close()
    if out.json_mode:
        out.json(result.as_json())
    elif arguments.since and not result.stages:
        out.line(f"up to date: what differs from {arguments.since} reaches no stage")
    else:
        summary(result, out, arguments.dry_run, console.finished)
    if result.status == "up-to-date" and not out.said_more and arguments.since is None:
        workspace.leave_witness(arguments.args, "".join(out.printed))
    return result.exit_code


def summary(result: Any, out: Output, dry_run: bool, told: set[str]) -> None:
    """Print what a build came to. told: the stages whose end was printed."""
    if dry_run:
        words = {"ran": "would run", "restored": "would be restored", "pending": "may run", "fresh": "fresh"}
        for stage in result.stages:
            if stage.status != "fresh" or out.verbose:
                why = f": {reason_text(stage.why[0])}" if stage.why else ""
                more = f" (and {len(stage.why) - 1} more)" if len(stage.why) > 1 else ""
                out.line(f"{words[stage.status]} {stage.name}{why}{more}")
        if result.status == "up-to-date":
            out.line("up to date")
        return
    if result.status == "up-to-date":
        for stage in result.stages:
            if out.verbose and stage.name not in told:
                out.line(f"{out.style(f'{stage.status:9}', 'dim')} {stage.name}{_notes(stage)}")
        at = f" at {result.revision[:10]}" if result.revision else ""
        out.line(f"up to date{at} ({len(result.stages)} stage{'s' if len(result.stages) != 1 else ''})")
        _not_locked(result, out)
        return
    counts: dict[str, int] = {}
    for stage in result.stages:
        counts[stage.status] = counts.get(stage.status, 0) + 1
    listed = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    run = f" (run {result.run})" if result.run else ""
    out.line(f"{out.style(result.status, 'bold')}: {listed} in {seconds_text(result.seconds)}{run}")
    _not_locked(result, out)


def _not_locked(result: Any, out: Output) -> None:
    if result.not_locked:
        out.line(f"pipe.lock at {result.revision[:10]} does not have what was built of {', '.join(result.not_locked)}")


def _notes(stage: Any) -> str:
    return f"  ({', '.join(stage.notes)})" if stage.notes else ""
