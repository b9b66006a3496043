"""Shows a build as it goes on: plain lines, or a live view on a terminal."""

from __future__ import annotations

import sys
import time
from typing import Any

from pipesmith.cli.output import Output, reason_text, seconds_text
from pipesmith.events import (
    BuildFinished,
    BuildStarted,
    EnvironmentFinished,
    EnvironmentStarted,
    Event,
    Notice,
    StageFinished,
    StageOutput,
    StageStarted,
    StageWaiting,
)

__all__ = ["PlainConsole", "console_for"]

_MARKS = {
    "ran": "green",
    "restored": "cyan",
    "failed": "red",
    "cancelled": "yellow",
    "skipped": "yellow",
    "fresh": "dim",
}
_LINES_A_STAGE = 2000
_LAST_LINES = 20  # shown again of a failed stage that printed more


class PlainConsole:
    """One line an event. A stage's own output is shown with its name before it."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._shown: dict[str, int] = {}
        self.finished: set[str] = set()

    def __call__(self, event: Event) -> None:
        if isinstance(event, StageStarted):
            why = f": {reason_text(event.why[0])}" if event.why else ""
            more = f" (and {len(event.why) - 1} more)" if len(event.why) > 1 else ""
            self.line(f"{self._out.style('run', 'bold')} {event.stage}{why}{more}")
        elif isinstance(event, StageOutput):
            self._output(event)
        elif isinstance(event, StageWaiting):
            self.line(self._out.style(f"    {event.stage} waits for {event.for_}", "dim"))
        elif isinstance(event, EnvironmentStarted):
            self._out.note(f"environment {event.environment}: {event.text}")
        elif isinstance(event, EnvironmentFinished):
            word = self._out.style(f"{event.how:9}", "red" if event.how == "failed" else "green")
            where = f", {event.where}" if event.where else ""
            self.line(f"{word} environment {event.environment}{where}  {seconds_text(event.seconds)}")
        elif isinstance(event, StageFinished):
            self._finished(event.result)
        elif isinstance(event, Notice):
            if event.level == "warning":
                self._out.warn(event.text, event.help)
            else:
                self._out.note(event.text)

    def line(self, text: str) -> None:
        self._out.line(text)

    def _output(self, event: StageOutput) -> None:
        shown = self._shown.get(event.stage, 0)
        self._shown[event.stage] = shown + 1
        if shown < _LINES_A_STAGE:
            self.line(f"{self._out.style(event.stage + ' |', 'dim')} {event.text}")
        elif shown == _LINES_A_STAGE:
            self.line(f"{event.stage} | ... more in `pipe logs`")

    def _finished(self, result: Any) -> None:
        self.finished.add(result.stage)
        if result.status == "fresh" and not self._out.verbose:
            return
        if self._out.quiet:
            self._failed_quietly(result)
            return
        word = self._out.style(f"{result.status:9}", _MARKS[result.status])
        if result.status == "failed" and self._shown.get(result.stage, 0) > _LINES_A_STAGE:
            for line in result.tail[-_LAST_LINES:]:  # why it failed mostly stands there
                self.line(f"{self._out.style(result.stage + ' |', 'dim')} {line}")
        took = f"  {seconds_text(result.seconds)}" if result.status in ("ran", "failed", "restored") else ""
        self.line(f"{word} {result.stage}{took}")
        if result.error:
            if not result.error.startswith("exited"):
                self.line(f"          {result.error}")
            else:
                self.line(f"          the command {result.error}")
            if result.help:
                self.line(f"          help: {result.help}")

    def _failed_quietly(self, result: Any) -> None:
        """Tell what `-q` does not leave out: that a stage failed, and why."""
        if result.status != "failed":
            return
        for line in result.tail[-_LAST_LINES:]:
            self._out.alert(f"{result.stage} | {line}")
        told = f"the command {result.error}" if (result.error or "").startswith("exited") else result.error
        self._out.alert(f"error: `{result.stage}` failed{f': {told}' if told else ''}")
        if result.help:
            self._out.alert(f"help: {result.help}")

    def close(self) -> None:
        """The build has ended."""


class LiveConsole(PlainConsole):
    """Lines as PlainConsole, and below them what runs now: for how long, how long it took last time, what waits."""

    def __init__(self, out: Output) -> None:
        super().__init__(out)
        from rich.console import Console
        from rich.live import Live

        self._console = Console(highlight=False, no_color=not out.color, soft_wrap=True)
        self._running: dict[str, tuple[float, float | None]] = {}
        self._waiting: dict[str, str] = {}
        self._making: dict[tuple[str, str], float] = {}
        self._total = 0
        self._done = 0
        self._live = Live(console=self._console, refresh_per_second=8, transient=True, get_renderable=self._render)
        self._live.start()

    def __call__(self, event: Event) -> None:
        if isinstance(event, BuildStarted):
            self._total = event.total
        elif isinstance(event, StageStarted):
            self._running[event.stage] = (event.time, event.last_seconds)
            self._waiting.pop(event.stage, None)
        elif isinstance(event, StageWaiting):
            self._waiting[event.stage] = event.for_
        elif isinstance(event, StageFinished):
            self._running.pop(event.stage, None)
            self._waiting.pop(event.stage, None)
            self._done += 1
        elif isinstance(event, EnvironmentStarted):
            self._making[event.environment, event.where] = event.time
        elif isinstance(event, EnvironmentFinished):
            self._making.pop((event.environment, event.where), None)
        elif isinstance(event, BuildFinished):
            self._live.refresh()
        super().__call__(event)

    def line(self, text: str) -> None:
        if not self._out.quiet:
            from rich.text import Text

            self._console.print(Text.from_ansi(text))

    def _render(self) -> Any:
        from rich.text import Text

        now = time.time()
        lines = [f"{self._done}/{self._total} stages"]
        for stage, (started, last) in list(self._running.items()):
            usual = f", last time {seconds_text(last)}" if last else ""
            lines.append(f"  {stage}: {seconds_text(now - started)}{usual}")
        for (name, where), started in list(self._making.items()):
            place = f" on {where}" if where else ""
            lines.append(f"  environment {name}{place}: {seconds_text(now - started)}")
        lines += [f"  {stage}: waits for {what}" for stage, what in list(self._waiting.items())]
        return Text("\n".join(lines), style="dim")

    def close(self) -> None:
        self._live.stop()


def console_for(out: Output) -> PlainConsole:
    """Return a live view on a terminal, else plain lines."""
    if out.json_mode or out.quiet or not sys.stdout.isatty() or not out.color:
        return PlainConsole(out)
    return LiveConsole(out)
