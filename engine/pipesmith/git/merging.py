"""Two commits merged by git, in memory: no work tree, index or ref is touched."""

from __future__ import annotations

import os

from pipesmith.errors import EnvironmentFailure, UserError
from pipesmith.git.repository import UNSHALLOW, Repository
from pipesmith.records import record

__all__ = ["MergedTree", "merge_trees"]


@record
class MergedTree:
    """tree: the id of what came out, with conflict markers where there are conflicts. conflicts: the paths of these,
    relative to the top."""

    tree: str
    conflicts: tuple[str, ...] = ()


def merge_trees(scratch: Repository, ours: str, theirs: str) -> MergedTree:
    """Return what `git merge` of two commits would make, but for lockfiles that both changed: those are ours.

    scratch: a repository whose new objects go elsewhere. Raises UserError for commits without a common history,
    EnvironmentFailure for a git older than 2.38."""
    by_hand = ("-c", "merge.pipesmith.driver=true")  # who asks merges lockfiles himself: the driver need not
    done = scratch.process(*by_hand, "merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", ours, theirs)
    if done.returncode not in (0, 1):
        said = os.fsdecode(done.stderr).strip()
        if "unrelated histories" in said:
            help = UNSHALLOW if scratch.shallow else "`git log --graph ONE OTHER` shows both"
            raise UserError("the two have no common history: git refuses to merge them", help)
        if "usage:" in said or "unknown option" in said or "unknown rev" in said.lower():
            raise EnvironmentFailure("this git can't merge in memory", "install git 2.38 or newer")
        raise EnvironmentFailure(f"`git merge-tree` failed: {said.splitlines()[-1] if said else done.returncode}")
    tree, *names = os.fsdecode(done.stdout).split("\0")
    return MergedTree(tree=tree, conflicts=tuple(dict.fromkeys(name for name in names if name)))
