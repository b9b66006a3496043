"""Git hooks: `pre-push` refuses a push of a commit whose lockfile is stale; `post-checkout`, `post-merge` and
`post-rewrite` put outputs that are in the cache into place when the work tree becomes another one."""

from __future__ import annotations

import os
import sys

from pipesmith.cli.output import Output
from pipesmith.errors import PipeError, UserError, nearest

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from pipesmith.workspace.gate import Judged

__all__ = ["add_arguments", "run", "run_hook"]

_EPILOG = """\
`install` installs `pre-push` (those named; with `--all` every one) and the merge and diff drivers of pipe.lock;
`uninstall` takes away those named, else all and the drivers. A hook that is there already stays whole and runs first.
`run` is what the hooks call; `pre-push` reads git's lines, and exits with 1 where the push is refused.

[Git hooks](../hooks.md) says what each hook does, and how they live with other hooks, husky and pre-commit.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("action", choices=("install", "uninstall", "run"))
    add("names", metavar="NAME", nargs="*", help="of hooks; `run`: one, and what git passes to it")
    add("--all", action="store_true", help="install: `pre-push`, `post-checkout`, `post-merge` and `post-rewrite`")


def run(arguments: argparse.Namespace, out: Output) -> int:
    if arguments.action == "run":
        return run_hook(arguments.names, out)
    _check(arguments.names)
    return _install(arguments, out) if arguments.action == "install" else _uninstall(arguments, out)


def _check(names: Sequence[str]) -> None:
    from pipesmith.git.hook_scripts import HOOKS

    for name in names:
        if name not in HOOKS:
            near = nearest(name, HOOKS)
            raise UserError(
                f"pipe has no hook `{name}`", f"did you mean `{near}`?" if near else f"it has {', '.join(HOOKS)}"
            )


# -- run ----------------------------------------------------------------------------------------------------------


def run_hook(words: Sequence[str], out: Output) -> int:
    """Run a hook. words: its name, and what git passes to it."""
    if not words:
        raise UserError("`pipe hooks run` needs NAME", "write `pipe hooks run pre-push`")
    _check(words[:1])
    return _pre_push(out) if words[0] == "pre-push" else _arrive(words, out)


def _pre_push(out: Output) -> int:
    from pipesmith.workspace.gate import judge_push
    from pipesmith.workspace.pushed import repository_of_hook, tips_of_push

    lines = "" if sys.stdin is None or sys.stdin.isatty() else os.fsdecode(sys.stdin.buffer.read())
    tips = tips_of_push(lines, os.environ)
    if not tips:
        repository_of_hook(".")  # outside of one it is no use to say that all is well
    judged = judge_push(".", tips, anew=out.json_mode)
    refused = [each for each in judged if not each.passes]
    if out.json_mode:
        out.json({"refused": bool(refused), "judged": [each.as_json() for each in judged]})
    for each in refused:
        _tell(each, out)
    if refused:
        folders = list(dict.fromkeys(each.folder for each in refused))
        build = "`, `".join("pipe build" if where == "." else f"pipe -C {where} build" for where in folders)
        locks = ", ".join(dict.fromkeys(each.lock for each in refused))
        print(
            f"help: `{build}`, commit {locks}, push again; `git push --no-verify` pushes it as it is", file=sys.stderr
        )
    return 1 if refused else 0


def _tell(judged: Judged, out: Output) -> None:
    from pipesmith.cli.status_command import show_states

    refs = ", ".join(judged.refs)
    if judged.error is not None:
        text = f"{refs}: {judged.lock} of {judged.commit[:10]} can't be judged"
    else:
        text = f"{refs}: {judged.lock} of {judged.commit[:10]} is stale"
        if all(stage.state == "fresh" for stage in judged.stages):
            text = f"{refs}: {judged.lock} of {judged.commit[:10]} breaks what its pipeline expects"
    told = Output(json_mode=True, quiet=False, verbose=out.verbose, color=False)  # standard error, whatever the flags
    told.note(f"error: pre-push: {text}")
    if judged.error is not None:
        for finding in judged.error.findings():
            told.note(finding.render())
    else:
        show_states([stage for stage in judged.stages if stage.state != "fresh" or stage.broken], told)


def _arrive(names: Sequence[str], out: Output) -> int:
    """Never fails: the git command that runs this has done its work."""
    from pipesmith.workspace.arrivals import arrive

    name, *args = names
    try:
        lines = os.fsdecode(sys.stdin.buffer.read()) if name == "post-rewrite" and not sys.stdin.isatty() else ""
        arrived = arrive(".", name, args, lines)
    except PipeError as error:
        for finding in error.findings():
            out.note(f"{name}: {finding.render().removeprefix('error: ')}")
        return 0
    except OSError as error:
        out.note(f"{name}: {error}; no outputs were put into place")
        return 0
    if out.json_mode:
        out.json(arrived.as_json())
    elif arrived.placed:
        count = len(arrived.placed)
        out.note(f"pipe: put {count} output{'s' if count != 1 else ''} of pipe.lock into place")
    for note in arrived.notes:
        out.note(f"{name}: {note}")
    return 0


# -- install and uninstall ----------------------------------------------------------------------------------------


def _install(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.workspace.hooks import HOOKS, install_hooks

    names = HOOKS if arguments.all else arguments.names or ("pre-push",)
    done = install_hooks(".", tuple(dict.fromkeys(names)))
    if out.json_mode:
        out.json(done.as_json())
        return 0
    for hook in done.hooks:
        if hook.by_itself and hook.name in names:
            out.line(f"{hook.name}: `{hook.path}` runs `pipe hooks run {hook.name}` by itself")
        elif hook.name in done.changed or hook.name in names:
            first = f"; `{hook.first}` runs first" if hook.first else ""
            out.line(f"{hook.name}: {'installed' if hook.name in done.changed else 'is'} in `{hook.path}`{first}")
    if done.led_from and done.changed:
        out.line(f"what is in `{done.led_from}` stays as it is: core.hooksPath of this clone leads past it, and back")
    if done.drivers:
        is_new = "set" if done.drivers_changed else "are as they should be"
        out.line(f"drivers of pipe.lock ({', '.join(done.drivers)}): {is_new}")
    else:
        out.line("pipe.lock has attributes of somebody's own: its drivers were left alone")
    return 0


def _uninstall(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.workspace.hooks import HOOKS, uninstall_hooks

    done = uninstall_hooks(".", HOOKS if arguments.all or not arguments.names else tuple(arguments.names))
    if out.json_mode:
        out.json(done.as_json())
        return 0
    for name in done.changed:
        out.line(f"{name}: taken away")
    for hook in done.hooks:
        if hook.by_itself:
            out.line(f"{hook.name}: `{hook.path}` runs `pipe hooks run {hook.name}`: that is yours to change")
    if done.drivers_changed:
        out.line("drivers of pipe.lock: taken away")
    if not (done.changed or done.drivers_changed):
        out.line("no hooks of pipe's to take away")
    return 0
