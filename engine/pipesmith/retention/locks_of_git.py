"""Every pipe.lock that git leads to: at tips of refs, in stash entries, in the index and on disk of each worktree."""

from __future__ import annotations

import os
from collections.abc import Iterator

from pipesmith.git.objects import ObjectReader
from pipesmith.git.repository import Repository

__all__ = ["lock_texts"]

_LOCK = "pipe.lock"
_RUNS = "refs/pipe/"
_TREE = "40000"
_FILES = (f":(top,glob)**/{_LOCK}", ":(top,glob)**/pipeline.toml")


def lock_texts(repo: Repository) -> Iterator[tuple[str, bytes]]:
    """Yield (where, text) of each lockfile, equal ones in git once. where: for people.

    Raises EnvironmentFailure where git lacks a tree or blob that it should have: then nobody knows what is needed.
    """
    reader = ObjectReader(repo)
    try:
        finder = _Finder(reader)
        for where, commit in _commits(repo):
            found = reader.read(f"{commit}^{{commit}}")
            if found is None or found[0] != "commit":
                continue  # a tag of a blob or tree
            yield from finder.at(where, found[1].split(b"\n", 1)[0].removeprefix(b"tree ").decode())
        for path in _worktrees(repo):
            for where, blob in _staged(repo, path):
                yield from finder.blob(where, blob)
            yield from _on_disk(repo, path)
    finally:
        reader.close()


class _Finder:
    """Finds lockfiles in trees; what was seen once is not looked at again."""

    def __init__(self, reader: ObjectReader) -> None:
        self._reader = reader
        self._seen: set[str] = set()

    def at(self, where: str, tree: str) -> Iterator[tuple[str, bytes]]:
        stack = [tree]
        while stack:
            identity = stack.pop()
            if identity in self._seen:
                continue
            self._seen.add(identity)
            for name, (mode, inner) in self._reader.tree(identity).items():
                if mode == _TREE:
                    stack.append(inner)
                elif name == _LOCK:
                    yield from self.blob(where, inner)

    def blob(self, where: str, identity: str) -> Iterator[tuple[str, bytes]]:
        if identity not in self._seen:
            self._seen.add(identity)
            yield where, self._reader.blob(identity)


def _commits(repo: Repository) -> Iterator[tuple[str, str]]:
    """Yield (where, object): every ref but those of runs, every worktree's HEAD, the parts of every stash entry."""
    for line in os.fsdecode(repo.run("for-each-ref", "--format=%(objectname) %(refname)")).splitlines():
        identity, _, ref = line.partition(" ")
        if not ref.startswith(_RUNS):
            yield ref, identity
    for line in os.fsdecode(repo.run("worktree", "list", "--porcelain")).splitlines():
        word, _, value = line.partition(" ")
        if word == "HEAD" and set(value) != {"0"}:
            yield "a worktree's HEAD", value
    done = repo.process("log", "--walk-reflogs", "--format=%H %P", "refs/stash", "--")
    if done.returncode == 0:
        for number, line in enumerate(done.stdout.decode().splitlines()):
            for identity in line.split():  # the work tree; HEAD, the index and the untracked files
                yield f"stash@{{{number}}}", identity


def _worktrees(repo: Repository) -> list[str]:
    """Return the folders of the worktrees that are there."""
    found = []
    for line in os.fsdecode(repo.run("worktree", "list", "--porcelain")).splitlines():
        word, _, value = line.partition(" ")
        if word == "worktree" and os.path.exists(os.path.join(value, ".git")):
            found.append(value)
    return found


def _list(repo: Repository, worktree: str, *options: str) -> list[str]:
    """Return `git ls-files` of a worktree, also where the environment names another one, as in a hook."""
    git = os.path.join(worktree, ".git")
    if os.path.isfile(git):
        with open(git, encoding="utf-8", errors="surrogateescape") as file:
            git = os.path.join(worktree, file.read().removeprefix("gitdir:").strip())
    env = {"GIT_DIR": git, "GIT_WORK_TREE": worktree, "GIT_INDEX_FILE": os.path.join(git, "index")}
    done = repo.run("ls-files", "-z", *options, "--", *_FILES, cwd=worktree, env=env)
    return os.fsdecode(done).split("\0")[:-1]


def _staged(repo: Repository, worktree: str) -> Iterator[tuple[str, str]]:
    """Yield (where, blob) of the lockfiles in a worktree's index, all sides of a conflict."""
    for row in _list(repo, worktree, "--stage"):
        head, _, path = row.partition("\t")
        if os.path.basename(path) == _LOCK:
            yield f"the index of {worktree}", head.split(" ")[1]


def _on_disk(repo: Repository, worktree: str) -> Iterator[tuple[str, bytes]]:
    """Yield (where, text) of the lockfiles in a worktree: those that git lists, and those beside a pipeline.toml."""
    folders = {os.path.dirname(p) for p in _list(repo, worktree, "--cached", "--others", "--exclude-standard")}
    for folder in sorted(folders):
        path = os.path.join(worktree, folder, _LOCK)
        try:
            with open(path, "rb") as file:
                yield path, file.read()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            continue
