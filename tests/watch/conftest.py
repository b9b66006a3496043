"""A running `pipe watch`, and waiting for what it says. Deadlines are long: nothing here depends on how long a thing
takes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from tests.conftest import Repo

DEADLINE_S = 60.0


def until(holds: Callable[[], object], what: str) -> None:
    """Wait until something holds; fail the test where it does not come."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail(f"it never came: {what}", pytrace=False)
        time.sleep(0.02)


class Watch:
    """`pipe watch --json` in a repository. documents: one a build or error. lines: what it says to people."""

    def __init__(self, repo: Repo, *args: str, env: Mapping[str, str] | None = None) -> None:
        self.repo = repo
        self.process: subprocess.Popen[str] = repo.start("watch", "--json", *args, env=env)
        self.documents: list[dict[str, Any]] = []
        self.lines: list[str] = []
        self._threads = [
            threading.Thread(target=self._read_documents, daemon=True),
            threading.Thread(target=self._read_lines, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _read_documents(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.documents.append(json.loads(line))

    def _read_lines(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def waits(self) -> int:
        """Return how often it has said that it waits."""
        return sum(line.startswith("waiting for changes") for line in self.lines)

    def until(self, holds: Callable[[], object], what: str) -> None:
        def or_ended() -> bool:
            if holds():
                return True
            if self.process.poll() is not None:
                time.sleep(0.2)
                pytest.fail(f"it ended, before: {what}\n{self.text}\n{self.documents}", pytrace=False)
            return False

        try:
            until(or_ended, what)
        except pytest.fail.Exception as failure:
            pytest.fail(f"{failure}\n{self.text}\n{json.dumps(self.documents)[-3000:]}", pytrace=False)

    def until_said(self, text: str, times: int = 1) -> None:
        self.until(lambda: sum(text in line for line in self.lines) >= times, f"`{text}`, {times} times")

    def until_ready(self) -> None:
        """Wait for the end of the first build."""
        self.until(lambda: self.waits() >= 1 and self.documents, "the end of the first build")

    def next(self, change: Callable[[], object] = lambda: None) -> dict[str, Any]:
        """Make a change, and return the next document, when it waits again after it."""
        documents, waits = len(self.documents), self.waits()
        change()
        self.until(lambda: len(self.documents) > documents and self.waits() > waits, "a build")
        return self.documents[documents]

    def ran(self, document: dict[str, Any]) -> list[str]:
        """Return the stages that a build did anything for."""
        return sorted(stage["name"] for stage in document["stages"] if stage["status"] not in ("fresh", "skipped"))

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """End it, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(DEADLINE_S)
        for thread in self._threads:
            thread.join(5)
        return code

    def kill(self) -> None:
        if self.process.poll() is None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()


@pytest.fixture
def watch(repo: Repo) -> Iterator[Callable[..., Watch]]:
    """Starts `pipe watch --json ARGS`, in `repo` or another one; ended with the test."""
    started: list[Watch] = []

    def start(*args: str, at: Repo | None = None, env: Mapping[str, str] | None = None) -> Watch:
        started.append(Watch(at or repo, *args, env=env))
        return started[-1]

    yield start
    for each in started:
        each.kill()


@pytest.fixture
def pair(repo: Repo) -> Repo:
    """Two stages that have nothing to do with each other, `a` and `b`, each with a source folder of its own."""
    repo.write(
        "pipeline.toml",
        f"""
        [stage.a]
        source = "a"
        run = "{repo.note("a")}; cat a/* > {{outputs.o}}"
        outputs = {{ o = "out/a" }}
        [stage.b]
        source = "b"
        run = "{repo.note("b")}; cat b/* > {{outputs.o}}"
        outputs = {{ o = "out/b" }}
        """,
    )
    repo.write("a/a.txt", "a\n")
    repo.write("b/b.txt", "b\n")
    repo.write(".gitignore", "/out\n*.log\n")
    repo.commit()
    return repo


def runs(repo: Repo) -> int:
    """Return how many runs are recorded."""
    return len(repo.git("for-each-ref", "refs/pipe/runs").stdout.splitlines())
