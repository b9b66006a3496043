"""Where a submodule's objects lie: in its work tree's repository, or in what git keeps of it below `modules`."""

from __future__ import annotations

import os
from collections.abc import Iterator

from pipesmith.errors import UserError
from pipesmith.git.objects import ObjectReader
from pipesmith.git.repository import Repository

__all__ = ["submodule_reader"]


def submodule_reader(outer: ObjectReader, path: str, commit: str) -> ObjectReader:
    """Return a reader of the repository that has `commit`, which a gitlink at `path` (relative to the top) names.

    It is closed with `outer`. Raises UserError where this clone has it nowhere."""
    known = outer.submodules.get(path)
    if known is not None and _has(known, commit):
        return known
    for repo in _candidates(outer.repo, path):
        reader = ObjectReader(repo)
        if _has(reader, commit):
            if known is not None:
                known.close()
            outer.submodules[path] = reader
            return reader
        reader.close()
    raise UserError(
        f"submodule `{path}` is not here at {commit[:10]}, so what it holds can't be known",
        f"run `git submodule update --init -- {path}`",
    )


def _has(reader: ObjectReader, commit: str) -> bool:
    found = reader.read(commit)
    return found is not None and found[0] == "commit"


def _candidates(repo: Repository, path: str) -> Iterator[Repository]:
    """Yield the repositories that may have the submodule's objects, likeliest first."""
    there = os.path.join(repo.top, path)
    if not repo.is_bare and os.path.lexists(os.path.join(there, ".git")):
        try:
            yield Repository.discover(there, nested=True)
        except UserError:
            pass
    places = []
    for base in dict.fromkeys((repo.git_dir, repo.common_dir)):
        modules = os.path.join(base, "modules")
        places += [os.path.join(modules, path), *_modules(modules)]
    for place in dict.fromkeys(places):
        if os.path.isdir(os.path.join(place, "objects")):
            yield Repository.at_git_dir(place, repo.object_format)


def _modules(folder: str) -> list[str]:
    """Return all git folders of submodules, nested ones too, below a `modules` folder."""
    found = []
    for where, folders, files in os.walk(folder):
        if "HEAD" in files and "objects" in folders:
            found.append(where)
            folders[:] = ["modules"] if "modules" in folders else []
    return sorted(found)
