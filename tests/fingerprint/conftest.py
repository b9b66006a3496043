"""A workspace looked at by the library, beside what git itself says of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipesmith.fingerprint.revision import Revision
from pipesmith.fingerprint.stat_cache import StatCache
from pipesmith.fingerprint.work_tree import WorkTree
from pipesmith.git.objects import ObjectReader
from pipesmith.git.repository import Repository
from pipesmith.store.state_db import StateDB


class Bed:
    """repo: the sealed repository. A tree is a new look each time; all looks share one state.db."""

    def __init__(self, repo: Any, algorithm: str = "blake3") -> None:
        self.repo = repo
        self.path: Path = repo.path
        self.algorithm = algorithm
        self.state = StateDB(str(repo.pipe_dir / "state.db"))
        self.cache = StatCache(self.state, algorithm)
        self._open: list[WorkTree | ObjectReader] = []
        self.excluded: frozenset[str] = frozenset()

    def tree(self, folder: str = ".") -> WorkTree:
        root = os.path.realpath(self.path / folder)
        tree = WorkTree(Repository.discover(root), root, self.cache)
        tree.exclude(self.excluded)
        self._open.append(tree)
        return tree

    def revision(self, commit: str = "HEAD", folder: str = ".", path: Path | None = None) -> Revision:
        repo = Repository.discover(str(path or self.path))
        reader = ObjectReader(repo)
        self._open.append(reader)
        revision = Revision(reader, repo.resolve(commit), folder, self.algorithm)
        revision.exclude(self.excluded)
        return revision

    def source(self, path: str = ".", folder: str = ".") -> str | None:
        return self.tree(folder).source_id(path)

    def would_commit(self, path: str = "", *, drop: tuple[str, ...] = ()) -> str | None:
        """Return the id that git gives to a path if all is added, into an index of its own that has no stamps.

        drop: pathspecs taken out of it, as far as they match."""
        env = {"GIT_INDEX_FILE": str(self.repo.home / "index")}
        (self.repo.home / "index").unlink(missing_ok=True)
        entries = self.repo.run("git", "ls-files", "-s", "-z").stdout
        self.repo.run("git", "update-index", "-z", "--index-info", env=env, input=entries)
        self.repo.git("-c", "core.safecrlf=false", "add", "-A", "--sparse", env=env)
        for pathspec in (":(top,literal)pipeline.toml", ":(top,literal)pipe.lock", *drop):
            self.repo.git("rm", "-r", "-q", "--cached", "--sparse", "--ignore-unmatch", "--", pathspec, env=env)
        top = self.repo.git("write-tree", env=env).stdout.strip()
        found = self.repo.git("rev-parse", "--verify", "-q", f"{top}:{path}", check=False).stdout.strip()
        return found or None

    def close(self) -> None:
        for each in self._open:
            each.close()
        self._open = []


@pytest.fixture
def bed(workspace: Any) -> Iterator[Bed]:
    """A bed for the repository of the test."""
    made = Bed(workspace)
    yield made
    made.close()
    made.state.close()


@pytest.fixture
def make_bed() -> Iterator[Callable[..., Bed]]:
    """Makes beds of other repositories: clones, worktrees."""
    made: list[Bed] = []

    def make(repo: Any, algorithm: str = "blake3") -> Bed:
        made.append(Bed(repo, algorithm))
        return made[-1]

    yield make
    for each in made:
        each.close()
        each.state.close()


@pytest.fixture
def tick() -> Callable[[], None]:
    """Waits until the clock of the file system has moved on, so that stamps may be remembered."""
    import time

    return lambda: time.sleep(0.03)
