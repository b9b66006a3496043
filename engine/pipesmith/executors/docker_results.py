"""What comes back from a container: outputs, what lies beside its workspace, and the sandbox of a stage that failed.

What a container has made is there as long as the container is. So a daemon that goes away meanwhile is waited for, and
when it does not come back, or this machine has no room, the container is left for the next build to take up.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

from pipesmith.docker_api import DockerApi
from pipesmith.docker_client import Daemon, DaemonGone
from pipesmith.errors import Cancelled, PipeError
from pipesmith.executors.base import FAR_WORKSPACE, Job, Side
from pipesmith.executors.docker_shared import SharedFolder
from pipesmith.executors.docker_watch import PATIENCE_S, ContainerLost
from pipesmith.records import field, record
from pipesmith.store.removal import remove

__all__ = ["FAILED_LIMIT", "ContainerResults", "LiveSides"]

FAILED_LIMIT = 256 << 20  # bytes of a failed stage's sandbox that are brought back
_RETRY_S = 0.5
_LIVE_SHARE = 20  # bringing back what is logged live takes at most this part of the time


class _TooMuch(Exception):
    """A limit is reached."""


@record(frozen=False)
class ContainerResults:
    """Of one container that has ended. stop: whether they are not wanted any more. heard: when the daemon last said
    anything."""

    daemon: Daemon
    container: str
    job: Job
    stop: Callable[[], bool]
    heard: float = field(default_factory=time.monotonic)

    def bring_sides(self) -> None:
        """Bring back what it left beside its workspace."""
        for side in self.job.sides:
            if side.back:
                self._fetch(side.place, side.origin)

    def bring_outputs(self) -> bool:
        """Bring the declared outputs back; return whether all were there."""
        whole = True
        for output in self.job.layout.outputs:
            place = self._here(output.path)
            os.makedirs(os.path.dirname(place), exist_ok=True)
            whole &= self._fetch(f"{FAR_WORKSPACE}/{output.path}", place)
        return whole

    def bring_sandbox(self, units: list[str]) -> list[str]:
        """Bring back what it has in its workspace, for people to look at, but inputs (the paths in `units`), which are
        here anyway. Returns what was left there, as more than `FAILED_LIMIT` bytes in all."""
        with self.daemon.api() as api:
            changed = set(api.changes(self.container))
        made: set[str] = set()
        for path in changed:
            while path.startswith(f"{FAR_WORKSPACE}/"):
                made.add(path)
                path = os.path.dirname(path)
        below: dict[str, list[str]] = {}
        for path in made:
            below.setdefault(os.path.dirname(path), []).append(path)
        inputs = {f"{FAR_WORKSPACE}/{unit}" for unit in units}
        left = FAILED_LIMIT
        left_out: list[str] = []
        waiting = sorted(below.get(FAR_WORKSPACE, ()), reverse=True)
        while waiting:
            path = waiting.pop()
            relative = os.path.relpath(path, FAR_WORKSPACE)
            if path in inputs or os.path.lexists(self._here(relative)):
                continue
            if any(unit.startswith(f"{path}/") for unit in inputs):
                os.makedirs(self._here(relative), exist_ok=True)
                waiting += sorted(below.get(path, ()), reverse=True)
                continue
            os.makedirs(os.path.dirname(self._here(relative)), exist_ok=True)
            try:
                left -= self._fetch_some(path, self._here(relative), left)
            except _TooMuch:
                left_out.append(relative)
        return left_out

    def _here(self, path: str) -> str:
        return os.path.join(self.job.scratch, "sandbox", path)

    def _fetch(self, path: str, place: str) -> bool:
        """Bring back what lies at a path; return whether anything did.

        Raises ContainerLost where the daemon went away for good, or the disk here is full; Cancelled."""
        from pipesmith.tars import CutShort

        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                with self.daemon.api() as api:
                    return _fetch(api, self.container, path, place, self._taken)
            except (DaemonGone, CutShort) as error:
                if self.stop():
                    raise Cancelled() from None
                if time.monotonic() > until:
                    raise ContainerLost(
                        f"its results can't be brought back: {error.text}; "
                        "the next build takes its container up, if that is still there"
                    ) from None
                time.sleep(_RETRY_S)
            except _Unwritable as error:
                raise ContainerLost(
                    f"its results can't be written: `{error.path}`: {error.reason}; its container keeps them, "
                    "and the next build takes it up"
                ) from None

    def _taken(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.heard = time.monotonic()
            if self.stop():
                raise Cancelled()
            yield chunk

    def _fetch_some(self, path: str, place: str, limit: int) -> int:
        """Bring back what lies at a path; return how many bytes that were. Raises _TooMuch past the limit."""
        count = 0

        def counted(chunks: Iterator[bytes]) -> Iterator[bytes]:
            nonlocal count
            for chunk in self._taken(chunks):
                count += len(chunk)
                if count > limit:
                    raise _TooMuch
                yield chunk

        with self.daemon.api() as api:
            try:
                _fetch(api, self.container, path, place, counted)
            except _TooMuch:
                remove(place)
                raise
        return count


class LiveSides:
    """What a job logs beside its workspace, brought back while it runs. shared: the folder of this machine's that its
    container has, if it has one."""

    def __init__(self, container: str, sides: tuple[Side, ...], shared: SharedFolder | None) -> None:
        self._container = container
        self._shared = shared
        self._sides = [side for side in sides if side.live]
        self._known: dict[str, str | None] = {}
        self._not_before = 0.0
        self._guard = threading.Lock()
        self._closed = False

    def close(self) -> None:
        """Change nothing here any more: what comes at the end is newer."""
        with self._guard:
            self._closed = True

    def poll(self, api: DockerApi) -> None:
        """Bring back what has changed since the last time. What goes wrong is left to the next time, or to the end."""
        now = time.monotonic()
        if now < self._not_before:
            return
        for side in self._sides:
            stamp = self._shared.stamp(side.place) if self._shared else api.stamp(self._container, side.place)
            if stamp is None or stamp == self._known.get(side.place):
                continue
            try:
                self._bring(api, side)
            except (OSError, PipeError, _Unwritable):
                continue
            self._known[side.place] = stamp
        self._not_before = now + _LIVE_SHARE * (time.monotonic() - now)

    def _bring(self, api: DockerApi, side: Side) -> None:
        with tempfile.TemporaryDirectory(prefix=".part-", dir=os.path.dirname(side.origin)) as scratch:
            place = os.path.join(scratch, "new")
            if self._shared is not None:
                found = self._shared.copy(side.place, place)
            else:
                found = _fetch(api, self._container, side.place, place, iter)
            if not found:
                return
            with self._guard:
                if not self._closed:
                    _renew(place, side.origin)


def _renew(new: str, place: str) -> None:
    """Put a file in place of an older one; of a folder, put what is not there yet beside the rest."""
    if not os.path.isdir(new):
        os.replace(new, place)
        return
    os.makedirs(place, exist_ok=True)
    for name in os.listdir(new):
        if not name.startswith(".") and not os.path.lexists(os.path.join(place, name)):
            os.rename(os.path.join(new, name), os.path.join(place, name))


class _Unwritable(Exception):
    """What came can't be written here."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason


def _fetch(
    api: DockerApi, container: str, path: str, place: str, taken: Callable[[Iterator[bytes]], Iterator[bytes]]
) -> bool:
    """Unpack what lies at a path in a container in place of what is at `place`; False where nothing lies there.

    taken: through which the bytes go. Raises _Unwritable where this machine is what fails."""
    from pipesmith.tars import unpack

    chunks = api.get(container, path)
    if chunks is None:
        return False
    broken: list[BaseException] = []

    def watched() -> Iterator[bytes]:
        try:
            yield from chunks
        except Exception as error:
            broken.append(error)
            raise

    try:
        remove(place)
        unpack(taken(watched()), place)
    except OSError as error:
        if broken:
            raise broken[0] from None
        raise _Unwritable(error.filename or place, error.strerror or str(error)) from None
    return True
