"""What a stage printed in a run."""

from __future__ import annotations

import argparse
import os
import sys

from pipesmith.cli.output import Output
from pipesmith.errors import UserError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", nargs="?", default="latest", help="default: the last run")
    parser.add_argument("stage", metavar="STAGE", nargs="?", help="default: every stage that printed something")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as the run goes on")


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.history.logged import follow_logged, read_logged
    from pipesmith.history.logs import follow, log_path
    from pipesmith.workspace import Workspace

    workspace = Workspace.open(".")
    store = workspace.run_store
    record = store.get(arguments.run)
    folder = os.path.join(workspace.pipe_dir, "logs", record.id)
    if arguments.stage:
        paths = [log_path(workspace.pipe_dir, record.id, arguments.stage)]
        if not os.path.exists(paths[0]) and not (arguments.follow and record.status == "running"):
            raise UserError(f"run {record.id} has no log of stage `{arguments.stage}`", f"`pipe show {record.id}` lists its stages")
    else:
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        paths = [os.path.join(folder, name) for name in names if name.endswith(".log")]
    if out.json_mode:
        logs, logged = {}, {}
        for path in paths:
            with open(path, encoding="utf-8", errors="replace") as file:
                logs[os.path.basename(path).removesuffix(".log")] = file.read()
            if entries := read_logged(path):
                logged[os.path.basename(path).removesuffix(".log")] = entries
        out.json({"run": record.id, "logs": logs, "logged": logged})
        return 0

    def done() -> bool:
        return not arguments.follow or store.get(record.id).status != "running"

    for path in paths:
        if len(paths) > 1:
            print(f"==> {os.path.basename(path).removesuffix('.log')} <==", flush=True)
        for data in follow_logged(path, done) if arguments.follow else follow(path, done):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
    return 0
