"""Say of each stage whether it is fresh, restorable, stale or pending, and why."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pipesmith.cli.output import Output, reason_text

__all__ = ["add_arguments", "run", "show_states"]

_COLORS = {"fresh": "green", "restorable": "cyan", "stale": "yellow", "pending": "yellow"}
_EPILOG = """
With `--rev` nothing but git's objects is asked: a stage is `fresh` where the lockfile of that commit has its
fingerprint, its outputs at hand or not, else `stale` or `pending`. See [at a revision](../concepts.md#at-a-revision).

`--rev A..B` tells of every commit that is in B and not in A, the oldest first, in a line each: its id, what is not
fresh there, its subject. An empty side is HEAD. Commits without a pipeline.toml are left out; one whose pipeline.toml
or pipe.lock can't be read has a line that says so, and makes `--check` exit 1. With `--json`:
`{"commits": [{"revision", "stages"}]}`, and `error` where there is one.

In a bare repository the workspace is the one pipeline.toml at the revision. Where there are more, name its folder:
`--rev main:team/a`, `--rev v1..main:team/a`.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("stages", nargs="*", metavar="STAGE", help="stages or output paths; default: all")
    add("--rev", metavar="REV", help="judge a commit, or each of A..B, from git's objects and the lockfile there alone")
    add("--check", action="store_true", help="exit 1 unless every stage is fresh")
    add("--allow-missing", action="store_true", help="a locked output that no stale stage needs may be absent")


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.workspace import Workspace

    if arguments.rev is None:
        workspace = Workspace.open(".")
    else:
        workspace, arguments.rev = Workspace.open_at(arguments.rev, ".")
        if ".." in arguments.rev:
            return _range(arguments, out, workspace)
    result = workspace.status(arguments.stages, rev=arguments.rev, allow_missing=arguments.allow_missing)
    if out.json_mode:
        out.json(result.as_json())
    else:
        _show(result, out)
    if result.fresh and not out.said_more:
        workspace.leave_witness(arguments.args, "".join(out.printed))
    return 1 if arguments.check and not result.fresh else 0


def _range(arguments: argparse.Namespace, out: Output, workspace: Any) -> int:
    from pipesmith.workspace.ranges import status_of_range, summaries_of_range

    results: Iterable[Any]
    if arguments.stages or out.json_mode:
        results = status_of_range(workspace, arguments.stages, arguments.rev)
        if arguments.stages:
            results = list(results)  # a name that no commit has is told before anything is printed
        if not out.json_mode:
            results = map(_in_short, results)
    else:
        results = summaries_of_range(workspace, arguments.rev)
    seen = _Seen(results)
    if out.json_mode:
        _print_json(seen, out)
    else:
        lines = _Lines(out)
        out.lines(lines.of(each) for each in seen)
        if not seen.any:
            out.line("no commits")
    return 1 if seen.failed or (arguments.check and seen.stale) else 0


def _in_short(result: Any) -> Any:
    from pipesmith.workspace.ranges import CommitSummary
    from pipesmith.workspace.summaries import summary_of

    return CommitSummary(
        revision=result.revision,
        short=result.short,
        subject=result.subject,
        summary=summary_of(result.stages) if result.error is None else None,
        error=result.error,
    )


class _Seen:
    """Passes results on, and remembers how they were. failed: whether git could not read what it should."""

    def __init__(self, results: Iterable[Any]) -> None:
        self._results = results
        self.any = self.stale = self.failed = False

    def __iter__(self) -> Iterator[Any]:
        for result in self._results:
            self.any = True
            self.stale = self.stale or not result.fresh
            self.failed = self.failed or (result.error is not None and result.error.exit_code == 1)
            yield result


class _Lines:
    """A commit in a line. What is said of the same states is made once."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._last: Any = None
        self._said = ""

    def of(self, result: Any) -> str:
        if result.error is not None:
            said = self._out.style(f"error: {_fault(result.error)}", "red")
        else:
            if result.summary is not self._last:
                self._last, self._said = result.summary, self._words(result.summary)
            said = self._said
        return f"{self._out.style(result.short, 'bold')} {said}  {result.subject}".rstrip()

    def _words(self, summary: Any) -> str:
        parts = [f"{each.stage} ({_cause(each)})" for each in summary.named]
        if summary.stale > len(parts):
            parts.append(f"{summary.stale - len(parts)} more")
        if summary.pending:
            parts.append(f"{summary.pending} pending")
        said = [f"stale: {', '.join(parts)}"] if parts else []
        if summary.broken:
            said.append(f"broken: {', '.join(summary.broken)}")
        if said:
            return self._out.style("; ".join(said), "yellow")
        return self._out.style("fresh", "green") if summary.count else "no stages"


def _fault(error: Any) -> str:
    """Return the first thing that is wrong with a commit, in a line; the commit itself is named already."""
    first, *more = error.findings()
    file = (first.file or "").partition(":")[2]
    parts = [f"{file}:{first.line}" if first.line else file, first.key or "", first.text]
    return ": ".join(filter(None, parts)) + (f" (and {len(more)} more)" if more else "")


def _cause(cause: Any) -> str:
    """Return why a stage is stale, in a word or two."""
    words = {"new": "never built", "run": "command"}.get(cause.kind, f"{cause.kind} {cause.item}".strip())
    return f"{words}, …" if cause.more else words


def _print_json(results: Iterable[Any], out: Output) -> None:
    """Print `{"commits": […]}` as `json.dumps` would, commit by commit; a state is put into words once."""
    texts: dict[str, tuple[Any, str]] = {}
    last: Any = None
    inner = ""
    out.raw('{\n  "commits": [')
    comma = ""
    for result in results:
        if result.stages is not last:
            last = result.stages
            words = []
            for stage in result.stages:
                known = texts.get(stage.name)
                if known is None or known[0] is not stage:
                    known = texts[stage.name] = (stage, _indented(stage.as_json(), 8))
                words.append(known[1])
            inner = "[\n        {}\n      ]".format(",\n        ".join(words)) if words else "[]"
        error = f',\n      "error": {_indented(result.as_json()["error"], 6)}' if result.error is not None else ""
        head = f'\n    {{\n      "revision": "{result.revision}",\n      "stages": '
        out.raw(f"{comma}{head}{inner}{error}\n    }}")
        comma = ","
    out.raw("\n  ]\n}\n" if comma else "]\n}\n")


def _indented(value: Any, spaces: int) -> str:
    import json

    return json.dumps(value, indent=2, default=str).replace("\n", "\n" + " " * spaces)


def _show(result: Any, out: Output) -> None:
    show_states(result.stages, out)
    if not result.stages:
        out.line("no stages")


def show_states(stages: Sequence[Any], out: Output) -> None:
    """Print a line for each stage, and what is behind its state."""
    width = max((len(stage.name) for stage in stages), default=0)
    for stage in stages:
        notes = f"  ({', '.join(stage.notes)})" if stage.notes else ""
        out.line(f"{out.style(f'{stage.state:10}', _COLORS[stage.state])} {stage.name:{width}}{notes}".rstrip())
        for reason in stage.why:
            out.line(f"             {reason_text(reason)}")
        for finding in stage.problems:
            for text in finding.render().splitlines():
                out.line(f"             {text}")
        for text in stage.broken:
            out.line(f"             {text}")
