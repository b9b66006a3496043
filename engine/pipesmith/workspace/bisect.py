"""`bisect`: the commit that made a number worse, or a stage fail. What is known costs nothing; the rest is built in a
place of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

from pipesmith.errors import Cancelled, EnvironmentFailure, UserError, nearest
from pipesmith.git.commits import CommitFacts, commit_facts, commits_between, merge_bases, parents_of
from pipesmith.git.objects import ObjectReader
from pipesmith.git.repository import UNSHALLOW
from pipesmith.pipeline.model import Pipeline
from pipesmith.records import record
from pipesmith.verdict.bisect import Bisection
from pipesmith.verdict.culprit import Culprit, culprits
from pipesmith.workspace.at_commit import AtCommit
from pipesmith.workspace.known_at import KnownAt, known_at
from pipesmith.workspace.metric_names import named_metric
from pipesmith.workspace.results import BuildResult, StageResult
from pipesmith.workspace.revisions import lockfile_at

if TYPE_CHECKING:
    from pipesmith.events import Event
    from pipesmith.workspace.workspace import Workspace

__all__ = ["BisectOptions", "BisectResult", "Outcome", "Step", "bisect"]


class Outcome(Enum):
    """What a commit is."""

    GOOD = "good"
    BAD = "bad"
    SKIP = "skip"  # it can't be told: a broken pipeline.toml, a stage that fails before there is a number


@record
class BisectOptions:
    """What `pipe bisect` takes. Either metric with below or above, or stage_fails."""

    good: str
    bad: str
    metric: str | None = None
    below: float | None = None
    above: float | None = None
    stage_fails: str | None = None
    first_parent: bool = False
    jobs: int | None = None
    command_line: tuple[str, ...] = ()


@record
class Step:
    """One commit that was asked. value: the metric there. ran: how many stages ran for it; known: none had to, since
    the lockfile there, the cache or an equal commit told. text: why it can't be told. left: how many commits are left
    after it, None while the ends are asked."""

    commit: str
    outcome: Outcome
    value: float | None = None
    known: bool = True
    ran: int = 0
    seconds: float = 0.0
    text: str = ""
    left: int | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "commit": self.commit,
            "outcome": self.outcome.value,
            "value": self.value,
            "known": self.known,
            "ran": self.ran,
            "seconds": round(self.seconds, 3),
            "text": self.text,
            "left": self.left,
        }


@record
class BisectResult:
    """commit: the first bad one, None where it can't be told; problem says why then, and suspects are the commits that
    it may be. stage, why: the first stage with something of its own that differs from the commit before, and what;
    culprits: all such stages. good: the commit that it was compared with."""

    target: str
    metric: str | None = None
    commit: CommitFacts | None = None
    good: str | None = None
    stage: str | None = None
    culprits: tuple[Culprit, ...] = ()
    value: float | None = None
    good_value: float | None = None
    steps: tuple[Step, ...] = ()
    suspects: tuple[CommitFacts, ...] = ()
    problem: str = ""
    seconds: float = 0.0

    @property
    def found(self) -> bool:
        return self.commit is not None

    @property
    def ran(self) -> int:
        """How many stages ran in all."""
        return sum(step.ran for step in self.steps)

    @property
    def exit_code(self) -> int:
        return 0 if self.found else 1

    def as_json(self) -> dict[str, Any]:
        return {
            "found": self.found,
            "commit": self.commit.as_json() if self.commit else None,
            "good": self.good,
            "stage": self.stage,
            "why": [reason.as_json() for reason in self.culprits[0].why] if self.culprits else [],
            "culprits": [culprit.as_json() for culprit in self.culprits],
            "target": self.target,
            "metric": self.metric,
            "value": self.value,
            "good_value": self.good_value,
            "steps": [step.as_json() for step in self.steps],
            "ran": self.ran,
            "suspects": [commit.as_json() for commit in self.suspects],
            "problem": self.problem,
            "seconds": round(self.seconds, 3),
        }


def bisect(
    workspace: Workspace,
    options: BisectOptions,
    *,
    on_step: Callable[[Step], None] | None = None,
    on_build: Callable[[str], None] | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> BisectResult:
    """Return the first bad commit. Work tree, index and refs (but for those of recorded runs) stay as they are.

    on_step: told each commit that was asked. on_build: told a commit before it is built. on_event: of these builds.
    Raises UserError for wrong use, Cancelled.
    """
    reader = ObjectReader(workspace.repo)
    try:
        return _Bisect(workspace, options, reader, on_step, on_build, on_event).run()
    finally:
        reader.close()


@record(frozen=False, kw_only=False)
class _Told:
    """What was found of a commit, or of one that must have the same result."""

    outcome: Outcome
    value: float | None = None
    text: str = ""
    ran: int = 0
    seconds: float = 0.0
    built: bool = False


class _Bisect:
    def __init__(
        self,
        workspace: Workspace,
        options: BisectOptions,
        reader: ObjectReader,
        on_step: Callable[[Step], None] | None,
        on_build: Callable[[str], None] | None,
        on_event: Callable[[Event], None] | None,
    ) -> None:
        self.workspace = workspace
        self.options = options
        self.reader = reader
        self.on_step = on_step or (lambda step: None)
        self.on_build = on_build or (lambda commit: None)
        self.on_event = on_event
        self.started = time.time()
        self.steps: list[Step] = []
        self._looks: dict[str, KnownAt] = {}  # by the id of the workspace's tree
        self._trees: dict[str, str] = {}
        self._built: dict[str, _Told] = {}  # by key: what building came to
        self._told: dict[str, _Told] = {}  # by commit

    def run(self) -> BisectResult:
        repo, options = self.workspace.repo, self.options
        self.good, self.bad = repo.resolve(options.good), repo.resolve(options.bad)
        if self.good == self.bad:
            raise UserError(f"`{options.good}` and `{options.bad}` are the same commit", "name two commits")
        self.target, self.key = self._target()
        goods = self._ends()
        if isinstance(goods, str):
            return self._result(problem=goods)
        search = Bisection(commits_between(repo, self.bad, goods, first_parent=options.first_parent))
        while asked := search.open():
            commit = self._cheapest(asked) or search.best(asked, lambda name: self._look(name).key)
            found = self._ask(commit)
            if found.outcome is Outcome.GOOD:
                search.is_good(commit)
            elif found.outcome is Outcome.BAD:
                search.is_bad(commit)
            else:
                search.skip(commit)
            self._step(commit, found, len(search.open()))
        if search.left:
            return self._result(
                problem="it can't be told: of all that is left the result can't be had", suspects=search.suspects
            )
        return self._verdict(search.bad)

    def _cheapest(self, asked: Sequence[str]) -> str | None:
        """Return the commit nearest to the middle that costs nothing, one of which nothing can be told only if there is
        no other; None where all must be built."""
        dark = None
        for commit in asked:
            if self._is_known(commit):
                if self._known(self._look(commit)).outcome is not Outcome.SKIP:
                    return commit
                dark = dark or commit
        return dark

    # -- what is asked ------------------------------------------------------------------------------------------------

    def _target(self) -> tuple[str, str | None]:
        """Return the stage, and the key of the metric. Raises UserError."""
        options = self.options
        pipelines = [pipeline for pipeline in map(self._pipeline, (self.bad, self.good)) if pipeline is not None]
        if options.stage_fails is not None:
            names = [name for pipeline in pipelines for name in pipeline.stages]
            if options.stage_fails not in names:
                near = nearest(options.stage_fails, names)
                raise UserError(
                    f"no stage `{options.stage_fails}` at `{options.bad}`",
                    f"did you mean `{near}`?" if near else f"`pipe status --rev {options.bad}` lists the stages",
                )
            return options.stage_fails, None
        assert options.metric is not None
        known: dict[str, dict[str, float]] = {}
        for commit in (self.good, self.bad):
            lockfile = lockfile_at(self.workspace, commit)
            for name, entry in (lockfile.stages if lockfile is not None else {}).items():
                known.setdefault(name, {}).update(entry.metrics)
        return named_metric(options.metric, known, pipelines[0] if pipelines else None)

    def _pipeline(self, commit: str) -> Pipeline | None:
        try:
            return AtCommit(self.workspace, commit, self.reader).pipeline
        except UserError:
            return None

    def _ends(self) -> list[str] | str:
        """Ask the two ends, and where they parted if the good one is not before the bad one; return all good ones, or
        what is wrong."""
        options = self.options
        for commit, name, wanted in (
            (self.bad, options.bad, Outcome.BAD),
            (self.good, options.good, Outcome.GOOD),
        ):
            found = self._ask(commit)
            self._step(commit, found, None)
            if found.outcome is not wanted:
                return f"`{name}` is not {wanted.value}: {self._shown(found)}"
        bases = merge_bases(self.workspace.repo, self.good, self.bad)
        if not bases:
            help = UNSHALLOW if self.workspace.repo.shallow else "name two commits of one"
            raise UserError(f"`{options.good}` and `{options.bad}` have no common history", help)
        goods = [self.good]
        for base in bases:
            if base == self.good:
                continue
            found = self._told[base] if base == self.bad else self._ask(base)
            if base != self.bad:
                self._step(base, found, None)
            if found.outcome is Outcome.BAD:
                return (
                    f"where the two parted, at {base[:10]}, it was bad already ({self._shown(found)}): it was mended "
                    f"on the way to `{options.good}`"
                )
            if found.outcome is Outcome.GOOD:
                goods.append(base)
        return goods

    def _shown(self, told: _Told) -> str:
        if told.outcome is Outcome.SKIP:
            return told.text
        if self.key is None:
            return f"`{self.target}` fails there" if told.outcome is Outcome.BAD else f"`{self.target}` succeeds there"
        return f"`{self.key}` is {told.value:g} there"

    # -- one commit ---------------------------------------------------------------------------------------------------

    def _look(self, commit: str) -> KnownAt:
        """Return what is known of the stage at a commit; the same for commits with the same files."""
        tree = self._trees.get(commit)
        if tree is None:
            # All that a workspace sees at a commit lies in its folder.
            found = self.reader.lookup(self.reader.tree_of(commit), self.workspace.prefix)
            tree = self._trees[commit] = found[1] if found is not None else commit
        if tree not in self._looks:
            self._looks[tree] = known_at(self.workspace, commit, self.target, self.reader)
        return self._looks[tree]

    def _is_known(self, commit: str) -> bool:
        look = self._look(commit)
        return bool(look.unusable) or look.result is not None or look.key in self._built

    def _known(self, look: KnownAt) -> _Told:
        if look.unusable:
            return _Told(Outcome.SKIP, text=look.unusable)
        if look.result is None:
            told = self._built[look.key]
            return _Told(told.outcome, told.value, told.text)
        if self.key is None:
            text = "; ".join(look.broken)
            return _Told(Outcome.BAD if look.broken else Outcome.GOOD, text=text)
        return self._judged(look.result.metrics.get(self.key))

    def _judged(self, value: float | None, text: str = "") -> _Told:
        below, above = self.options.below, self.options.above
        if value is None:
            return _Told(Outcome.SKIP, text=text or f"it has no metric `{self.key}`")
        if value != value:
            return _Told(Outcome.SKIP, text=f"`{self.key}` is not a number there")
        bad = value < below if below is not None else above is not None and value > above
        return _Told(Outcome.BAD if bad else Outcome.GOOD, value)

    def _ask(self, commit: str) -> _Told:
        """Return what a commit is; it is built where nothing tells."""
        if commit in self._told:
            return self._told[commit]
        if self._is_known(commit):
            told = self._known(self._look(commit))
        else:
            told = self._build(commit)
            before = self._look(commit).key
            # Of what else was asked more may be known now.
            self._looks = {tree: look for tree, look in self._looks.items() if look.unusable or look.result is not None}
            self._built[before] = self._built[self._look(commit).key] = told
        self._told[commit] = told
        return told

    def _build(self, commit: str) -> _Told:
        self.on_build(commit)
        began = time.time()
        try:
            result = self.workspace.build(
                [self.target],
                rev=commit,
                by_fingerprint=True,
                deliver=False,
                jobs=self.options.jobs,
                command_line=self.options.command_line,
                on_event=self.on_event,
            )
        except (UserError, EnvironmentFailure) as error:
            return _Told(Outcome.SKIP, text=error.findings()[0].headline, seconds=time.time() - began, built=True)
        if result.status == "cancelled":
            raise Cancelled
        told = self._of_build(result)
        told.ran = sum(stage.status in ("ran", "failed") for stage in result.stages)
        told.seconds = time.time() - began
        told.built = True
        return told

    def _of_build(self, result: BuildResult) -> _Told:
        stage = next((each for each in result.stages if each.name == self.target), None)
        failed = _failure(result)
        if self.key is not None:
            return self._judged(stage.metrics.get(self.key) if stage is not None else None, failed)
        if stage is None or stage.status not in ("ran", "restored", "fresh", "failed"):
            return _Told(Outcome.SKIP, text=failed)
        if stage.status == "failed":
            return _Told(Outcome.BAD, text=failed)
        return _Told(Outcome.GOOD)

    def _step(self, commit: str, told: _Told, left: int | None) -> None:
        step = Step(
            commit=commit,
            outcome=told.outcome,
            value=told.value,
            known=not told.built,
            ran=told.ran,
            seconds=told.seconds,
            text=told.text,
            left=left,
        )
        self.steps.append(step)
        self.on_step(step)

    # -- the end ------------------------------------------------------------------------------------------------------

    def _verdict(self, bad: str) -> BisectResult:
        """Compare the first bad commit with the one before it: a parent that was asked, else the first."""
        parents = parents_of(self.workspace.repo, bad)
        asked = [each for each in parents if each in self._told and self._told[each].outcome is Outcome.GOOD]
        before = next(iter(asked or parents), None)
        now = self._look(bad)
        was = self._look(before) if before is not None else KnownAt()
        found = culprits(now.order, was.stages, now.stages)
        values = {name: self._told[name].value for name in (bad, before) if name is not None and name in self._told}
        if before is not None and before not in values and self._is_known(before):
            values[before] = self._known(was).value
        return self._result(
            commit=commit_facts(self.workspace.repo, bad),
            good=before,
            stage=found[0].stage if found else None,
            culprits=found,
            value=values.get(bad),
            good_value=values.get(before) if before is not None else None,
        )

    def _result(self, *, suspects: Sequence[str] = (), **told: Any) -> BisectResult:
        return BisectResult(
            target=self.target,
            metric=self.key,
            steps=tuple(self.steps),
            suspects=tuple(commit_facts(self.workspace.repo, commit) for commit in suspects),
            seconds=time.time() - self.started,
            **told,
        )


def _failure(result: BuildResult) -> str:
    """Return what failed in a build, as one line."""
    failed: StageResult | None = next((stage for stage in result.stages if stage.status == "failed"), None)
    return f"`{failed.name}` {failed.error or 'failed'}" if failed is not None else ""
