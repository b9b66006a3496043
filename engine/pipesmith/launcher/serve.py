"""The supervisor's loop: asked and answering over one socket, whose end means that pipe is gone and all jobs must go.

Messages, both ways: four bytes of length, then a marshalled tuple. Asked: `("run", id, job)` with the write ends of the
job's stdout and stderr passed along, `("cancel", id)`. Answered: `("hello", probe)` once, `("ended", id, result)`.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # as in init.py
import _socket
import marshal
import os
import select
import struct
import time

from . import init, landlock
from .namespaces import probe
from .processes import end_descendants
from .syscalls import prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["main"]

_PR_SET_CHILD_SUBREAPER = 36
_PASSED_FDS = 16
_CHUNK = 1 << 18
_LONGEST_S = 86400.0  # that one poll waits: it counts milliseconds in an int of C, which ends at 24 days


class _Running:
    """A job under way. kill_at: when it is killed, after it was asked to end."""

    __slots__ = (
        "alone",
        "cancelled",
        "deadline",
        "grace_s",
        "kill_at",
        "oom_kills",
        "pid",
        "report",
        "started",
        "timed_out",
    )

    def __init__(self, job: dict[str, Any], pid: int, report: int, oom_kills: int) -> None:
        self.pid = pid
        self.report = report
        self.alone: bool = job["pid"]
        self.grace_s: float = job["grace_s"]
        self.started = time.monotonic()
        self.deadline = self.started + job["timeout_s"] if job["timeout_s"] is not None else None
        self.kill_at: float | None = None
        self.oom_kills = oom_kills
        self.timed_out = False
        self.cancelled = False

    def ask(self) -> None:
        """TERM now, KILL after the grace time."""
        if self.kill_at is None:
            self.kill_at = time.monotonic() + self.grace_s
            self._send(signal.SIGTERM)

    def kill(self) -> None:
        self.kill_at = time.monotonic() + 1.0
        self._send(signal.SIGKILL if self.alone else signal.SIGUSR1)

    def _send(self, number: int) -> None:
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            pass

    def tick(self, now: float) -> float | None:
        """Do what is due. Returns when to look again."""
        if self.deadline is not None and now >= self.deadline and not self.timed_out:
            self.timed_out = not self.cancelled
            self.deadline = None
            self.ask()
        if self.kill_at is not None and now >= self.kill_at:
            self.kill()
        moments = [moment for moment in (self.deadline, self.kill_at) if moment is not None]
        return min(moments) if moments else None


class _Supervisor:
    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._buffer = bytearray()
        self._fds: list[int] = []
        self._running: dict[int, _Running] = {}
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def serve(self, wake: int) -> None:
        poller = select.poll()
        poller.register(self._channel.fileno(), select.POLLIN)
        poller.register(wake, select.POLLIN)
        pause: float | None = None
        while True:
            for fd, _event in poller.poll(None if pause is None else min(max(0.0, pause), _LONGEST_S) * 1000 + 1):
                if fd == wake:
                    os.read(wake, 4096)
                elif not self._receive():
                    return
            self._reap()
            now = time.monotonic()
            moments = [moment for job in self._running.values() if (moment := job.tick(now)) is not None]
            pause = min(moments) - now if moments else None

    def answer(self, *message: Any) -> None:
        data = marshal.dumps(message)
        try:
            self._channel.sendall(struct.pack("=I", len(data)) + data)
        except OSError:
            pass  # pipe is gone, which the next read says

    def _receive(self) -> bool:
        """Take what was asked. False: pipe is gone."""
        try:
            data, passed, _flags, _address = self._channel.recvmsg(_CHUNK, _socket.CMSG_SPACE(4 * _PASSED_FDS))
        except ConnectionError:
            return False
        for _level, _kind, packed in passed:
            self._fds += struct.unpack(f"={len(packed) // 4}i", packed)
        if not data:
            return False
        self._buffer += data
        while len(self._buffer) >= 4:
            (size,) = struct.unpack_from("=I", self._buffer)
            if len(self._buffer) < 4 + size:
                break
            message = marshal.loads(self._buffer[4 : 4 + size])
            del self._buffer[: 4 + size]
            self._handle(message)
        return True

    def _handle(self, message: tuple[Any, ...]) -> None:
        if message[0] == "run":
            self._run(message[1], message[2])
        elif message[1] in self._running:
            job = self._running[message[1]]
            job.cancelled = True
            job.ask()

    def _run(self, number: int, job: dict[str, Any]) -> None:
        passed: list[int] = []
        if not job["terminal"]:
            passed, self._fds = self._fds[:2], self._fds[2:]
        try:
            pid, report = init.start(job, [self._null, *passed] if passed else [0, 1, 2])
            self._running[number] = _Running(job, pid, report, oom_kills())
        except OSError as error:
            self.answer(
                "ended",
                number,
                {"exit": None, "signal": None, "problem": f"no process could be started: {error.strerror}"},
            )
        finally:
            for fd in passed:
                os.close(fd)

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for number, job in list(self._running.items()):
                if job.pid == pid:
                    del self._running[number]
                    self._finish(number, job, status, usage)

    def _finish(self, number: int, job: _Running, status: int, usage: Any) -> None:
        data = b""
        while chunk := os.read(job.report, 4096):
            data += chunk
        os.close(job.report)
        ended = problem = None
        cpu_s, peak_kib = usage.ru_utime + usage.ru_stime, usage.ru_maxrss
        for line in data.decode("utf-8", "surrogateescape").splitlines():
            kind, _, rest = line.partition(" ")
            if kind == "problem":
                problem = rest
            else:
                words = rest.split()
                ended, cpu_s, peak_kib = int(words[0]), float(words[1]), int(words[2])
        if ended is None and problem is None:
            ended = status  # killed with all of its namespace
            if not (job.alone or self._running):
                end_descendants()  # somebody killed the first process: what it watched over is ours now
        by_signal = ended is not None and os.WIFSIGNALED(ended)
        exit_code = None if ended is None or by_signal else os.WEXITSTATUS(ended)
        killed = (by_signal and os.WTERMSIG(ended or 0) == signal.SIGKILL) or exit_code == 128 + signal.SIGKILL
        result = {
            "exit": exit_code,
            "signal": os.WTERMSIG(ended or 0) if by_signal else None,
            "problem": problem,
            "timed_out": job.timed_out,
            "cancelled": job.cancelled,
            "out_of_memory": killed and job.kill_at is None and oom_kills() > job.oom_kills,
            "wall_s": time.monotonic() - job.started,
            "cpu_s": cpu_s,
            "peak_bytes": peak_kib * 1024,
        }
        self.answer("ended", number, result)

    def end_all(self) -> None:
        """pipe is gone: nothing may go on."""
        for job in self._running.values():
            job.kill()
        end_descendants(patience_s=0.2 if all(job.alone for job in self._running.values()) else 6.0)


def oom_kills() -> int:
    """Return how many processes the kernel has killed for want of memory since the machine started."""
    try:
        with open("/proc/vmstat", "rb") as file:
            return int(file.read().rpartition(b"\noom_kill ")[2].split(None, 1)[0])
    except (OSError, ValueError, IndexError):
        return 0


def main(fd: int) -> None:
    """Serve pipe on a socket until it is gone."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    channel = _socket.socket(fileno=fd)
    wake, woken = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    supervisor = _Supervisor(channel)
    supervisor.answer("hello", {**probe(), "landlock": landlock.abi()})
    try:
        supervisor.serve(wake)
    finally:
        supervisor.end_all()
