"""Changes by inotify, through watchdog's reader: one watch a folder, none below what does not count.

Opening and reading a file are not asked for: a walk of a large tree would be told as thousands of changes, and could
overflow the very queue that it is meant to mend.
"""

from __future__ import annotations

import errno
import logging
import os
import threading

from watchdog.observers.inotify_c import CallbackId, InotifyConstants, InotifyEvent, InotifyFD, Mask, WatchDescriptor

from pipesmith.watching.change import Change, Kind, Listener
from pipesmith.watching.coverage import Coverage

__all__ = ["EventSource"]

_CREATE, _MOVED_FROM, _MOVED_TO = (
    InotifyConstants.IN_CREATE,
    InotifyConstants.IN_MOVED_FROM,
    InotifyConstants.IN_MOVED_TO,
)
_DELETE, _DELETE_SELF, _MOVE_SELF = (
    InotifyConstants.IN_DELETE,
    InotifyConstants.IN_DELETE_SELF,
    InotifyConstants.IN_MOVE_SELF,
)
_MODIFY, _CLOSE_WRITE, _ATTRIB = (
    InotifyConstants.IN_MODIFY,
    InotifyConstants.IN_CLOSE_WRITE,
    InotifyConstants.IN_ATTRIB,
)
_ISDIR = InotifyConstants.IN_ISDIR
_WRITTEN = _CREATE | _MOVED_TO | _MODIFY
_GONE = _DELETE | _MOVED_FROM | _DELETE_SELF | _MOVE_SELF
_MASK = Mask(_WRITTEN | _GONE | _CLOSE_WRITE | _ATTRIB | InotifyConstants.IN_ONLYDIR | InotifyConstants.IN_DONT_FOLLOW)
_TOO_MANY = (errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_LOST = Change("", Kind.LOST)
_FULL = Change("", Kind.FULL)


class EventSource:
    """A `Source` of the system's events. Raises OSError where there are none to be had."""

    def __init__(self, listener: Listener) -> None:
        logging.getLogger("watchdog").addHandler(logging.NullHandler())  # an overflow is our business
        self._listener = listener
        self._guard = threading.RLock()
        self._coverage: Coverage | None = None
        self._paths: dict[WatchDescriptor, dict[str, CallbackId]] = {}  # one folder may be known by several paths
        self._watches: dict[str, WatchDescriptor] = {}
        self._ids = 0
        self._closed = False
        self._reader = InotifyFD()
        _keep_from_children()
        self._reader.start()

    def cover(self, coverage: Coverage) -> None:
        with self._guard:
            self._coverage = coverage
            wanted = set()
            for path in coverage.folders():
                wanted.add(path)
                if path not in self._watches:
                    self._add(path)
            for path in self._watches.keys() - wanted:
                self._drop(path)

    def close(self) -> None:
        with self._guard:
            self._closed = True
        self._reader.stop()
        self._reader.join(5)

    # -- what the reader calls ----------------------------------------------------------------------------------------

    def on_event(self, event: InotifyEvent) -> None:
        with self._guard:
            paths = list(self._paths.get(event.wd, ()))
            coverage = self._coverage
        if coverage is None or self._closed:
            return
        mask = int(event.mask)
        name = os.fsdecode(event.name)
        for folder in paths:
            path = os.path.join(folder, name) if name else folder
            if mask & _ISDIR and name:
                self._folder(coverage, path, mask)
            if coverage.counts(path):
                kind = Kind.WRITTEN if mask & _WRITTEN else Kind.GONE if mask & _GONE else Kind.TOUCHED
                self._listener(Change(path, kind))

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        with self._guard:
            for path in self._paths.pop(wd, {}):
                if self._watches.get(path) == wd:
                    del self._watches[path]

    def on_queue_overflow(self) -> None:
        """Watch what was made while nobody listened, and say that anything may have changed."""
        with self._guard:
            if self._coverage is None or self._closed:
                return
            for path in list(self._watches):
                self._drop(path)  # a folder may be another one by now
            self._try(self._coverage, None)
        self._listener(_LOST)

    # -- watches ------------------------------------------------------------------------------------------------------

    def _folder(self, coverage: Coverage, path: str, mask: int) -> None:
        """Follow a folder that came or went, with all below it."""
        with self._guard:
            if mask & (_MOVED_FROM | _MOVED_TO | _CREATE):
                below = path + os.sep
                for known in [known for known in self._watches if known == path or known.startswith(below)]:
                    self._drop(known)
            if mask & (_CREATE | _MOVED_TO):
                self._try(coverage, path)

    def _try(self, coverage: Coverage, start: str | None) -> None:
        try:
            for folder in coverage.folders(start):
                if folder not in self._watches:
                    self._add(folder)
        except OSError:
            self._listener(_FULL)

    def _add(self, path: str) -> None:
        """Raises OSError where no more can be watched. What is gone already, or nobody's to read, is passed over."""
        self._ids += 1
        id_ = CallbackId(self._ids)
        try:
            wd = self._reader.add_callback(os.fsencode(path), _MASK, self, id_)
        except OSError as error:
            if error.errno in _TOO_MANY:
                raise
            return
        if wd >= 0:
            self._paths.setdefault(wd, {})[path] = id_
            self._watches[path] = wd

    def _drop(self, path: str) -> None:
        wd = self._watches.pop(path)
        id_ = self._paths.get(wd, {}).pop(path, None)
        if id_ is None:
            return
        if not self._paths[wd]:
            del self._paths[wd]
        try:
            self._reader.remove_callbacks([(wd, id_)])
        except OSError:
            pass  # the folder is gone, and its watch with it


def _keep_from_children() -> None:
    """See to it that no program that is started inherits the queue of events."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if "inotify" in os.readlink(f"/proc/self/fd/{name}"):
                os.set_inheritable(int(name), False)
        except OSError:
            continue
