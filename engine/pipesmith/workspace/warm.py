"""The last look at the work tree, trusted for as long as the system's events tell all that changed since.

What is trusted decides only what a save reaches, and when. A stage is compared with what lies there when it starts and
when it ends, as in any build, and a look at everything follows when it has been quiet.
"""

from __future__ import annotations

import os

from pipesmith.fingerprint.stat_cache import StatCache
from pipesmith.fingerprint.work_tree import WorkTree
from pipesmith.workspace.saves import Saves
from pipesmith.workspace.session import Session
from pipesmith.workspace.watched_places import IGNORING

__all__ = ["Warmth"]


class Warmth:
    """root: the workspace. trusting: whether the last look trusted the one before."""

    def __init__(self, root: str, saves: Saves) -> None:
        self._root = root
        self._saves = saves
        self._last: tuple[WorkTree, StatCache] | None = None
        self.trusting = False

    def lend(self, session: Session) -> None:
        """Let a session's tree be the last one, with what is known to have changed, if that is known."""
        changed = self._saves.since_look()
        last, self._last, self.trusting = self._last, None, False
        if last is None or changed is None or last[1].algorithm != session.pipeline.cache.hash:
            return
        listed = self._listed(last[0], changed)
        tree = last[0].renewed(listed) if listed is not None else None
        if tree is not None:
            session.trust(tree, last[1])
            self.trusting = True

    def keep(self, session: Session) -> None:
        """Remember the look of a session."""
        self._last = (session.tree, session.stat_cache)

    def forget(self) -> None:
        self._last = None

    def _listed(self, tree: WorkTree, changed: set[str]) -> list[str] | None:
        """Return which of the changed paths git listed, None where it may list others now."""
        found = []
        for path in changed:
            if not path.startswith(self._root + os.sep) or self._is_of_git(path):
                return None
            inner = path[len(self._root) + 1 :]
            if os.path.basename(path) in IGNORING:
                return None
            if tree.lists(inner):
                found.append(inner)
            elif self._saves.is_made(path):
                continue
            elif not os.path.lexists(path):
                if tree.holds(inner):
                    return None
            elif os.path.isdir(path) or not self._saves.is_ignored(path):
                return None
        return found

    def _is_of_git(self, path: str) -> bool:
        return ".git" in path[len(self._root) :].split(os.sep)
