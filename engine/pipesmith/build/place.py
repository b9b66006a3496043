"""Outputs into the workspace, without ever destroying what only exists there."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager

from pipesmith.digest import Digest
from pipesmith.errors import EnvironmentFailure, UserError
from pipesmith.git.repository import IN_PLACING
from pipesmith.lockfile.model import LockedOut
from pipesmith.store.kept import keep, kept
from pipesmith.store.object_store import ObjectStore
from pipesmith.store.removal import remove

__all__ = ["Placer", "check_inside", "remove_unfinished"]

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def check_inside(root: str, path: str) -> None:
    """Raise UserError where a folder on the way to `path` is a link that leads out of the workspace. With a slash at
    the end, the path is such a folder itself."""
    parent = os.path.dirname(os.path.join(root, path))
    real = os.path.realpath(parent)
    top = os.path.realpath(root)
    if real != top and not real.startswith(top + os.sep):
        raise UserError(
            f"`{path.rstrip('/')}` leads out of the workspace, to `{real}`",
            "make the folder a real one, or name another path",
        )


def remove_unfinished(root: str, outputs: Iterable[str], guard: Callable[[], AbstractContextManager[None]]) -> None:
    """Remove what a killed build was placing: beside outputs, and beside the lockfile. All placing is done under
    `guard`, the workspace lock, so that what is there while it is held is nobody's."""
    folders = {root, *(os.path.dirname(os.path.join(root, path)) for path in outputs)}
    if not any(_unfinished(folder) for folder in folders):
        return
    with guard():
        for folder in folders:
            for path in _unfinished(folder):
                remove(path)


def _unfinished(folder: str) -> list[str]:
    try:
        return [os.path.join(folder, name) for name in os.listdir(folder) if name.startswith(IN_PLACING)]
    except OSError:
        return []


def _exchange(one: str, other: str) -> bool:
    """Exchange two names in one step. False where the system or file system can't."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    done = libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return bool(done == 0)


def _is_so(path: str, out: LockedOut) -> bool:
    """Return whether what has an output's content is what was made in all else: executable or not; and, if it is left
    to git, no link to the cache, as it may be from a time when it was not."""
    info = os.lstat(path)
    if not stat.S_ISREG(info.st_mode):
        return True
    return bool(info.st_mode & 0o100) == out.digest.executable and (out.cache or info.st_nlink == 1)


class Placer:
    """Puts outputs into one workspace. Used under the workspace lock.

    digest(path, algorithm): what lies at a workspace path now; by the store's algorithm where that is None.
    said(path, digest, why): told of what was put away.
    """

    def __init__(
        self,
        root: str,
        store: ObjectStore,
        digest: Callable[[str, str | None], Digest | None],
        said: Callable[[str, Digest], None],
    ) -> None:
        self._root = root
        self._store = store
        self._digest = digest
        self._said = said

    def put_away(self, stage: str, path: str, known: Collection[str]) -> None:
        """Keep what lies at an output's path, unless it is what was locked (`known` digest texts) or what another known
        result is, and in the object store: after a change of branches it is what the other one's build made."""
        there = os.path.join(self._root, path)
        if not os.path.lexists(there):
            return
        if os.path.islink(there):
            self._said(path, keep(self._store, there, path=path, stage=stage))
            return
        now = self._digest(path, next((text.partition(":")[0] for text in known), None))
        if now is not None and self._store.has(now):
            by_hand = any(entry.digest.text == now.text for entry in kept(self._store))
            if now.text in set(known) or not by_hand:
                return
        digest = keep(self._store, there, path=path, stage=stage)
        if now is None or now.text not in set(known):
            self._said(path, digest)

    def place(self, stage: str, outs: Iterable[LockedOut], locked: Iterable[LockedOut]) -> None:
        """Bring each output to what it must be. locked: what the lockfile had.

        Raises StageError (object missing or damaged) before anything was changed at that path, EnvironmentFailure on a
        full disk.
        """
        known: dict[str, list[str]] = {}
        for out in locked:
            known.setdefault(out.path, []).append(out.digest.text)
        for out in outs:
            check_inside(self._root, out.path)
            target = os.path.join(self._root, out.path)
            wanted = out.digest.algorithm
            now = self._digest(out.path, wanted) if os.path.lexists(target) and not os.path.islink(target) else None
            if now is not None and now.text == out.digest.text and _is_so(target, out):
                continue
            parent = os.path.dirname(target)
            self._folder_in_the_way(stage, parent)
            os.makedirs(parent, exist_ok=True)
            ready = os.path.join(parent, f"{IN_PLACING}{os.urandom(6).hex()}")
            try:
                self._store.place(out.digest, ready, link=out.cache)
                self.put_away(stage, out.path, known.get(out.path, ()))
                if not os.path.lexists(target):
                    os.rename(ready, target)
                elif _exchange(ready, target):
                    remove(ready)
                else:
                    aside = f"{ready}-old"
                    os.rename(target, aside)
                    os.rename(ready, target)
                    remove(aside)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise EnvironmentFailure(
                        f"no space left on the disk of `{self._root}`", "free some space, then build again"
                    ) from None
                raise EnvironmentFailure(f"`{out.path}` can't be written: {error.strerror}") from None
            finally:
                if os.path.lexists(ready):
                    remove(ready)

    def _folder_in_the_way(self, stage: str, parent: str) -> None:
        """Put away a file that lies where an output's folder must be."""
        relative = os.path.relpath(parent, self._root)
        walked = self._root
        for part in relative.split(os.sep):
            walked = os.path.join(walked, part)
            if os.path.lexists(walked) and not os.path.isdir(walked):
                path = os.path.relpath(walked, self._root)
                self.put_away(stage, path, ())
                os.unlink(walked)
                return

    def take_out(self, stage: str, path: str, known: Collection[str]) -> None:
        """Remove an output from the workspace; what only exists there is kept first."""
        target = os.path.join(self._root, path)
        if os.path.lexists(target):
            self.put_away(stage, path, known)
            remove(target)
