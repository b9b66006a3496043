"""What git ignores and what it tracks, asked of git itself."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable

from pipesmith.git.repository import Repository

__all__ = ["ignored", "tracked", "untracked_under"]


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


def untracked_under(repo: Repository, tree: str, root: str) -> list[str] | None:
    """Return the files below `root`, relative to it, that are not tracked here and that the ignore rules of a tree (or
    commit) would not ignore. None where the rules there are those of the work tree: ask git's listing then.

    repo: must read the tree's objects."""
    quiet = ("-c", "diff.autoRefreshIndex=false")  # else git writes the index
    changed = repo.run(*quiet, "diff", "--no-ext-diff", "--name-only", "-z", tree, "--", ":(top,glob)**/.gitignore")
    if not changed:
        return None
    listed = os.fsdecode(repo.run("ls-files", "-z", "-o", cwd=root)).split("\0")
    names = [name for name in listed if name and not name.endswith("/")]
    prefix = os.path.relpath(root, repo.top)
    shown = {os.path.normpath(os.path.join(prefix, name)): name for name in names}
    with tempfile.TemporaryDirectory(prefix="pipe-rules-") as folder:
        for path in os.fsdecode(repo.run("ls-tree", "-r", "-z", "--name-only", "--full-tree", tree)).split("\0"):
            if os.path.basename(path) == ".gitignore":
                _put(folder, path, repo.run("cat-file", "blob", f"{tree}:{path}"))
        for path, name in shown.items():
            if os.path.basename(path) == ".gitignore" and not os.path.exists(os.path.join(folder, path)):
                with open(os.path.join(root, name), "rb") as file:
                    _put(folder, path, file.read())
        asked = b"".join(os.fsencode(path) + b"\0" for path in shown)
        output = repo.run(
            "check-ignore",
            "--no-index",
            "--stdin",
            "-z",
            input=asked,
            ok=(0, 1),
            cwd=folder,
            env={"GIT_DIR": repo.git_dir, "GIT_WORK_TREE": folder},
        )
    left_out = set(os.fsdecode(output).split("\0"))
    return [name for path, name in shown.items() if path not in left_out]


def _put(folder: str, path: str, data: bytes) -> None:
    there = os.path.join(folder, path)
    os.makedirs(os.path.dirname(there), exist_ok=True)
    with open(there, "wb") as file:
        file.write(data)
