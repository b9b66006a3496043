"""Pipelines and lockfiles at a revision, read from git's objects."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pipesmith.errors import EnvironmentFailure, UserError
from pipesmith.git.repository import cause
from pipesmith.lockfile.model import Lockfile
from pipesmith.lockfile.reader import parse

if TYPE_CHECKING:
    from pipesmith.history.record import RunRecord
    from pipesmith.workspace.workspace import Workspace

__all__ = ["is_revision", "lockfile_at", "run_named"]


def is_revision(workspace: Workspace, revision: str) -> bool:
    try:
        workspace.repo.resolve(revision)
    except UserError:
        return False
    return True


def lockfile_at(workspace: Workspace, revision: str) -> Lockfile | None:
    """Return the workspace's lockfile at a revision, None where the revision or the file does not exist.

    Raises EnvironmentFailure where it is in a partial clone's remote, which does not give it."""
    try:
        commit = workspace.repo.resolve(revision)
    except UserError:
        return None
    done = workspace.repo.process("cat-file", "blob", f"{commit}:{workspace.in_repo('pipe.lock')}")
    if done.returncode != 0:
        said = os.fsdecode(done.stderr)
        if "promisor remote" in said:
            raise EnvironmentFailure(
                f"{revision}:pipe.lock can't be read: {cause(said)}",
                "this is a partial clone, so its remote must be there: see `git remote -v`",
            )
        return None
    return parse(done.stdout.decode("utf-8", "surrogateescape"), file=f"{revision}:pipe.lock", cache=workspace.state)


def run_named(workspace: Workspace, name: str) -> RunRecord | None:
    """Return the run that a name which may be a revision means, None where it is a revision.

    Raises UserError for what is neither."""
    try:
        workspace.repo.resolve(name)
    except UserError:
        pass
    else:
        return None
    try:
        return workspace.run_store.get(name)
    except UserError as error:
        if error.text.startswith("no run"):
            text = f"`{name}` is neither a run nor a revision"
            raise UserError(text, "`pipe runs` lists runs, `git log --oneline` commits") from None
        raise
