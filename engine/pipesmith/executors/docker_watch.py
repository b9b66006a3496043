"""Waiting for a container's end: asked to end when that is due, its daemon waited for when it goes away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from pipesmith.docker_client import Daemon, answer, is_missing
from pipesmith.errors import EnvironmentFailure
from pipesmith.executors.base import Job
from pipesmith.executors.docker_output import ContainerOutput

__all__ = ["PATIENCE_S", "ContainerLost", "ContainerWatch", "was_ended_from_outside"]

PATIENCE_S = 15.0  # how long a daemon that is gone may take to come back
_LOOK_S = 0.1
_SAMPLE_S = 1.0
_RETRY_S = 0.5
_SILENCE_S = 150.0  # a daemon that answers nothing for so long is asked over a new connection
_WAIT_S = 24 * 3600
_FROM_OUTSIDE = (137, 143, 255)  # killed, asked to end, gone with its machine


class ContainerLost(EnvironmentFailure):
    """A daemon went away, or does not take what it is told: its container may still be there."""


class ContainerWatch:
    """Looks after one container that runs. cancelled: set by others, from any thread. sampled(client): called now and
    then while it runs. `peak_bytes` and `cpu_s`: what it used, as far as was seen. heard: when the daemon last said
    anything."""

    def __init__(
        self,
        daemon: Daemon,
        container: str,
        job: Job,
        output: ContainerOutput,
        cancelled: threading.Event,
        sampled: Callable[[Any], None],
    ) -> None:
        self._daemon = daemon
        self._container = container
        self._job = job
        self._output = output
        self._cancelled = cancelled
        self._sampled = sampled
        self._asked: str | None = None  # why it was asked to end
        self._kill_at: float | None = None
        self._was_lost = False
        self.peak_bytes = 0
        self.cpu_s = 0.0
        self.heard = time.monotonic()

    def until_ended(self) -> dict[str, Any]:
        """Return how it ended: exit, timed_out, cancelled, out_of_memory, problem.

        Raises ContainerLost where its daemon went away and did not come back."""
        deadline = time.monotonic() + self._job.timeout_s if self._job.timeout_s is not None else None
        done = threading.Event()
        threading.Thread(target=self._sample, args=(done,), name=f"usage {self._job.stage}", daemon=True).start()
        try:
            while True:
                self._was_lost |= not self._wait(deadline)
                state = self._state()
                if not state.get("Running"):
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
                with self._daemon.client() as client:
                    client.api.wait(self._container, timeout=_WAIT_S)
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
            with self._daemon.client() as client:
                client.api.kill(self._container, signal=name)
        except Exception:
            pass  # it has ended, or the daemon is gone, which the one that waits for its end finds out

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = self._patiently(lambda client: client.api.inspect_container(self._container)["State"])
        return state

    def _patiently(self, ask: Callable[[Any], Any]) -> Any:
        """Return what a daemon says; one that is gone is given a moment to come back: it may have kept the container.

        Raises ContainerLost."""
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                with self._daemon.client() as client:
                    told = ask(client)
                self.heard = time.monotonic()
                return told
            except Exception as error:
                self._was_lost = True
                if is_missing(error):
                    raise EnvironmentFailure("somebody removed its container") from None
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
        told["problem"] = str(state["Error"]) if state.get("Error") else self._ended_from_outside(state)
        return told

    def _ended_from_outside(self, state: dict[str, Any]) -> str | None:
        """Return what to say of a container that somebody else ended, or its daemon with itself; None of any other.

        One that is asked to end may well end with 0, having done half. What a daemon remembers tells; one that was
        started anew remembers nothing."""
        if self._asked is not None or not (state.get("ExitCode") == 0 or was_ended_from_outside(state)):
            return None
        remembered = self._patiently(lambda client: _remembered(client, self._container, state))
        if "kill" in remembered:
            return "its container was ended from outside, by `docker stop` or its like, or with its Docker daemon"
        if not self._was_lost or "die" in remembered:
            return None
        if self._patiently(lambda client: client.info().get("LiveRestoreEnabled")):
            return None
        return f"the Docker daemon of {self._daemon.title} went away while it ran, and ended it"

    def _sample(self, done: threading.Event) -> None:
        """Note what it uses, until it has ended."""
        pause = _LOOK_S
        while not done.wait(pause):
            pause = _SAMPLE_S
            try:
                with self._daemon.client() as client:
                    stats = client.api.stats(self._container, stream=False, one_shot=True)
                    self.heard = time.monotonic()
                    self._note(stats)
                    self._sampled(client)
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


def _remembered(client: Any, container: str, state: dict[str, Any]) -> set[str]:
    """Return the names of the events of a container's end that its daemon remembers."""
    since, until = (_seconds(state[key]) for key in ("StartedAt", "FinishedAt"))
    filters = {"container": container, "type": "container", "event": ["kill", "die"]}
    found: set[str] = set()
    for each in client.api.events(since=since - 1, until=until + 2, filters=filters, decode=True):
        found.add(str(each.get("status")))
        if "die" in found:
            break  # it is the last one: nobody waits for the time to be over
    return found


def _seconds(text: str) -> int:
    """Return a time of the daemon's, such as `2026-01-01T10:00:00.123456789Z`, as seconds since the epoch."""
    return int(datetime.fromisoformat(f"{text[:19]}+00:00").timestamp())
