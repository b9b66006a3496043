"""Which workspace is meant in a bare repository: there is no folder to stand in."""

from __future__ import annotations

import os
import posixpath

from pipesmith.errors import UserError
from pipesmith.git.repository import Repository

__all__ = ["bare_prefix"]


def bare_prefix(repo: Repository, revision: str) -> tuple[str, str]:
    """Return the workspace's folder, `.` for the top, and the revision without it. revision: REV or A..B, with or
    without `:FOLDER`.

    Raises UserError where the revision is none, or has no pipeline.toml, or more than one and none is named."""
    revision, named, folder = revision.partition(":")
    last = (revision.rpartition("..")[2] if ".." in revision else revision) or "HEAD"
    commit = repo.resolve(last)
    listed = os.fsdecode(repo.run("ls-tree", "-r", "-z", "--name-only", commit)).split("\0")
    found = sorted(posixpath.dirname(path) for path in listed if posixpath.basename(path) == "pipeline.toml")
    shown = ", ".join(f"`{revision}:{each}`" for each in found)
    if named:
        prefix = posixpath.normpath(folder or ".")
        if ("" if prefix == "." else prefix) not in found:
            help = f"name one of {shown}" if found else "name a commit that has one"
            raise UserError(f"there is no pipeline.toml in `{folder}` at `{last}`", help)
        return prefix, revision
    if not found:
        raise UserError(f"there is no pipeline.toml at {commit[:10]}", "name a commit that has one")
    if "" in found or len(found) == 1:
        return ("." if "" in found else found[0]), revision
    raise UserError(f"there are {len(found)} pipelines at {commit[:10]}", f"name one: {shown}")
