"""Builds that go on by themselves: started in a session of their own, waited for, cancelled."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pipesmith.errors import EnvironmentFailure, UserError
from pipesmith.history.run_id import is_run_id, new_run_id
from pipesmith.liveness import is_alive, process_mark
from pipesmith.records import record

if TYPE_CHECKING:
    from pipesmith.history.record import RunRecord
    from pipesmith.workspace.workspace import Workspace

__all__ = ["Ended", "cancel", "detach", "kept_exit", "recorded", "wait"]

_LOOK_S = 0.1
_ASK_AGAIN_S = 1.0
_VARIABLE = "PIPE_DETACHED_RUN"
_COMMAND = "PIPE_DETACHED_COMMAND"
_KEEP_S = 30 * 86400.0


@record
class Ended:
    """How a run ended. status: `succeeded`, `failed`, `cancelled`, `up-to-date`, or `running` where it has not.
    exit_code: the build's; 1 while it runs. said: the last of what a detached build printed that became no run."""

    run: str
    status: str
    exit_code: int
    said: str = ""


def _folder(workspace: Workspace) -> str:
    return os.path.join(workspace.pipe_dir, "detached")


def detach(workspace: Workspace, args: Sequence[str], command_line: Sequence[str]) -> str:
    """Start `pipe ARGS` (a build, without `--detach`) in the current folder, in a session of its own; return its run's
    id. What it prints lies in `detached/RUN.log`. command_line: what its record is to say that was asked for. Raises
    EnvironmentFailure where that can't be written."""
    run = new_run_id()
    place = os.path.join(_folder(workspace), run)
    try:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        _forget_old(workspace)
        with open(f"{place}.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "pipesmith", *args],
                env={**os.environ, _VARIABLE: run, _COMMAND: json.dumps(list(command_line))},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        _write(
            f"{place}.json", {"pid": process.pid, "process": process_mark(process.pid), "host": socket.gethostname()}
        )
    except OSError as error:
        raise EnvironmentFailure(f"no build can be started by itself: {error.filename}: {error.strerror}") from None
    return run


@contextlib.contextmanager
def kept_exit(workspace: Workspace) -> Iterator[tuple[str | None, list[str] | None, list[int]]]:
    """Give the id that this build's run is to have, if it was detached, the command line that did so, and a list for
    its exit code, kept at the end for those who wait."""
    run, asked = os.environ.pop(_VARIABLE, None), os.environ.pop(_COMMAND, None)
    if run is None or not is_run_id(run):
        yield None, None, []
        return
    code: list[int] = []
    try:
        yield run, json.loads(asked) if asked else None, code
    except BaseException as error:
        code.append(getattr(error, "exit_code", 130 if isinstance(error, KeyboardInterrupt) else 70))
        raise
    finally:
        with contextlib.suppress(OSError):
            _write(os.path.join(_folder(workspace), f"{run}.exit"), code[-1] if code else 1)


def wait(workspace: Workspace, name: str, timeout_s: float | None = None) -> Ended:
    """Wait until a run has ended, or for so many seconds, and return how. Raises UserError for what is no run."""
    until = time.monotonic() + timeout_s if timeout_s is not None else None
    while True:
        found = _look(workspace, name)
        if found.status != "running" or (until is not None and time.monotonic() >= until):
            return found
        time.sleep(_LOOK_S)


def cancel(workspace: Workspace, name: str, *, patience_s: float = 60.0) -> Ended:
    """Ask a run to end as Ctrl-C would, and wait until it has. One that has ended already is left as it is.

    It is asked again while it goes on: a program that is just being started may not hear of it. Raises UserError for
    what is no run, and for one that goes on elsewhere."""
    found = _look(workspace, name)
    if found.status != "running":
        return found
    started = _started(workspace, found.run)
    if started is None:
        record = workspace.run_store.get(found.run)
        started = {"pid": record.pid, "process": record.process, "host": record.host}
    if started["host"] != socket.gethostname():
        raise UserError(f"run {found.run} goes on on `{started['host']}`", f"run `pipe cancel {found.run}` there")
    ended, until = found, time.monotonic() + patience_s
    while ended.status == "running" and time.monotonic() < until:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(started["pid"]), signal.SIGINT)
        ended = wait(workspace, found.run, _ASK_AGAIN_S)
    place = os.path.join(_folder(workspace), found.run)
    if ended.status == "failed" and _started(workspace, found.run) is not None and _read(f"{place}.exit") is None:
        _write(f"{place}.exit", _EXITS["cancelled"])  # it ended before it could keep its exit code
        return _look(workspace, found.run)
    return ended


def recorded(workspace: Workspace, name: str) -> RunRecord:
    """Return a run's record. One of a detached build that has not come to it yet is waited for. Raises UserError for
    what is no run, and for a detached build that became none."""
    while True:
        try:
            return workspace.run_store.get(name)
        except UserError:
            if _started(workspace, name) is None:
                raise
        found = _look(workspace, name)
        if found.status != "running":
            with contextlib.suppress(UserError):
                return workspace.run_store.get(name)
            text = f"`{name}` ended without a run: {found.status}"
            raise UserError(text, f"`pipe wait {name}` tells what it said")
        time.sleep(_LOOK_S)


def _look(workspace: Workspace, name: str) -> Ended:
    """Return how a run is: by what its detached build kept, and by its record."""
    run, started = name, _started(workspace, name)
    if started is None:
        record = workspace.run_store.get(name)
        run, started = record.id, _started(workspace, record.id)
        if started is None:
            return Ended(run=run, status=record.status, exit_code=_EXITS.get(record.status, 1))
    place = os.path.join(_folder(workspace), run)
    code = _read(f"{place}.exit")
    if code is None and started["host"] == socket.gethostname() and not is_alive(started["pid"], started["process"]):
        code = _read(f"{place}.exit")  # it may have ended in between
        code = 1 if code is None else code  # killed
    if code is None:
        return Ended(run=run, status="running", exit_code=1)
    try:
        status = workspace.run_store.get(run).status
    except UserError:  # nothing was run: it was up to date, or refused
        said = _last_words(f"{place}.log")
        status = {0: "up-to-date", _EXITS["cancelled"]: "cancelled"}.get(code, "failed")
        return Ended(run=run, status=status, exit_code=code, said=said)
    return Ended(run=run, status=status, exit_code=code)


_EXITS = {"succeeded": 0, "up-to-date": 0, "failed": 1, "cancelled": 130}


def _started(workspace: Workspace, run: str) -> dict[str, Any] | None:
    return _read(os.path.join(_folder(workspace), f"{run}.json")) if is_run_id(run) else None


def _write(path: str, value: Any) -> None:
    with open(f"{path}.tmp", "w", encoding="utf-8") as file:
        json.dump(value, file)
    os.replace(f"{path}.tmp", path)


def _read(path: str) -> Any:
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def _last_words(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()[-4000:].strip()
    except OSError:
        return ""


def _forget_old(workspace: Workspace) -> None:
    for entry in os.scandir(_folder(workspace)):
        with contextlib.suppress(OSError):
            if time.time() - entry.stat().st_mtime > _KEEP_S:
                os.unlink(entry.path)
