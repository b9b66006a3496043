"""What a stage printed in a run."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipesmith.cli.output import Output, printable
from pipesmith.errors import UserError

if TYPE_CHECKING:
    from pipesmith.history.record import RunRecord

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", nargs="?", default="latest", help="default: the last run")
    parser.add_argument("stage", metavar="STAGE", nargs="?", help="default: every stage that printed something")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as the run goes on")


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.history.logged import follow_logged, read_logged
    from pipesmith.history.logs import follow, log_path
    from pipesmith.history.shared_logs import bring_logs
    from pipesmith.workspace import Workspace
    from pipesmith.workspace.detached import recorded

    workspace = Workspace.open_history(".")
    store = workspace.run_store
    record = recorded(workspace, arguments.run)
    bring_logs(workspace.repo, store.logs, record.id)

    def done() -> bool:
        return not arguments.follow or store.get(record.id).status != "running"

    def logs() -> dict[str, str]:
        found = _logs(workspace.pipe_dir, record)
        cells = f"{arguments.stage}@"
        return {path: name for path, name in found.items() if not arguments.stage or name.startswith(cells)}

    alone = arguments.stage and not logs()  # else a stage with a matrix: all its cells
    if alone:
        names = {log_path(workspace.pipe_dir, record.id, arguments.stage): arguments.stage}
        if not all(map(os.path.exists, names)) and not (arguments.follow and record.status == "running"):
            text = f"run {record.id} has no log of stage `{arguments.stage}`"
            raise UserError(text, f"`pipe show {record.id}` lists its stages")
    else:
        names = logs()
    if out.json_mode:
        while not done():
            time.sleep(0.1)
        texts, logged = {}, {}
        for path, name in (names if alone else logs()).items():
            with open(path, encoding="utf-8", errors="replace") as file:
                texts[name] = file.read()
            if entries := read_logged(path):
                logged[name] = entries
        out.json({"run": record.id, "logs": texts, "logged": logged})
        return 0
    if arguments.follow and not alone:
        _follow_all(logs, done)
        return 0
    if not alone and not any(map(os.path.getsize, names)):
        out.note(f"run {record.id} printed nothing")
    for path, name in names.items():
        if not alone and not os.path.getsize(path):
            continue
        if len(names) > 1:
            print(f"==> {printable(name)} <==", flush=True)
        for data in follow_logged(path, done) if arguments.follow else follow(path, done):
            _write(data)
    return 0


def _logs(pipe_dir: str, record: RunRecord) -> dict[str, str]:
    """Return path to stage of the logs that a run has by now."""
    from urllib.parse import unquote

    from pipesmith.history.logs import log_path

    known = {log_path(pipe_dir, record.id, stage.name): stage.name for stage in record.stages}
    folder = os.path.join(pipe_dir, "logs", record.id)
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    paths = [os.path.join(folder, name) for name in names if name.endswith(".log")]
    return {path: known.get(path) or unquote(os.path.basename(path).removesuffix(".log")) for path in paths}


def _follow_all(logs: Callable[[], dict[str, str]], done: Callable[[], bool]) -> None:
    """Write what any stage of a run prints, as it comes, with the stage's name above where it is another than
    before."""
    from pipesmith.history.logged import Followed

    followed: dict[str, Followed] = {}
    last, ended = None, True
    while True:
        finished = done()
        for path, name in logs().items():
            data = followed.setdefault(path, Followed(path)).more()
            if not data:
                continue
            if path != last:
                _write(f"{'' if ended else chr(10)}==> {printable(name)} <==\n".encode())
            _write(data)
            last, ended = path, data.endswith(b"\n")
        if finished:
            return
        time.sleep(0.1)


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
