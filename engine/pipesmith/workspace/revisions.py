"""Pipelines and lockfiles at a revision, read from git's objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipesmith.errors import UserError
from pipesmith.lockfile.model import Lockfile
from pipesmith.lockfile.reader import parse

if TYPE_CHECKING:
    from pipesmith.workspace.workspace import Workspace

__all__ = ["lockfile_at"]


def lockfile_at(workspace: Workspace, revision: str) -> Lockfile | None:
    """Return the workspace's lockfile at a revision, None where the revision or the file does not exist."""
    prefix = "" if workspace.prefix == "." else f"{workspace.prefix}/"
    try:
        commit = workspace.repo.resolve(revision)
    except UserError:
        return None
    done = workspace.repo.process("cat-file", "blob", f"{commit}:{prefix}pipe.lock")
    if done.returncode != 0:
        return None
    return parse(done.stdout.decode("utf-8", "surrogateescape"), file=f"{revision}:pipe.lock", cache=workspace.state)
