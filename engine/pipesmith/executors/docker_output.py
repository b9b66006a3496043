"""What a container says, on its way into a job's output: followed live, and taken up again where a connection was lost.

A stream that is followed ends when its daemon goes away just as it ends with its container. So an end is believed only
once the container has ended too; else what the daemon has kept of it is read again, without the part that was taken.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from pipesmith.docker_api import DockerApi
from pipesmith.docker_client import Daemon
from pipesmith.executors.output import JobOutput

__all__ = ["ContainerOutput"]

_STREAMS = ("stdout", "stderr")
_READY_S = 10.0
_END_S = 1.0  # between the last word of a container and the news of its end
_LAST_S = 5.0


class ContainerOutput:
    """The output of one container. output: fed under `guard`, which others that use it take as well."""

    def __init__(self, daemon: Daemon, container: str, output: JobOutput, guard: threading.Lock) -> None:
        self._daemon = daemon
        self._container = container
        self._output = output
        self._guard = guard
        self._taken = dict.fromkeys(_STREAMS, 0)  # bytes of each stream
        self._followed = 0  # how often it was taken up; what older connections still bring is dropped
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self.is_cut = False  # whether a stream ended though its container went on, as far as one can tell

    def attach(self) -> Callable[[], object]:
        """Begin to follow a container that is not started yet. Returns what blocks until it is followed."""
        ready = threading.Event()

        def read(api: DockerApi, followed: int) -> None:
            said = api.attach(self._container)
            ready.set()
            for stream, data in said:
                self._take(followed, stream, data)

        self._follow(read, ready.set)
        return lambda: ready.wait(_READY_S)

    def resume(self) -> None:
        """Take all that was said and not taken yet, and what follows."""
        self._follow(lambda api, followed: self._replay(api, followed, follow=True), lambda: None)

    def container_ended(self) -> None:
        """Say that the end of a stream is its end."""
        self._ended.set()

    def finish(self) -> None:
        """Take what is still on its way from a container that has ended.

        Raises what the daemon or the connection to it raises where that was cut, and can't be made up for."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(_LAST_S)
        if self.is_cut:
            with self._guard:
                self._followed += 1
            with self._daemon.api() as api:
                self._replay(api, self._followed, follow=False)
            self.is_cut = False

    def _follow(self, read: Callable[[DockerApi, int], None], tried: Callable[[], None]) -> None:
        with self._guard:
            self._followed += 1
        self.is_cut = False
        followed = self._followed
        self._thread = threading.Thread(
            target=self._work, args=(read, followed, tried), name="container output", daemon=True
        )
        self._thread.start()

    def _work(self, read: Callable[[DockerApi, int], None], followed: int, tried: Callable[[], None]) -> None:
        try:
            with self._daemon.api() as api:
                read(api, followed)
            if not self._ended.wait(_END_S):
                with self._daemon.api() as api:
                    found = api.container(self._container)
                cut = found is None or bool(found["State"].get("Running"))
            else:
                cut = False
        except Exception:
            cut = True  # why, the one that waits for the container's end finds out
        finally:
            tried()
        if cut and followed == self._followed:
            self.is_cut = True

    def _replay(self, api: DockerApi, followed: int, *, follow: bool) -> None:
        known = dict(self._taken)
        for stream, data in api.logs(self._container, follow=follow):
            fresh = data[known[stream] :]
            known[stream] = max(0, known[stream] - len(data))
            self._take(followed, stream, fresh)

    def _take(self, followed: int, stream: str, data: bytes) -> None:
        if not data:
            return
        with self._guard:
            if followed == self._followed:
                self._taken[stream] += len(data)
                self._output.feed(stream, data)
