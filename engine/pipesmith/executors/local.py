"""This machine: stages started by a supervisor process, in a sandbox of namespaces or, where there are none, of copies."""

from __future__ import annotations

import marshal
import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from pipesmith.errors import EnvironmentFailure
from pipesmith.executors.base import Attempt, Capacity, Job, JobResult, Usage
from pipesmith.executors.materialise import make_copies, make_mounted
from pipesmith.executors.output import OutputPump, usable_secrets
from pipesmith.executors.probe import machine_capacity, probe_namespaces

__all__ = ["LocalExecutor"]

_READ = 1 << 18


class LocalExecutor:
    """pipe_dir: where an empty folder is kept. mode: `namespaces`, `copies`, or `auto` for what the system offers."""

    def __init__(self, pipe_dir: str, mode: str = "auto") -> None:
        self._pipe_dir = pipe_dir
        self._wanted = mode
        self._guard = threading.Lock()
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._attempts: dict[int, _Attempt] = {}
        self._next = 0
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        self._closing = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the supervisor, if it is not there yet."""
        with self._guard:
            if self._channel is not None:
                return
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            script = os.path.join(os.path.dirname(os.path.dirname(__file__)), "launcher", "supervisor.py")
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", script, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL if not os.environ.get("PIPE_DEBUG") else None,
                start_new_session=True,
            )
            theirs.close()
            self._channel = ours
            self._selector.register(ours, selectors.EVENT_READ, self._answered)
            self._selector.register(self._wake_read, selectors.EVENT_READ, self._woken)
            self._thread = threading.Thread(target=self._pump, name="output", daemon=True)
            self._thread.start()

    @property
    def mode(self) -> str:
        """`namespaces` or `copies`: what stages get."""
        if self._wanted in ("namespaces", "copies"):
            return self._wanted
        return "namespaces" if probe_namespaces() is None else "copies"

    def capacity(self) -> Capacity:
        return machine_capacity()

    def submit(self, job: Job, on_line: Callable[[str, str], None]) -> Attempt:
        self.start()
        root, spec = self.prepare(job)
        os.makedirs(os.path.dirname(job.log_path), exist_ok=True)
        log = open(job.log_path, "ab", buffering=0)
        secrets = usable_secrets(job.secrets)
        pipes = [os.pipe(), os.pipe()]
        with self._guard:
            self._next += 1
            attempt = _Attempt(self, self._next, job, root, log)
            self._attempts[attempt.number] = attempt
            spec_path = os.path.join(job.scratch, "spec")
            with open(spec_path, "wb") as file:
                marshal.dump(spec, file)
            for stream, (read, _write) in zip(("stdout", "stderr"), pipes, strict=True):
                os.set_blocking(read, False)
                pump = OutputPump(stream, secrets, log.write, on_line)
                attempt.pumps[read] = pump
                self._selector.register(read, selectors.EVENT_READ, attempt.readable)
            assert self._channel is not None
            request = marshal.dumps({"op": "run", "id": attempt.number, "spec": spec_path})
            try:
                socket.send_fds(self._channel, [request], [write for _read, write in pipes])
            except OSError:
                attempt.finish({"exit": None, "signal": None, "problem": "the supervisor process has ended"})
            finally:
                for _read, write in pipes:
                    os.close(write)
        self._wake()
        return attempt

    def prepare(self, job: Job) -> tuple[str, dict[str, Any]]:
        """Make a job's sandbox; return the folder in which its outputs will lie, and what the supervisor needs to know."""
        layout = job.layout
        spec: dict[str, Any] = {
            "argv": list(job.argv),
            "env": dict(job.env),
            "timeout_s": job.timeout_s,
            "grace_s": job.grace_s,
            "private": False,
        }
        if not job.sandboxed:
            root = layout.workspace
            spec["private"] = False
        else:
            root = os.path.join(job.scratch, "sandbox")
            os.makedirs(root)
            if self.mode == "namespaces":
                empty = os.path.join(job.scratch, "empty")
                os.mkdir(empty, 0o555)
                spec |= {
                    "private": True,
                    "workspace": layout.workspace,
                    "root": root,
                    "binds": make_mounted(layout, root),
                    "hidden": [folder for folder in layout.hidden if os.path.isdir(folder)],
                    "empty": empty,
                }
            else:
                make_copies(layout, root)
        seen = layout.workspace if spec["private"] else root
        spec["cwd"] = os.path.normpath(os.path.join(seen, job.cwd))
        return root, spec

    def run_interactive(self, job: Job) -> int:
        """Run a job with this process's own terminal and return its exit code, as `pipe shell` needs it."""
        _root, spec = self.prepare(job)
        spec["session"] = False
        sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(__file__)), "launcher"))
        import stage_init  # type: ignore[import-not-found]

        pid, report = stage_init.start(spec, [os.dup(0), os.dup(1), os.dup(2)], setsid=False)
        os.waitpid(pid, 0)
        answer = marshal.loads(os.read(report, 65536))
        os.close(report)
        if answer["problem"]:
            raise EnvironmentFailure(answer["problem"])
        return 128 + answer["signal"] if answer["signal"] else int(answer["exit"])

    def close(self) -> None:
        """End what is left."""
        with self._guard:
            channel, self._channel = self._channel, None
            self._closing = True
        if channel is None:
            return
        self._wake()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)
        channel.close()
        if self._process is not None:
            try:
                self._process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def cancel(self, number: int) -> None:
        with self._guard:
            if self._channel is not None and number in self._attempts:
                try:
                    self._channel.send(marshal.dumps({"op": "cancel", "id": number}))
                except OSError:
                    pass

    # -- the thread that reads everything -------------------------------------------------------------------------

    def _wake(self) -> None:
        os.write(self._wake_write, b"x")

    def _woken(self, _fd: int) -> None:
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            pass

    def _pump(self) -> None:
        while not self._closing:
            for key, _events in self._selector.select():
                key.data(key.fd)

    def _answered(self, _fd: int) -> None:
        channel = self._channel
        if channel is None:
            return
        try:
            data = channel.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(channel)
            with self._guard:
                left = list(self._attempts.values())
            for attempt in left:
                attempt.finish({"exit": None, "signal": None, "problem": "the supervisor process has ended"})
            return
        answer = marshal.loads(data)
        with self._guard:
            attempt_or_none = self._attempts.pop(answer["id"], None)
        if attempt_or_none is not None:
            attempt_or_none.finish(answer)

    def forget(self, fd: int) -> None:
        self._selector.unregister(fd)
        os.close(fd)


class _Attempt:
    """One try of a job on this machine."""

    def __init__(self, executor: LocalExecutor, number: int, job: Job, root: str, log: Any) -> None:
        self.number = number
        self.pumps: dict[int, OutputPump] = {}
        self._executor = executor
        self._job = job
        self._root = root
        self._log = log
        self._started = time.monotonic()
        self._ended = threading.Event()
        self._result: JobResult | None = None
        self._tails: list[OutputPump] = []

    def readable(self, fd: int) -> None:
        """Take what a stream has now."""
        pump = self.pumps.get(fd)
        if pump is None:
            return
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            return
        if data:
            pump.feed(data)
        else:
            self._close(fd)

    def _close(self, fd: int) -> None:
        pump = self.pumps.pop(fd)
        pump.end()
        self._tails.append(pump)
        self._executor.forget(fd)

    def finish(self, answer: dict[str, Any]) -> None:
        """The command has ended and nothing of it is left: take what is still in the pipes, and be done."""
        for fd in list(self.pumps):
            while True:
                try:
                    data = os.read(fd, _READ)
                except BlockingIOError:
                    break
                if not data:
                    break
                self.pumps[fd].feed(data)
            self._close(fd)
        self._log.close()
        tail = [line for pump in sorted(self._tails, key=lambda pump: pump._stream, reverse=True) for line in pump.tail_lines()]
        self._result = JobResult(
            exit_code=answer["exit"],
            root=self._root,
            signal=answer["signal"],
            timed_out=answer.get("timed_out", False),
            cancelled=answer.get("cancelled", False),
            problem=answer["problem"],
            usage=Usage(
                wall_s=time.monotonic() - self._started,
                cpu_s=answer.get("cpu_s", 0.0),
                peak_bytes=answer.get("peak_bytes", 0),
            ),
            tail=tuple(tail[-40:]),
        )
        self._ended.set()

    def wait(self) -> JobResult:
        self._ended.wait()
        assert self._result is not None
        return self._result

    def cancel(self) -> None:
        self._executor.cancel(self.number)
