"""Waiting for a container's end: asked to end when that is due, its daemon waited for when it goes away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from pipesmith.docker_api import DaemonAnswer, DockerApi, moment
from pipesmith.docker_client import Daemon, DaemonGone, answer
from pipesmith.errors import EnvironmentFailure
from pipesmith.executors.base import Job
from pipesmith.executors.docker_output import ContainerOutput

__all__ = ["PATIENCE_S", "ContainerLost", "ContainerWatch", "was_ended_from_outside"]

PATIENCE_S = 15.0  # how long a daemon that is gone may take to come back
_LOOK_S = 0.1
_SAMPLE_S = 1.0
_FIRST_SAMPLE_S = 0.05
_SAMPLE_MOST_S = 5.0
_TOLD_S = (0.1, 0.5, 2.0)  # after the end of a container its daemon has told of it, mostly within the first
_RETRY_S = 0.5
_SILENCE_S = 150.0  # a daemon that answers nothing for so long is asked over a new connection
_FROM_OUTSIDE = (137, 143, 255)  # killed, asked to end, gone with its machine


class ContainerLost(EnvironmentFailure):
    """A daemon went away, or does not take what it is told: its container may still be there."""


class ContainerWatch:
    """Looks after one container that runs. ran_s: how long it has run already. cancelled: set by others, from any
    thread. sampled(api): called now and then while it runs. `peak_bytes` and `cpu_s`: what it used, as far as was seen.
    heard: when the daemon last said anything."""

    def __init__(
        self,
        daemon: Daemon,
        container: str,
        job: Job,
        output: ContainerOutput,
        cancelled: threading.Event,
        sampled: Callable[[DockerApi], None],
        ran_s: float = 0.0,
    ) -> None:
        self._daemon = daemon
        self._container = container
        self._job = job
        self._output = output
        self._cancelled = cancelled
        self._sampled = sampled
        self._ran_s = ran_s
        self._asked: str | None = None  # why it was asked to end
        self._kill_at: float | None = None
        self._was_lost = False
        self._ended: dict[str, Any] = {}
        self.peak_bytes = 0
        self.cpu_s = 0.0
        self.heard = time.monotonic()

    def until_ended(self) -> dict[str, Any]:
        """Return how it ended: exit, timed_out, cancelled, out_of_memory, problem.

        Raises ContainerLost where its daemon went away and did not come back."""
        timeout_s = self._job.timeout_s
        deadline = time.monotonic() + timeout_s - self._ran_s if timeout_s is not None else None
        done = threading.Event()
        threading.Thread(target=self._sample, args=(done,), name=f"usage {self._job.stage}", daemon=True).start()
        try:
            while True:
                self._was_lost |= not self._wait(deadline)
                state = self._state()
                if not state.get("Running"):
                    self._ended = state
                    return self._told(state)
                self._output.resume()
        finally:
            done.set()

    def _wait(self, deadline: float | None) -> bool:
        """Wait for its end over one connection. False: that was lost, or the daemon is silent."""
        ended = threading.Event()
        failures: list[Exception] = []

        def wait() -> None:
            try:
                with self._daemon.api() as api:
                    api.wait(self._container)
            except Exception as error:
                failures.append(error)
            else:
                self._output.container_ended()
            ended.set()

        threading.Thread(target=wait, name=f"wait {self._job.stage}", daemon=True).start()
        resumed = time.monotonic()
        while not ended.wait(_LOOK_S):
            now = time.monotonic()
            if self._kill_at is None and (self._cancelled.is_set() or (deadline is not None and now >= deadline)):
                self._asked = "cancelled" if self._cancelled.is_set() else "timed_out"
                self._kill_at = now + self._job.grace_s
                self._signal("SIGTERM")
            elif self._kill_at is not None and now >= self._kill_at:
                self._kill_at = now + 1.0
                self._signal("SIGKILL")
            if self._output.is_cut and now >= resumed + _SAMPLE_S:
                resumed = now
                self._output.resume()
            if now >= max(self.heard, resumed) + _SILENCE_S:
                return False
        return not failures

    def _signal(self, name: str) -> None:
        try:
            with self._daemon.api() as api:
                api.kill(self._container, name)
        except Exception:
            pass  # it has ended, or the daemon is gone, which the one that waits for its end finds out

    def _state(self) -> dict[str, Any]:
        found = self._patiently(lambda api: api.container(self._container))
        if found is None:
            raise EnvironmentFailure("somebody removed its container")
        state: dict[str, Any] = found["State"]
        return state

    def _patiently(self, ask: Callable[[DockerApi], Any]) -> Any:
        """Return what a daemon says; one that is gone is given a moment to come back: it may have kept the container.

        Raises ContainerLost."""
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                with self._daemon.api() as api:
                    told = ask(api)
                self.heard = time.monotonic()
                return told
            except (DaemonGone, DaemonAnswer):
                self._was_lost = True
                if time.monotonic() > until or self._cancelled.is_set():
                    raise ContainerLost(
                        f"the Docker daemon of {self._daemon.title} went away while it ran; "
                        "the next build takes its container up, if that is still there"
                    ) from None
                time.sleep(_RETRY_S)

    def _told(self, state: dict[str, Any]) -> dict[str, Any]:
        told: dict[str, Any] = {"exit": state.get("ExitCode")}
        if self._asked is not None:
            told[self._asked] = True
        told["out_of_memory"] = bool(state.get("OOMKilled")) and told["exit"] != 0
        told["problem"] = str(state["Error"]) if state.get("Error") else None
        return told

    def ended_from_outside(self) -> str | None:
        """Return what to say of a container that somebody else ended, or its daemon with itself; None of any other.
        Asked once its results are here, when the daemon has most likely told of its end, and before that of why.

        One that is asked to end may well end with 0, having done half. What a daemon remembers tells; one that was
        started anew remembers nothing."""
        state = self._ended
        if self._asked is not None or not (state.get("ExitCode") == 0 or was_ended_from_outside(state)):
            return None
        for after_s in _TOLD_S:
            remembered = self._remembered(after_s)
            if "kill" in remembered:
                return "its container was ended from outside, by `docker stop` or its like, or with its Docker daemon"
            if "die" in remembered:
                return None
        if not self._was_lost:
            return None
        if self._patiently(lambda api: api.info().get("LiveRestoreEnabled")):
            return None
        return f"the Docker daemon of {self._daemon.title} went away while it ran, and ended it"

    def _remembered(self, after_s: float) -> set[str]:
        """Return the names of the events that its daemon remembers, from its start to its end, which it tells a moment
        later."""
        since, until = (moment(self._ended[key]) for key in ("StartedAt", "FinishedAt"))

        def told(api: DockerApi) -> set[str]:
            names = set()
            for event in api.events(self._container, since - 1, until + after_s):
                names.add(str(event.get("status")))
                if "die" in names:
                    break  # what follows tells nothing more, and would be waited for
            return names

        found: set[str] = self._patiently(told)
        return found

    def _sample(self, done: threading.Event) -> None:
        """Note what it uses, until it has ended: often at first, so that little of a short one goes unseen. Of one that
        runs for long it is asked less often: many at once would keep a daemon busy with nothing else."""
        began = time.monotonic()
        pause, sides_at = 0.0, began + _LOOK_S
        while not done.wait(pause):
            now = time.monotonic()
            pause = max(_FIRST_SAMPLE_S, min(_SAMPLE_S, (now - began) / 4), min(_SAMPLE_MOST_S, (now - began) / 20))
            try:
                with self._daemon.api() as api:
                    stats = api.stats(self._container)
                    self.heard = time.monotonic()
                    self._note(stats)
                    if now >= sides_at:
                        sides_at = now + _SAMPLE_S
                        self._sampled(api)
            except Exception as error:
                if answer(error) is not None:
                    self.heard = time.monotonic()

    def _note(self, stats: dict[str, Any]) -> None:
        memory = stats.get("memory_stats", {})
        self.peak_bytes = max(self.peak_bytes, int(memory.get("max_usage") or memory.get("usage") or 0))
        self.cpu_s = max(self.cpu_s, stats.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage", 0) / 1e9)


def was_ended_from_outside(state: dict[str, Any]) -> bool:
    """Return whether a container that has ended looks as if it had been ended, rather than failed."""
    return state.get("ExitCode") in _FROM_OUTSIDE and not state.get("OOMKilled")
