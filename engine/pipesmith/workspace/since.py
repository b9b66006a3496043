"""`build --since`: the stages that what differs from a revision reaches."""

from __future__ import annotations

from collections.abc import Callable

from pipesmith.errors import ConfigError, UserError
from pipesmith.verdict.own_items import own_items, reached
from pipesmith.workspace.at_commit import own_items_at
from pipesmith.workspace.session import Session

__all__ = ["reached_since"]


def reached_since(session: Session, revision: str, notice: Callable[[str], None]) -> set[str]:
    """Return the names of the stages. Every one where the revision has no pipeline, or one that is wrong.

    What git does not hold counts as the lockfile there says; where it says nothing, as another. Raises UserError for
    what is no revision.
    """
    pipeline = session.pipeline
    commit = session.workspace.home.repo.resolve(revision)
    try:
        then = own_items_at(session.workspace, commit)
    except (ConfigError, UserError) as error:
        notice(f"every stage is looked at: {error.text}")
        return set(pipeline.stages)
    tree = session.fresh_tree()
    outside = session.judgement().outside
    try:
        now = {
            name: own_items(stage, pipeline, tree, outside, session.read_file)
            for name, stage in pipeline.stages.items()
        }
        tree.flush()
    finally:
        tree.close()
    return reached(pipeline, now, then)
