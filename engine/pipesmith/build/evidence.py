"""Whether what a stage is given is what it was judged by: when it starts, and when it ends. Stamps first, digests where
they differ."""

from __future__ import annotations

import marshal
import os
import threading
import time
from _blake2 import blake2b
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipesmith.build.context import BuildContext
from pipesmith.digest import Digest
from pipesmith.fingerprint.items import InputPart, input_parts
from pipesmith.fingerprint.stat_cache import has_ticked, stamp_of
from pipesmith.fingerprint.work_tree import WorkTree
from pipesmith.pipeline.model import Stage
from pipesmith.verdict.verdict import Seen

__all__ = ["Evidence", "Stamper"]

# A walk that took this long is not done again within so many times that span when a stage starts: the one at its end,
# which is always a new one, sees any change in between.
_REUSE_ABOVE_S = 0.05
_REUSE_FACTOR = 10.0


class Stamper:
    """Stamps of whole folders, the digests that were found under them, and looks at the tree that are newer than the
    build's own. Thread-safe; stages that end together share a walk, and a look."""

    def __init__(self) -> None:
        self._looked: WorkTree | None = None  # the newest look that later stages may share
        self._look_lock = threading.Lock()
        self._recent: dict[str, tuple[float, float, bytes]] = {}  # path: (when the walk began, seconds it took, stamp)
        self._digests: dict[str, tuple[bytes, str | None]] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    @contextmanager
    def look_after(self, newest_ns: int, fresh_tree: Callable[[], WorkTree]) -> Iterator[WorkTree]:
        """Give a tree that was first looked at when the clock of the stamps had moved on from `newest_ns`.

        One that nobody else can share has to be made as long as it has not."""
        with self._look_lock:
            if self._looked is None or not has_ticked(newest_ns, self._looked.started_ns):
                looked = fresh_tree()
                if not has_ticked(newest_ns, looked.started_ns):
                    yield looked
                    return
                self._looked = looked
            yield self._looked

    def digest_text(self, path: str, since: float | None, digest: Callable[[], Digest | None]) -> str | None:
        """Return the digest text of what lies at an absolute path, from a look begun after `since` (monotonic seconds).

        since None: what is dear to walk may have been looked at a moment before. digest: reads it, where its stamp is
        not known.
        """
        with self._guard:
            lock = self._locks.setdefault(path, threading.Lock())
        with lock:
            stamp = self._stamp(path, since)
            known = self._digests.get(path)
            if known is not None and known[0] == stamp:
                return known[1]
            while True:
                found = digest()
                again = self._stamp(path, time.monotonic())
                if again == stamp:
                    text = found.text if found is not None else None
                    self._digests[path] = (stamp, text)
                    return text
                stamp = again

    def _stamp(self, path: str, since: float | None) -> bytes:
        now = time.monotonic()
        known = self._recent.get(path)
        if known is not None:
            began, took, stamp = known
            if since is not None and began > since:
                return stamp
            if since is None and took > _REUSE_ABOVE_S and now - began < _REUSE_FACTOR * took:
                return stamp
        hasher = blake2b(digest_size=16)
        _walk(path, hasher.update)
        stamp = hasher.digest()
        self._recent[path] = (now, time.monotonic() - now, stamp)
        return stamp


def _walk(path: str, update: Callable[[bytes], None]) -> None:
    try:
        info = os.lstat(path)
    except OSError:
        update(b"absent")
        return
    update(marshal.dumps(stamp_of(info), 2))
    stack = [path] if os.path.isdir(path) and not os.path.islink(path) else []
    while stack:
        folder = stack.pop()
        flat: list[object] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    flat.append(entry.name)
                    flat += stamp_of(entry.stat(follow_symlinks=False))
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(entry.path)
        except OSError:
            flat.append("unreadable")
        update(marshal.dumps(flat, 2))


class Evidence:
    """What one stage was judged by."""

    def __init__(self, build: BuildContext, stage: Stage, seen: Seen, stamper: Stamper) -> None:
        self._build = build
        self._stage = stage
        self._seen = seen
        self._stamper = stamper
        self._verified: bytes | None = None  # stamp of the source under which its ids were checked

    def changed(self, *, at_end: bool) -> list[str]:
        """Return which sources and inputs are not what was judged, for people; empty when all are."""
        since = time.monotonic() if at_end else None
        locked = {dep.name: dep.digest for dep in self._seen.deps}
        changed = []
        for part in input_parts(self._stage, self._build.pipeline.stages):
            judged = locked.get(part.item)
            if not part.dataset and self._input_text(part, judged, since) != (judged.text if judged else None):
                changed.append(f"input `{part.place}`")
        return self._changed_source() + changed

    def _input_text(self, part: InputPart, judged: Digest | None, since: float | None) -> str | None:
        if part.stage:
            there = os.path.join(self._build.root, part.place)
            # what the stage before it made may have been made when the pipeline had another algorithm
            algorithm = judged.algorithm if judged is not None else self._build.store.algorithm
            return self._stamper.digest_text(there, since, lambda: self._build.digest_now(part.place, algorithm))
        there = self._build.input_at(part.place)
        return self._stamper.digest_text(there, since, lambda: self._build.fresh_tree().input(part.place).digest)

    def _changed_source(self) -> list[str]:
        tree = self._build.tree
        files = [name for source in self._stage.source for name, _mode in tree.source_files(source)]
        files += [*self._stage.hash_paths, *([self._stage.notebook] if self._stage.notebook else ())]
        folders = {os.path.dirname(name) for name in files} | set(self._stage.source)
        newest = 0
        same = True
        hasher = blake2b(digest_size=16)
        for name in sorted(folders):
            try:
                info = os.lstat(os.path.join(self._build.root, name))
            except OSError:
                same = False
                continue
            newest = max(newest, info.st_mtime_ns, info.st_ctime_ns)
            hasher.update(marshal.dumps(stamp_of(info), 2))
        for name in files:
            try:
                info = os.lstat(os.path.join(self._build.root, name))
            except OSError:
                same = False
                continue
            newest = max(newest, info.st_mtime_ns, info.st_ctime_ns)
            stamp = stamp_of(info)
            same = same and tree.seen_stamp(name) == stamp
            hasher.update(marshal.dumps(stamp, 2))
        stamp_now = hasher.digest()
        if (same and has_ticked(newest, tree.started_ns)) or stamp_now == self._verified:
            return []
        with self._stamper.look_after(newest, self._build.fresh_tree) as fresh:
            changed = self._differences(fresh)
        if not changed:
            self._verified = stamp_now
        return changed

    def _differences(self, fresh: WorkTree) -> list[str]:
        """Return which sources have other ids in a later look."""
        changed = [
            f"source `{path}`" for path in self._stage.source if fresh.source_id(path) != self._seen.source.get(path)
        ]
        changed += [
            f"hash-path `{path}`"
            for path in self._stage.hash_paths
            if fresh.hash_path_id(path) != self._seen.hash_paths.get(path)
        ]
        if self._stage.notebook is not None:
            from pipesmith.build.notebook import notebook_source_id

            text = fresh.read(self._stage.notebook)
            if text is None or notebook_source_id(text) != self._seen.source.get(self._stage.notebook):
                changed.append(f"notebook `{self._stage.notebook}`")
        return changed
