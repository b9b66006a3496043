"""The source of changes that fits: events where the system has them, polling otherwise."""

from __future__ import annotations

import errno
from collections.abc import Callable

from pipesmith.watching.by_polling import PollingSource
from pipesmith.watching.change import Listener, Source
from pipesmith.watching.coverage import Coverage
from pipesmith.watching.file_systems import silent_file_system

__all__ = ["Lookout"]

Notice = Callable[[str, str | None], None]  # text, help


class Lookout:
    """Tells of changes. polling: whether events are not to be used. notice: told, once, why they can't be."""

    def __init__(self, listener: Listener, notice: Notice, *, polling: bool = False) -> None:
        self._listener = listener
        self._notice = notice
        self._source: Source | None = None
        self._polling = polling
        self._covered: Coverage | None = None

    @property
    def by_events(self) -> bool:
        return not self._polling

    def cover(self, coverage: Coverage) -> None:
        """Watch this from now on, by events if that is possible."""
        if coverage == self._covered:
            return
        if not self._polling:
            self._by_events(coverage)
        if self._polling:
            self._poll(coverage)
        self._covered = coverage

    def full(self) -> None:
        """Go on without events: no more folders can be watched so."""
        if not self._polling and self._covered is not None:
            self._give_up(OSError(errno.ENOSPC, ""))
            self._poll(self._covered)

    def close(self) -> None:
        if self._source is not None:
            self._source.close()

    def _by_events(self, coverage: Coverage) -> None:
        silent = silent_file_system(coverage.root)
        if silent is not None:
            self._polling = True
            self._notice(f"the file system here ({silent}) does not tell of changes: looking once a second", None)
            return
        try:
            if self._source is None:
                from pipesmith.watching.by_events import EventSource

                self._source = EventSource(self._listener)
            self._source.cover(coverage)
        except OSError as error:
            self._give_up(error)
        except ImportError:  # a system without inotify
            self._polling = True

    def _poll(self, coverage: Coverage) -> None:
        if not isinstance(self._source, PollingSource):
            if self._source is not None:
                self._source.close()
            self._source = PollingSource(self._listener)
        self._source.cover(coverage)

    def _give_up(self, error: OSError) -> None:
        self._polling = True
        if error.errno == errno.ENOSPC:
            limit = _limit("max_user_watches")
            self._notice(
                f"too few inotify watches (fs.inotify.max_user_watches is {limit}): looking once a second instead",
                "`sudo sysctl fs.inotify.max_user_watches=1048576` allows more",
            )
        elif error.errno in (errno.EMFILE, errno.ENFILE):
            limit = _limit("max_user_instances")
            self._notice(
                f"too many watchers (fs.inotify.max_user_instances is {limit}): looking once a second instead",
                "`sudo sysctl fs.inotify.max_user_instances=1024` allows more",
            )
        else:
            self._notice(f"no events to be had ({error.strerror}): looking once a second instead", None)


def _limit(name: str) -> str:
    try:
        with open(f"/proc/sys/fs/inotify/{name}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return "not known"
