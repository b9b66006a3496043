"""`status --rev A..B`: every commit of a range, each judged by its own pipeline and lockfile."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from pipesmith.errors import EnvironmentFailure, UserError
from pipesmith.workspace.commits import Commits, NoPipeline
from pipesmith.workspace.results import StageState, StatusResult
from pipesmith.workspace.selecting import select_stages
from pipesmith.workspace.states import state_of

if TYPE_CHECKING:
    from pipesmith.verdict.verdict import Verdict
    from pipesmith.workspace.commits import Judged
    from pipesmith.workspace.workspace import Workspace

__all__ = ["status_of_range"]

_AHEAD = 100  # commits whose objects are read at once


def status_of_range(workspace: Workspace, names: Sequence[str], revisions: str) -> Iterator[StatusResult]:
    """Yield the states at each commit that is in B and not in A, the oldest first.

    revisions: `A..B`; an empty side is HEAD. Commits without a pipeline.toml in the workspace's folder are left out;
    one that can't be judged has an error. names: stages; a commit that has none of them has no states. States that did
    not change from one commit to the next are the same objects.
    Raises UserError for a side that is no revision and for a name that no commit has, EnvironmentFailure where a
    shallow clone does not hold the range.
    """
    listed = _listed(workspace, revisions)
    return _judged(workspace, names, listed)


class _Commit:
    __slots__ = ("commit", "short", "subject", "tree")

    def __init__(self, commit: str, tree: str, short: str, subject: str) -> None:
        self.commit = commit
        self.tree = tree
        self.short = short
        self.subject = subject


def _listed(workspace: Workspace, revisions: str) -> list[_Commit]:
    repo = workspace.repo
    start, _, end = revisions.partition("..")
    if end.startswith("."):
        raise UserError(f"`{revisions}` is not a range of commits", "write `A..B`: what is in B and not in A")
    if ".." in end:
        raise UserError(f"`{revisions}` is not a range of commits", "write `A..B`, with one `..`")
    first, last = repo.resolve(start or "HEAD"), repo.resolve(end or "HEAD")
    told = repo.run("rev-list", "--reverse", "--topo-order", "--format=%T %h %s", f"{first}..{last}", "--")
    lines = os.fsdecode(told).split("\n")
    found = []
    for head, line in zip(lines[0::2], lines[1::2], strict=False):
        tree, short, subject = line.split(" ", 2)
        found.append(_Commit(head.removeprefix("commit "), tree, short, subject))
    cut = repo.shallow.intersection(each.commit for each in found)
    if cut:
        raise EnvironmentFailure(
            f"this is a shallow clone: what comes before {min(cut)[:10]} is not here, so `{revisions}` can't be known",
            "run `git fetch --unshallow`, or name a range that ends where the clone does",
        )
    return found


def _judged(workspace: Workspace, names: Sequence[str], listed: Sequence[_Commit]) -> Iterator[StatusResult]:
    commits = Commits(workspace)
    states = _States(names)
    waiting = iter(listed)
    try:
        while ahead := list(islice(waiting, _AHEAD)):
            commits.read_ahead([(each.commit, each.tree) for each in ahead])
            for each in ahead:
                found: tuple[StageState, ...] = ()
                error = None
                try:
                    found = states.of(commits.judge(each.commit))
                except NoPipeline:
                    continue
                except (UserError, EnvironmentFailure) as failure:
                    error = failure
                yield StatusResult(
                    stages=found, revision=each.commit, short=each.short, subject=each.subject, error=error
                )
        states.check()
    finally:
        commits.close()


class _States:
    """What is told of verdicts, made once for each. names: all of interest; empty: every stage."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._unknown: dict[str, UserError] = {}
        self._known: set[str] = set()
        self._verdicts: dict[str, Verdict] = {}
        self._states: dict[str, StageState] = {}
        self._problems = False
        self._last: tuple[Judged, tuple[StageState, ...]] | None = None

    def of(self, judged: Judged) -> tuple[StageState, ...]:
        if self._last is not None and self._last[0].verdicts is judged.verdicts and not self._problems:
            return self._last[1]
        verdicts = judged.verdicts
        self._problems = False
        for name, verdict in verdicts.items():
            if verdict.problems:  # they name the commit
                self._problems = True
            elif self._verdicts.get(name) is verdict:
                continue
            self._states[name] = state_of(verdict, judged.file)
        self._verdicts = verdicts
        wanted = self._wanted(judged) if self._names else verdicts
        self._last = (judged, tuple(map(self._states.__getitem__, wanted)))
        return self._last[1]

    def _wanted(self, judged: Judged) -> list[str]:
        found: set[str] = set()
        for name in self._names:
            try:
                found.update(select_stages(judged.pipeline, [name]))
                self._known.add(name)
            except UserError as error:
                self._unknown[name] = error
        return [name for name in judged.verdicts if name in found]

    def check(self) -> None:
        """Raise UserError for a name that was nowhere."""
        for name, error in self._unknown.items():
            if name not in self._known:
                raise error
