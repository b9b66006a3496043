"""The way to the supervisor process: starting it, asking, and reading what it answers."""

from __future__ import annotations

import marshal
import os
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from pipesmith.errors import EnvironmentFailure

__all__ = ["SupervisorLink"]

_SCRIPT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "launcher", "supervisor.py")
_CHUNK = 1 << 18
_SOCKET_THERE = 3


class SupervisorLink:
    """One supervisor process and the socket to it. Sending is for one thread at a time, receiving for one other.

    terminal: it shares this process's stdin, stdout, stderr and session, so that its one job can have them.
    """

    def __init__(self, *, terminal: bool = False) -> None:
        _open_standard_streams()
        ours, theirs = socket.socketpair()
        self.socket = ours
        self._buffer = bytearray()
        self._ended = False
        try:
            self._pid = _spawn(theirs.fileno(), terminal=terminal)
        except OSError as error:
            ours.close()
            raise EnvironmentFailure(
                f"the supervisor process could not be started: {error.strerror}",
                f"look whether `{sys.executable}` runs",
            ) from None
        finally:
            theirs.close()

    def send(self, *message: Any, fds: Sequence[int] = ()) -> None:
        """Ask. Raises OSError when the supervisor is gone."""
        body = marshal.dumps(message)
        data = memoryview(struct.pack("=I", len(body)) + body)
        sent = socket.send_fds(self.socket, [data], list(fds)) if fds else 0
        self.socket.sendall(data[sent:])

    def receive(self) -> Iterator[tuple[Any, ...]]:
        """Block until something comes and yield the answers that are whole. Sets `ended` when nothing will any more."""
        try:
            data = self.socket.recv(_CHUNK)
        except OSError:
            data = b""
        if not data:
            self._ended = True
        self._buffer += data
        while len(self._buffer) >= 4:
            (size,) = struct.unpack_from("=I", self._buffer)
            if len(self._buffer) < 4 + size:
                return
            message: tuple[Any, ...] = marshal.loads(self._buffer[4 : 4 + size])
            del self._buffer[: 4 + size]
            yield message

    @property
    def ended(self) -> bool:
        return self._ended

    def hang_up(self) -> None:
        """Tell the supervisor to end all that runs and to go. What it still says can be received."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        """Let the supervisor end all that runs and go; returns when it has."""
        self.hang_up()
        self.socket.close()
        try:
            os.waitpid(self._pid, 0)
        except ChildProcessError:
            pass


def _spawn(fd: int, *, terminal: bool) -> int:
    """Start the supervisor with `fd` as its socket; everything else of this process stays closed to it."""
    python = sys.executable or "/proc/self/exe"
    actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_DUP2, fd, _SOCKET_THERE)]
    if not terminal:
        actions.append((os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0))
        actions += [(os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]
    argv = [python, "-I", "-S", "-X", "utf8", _SCRIPT, str(_SOCKET_THERE)]
    return os.posix_spawn(python, argv, os.environ, file_actions=actions, setsid=not terminal)


def _open_standard_streams() -> None:
    """Open what of stdin, stdout and stderr is closed, lest a socket or pipe of ours gets such a number."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
