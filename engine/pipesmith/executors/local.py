"""This machine: stages started by a supervisor process, in a sandbox of namespaces or, where there are none, of copies.

One thread reads the output of all jobs and what the supervisor answers; a short-lived one a job makes its sandbox.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable
from typing import Any

from pipesmith.errors import Cancelled, EnvironmentFailure, PipeError
from pipesmith.executors.aliases import aliases
from pipesmith.executors.attempt import LocalAttempt
from pipesmith.executors.base import Attempt, Capacity, Job
from pipesmith.executors.machine import machine_capacity
from pipesmith.executors.materialise import materialise
from pipesmith.executors.probe import Probe, probe, remember
from pipesmith.executors.supervisor_link import SupervisorLink

__all__ = ["LocalExecutor"]

_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031
_GONE = "the supervisor process has ended; was it killed?"


class LocalExecutor:
    """pipe_dir: the repository's `pipe` folder, which stages do not see. mode: `namespaces`, `copies`, or `auto` for
    what the system offers."""

    is_far = False

    def __init__(self, pipe_dir: str, mode: str = "auto") -> None:
        self._pipe_dir = pipe_dir
        self._wanted = mode
        self._guard = threading.Lock()
        self._link: SupervisorLink | None = None
        self._poll = select.epoll()
        self._reading: dict[int, LocalAttempt] = {}  # read end of a pipe: whose it is
        self._attempts: dict[int, LocalAttempt] = {}
        self._asked: set[int] = set()  # attempts that the supervisor knows
        self._next = 0
        self._probe: Probe | None = None
        self._greeted = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._closed_known: dict[tuple[str, tuple[str, ...]], list[str]] = {}

    def start(self) -> None:
        """Start the supervisor, if it is not there yet. Returns before it is ready. Raises EnvironmentFailure."""
        with self._guard:
            self._start()

    def _start(self) -> SupervisorLink:
        if self._closed:
            raise EnvironmentFailure("the executor of this machine was closed")
        if self._link is None:
            self._link = SupervisorLink()
            self._greeted.clear()
            self._poll.register(self._link.socket.fileno(), select.EPOLLIN)
            self._thread = threading.Thread(target=self._read, args=(self._link,), name="stage output", daemon=True)
            self._thread.start()
        return self._link

    @property
    def mode(self) -> str:
        """`namespaces` or `copies`: what stages get."""
        return self._wanted if self._wanted in ("namespaces", "copies") else self.probe().mode

    def probe(self) -> Probe:
        """Return what this machine offers, as the supervisor found when it started."""
        self.start()
        self._greeted.wait()
        if self._probe is None:
            raise EnvironmentFailure(_GONE)
        return self._probe

    def capacity(self) -> Capacity:
        """Return this machine's CPUs and memory. GPUs are given out by `gpus.GpuPool`."""
        return machine_capacity()

    def submit(
        self, job: Job, on_line: Callable[[str, str], None], may_start: Callable[[], object] = lambda: None
    ) -> Attempt:
        """Start a job. What goes wrong from here on is told by its result."""
        self.start()
        with self._guard:
            self._next += 1
            attempt = LocalAttempt(self._next, job, self._ask_to_end)
            self._attempts[attempt.number] = attempt
        threading.Thread(
            target=self._begin, args=(attempt, on_line, may_start), name=f"start {job.stage}", daemon=True
        ).start()
        return attempt

    def run_interactive(self, job: Job) -> int:
        """Run a job with this process's own terminal and return its exit code, 128 + N after signal N."""
        from pipesmith.executors.terminal import keys_for_others

        attempt = LocalAttempt(0, job, lambda _attempt: None)
        found = probe()
        request = self._request(attempt, found) | {"terminal": True, "timeout_s": None}
        with keys_for_others():
            link = SupervisorLink(terminal=True)
            try:
                link.send("run", 0, request)
                while not link.ended:
                    for message in link.receive():
                        if message[0] == "ended":
                            attempt.end(message[2])
                            link.hang_up()
                attempt.end({"problem": _GONE})
            finally:
                link.close()
                _take_terminal_back()
        result = attempt.wait()
        if result.problem:
            raise EnvironmentFailure(result.problem)
        return 128 + result.signal if result.signal is not None else result.exit_code or 0

    def close(self) -> None:
        """End what is left and free what is held. Jobs that still ran are told as cancelled."""
        with self._guard:
            self._closed = True
            link, self._link = self._link, None
            left = list(self._attempts.values())
        for attempt in left:
            attempt.cancelled.set()
        if link is not None:
            link.hang_up()
        if self._thread is not None:
            self._thread.join()
        if link is not None:
            link.close()
        with self._guard:
            if not self._poll.closed:
                self._poll.close()

    # -- starting a job -----------------------------------------------------------------------------------------------

    def _begin(
        self, attempt: LocalAttempt, on_line: Callable[[str, str], None], may_start: Callable[[], object]
    ) -> None:
        """Make the sandbox and hand the job to the supervisor."""
        try:
            found = self.probe()
            request = self._request(attempt, found)
            attempt.open_output(on_line)
            may_start()
            self._hand_over(attempt, request)
        except Cancelled:
            self._drop(attempt, {"cancelled": True})
        except PipeError as error:
            self._drop(attempt, {"problem": error.text})
        except OSError as error:
            about = f"`{error.filename}`: " if error.filename else ""
            self._drop(attempt, {"problem": f"it could not be started: {about}{error.strerror}"})
        except BaseException as error:
            self._drop(attempt, {"problem": f"it could not be started: {error!r}"})
            raise

    def _drop(self, attempt: LocalAttempt, told: dict[str, Any]) -> None:
        with self._guard:
            self._attempts.pop(attempt.number, None)
        attempt.end(told)

    def _request(self, attempt: LocalAttempt, found: Probe) -> dict[str, Any]:
        """Make a job's sandbox. Returns what the supervisor needs to know."""
        job = attempt.job
        layout = job.layout
        request: dict[str, Any] = {
            "argv": list(job.argv),
            "env": dict(job.env),
            "timeout_s": job.timeout_s,
            "grace_s": job.grace_s,
            "private": False,
            "user": False,
            "pid": False,
            "view": None,
            "protected": [],
            "allowed": [],
            "terminal": False,
        }
        if not job.sandboxed:
            for mount in layout.mounts:
                if mount.writable and os.path.isabs(mount.path):
                    os.symlink(mount.origin, mount.path)
            request["cwd"] = os.path.join(layout.workspace, job.cwd)
            return request
        mounted = (self._wanted if self._wanted in ("namespaces", "copies") else found.mode) == "namespaces"
        if mounted and found.mode != "namespaces":
            raise EnvironmentFailure(f"this machine offers {found.why}", "set PIPE_SANDBOX=copies, or leave it to pipe")
        attempt.sandbox = materialise(
            layout, os.path.join(job.scratch, "sandbox"), mounted=mounted, stop=attempt.cancelled.is_set
        )
        closed = self._closed_folders(layout.workspace, layout.hidden)
        if mounted:
            empty = os.path.join(job.scratch, "empty")
            if closed:
                os.mkdir(empty, 0o555)
            view = {
                "binds": attempt.sandbox.binds,
                "root": attempt.sandbox.root,
                "workspace": layout.workspace,
                "hidden": closed,
                "empty": empty,
            }
            request |= {"private": True, "user": found.user, "pid": found.pid, "view": view}
        else:
            request["protected"] = [layout.workspace, *closed]
            writable = [mount.origin for mount in layout.mounts if mount.writable]
            request["allowed"] = [attempt.sandbox.root, job.tmpdir, *writable]
        request["cwd"] = os.path.normpath(os.path.join(layout.workspace if mounted else attempt.sandbox.root, job.cwd))
        return request

    def _closed_folders(self, workspace: str, hidden: tuple[str, ...]) -> list[str]:
        """Return the folders besides the workspace that a sandboxed job may not reach, by whatever path."""
        known = self._closed_known.get((workspace, hidden))
        if known is not None:
            return known
        folders = [path for path in (*hidden, self._pipe_dir) if os.path.isdir(path)]
        folders += [other for path in (workspace, *folders) for other in aliases(path)]
        top = os.path.realpath(workspace)
        kept: list[str] = []
        for path in sorted(os.path.realpath(path) for path in folders):
            if not any(path == above or path.startswith(f"{above}/") for above in (top, *kept)):
                kept.append(path)
        self._closed_known[(workspace, hidden)] = kept
        return kept

    def _hand_over(self, attempt: LocalAttempt, request: dict[str, Any]) -> None:
        ends = [(stream, *os.pipe()) for stream in ("stdout", "stderr")]
        try:
            for _stream, reader, _writer in ends:
                os.set_blocking(reader, False)
                _grow(reader)
            with self._guard:
                if attempt.cancelled.is_set():
                    raise Cancelled()
                link = self._start()
                try:
                    link.send("run", attempt.number, request, fds=[writer for _stream, _reader, writer in ends])
                except OSError:
                    raise EnvironmentFailure(_GONE) from None
                self._asked.add(attempt.number)
                for stream, reader, _writer in ends:
                    attempt.streams[reader] = stream
                    self._reading[reader] = attempt
                    self._poll.register(reader, select.EPOLLIN)
        except BaseException:
            for _stream, reader, _writer in ends:
                os.close(reader)
            raise
        finally:
            for _stream, _reader, writer in ends:
                os.close(writer)

    def _ask_to_end(self, attempt: LocalAttempt) -> None:
        """Pass a cancellation on. A job that the supervisor does not know yet sees its own flag."""
        with self._guard:
            if attempt.number in self._asked and self._link is not None:
                try:
                    self._link.send("cancel", attempt.number)
                except OSError:
                    pass  # the supervisor is gone, and the job with it

    # -- the thread that reads everything -----------------------------------------------------------------------------

    def _read(self, link: SupervisorLink) -> None:
        socket = link.socket.fileno()
        while not link.ended:
            events = self._poll.poll()
            answered = False
            for fd, _event in events:
                if fd == socket:
                    answered = True
                elif fd in self._reading and not self._reading[fd].readable(fd):
                    self._forget(fd)
            if answered:
                for message in link.receive():
                    self._answered(message)
        self._lost(link)

    def _answered(self, message: tuple[Any, ...]) -> None:
        if message[0] == "hello":
            self._probe = remember(message[1])
            self._greeted.set()
            return
        with self._guard:
            attempt = self._attempts.pop(message[1], None)
            self._asked.discard(message[1])
        if attempt is not None:
            self._end(attempt, message[2])

    def _end(self, attempt: LocalAttempt, told: dict[str, Any]) -> None:
        for fd in list(attempt.streams):
            if self._reading.get(fd) is attempt:
                attempt.drain(fd)
                self._forget(fd)
        attempt.end(told)

    def _forget(self, fd: int) -> None:
        with self._guard:
            self._poll.unregister(fd)
            del self._reading[fd]
        os.close(fd)

    def _lost(self, link: SupervisorLink) -> None:
        """The supervisor is gone, and every job with it. Another one is started for the next job."""
        with self._guard:
            self._poll.unregister(link.socket.fileno())
            if self._link is link:
                self._link = None
            left = [self._attempts.pop(number) for number in self._asked if number in self._attempts]
            self._asked.clear()
            closed = self._closed
        self._greeted.set()
        for attempt in left:
            self._end(attempt, {"cancelled": True} if closed else {"problem": _GONE})


def _grow(reader: int) -> None:
    """Make a pipe bigger, so that a chatty command need not wait for its reader; as long as the user may."""
    import fcntl

    try:
        fcntl.fcntl(reader, _F_SETPIPE_SZ, _PIPE_BYTES)
    except OSError:
        pass


def _take_terminal_back() -> None:
    """Make this process the foreground of its terminal again, after a shell that had jobs of its own."""
    handled = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    try:
        os.tcsetpgrp(0, os.getpgrp())
    except OSError:
        pass  # no terminal
    finally:
        signal.signal(signal.SIGTTOU, handled)
