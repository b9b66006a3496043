"""Folders for the temporary files of stages: outside the workspace, wherever the user's TMPDIR leads."""

from __future__ import annotations

import os
import tempfile

from pipesmith.build.context import BuildContext

__all__ = ["temporary_folder"]


def temporary_folder(build: BuildContext) -> str:
    """Return a new folder, in the user's place for temporary files, or in the system's where that lies in the work
    tree: a stage would not see it, and a snapshot would hold it."""
    tops = {os.path.realpath(top) for top in (build.repo.top, build.root, build.seen_at)}
    usual = tempfile.gettempdir()
    for parent in (usual, "/tmp", "/var/tmp", *sorted(os.path.dirname(top) for top in tops)):
        real = os.path.realpath(parent)
        if os.access(real, os.W_OK | os.X_OK) and not any(f"{real}/".startswith(f"{top}/") for top in tops):
            return tempfile.mkdtemp(prefix="pipe-", dir=parent)
    return tempfile.mkdtemp(prefix="pipe-", dir=usual)
