"""What git ignores and what it tracks, asked of git itself."""

from __future__ import annotations

import os
from collections.abc import Iterable

from pipesmith.git.repository import Repository

__all__ = ["ignored", "tracked"]


def ignored(repo: Repository, root: str, paths: Iterable[str]) -> set[str]:
    """Return those of the paths (relative to `root`) that git's ignore rules name, whether they exist or not."""
    asked = b"".join(os.fsencode(path) + b"\0" for path in paths)
    if not asked:
        return set()
    output = repo.run("check-ignore", "--no-index", "--stdin", "-z", input=asked, ok=(0, 1), cwd=root)
    return {path for path in os.fsdecode(output).split("\0") if path}


def tracked(repo: Repository, root: str, paths: Iterable[str]) -> set[str]:
    """Return those of the paths that git tracks, or that hold a tracked file."""
    wanted = set(paths)
    if not wanted:
        return set()
    output = repo.run("ls-files", "-z", "--cached", cwd=root)
    found = set()
    for name in os.fsdecode(output).split("\0"):
        while name:
            if name in wanted:
                found.add(name)
            name = name.rpartition("/")[0]
    return found
