"""Put outputs as they are locked, or as a run made them, into the workspace or elsewhere. Nothing edited by hand is
lost."""

from __future__ import annotations

import argparse

from pipesmith.cli.output import Output

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("stages", metavar="STAGE", nargs="*", help="default: all")
    add("--to", metavar="DIR", help="below this folder instead of the workspace")
    add("--run", metavar="RUN", help="as this run made them")
    add("--allow-missing", action="store_true", help="what is not in the cache may be absent")
    parser.epilog = """\
With `--run` and `--to` the outputs of all stages of the run are taken, also of those that pipeline.toml does not have
any more; into the workspace these come only if they are named."""


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.workspace import Workspace
    from pipesmith.workspace.outputs import checkout

    done = checkout(
        Workspace.open("."),
        arguments.stages,
        to=arguments.to,
        run=arguments.run,
        allow_missing=arguments.allow_missing,
    )
    if out.json_mode:
        kept = {path: digest.text for path, digest in done.kept.items()}
        out.json({"placed": done.placed, "kept": kept, "missing": done.missing})
    else:
        for path in done.placed:
            out.line(f"placed {path}")
        for path, digest in done.kept.items():
            out.warn(
                f"`{path}` was not what the lockfile says; it is kept as {digest.hex}",
                f"`pipe cat {digest.hex[:12]}` shows it",
            )
        for path, text in done.missing.items():
            out.warn(f"`{path}`: {text}", "build it, or pass `--allow-missing`")
        if not (done.placed or done.missing):
            none = "pipe.lock has no outputs yet: `pipe build` makes them"
            if arguments.run is not None:
                none = "that run made no outputs"
                if arguments.to is None:
                    none += " of stages that pipeline.toml has; `--to DIR` takes those of all"
            out.line("up to date" if done.looked_at else none)
    return 1 if done.missing else 0
