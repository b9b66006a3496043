"""Build, and build again at every save that reaches a stage, until Ctrl-C.

A save that reaches no stage makes no run. A stage that failed is tried again at the next save that reaches it. A save
that reaches a stage that runs ends it and starts over; one that does not is built afterwards. A branch switch is one
build."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from pipesmith.cli.build_command import pairs, summary
from pipesmith.cli.console import PlainConsole, console_for
from pipesmith.cli.output import Output
from pipesmith.errors import Cancelled, PipeError, UserError
from pipesmith.events import Event

__all__ = ["add_arguments", "run"]

_DEBOUNCE_MS = 100
_EPILOG = """With `--json` each build is one line on standard output, the document of `pipe build --json`; what
can't be built is one line `{"error": {...}}`. `PIPE_WATCH=polling` looks once a second instead of waiting for the
system's events."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("stages", nargs="*", metavar="STAGE", help="stages or output paths; default: the targets of pipeline.toml")
    add(
        "--debounce",
        type=int,
        default=_DEBOUNCE_MS,
        metavar="MS",
        help=f"how long it must be quiet after a save, in milliseconds; default: {_DEBOUNCE_MS}",
    )
    add("-j", "--jobs", type=int, metavar="N", help="most stages at once; default: the cores")
    add("-k", "--keep-going", action="store_true", help="after a failure go on with all that does not depend on it")
    add("--set", action="append", default=[], metavar="K=V", help="override a param")
    add("--compute", metavar="NAME", help="where stages run")
    parser.epilog = _EPILOG


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.workspace import Workspace
    from pipesmith.workspace.build import refuse_inside_a_stage

    refuse_inside_a_stage("pipe watch")
    if arguments.debounce < 0:
        raise UserError("`--debounce` needs a number of milliseconds, 0 or more", "leave it out for 100")
    if arguments.jobs is not None and arguments.jobs < 1:
        raise UserError("`-j` needs a number of at least 1", "leave it out for as many as there are cores")
    way = os.environ.get("PIPE_WATCH", "auto") or "auto"
    if way not in ("auto", "polling"):
        raise UserError(f"PIPE_WATCH is `{way}`: it is `auto` or `polling`", "unset it to use the system's events")
    screen = _Screen(out)
    try:
        Workspace.open(".").watch(
            screen,
            arguments.stages,
            pairs(arguments.set, "--set"),
            debounce_s=arguments.debounce / 1000,
            jobs=arguments.jobs,
            keep_going=arguments.keep_going,
            compute=arguments.compute,
            polling=way == "polling",
            command_line=tuple(arguments.command_line),
        )
    except Cancelled as error:
        screen.close()
        return error.exit_code
    except PipeError as error:
        screen.close()
        out.error(error, as_line=True)
        return error.exit_code
    finally:
        screen.close()


class _Screen:
    """Shows a watch: the lines of each build, what woke it, and what it waits for."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._console: PlainConsole | None = None
        self._woken_by = ""
        self._status: Any = None

    # -- what a watch tells -------------------------------------------------------------------------------------------

    def building(self, woken_by: str) -> Callable[[Event], None]:
        self._rest()
        self._woken_by = woken_by
        self._console = console_for(self._out)
        return self._listen

    def built(self, result: Any) -> None:
        self._head()
        told = self._console.finished if self._console is not None else set()
        self._close_console()
        if self._out.json_mode:
            self._out.json_line(result.as_json())
        else:
            summary(result, self._out, False, told)

    def refused(self, error: PipeError, woken_by: str) -> None:
        self._rest()
        self._woken_by = self._woken_by or woken_by
        self._head()
        self._close_console()
        self._out.error(error, as_line=True)

    def waiting(self, failed: Sequence[str]) -> None:
        self._rest()
        self._close_console()
        self._out.printed.clear()  # nobody asks for it here, and there is no end to it
        names = ", ".join(f"`{name}`" for name in failed)
        more = (
            f"; {names} failed, and wait{'s' if len(failed) == 1 else ''} for a change that reaches it" if names else ""
        )
        text = f"waiting for changes{more}"
        if self._out.color and not self._out.quiet:
            from rich.console import Console
            from rich.live import Live
            from rich.text import Text

            line = Text(f"{text} (Ctrl-C ends)", style="dim")
            self._status = Live(line, console=Console(highlight=False), auto_refresh=False, transient=True)
            self._status.start(refresh=True)
        else:
            self._out.line(text)

    def ending(self, stages: Sequence[str], woken_by: str) -> None:
        names = ", ".join(f"`{name}`" for name in stages)
        self._line(f"{woken_by or 'something changed'}: {names} {'starts' if len(stages) == 1 else 'start'} over")

    def noticed(self, text: str, help: str | None) -> None:
        self._rest()
        self._out.warn(text, help)

    def close(self) -> None:
        self._rest()
        self._close_console()

    # -- how ----------------------------------------------------------------------------------------------------------

    def _listen(self, event: Event) -> None:
        self._head()
        if self._console is not None:
            self._console(event)

    def _head(self) -> None:
        """Say what woke it, before the first line that follows from it."""
        if self._woken_by:
            text, self._woken_by = self._woken_by, ""
            self._line(text)

    def _line(self, text: str) -> None:
        styled = self._out.style(text, "dim")
        if self._console is not None:
            self._console.line(styled)
        else:
            self._out.line(styled)

    def _rest(self) -> None:
        """Take away the line that says what is waited for."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _close_console(self) -> None:
        console, self._console = self._console, None
        if console is not None:
            console.close()
        sys.stdout.flush()
