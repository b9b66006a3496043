"""`status --rev A..B`: every commit of a range, each judged by its own pipeline and lockfile."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pipesmith.errors import EnvironmentFailure, PipeError, UserError
from pipesmith.records import record
from pipesmith.workspace.summaries import Summary, SummaryMemory, summary_of

if TYPE_CHECKING:
    from pipesmith.git.repository import Repository
    from pipesmith.verdict.verdict import Verdict
    from pipesmith.workspace.commits import Judged
    from pipesmith.workspace.results import StageState, StatusResult
    from pipesmith.workspace.workspace import Workspace

__all__ = ["CommitSummary", "status_of_range", "summaries_of_range"]

_AHEAD = 100  # commits whose files are read at once
_COMPARED = 20 * _AHEAD  # and that git compares at once
_PLAIN = re.compile(r"(?!-)[\w./@~+-]+")  # what git reads alike by itself and in a range


@record
class CommitSummary:
    """A commit of a range in short. short: its id as git shortens it. error: why it can't be judged, None where it
    can."""

    revision: str
    short: str
    subject: str
    summary: Summary | None = None
    error: PipeError | None = None

    @property
    def fresh(self) -> bool:
        return self.error is None and (self.summary is None or self.summary.fresh)


def status_of_range(workspace: Workspace, names: Sequence[str], revisions: str) -> Iterator[StatusResult]:
    """Yield the states at each commit that is in B and not in A, the oldest first.

    revisions: `A..B`; an empty side is HEAD. Commits without a pipeline.toml in the workspace's folder are left out;
    one that can't be judged has an error. names: stages; a commit that has none of them has no states. States that did
    not change from one commit to the next are the same objects.
    Raises UserError for a side that is no revision and for a name that no commit has, EnvironmentFailure where a
    shallow clone does not hold the range.
    """
    listed = _listed(workspace, revisions)
    return _told(workspace, names, listed)


def summaries_of_range(workspace: Workspace, revisions: str) -> Iterator[CommitSummary]:
    """Yield in short what `status_of_range` yields, remembering it for later calls. Raises what that raises."""
    listed = _listed(workspace, revisions)
    return _in_short(workspace, listed)


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
    told = _rev_list(repo, start or "HEAD", end or "HEAD")
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


def _rev_list(repo: Repository, start: str, end: str) -> bytes:
    words = ("rev-list", "--reverse", "--topo-order", "--format=%T %h %s", "--end-of-options")
    if _PLAIN.fullmatch(start) and _PLAIN.fullmatch(end):
        done = repo.process(*words, f"{start}..{end}", "--")
        if done.returncode == 0:
            return done.stdout
    return repo.run(*words, f"{repo.resolve(start)}..{repo.resolve(end)}", "--")


def _told(workspace: Workspace, names: Sequence[str], listed: Sequence[_Commit]) -> Iterator[StatusResult]:
    from pipesmith.workspace.results import StatusResult

    states = _States(names)
    for each, judged, error in _judged(workspace, listed):
        if judged is None and error is None:
            continue
        found = states.of(judged) if judged is not None else ()
        yield StatusResult(stages=found, revision=each.commit, short=each.short, subject=each.subject, error=error)
    states.check()


def _in_short(workspace: Workspace, listed: Sequence[_Commit]) -> Iterator[CommitSummary]:
    memory = SummaryMemory(workspace)
    known = memory.find(each.tree for each in listed)
    unknown = [each for each in listed if each.tree not in known]
    coming = _summarized(workspace, unknown, memory) if unknown else iter(())
    judged = next(coming, None)
    try:
        for each in listed:
            if judged is not None and judged.revision == each.commit:
                yield judged
                judged = next(coming, None)
            elif (summary := known.get(each.tree)) is not None:
                yield CommitSummary(revision=each.commit, short=each.short, subject=each.subject, summary=summary)
    finally:
        memory.flush()


def _summarized(workspace: Workspace, listed: Sequence[_Commit], memory: SummaryMemory) -> Iterator[CommitSummary]:
    """Yield commits that have a pipeline.toml, and remember those and the others."""
    states = _States(())
    last: tuple[StageState, ...] | None = None
    summary: Summary | None = None
    for each, judged, error in _judged(workspace, listed):
        if judged is not None:
            stages = states.of(judged)
            if stages is not last:
                last, summary = stages, summary_of(stages)
            if judged.by_tree_alone:
                memory.put(each.tree, summary)
        elif error is None:
            memory.put(each.tree, None)
            continue
        told = summary if judged is not None else None
        yield CommitSummary(revision=each.commit, short=each.short, subject=each.subject, summary=told, error=error)


def _judged(
    workspace: Workspace, listed: Sequence[_Commit]
) -> Iterator[tuple[_Commit, Judged | None, PipeError | None]]:
    """Yield commits, judged or with why they can't be; without either where there is no pipeline.toml."""
    from pipesmith.workspace.commits import Commits, NoPipeline

    commits = Commits(workspace)
    try:
        for start in range(0, len(listed), _COMPARED):
            together = [(each.commit, each.tree) for each in listed[start : start + _COMPARED]]
            commits.look_ahead(together)
            for at, each in enumerate(listed[start : start + _COMPARED]):
                if at % _AHEAD == 1:  # git compares while the first is judged
                    commits.read_ahead(together[at : at + _AHEAD])
                try:
                    judged = commits.judge(each.commit)
                except NoPipeline:
                    yield each, None, None
                except (UserError, EnvironmentFailure) as failure:
                    yield each, None, failure
                else:
                    yield each, judged, None
        commits.flush()
    finally:
        commits.close()


class _States:
    """What is told of verdicts, made once for each. names: all of interest; empty: every stage."""

    def __init__(self, names: Sequence[str]) -> None:
        from pipesmith.workspace.states import state_of

        self._state_of = state_of
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
            self._states[name] = self._state_of(verdict, judged.file)
        self._verdicts = verdicts
        wanted = self._wanted(judged) if self._names else verdicts
        self._last = (judged, tuple(map(self._states.__getitem__, wanted)))
        return self._last[1]

    def _wanted(self, judged: Judged) -> list[str]:
        from pipesmith.workspace.selecting import select_stages

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
