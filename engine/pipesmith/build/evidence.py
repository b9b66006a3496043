"""Whether what a stage was given is still what it was judged by: stamps first, digests where stamps differ."""

from __future__ import annotations

import marshal
import os
import threading
import time
from hashlib import blake2b

from pipesmith.build.context import BuildContext
from pipesmith.fingerprint.items import input_parts
from pipesmith.pipeline.model import Stage
from pipesmith.verdict.verdict import Seen

__all__ = ["Evidence", "Stamper"]

# A folder whose walk took this long is not walked again within as many times that span: at the start of a stage a recent
# walk will do there, since the one at its end sees any change in between.
_REUSE_ABOVE_S = 0.05
_REUSE_FACTOR = 10.0


class Stamper:
    """Cheap stamps of files and folders. Thread-safe. Big folders are walked once for stages that end together."""

    def __init__(self) -> None:
        self._recent: dict[str, tuple[float, float, bytes]] = {}  # path: (when the walk began, seconds it took, stamp)
        self._walking: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    def stamp(self, path: str, *, since: float | None) -> bytes:
        """Return a stamp of all that lies at an absolute path, from a walk begun after `since` (monotonic).

        since None: a recent walk will do for what is dear to walk."""
        asked = time.monotonic() if since is None else since
        with self._guard:
            lock = self._walking.setdefault(path, threading.Lock())
        with lock:
            known = self._recent.get(path)
            if known is not None:
                began, took, stamp = known
                recent = since is None and took > _REUSE_ABOVE_S and asked - began < _REUSE_FACTOR * took
                if began > asked or recent:
                    return stamp
            began = time.monotonic()
            hasher = blake2b(digest_size=16)
            _walk(path, hasher.update)
            stamp = hasher.digest()
            self._recent[path] = (began, time.monotonic() - began, stamp)
            return stamp


def _walk(path: str, update) -> None:  # type: ignore[no-untyped-def]
    try:
        info = os.lstat(path)
    except OSError:
        update(b"absent")
        return
    update(_facts(info))
    if not os.path.isdir(path) or os.path.islink(path):
        return
    flat: list[object] = []
    folders: list[str] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                info = entry.stat(follow_symlinks=False)
                flat += (entry.name, info.st_mode, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
    except OSError:
        update(b"unreadable")
        return
    update(marshal.dumps(flat, 2))
    for folder in folders:
        _walk(folder, update)


def _facts(info: os.stat_result) -> bytes:
    return marshal.dumps((info.st_mode, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns), 2)


class Evidence:
    """What one stage was judged by."""

    def __init__(self, build: BuildContext, stage: Stage, seen: Seen, stamper: Stamper) -> None:
        self._build = build
        self._stage = stage
        self._seen = seen
        self._stamper = stamper
        self._inputs = [os.path.join(build.root, part.path) for part in input_parts(stage) if not part.dataset]
        self._files: list[str] = []
        for path in stage.source:
            self._files += [os.path.join(build.root, name) for name, _mode in build.tree.source_files(path)]
        self._files += [os.path.join(build.root, path) for path in stage.hash_paths]
        if stage.notebook:
            self._files.append(os.path.join(build.root, stage.notebook))
        self._folders = sorted(
            {os.path.join(build.root, path) for path in stage.source} | {os.path.dirname(path) for path in self._files}
        )
        self._stamp = self._take(None)

    def _take(self, since: float | None) -> list[bytes]:
        hasher = blake2b(digest_size=16)
        for path in (*self._folders, *self._files):
            try:
                hasher.update(_facts(os.lstat(path)))
            except OSError:
                hasher.update(b"absent")
        return [hasher.digest(), *(self._stamper.stamp(path, since=since) for path in self._inputs)]

    def changed(self) -> list[str]:
        """Return which sources and inputs are no longer what was judged, for people; empty when all are."""
        now = self._take(time.monotonic())
        if now == self._stamp:
            return []
        tree = self._build.fresh_tree()
        changed: list[str] = []
        source = {path: tree.source_id(path) for path in self._stage.source}
        changed += [f"source `{path}`" for path, identity in source.items() if identity != self._seen.source.get(path)]
        digests = {dep.name: dep.digest.text for dep in self._seen.deps}
        for part in input_parts(self._stage):
            if part.dataset:
                continue
            if part.stage:
                found = tree.output(part.path)
            else:
                found = tree.input(part.path).digest
            if (found.text if found else None) != digests.get(part.item):
                changed.append(f"input `{part.path}`")
        for path in self._stage.hash_paths:
            if tree.hash_path_id(path) != self._seen.hash_paths.get(path):
                changed.append(f"hash-path `{path}`")
        if not changed:
            self._stamp = now
        return changed
