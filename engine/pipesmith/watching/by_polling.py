"""Changes by looking again and again: for file systems that tell nothing, and where events can't be had."""

from __future__ import annotations

import os
import threading
import time

from pipesmith.watching.change import Change, Kind, Listener
from pipesmith.watching.coverage import Coverage

__all__ = ["PollingSource"]

_INTERVAL_S = 1.0
_AFTER_A_CHANGE_S = 0.1  # how soon it looks again, for a second, so that the end of a series of changes is seen
_SHARE = 10  # looking takes at most one part in so many of the time

_Stamp = tuple[int, int, int, int, int]
_Seen = dict[str, dict[str, _Stamp]]  # folder to name to stamp


class PollingSource:
    """A `Source` that compares stamps once a second."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._guard = threading.Lock()
        self._coverage: Coverage | None = None
        self._seen: _Seen = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="polling", daemon=True)

    def cover(self, coverage: Coverage) -> None:
        with self._guard:
            before, self._coverage = self._coverage, coverage
            changes = [c for c in self._look(coverage) if before is not None and before.counts(c.path)]
        for change in changes:
            self._listener(change)
        if not self._thread.is_alive() and not self._stop.is_set():
            self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def _run(self) -> None:
        pause, busy_until = _INTERVAL_S, 0.0
        while not self._stop.wait(pause):
            began = time.monotonic()
            with self._guard:
                changes = self._look(self._coverage) if self._coverage is not None else []
            for change in changes:
                self._listener(change)
            now = time.monotonic()
            if changes:
                busy_until = now + 1.0
            pause = max(_AFTER_A_CHANGE_S if now < busy_until else _INTERVAL_S, _SHARE * (now - began))

    def _look(self, coverage: Coverage) -> list[Change]:
        """Return what differs in the folders that were looked at before."""
        before, now = self._seen, {folder: _stamps(folder, coverage) for folder in coverage.folders()}
        self._seen = now
        changes = []
        for folder, names in now.items():
            old = before.get(folder)
            if old is None or old == names:
                continue
            for name in old.keys() | names.keys():
                if old.get(name) != names.get(name):
                    kind = Kind.WRITTEN if name in names else Kind.GONE
                    changes.append(Change(os.path.join(folder, name), kind))
        return changes


def _stamps(folder: str, coverage: Coverage) -> dict[str, _Stamp]:
    found: dict[str, _Stamp] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not coverage.counts(entry.path):
                    continue
                try:
                    info = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    found[entry.name] = (info.st_ino, 0, 0, 0, info.st_mode)  # what is in it is told by itself
                else:
                    found[entry.name] = (
                        info.st_ino,
                        info.st_size,
                        info.st_mtime_ns,
                        info.st_ctime_ns,
                        info.st_mode,
                    )
    except OSError:
        pass
    return found
