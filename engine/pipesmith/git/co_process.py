"""Git programs that answer as long as one asks: `cat-file --batch`, `hash-object --stdin-paths`."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

from pipesmith.errors import EnvironmentFailure
from pipesmith.git.repository import Repository

__all__ = ["CoProcess", "nameless_file", "quoted"]

_PLAIN = frozenset(range(0x20, 0x7F)) - set(b'"\\')


def quoted(path: str) -> bytes:
    """Return a path as a line of its own for git's `--stdin` readers, quoted as C does where it would be misread."""
    raw = os.fsencode(path)
    if not raw.startswith(b'"') and not raw.endswith(b"\r") and b"\n" not in raw:
        return raw
    return b'"' + b"".join(bytes((byte,)) if byte in _PLAIN else b"\\%03o" % byte for byte in raw) + b'"'


class CoProcess:
    """One such process. Buffered: unbuffered reads of a pipe return short."""

    def __init__(
        self,
        repo: Repository,
        args: Sequence[str],
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        *,
        listen: bool = False,
    ) -> None:
        """listen: what it says on standard error is kept for `said`."""
        self._errors = nameless_file() if listen else None
        self._heard = 0
        self._process = repo.start(*args, cwd=cwd, stdin=True, env=env, stderr=self._errors)

    def ask(self, line: bytes) -> bytes:
        """Write a line, return the line that is the answer, without its newline.

        Raises EnvironmentFailure when the process has gone."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise EnvironmentFailure("git ended in the middle of an answer") from None
        return self._answer()

    def ask_all(self, lines: Sequence[bytes]) -> list[bytes]:
        """Return the answers to all lines, written ahead of the reading. Raises EnvironmentFailure when it has gone."""
        stdin = self._process.stdin
        assert stdin is not None

        def write() -> None:
            try:
                stdin.write(b"".join(line + b"\n" for line in lines))
                stdin.flush()
            except (BrokenPipeError, ValueError):
                pass  # the reader finds out

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        try:
            return [self._answer() for _line in lines]
        finally:
            writer.join(timeout=1)  # done, or blocked on a process that has stopped reading

    def _answer(self) -> bytes:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise EnvironmentFailure("git ended in the middle of an answer")
        return answer[:-1]

    def ask_ahead(self, lines: Sequence[bytes]) -> None:
        """Write lines whose answers are taken by `answer`, one by one.

        They must fit into the pipe of a process that reads nothing meanwhile: 4096 bytes always do."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"".join(line + b"\n" for line in lines))
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # whoever takes the answers finds out

    def answer(self) -> bytes:
        """Return the answer to the next line that was written ahead. Raises EnvironmentFailure when it has gone."""
        return self._answer()

    def said(self) -> str:
        """Return what it said on standard error since this was last asked."""
        if self._errors is None:
            return ""
        data = os.pread(self._errors, 1 << 16, self._heard)
        self._heard += len(data)
        return os.fsdecode(data)

    def read(self, size: int) -> bytes:
        """Return exactly `size` more bytes of the answer."""
        assert self._process.stdout is not None
        data = self._process.stdout.read(size)
        if len(data) != size:
            raise EnvironmentFailure("git ended in the middle of an answer")
        return data

    def close(self) -> None:
        self.end()

    def end(self) -> str:
        """End the process; return what it said on standard error since `said` was last asked."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        self._process.stdout.close()
        self._process.wait()
        said = self.said()
        if self._errors is not None:
            os.close(self._errors)
            self._errors = None
        return said


def nameless_file() -> int:
    """Return the descriptor of a new file without a name, for what another process writes."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("said")
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
