"""One try of a job on this machine."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from pipesmith.executors.base import Job, JobResult, Usage
from pipesmith.executors.materialise import Sandbox
from pipesmith.executors.output import JobOutput
from pipesmith.store.modes import make_folders, share

__all__ = ["LocalAttempt"]

_READ = 1 << 18
_DRAIN_READS = 64  # a foreign process may hold the pipe and write on and on


class LocalAttempt:
    """Made by LocalExecutor.submit; `readable` and `ended` are called by its output thread only."""

    def __init__(self, number: int, job: Job, cancel: Callable[[LocalAttempt], None]) -> None:
        self.number = number
        self.job = job
        self.cancelled = threading.Event()
        self.sandbox: Sandbox | None = None
        self.streams: dict[int, str] = {}  # read ends of its pipes
        self._cancel = cancel
        self._output: JobOutput | None = None
        self._log: int | None = None
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._finishing = threading.Lock()
        self._told: dict[str, Any] = {}
        self._tail: tuple[str, ...] = ()
        self._result: JobResult | None = None

    @property
    def root(self) -> str:
        return self.sandbox.root if self.sandbox is not None else self.job.layout.workspace

    def open_output(self, on_line: Callable[[str, str], None]) -> None:
        """Open the log. Raises OSError."""
        if self.job.log_path:
            make_folders(os.path.dirname(self.job.log_path))
            self._log = os.open(self.job.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            share(self.job.log_path)
        self._output = JobOutput(self._log, self.job.secrets, on_line)

    def readable(self, fd: int) -> bool:
        """Take what a stream has now. False: it has ended."""
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            return True
        if data and self._output is not None:
            self._output.feed(self.streams[fd], data)
        return bool(data)

    def drain(self, fd: int) -> None:
        """Take what is still in a stream whose writers are gone, or do not count any more."""
        for _ in range(_DRAIN_READS):
            try:
                data = os.read(fd, _READ)
            except BlockingIOError:
                return
            if not data:
                return
            if self._output is not None:
                self._output.feed(self.streams[fd], data)

    def end(self, told: Mapping[str, Any]) -> None:
        """The command has ended and nothing of it is left, or it never began. told: what the supervisor says of it."""
        if self._ended.is_set():
            return
        self._told = dict(told)
        if self._output is not None:
            self._tail = self._output.end()
            self._told["problem"] = self._told.get("problem") or self._output.problem
        if self._log is not None:
            os.close(self._log)
            self._log = None
        self._ended.set()

    def wait(self) -> JobResult:
        """Block until it has ended, then return how."""
        self._ended.wait()
        with self._finishing:
            if self._result is None:
                self._result = self._finish()
            return self._result

    def cancel(self) -> None:
        """Ask it to end."""
        self.cancelled.set()
        if not self._ended.is_set():
            self._cancel(self)

    def _finish(self) -> JobResult:
        told = self._told
        problem = told.get("problem")
        if self.sandbox is not None:
            if problem is None and told.get("exit") == 0:
                written = self.sandbox.written_input()
                if written is not None:
                    problem = f"it wrote to its input `{written}`, which is read-only"
            self.sandbox.unlock()
        return JobResult(
            exit_code=told.get("exit"),
            root=self.root,
            signal=told.get("signal"),
            timed_out=told.get("timed_out", False),
            cancelled=told.get("cancelled", False),
            out_of_memory=told.get("out_of_memory", False),
            problem=problem,
            usage=Usage(
                wall_s=told.get("wall_s", time.monotonic() - self._began),
                cpu_s=told.get("cpu_s", 0.0),
                peak_bytes=told.get("peak_bytes", 0),
            ),
            tail=self._tail,
        )
