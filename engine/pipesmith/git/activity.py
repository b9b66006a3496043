"""Whether git is at work in a work tree right now, and where HEAD stands: by its files, asking no process."""

from __future__ import annotations

import os

__all__ = ["GitActivity", "is_git_sign"]

_SIGNS = ("HEAD", "index", "config", "config.worktree", "exclude", "attributes", "sparse-checkout")
_SERIES = ("rebase-merge", "rebase-apply", "sequencer")


def is_git_sign(name: str) -> bool:
    """Return whether a file of this name in a git folder says something of the work tree."""
    return name in _SIGNS


class GitActivity:
    """git_dir: of the worktree. common_dir: of the clone."""

    def __init__(self, git_dir: str, common_dir: str) -> None:
        self._git_dir = git_dir
        self._common_dir = common_dir
        self._lock = os.path.join(git_dir, "index.lock")

    def places(self) -> list[str]:
        """Return the files that change when the work tree is another one for git: absolute, there or not."""
        info = [os.path.join(self._common_dir, "info", name) for name in ("exclude", "attributes")]
        return [
            os.path.join(self._git_dir, "HEAD"),
            os.path.join(self._git_dir, "index"),
            os.path.join(self._git_dir, "config.worktree"),
            os.path.join(self._git_dir, "info", "sparse-checkout"),
            os.path.join(self._common_dir, "config"),
            *info,
        ]

    def holder(self) -> tuple[int, int] | None:
        """Return what tells one holding of the index from another, None while nobody holds it."""
        try:
            info = os.lstat(self._lock)
        except OSError:
            return None
        return info.st_ino, info.st_mtime_ns

    def in_series(self) -> bool:
        """Return whether a rebase or its like is under way: commit after commit is put into the work tree."""
        return any(os.path.exists(os.path.join(self._git_dir, name)) for name in _SERIES)

    def head(self) -> str:
        """Return where HEAD stands, for people: a branch's name or a commit's id; empty where that is not known."""
        try:
            with open(os.path.join(self._git_dir, "HEAD"), encoding="utf-8", errors="surrogateescape") as file:
                text = file.read().strip()
        except OSError:
            return ""
        if text.startswith("ref: "):
            return text.removeprefix("ref: ").removeprefix("refs/heads/")
        return text[:10]
