"""What a line tells of a commit's stages, and the memory of it: a range that grew by a commit is judged for that alone.

What a commit's stages are is decided by its tree, so that is what a summary is remembered by. That is so for the same
program, and where nothing else was asked: no other revision (`expect … vs`), no submodule, no replaced object.
"""

from __future__ import annotations

import marshal
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pipesmith.records import record

if TYPE_CHECKING:
    from pipesmith.git.repository import Repository
    from pipesmith.workspace.results import StageState
    from pipesmith.workspace.workspace import Workspace

__all__ = ["MOST_NAMED", "Cause", "Summary", "SummaryMemory", "summary_of"]

MOST_NAMED = 3
_AT_ONCE = 500  # keys of a query
_KEEP_AT = 2000  # summaries that wait to be written


@record(kw_only=False)
class Cause:
    """Why a stage is stale: the kind and the item of its first reason, or a problem's text, and whether there are more
    reasons."""

    stage: str
    kind: str
    item: str
    more: bool


@record
class Summary:
    """A commit's stages. count: of all. stale: how many; named: the first of them. broken: expectations."""

    count: int
    stale: int
    pending: int
    named: tuple[Cause, ...]
    broken: tuple[str, ...]

    @property
    def fresh(self) -> bool:
        return not (self.stale or self.pending or self.broken)


def summary_of(stages: Sequence[StageState]) -> Summary:
    """Return what a line tells of states at a commit."""
    named: list[Cause] = []
    broken: list[str] = []
    stale = pending = 0
    for stage in stages:
        broken += stage.broken
        if stage.state == "pending":
            pending += 1
        elif stage.state != "fresh":
            stale += 1
            if stale <= MOST_NAMED:
                named.append(_cause(stage))
    return Summary(count=len(stages), stale=stale, pending=pending, named=tuple(named), broken=tuple(broken))


def _cause(stage: StageState) -> Cause:
    if not stage.why:
        return Cause(stage.name, "", stage.problems[0].text if stage.problems else "stale", False)
    first = stage.why[0]
    return Cause(stage.name, first.kind, first.item, len(stage.why) > 1)


class SummaryMemory:
    """The summaries of one workspace's commits in state.db, by the trees of these commits. None stands for a commit
    that has no pipeline.toml."""

    def __init__(self, workspace: Workspace) -> None:
        from pipesmith.workspace.program import program_sign

        self._state = workspace.state
        self._prefix = workspace.prefix
        self._usable = not _may_be_replaced(workspace.repo)
        self._sign = program_sign() if self._usable else b""
        self._new: list[tuple[str, bytes]] = []

    def find(self, trees: Iterable[str]) -> dict[str, Summary | None]:
        """Return what is known of commits that have these trees."""
        found: dict[str, Summary | None] = {}
        if not self._usable:
            return found
        same: dict[bytes, Summary | None] = {}
        keys = {self._key(tree): tree for tree in trees}
        listed = list(keys)
        for start in range(0, len(listed), _AT_ONCE):
            some = listed[start : start + _AT_ONCE]
            marks = ",".join("?" * len(some))
            for key, value in self._state.query(f"SELECT key, value FROM gitmap WHERE key IN ({marks})", some):
                if value[:16] == self._sign:
                    if value not in same:
                        same[value] = _thawed(value[16:])
                    found[keys[key]] = same[value]
        return found

    def put(self, tree: str, summary: Summary | None) -> None:
        if self._usable:
            self._new.append((self._key(tree), self._sign + _frozen(summary)))
            if len(self._new) >= _KEEP_AT:
                self.flush()

    def flush(self) -> None:
        if self._new:
            self._state.write_many("INSERT OR REPLACE INTO gitmap VALUES (?, ?)", self._new)
            self._new = []

    def _key(self, tree: str) -> str:
        return f"told:{self._prefix}:{tree}"


def _frozen(summary: Summary | None) -> bytes:
    if summary is None:
        return marshal.dumps(None)
    named = [(each.stage, each.kind, each.item, each.more) for each in summary.named]
    return marshal.dumps((summary.count, summary.stale, summary.pending, named, summary.broken))


def _thawed(data: bytes) -> Summary | None:
    found = marshal.loads(data)
    if found is None:
        return None
    count, stale, pending, named, broken = found
    causes = tuple(Cause(*each) for each in named)
    return Summary(count=count, stale=stale, pending=pending, named=causes, broken=tuple(broken))


def _may_be_replaced(repo: Repository) -> bool:
    """Return whether git may show other objects in the places of some (`git replace`), or can't be told not to."""
    if "GIT_REPLACE_REF_BASE" in os.environ or os.path.isdir(os.path.join(repo.common_dir, "reftable")):
        return True
    try:
        with os.scandir(os.path.join(repo.common_dir, "refs", "replace")) as entries:
            if any(entries):
                return True
    except OSError:
        pass
    try:
        with open(os.path.join(repo.common_dir, "packed-refs"), "rb") as file:
            return b" refs/replace/" in file.read()
    except OSError:
        return False
