"""What tests of builds in places of their own share."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from tests.conftest import Repo


class Looks:
    """What a person sees of a repository: every file of the work tree, index, HEAD, refs, stash, work trees."""

    def __init__(self, repo: Repo) -> None:
        self.repo = repo
        self.before = self.now()

    def now(self) -> dict[str, object]:
        repo = self.repo
        index = Path(repo.git("rev-parse", "--path-format=absolute", "--git-path", "index").stdout.strip())
        return {
            "files": _files(repo.path),
            "index": hashlib.sha256(index.read_bytes()).hexdigest() if index.exists() else None,
            "HEAD": repo.git("rev-parse", "--symbolic-full-name", "HEAD", check=False).stdout,
            "refs": [line for line in repo.git("for-each-ref").stdout.splitlines() if "\trefs/pipe/runs/" not in line],
            "worktrees": repo.git("worktree", "list", "--porcelain").stdout,
            "places": [path.name for path in (repo.pipe_dir / "tmp").glob("place-*")],
        }

    def same(self) -> None:
        """Assert that nothing that a person sees has changed."""
        now = self.now()
        for what, before in self.before.items():
            assert now[what] == before, what


def _files(root: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name != ".git"]
        for name in names:
            path = Path(folder, name)
            info = path.lstat()
            found[str(path.relative_to(root))] = (info.st_mtime_ns, info.st_ino, info.st_mode, info.st_size)
    return found


def two_stages(repo: Repo) -> str:
    """Return a pipeline: `a` copies src/word, `b` adds a param to it."""
    return f"""
        [params]
        lr = 1
        [stage.a]
        source = "src"
        run = "{repo.note("a")} && cp src/word {{outputs.o}}"
        outputs = {{ o = "out/a.txt" }}
        [stage.b]
        run = "{repo.note("b")} && cat {{inputs.i}} > {{outputs.o}} && echo {{params.lr}} >> {{outputs.o}}"
        inputs = {{ i = "stage:a.o" }}
        outputs = {{ o = "out/b.txt" }}
    """


@pytest.fixture
def two(repo: Repo) -> Repo:
    """A repository with two stages, committed and never built."""
    repo.write("pipeline.toml", two_stages(repo))
    repo.write("src/word", "one\n")
    repo.commit("first")
    return repo


@pytest.fixture
def looks() -> type[Looks]:
    return Looks
