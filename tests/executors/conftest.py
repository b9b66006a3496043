"""A workspace with an executor of this machine, once for each way of making a sandbox."""

from __future__ import annotations

import itertools
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipesmith.executors.base import Job, JobResult, Layout, Mount, OutputSpec
from pipesmith.executors.local import LocalExecutor
from pipesmith.executors.probe import probe

MODES = ("namespaces", "namespaces without pids", "copies")
PRIVATE = ("namespaces", "namespaces without pids", "user namespace")


class Box:
    """A workspace, its `.git/pipe` folder, and an executor. Jobs are shell commands unless they are lists."""

    def __init__(self, folder: Path, mode: str) -> None:
        self.mode = mode.split()[0] if mode != "user namespace" else "namespaces"
        self.folder = folder
        self.workspace = folder / "home" / "project"
        self.pipe_dir = self.workspace / ".git" / "pipe"
        self.pipe_dir.mkdir(parents=True)
        self.executor = LocalExecutor(str(self.pipe_dir), self.mode)
        if mode == "namespaces without pids":
            found = replace(probe(), pid=False)
            self.executor.probe = lambda: found  # type: ignore[method-assign]
        elif mode == "user namespace":
            wanted = replace(probe(), user=True)
            self.executor.probe = lambda: wanted  # type: ignore[method-assign]
        self.lines: list[tuple[str, str]] = []
        self.log = folder / "logs" / "stage.log"
        self._numbers = itertools.count(1)

    def write(self, path: str, text: str | bytes = "", *, executable: bool = False) -> Path:
        """Write a file of the workspace."""
        place = self.workspace / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(text if isinstance(text, bytes) else text.encode())
        place.chmod(0o755 if executable else 0o644)
        return place

    def source(self, *paths: str) -> tuple[Mount, ...]:
        return tuple(Mount(origin=str(self.workspace / path), path=path, copy=True) for path in paths)

    def inputs(self, *paths: str) -> tuple[Mount, ...]:
        return tuple(Mount(origin=str(self.workspace / path), path=path) for path in paths)

    def job(
        self,
        command: str | list[str],
        *,
        mounts: tuple[Mount, ...] = (),
        outputs: tuple[str, ...] = (),
        folders: tuple[str, ...] = (),
        visible: tuple[str, ...] = (),
        hidden: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
        cwd: str = ".",
        **more: Any,
    ) -> Job:
        number = next(self._numbers)
        scratch = self.pipe_dir / "tmp" / f"stage-{number}"
        scratch.mkdir(parents=True)
        tmpdir = self.folder / f"tmp-{number}"
        tmpdir.mkdir()
        return Job(
            run="r1",
            stage="s",
            argv=("/bin/sh", "-c", command) if isinstance(command, str) else tuple(command),
            cwd=cwd,
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TMPDIR": str(tmpdir)} | (env or {}),
            layout=Layout(
                workspace=str(self.workspace),
                mounts=mounts,
                folders=folders,
                outputs=tuple(OutputSpec(name=path, path=path) for path in outputs),
                visible=visible,
                hidden=hidden,
            ),
            scratch=str(scratch),
            log_path=str(self.log),
            tmpdir=str(tmpdir),
            **more,
        )

    def run(self, command: str | list[str], **more: Any) -> JobResult:
        """Run a job to its end. Its lines are in `lines`."""
        self.lines = []
        return self.executor.submit(self.job(command, **more), self.note).wait()

    def note(self, stream: str, text: str) -> None:
        self.lines.append((stream, text))

    def text(self, stream: str = "stdout") -> list[str]:
        """Return the lines of a stream of the last job."""
        return [text for name, text in self.lines if name == stream]

    def python(self, code: str, **more: Any) -> JobResult:
        """Run Python code as a job."""
        return self.run([sys.executable, "-I", "-S", "-c", code], **more)


def possible(mode: str) -> None:
    """Skip where this machine has no such sandbox."""
    if mode != "copies" and probe().mode != "namespaces":
        pytest.skip(probe().why)


@pytest.fixture(params=MODES)
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Box]:
    """A workspace, for each mode."""
    possible(request.param)
    made = Box(tmp_path, request.param)
    yield made
    made.executor.close()


@pytest.fixture(params=PRIVATE)
def private_box(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Box]:
    """A workspace whose sandboxes are made of namespaces: as here, and as on machines that offer less."""
    possible(request.param)
    made = Box(tmp_path, request.param)
    yield made
    made.executor.close()


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], bool]:
    """Ask until the answer is yes, ten seconds at most; return the last answer."""
    import time

    def ask(question: Callable[[], bool]) -> bool:
        until = time.monotonic() + 10
        while not question():
            if time.monotonic() > until:
                return False
            time.sleep(0.01)
        return True

    return ask


def running(word: str) -> list[int]:
    """Return the pids of processes with a word in their command line."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                if word in Path(f"/proc/{name}/cmdline").read_text(errors="replace"):
                    found.append(int(name))
            except OSError:
                continue
    return found


def quoted(path: object) -> str:
    return shlex.quote(str(path))
