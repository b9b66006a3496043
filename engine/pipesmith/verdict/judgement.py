"""Judging a whole pipeline: for each stage what its inputs are, hence its fingerprint, hence its verdict.

One code for the work tree and for a commit: it takes a Tree and cannot tell which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from pipesmith.digest import Digest
from pipesmith.errors import UserError, nearest
from pipesmith.fingerprint.fingerprint import fingerprint_of
from pipesmith.fingerprint.items import InputPart, input_parts, stage_items
from pipesmith.fingerprint.tree import Found, Tree
from pipesmith.lockfile.model import LockedDep, LockedOut, Lockfile
from pipesmith.pipeline.model import Pipeline, Stage
from pipesmith.pipeline.params import lookup
from pipesmith.records import record, replace
from pipesmith.verdict.expectations import broken_expectations, unknown_revisions
from pipesmith.verdict.reasons import Reason
from pipesmith.verdict.rebuilder import Question, judge
from pipesmith.verdict.verdict import Result, Seen, State, Verdict

__all__ = ["Judgement", "Outside", "named"]


@record
class Outside:
    """What a judgement asks of rooms that it does not know.

    environment(stage): (text that stands for what it resolved to or None without one, a reason where it is not known).
    packages(stage, old, new): what differs between two such texts, `name==version, …` of each, None where that can't be
    told; new None: what the table asks for, which is not resolved yet.
    dataset(name): the pinned digest, or None where there is no pin that holds.
    within(digest, path, workspace path): digest of a path inside a folder's content, None where it has no such path.
    notebook(bytes): id of a notebook's cells. metric_at(revision, stage, key). beside(path): what lies in its folder.
    has_revision(revision): whether there is such a one, for `metric_at`.
    """

    environment: Callable[[Stage], tuple[str | None, Reason | None]]
    dataset: Callable[[str], Digest | None]
    within: Callable[[Digest, str, str], Digest | None]
    notebook: Callable[[bytes], str]
    metric_at: Callable[[str, str, str], float | None]
    beside: Callable[[str], Iterable[str]] = lambda _path: ()
    has_revision: Callable[[str], bool] = lambda _revision: True
    packages: Callable[[Stage, str, str | None], tuple[str, str] | None] = lambda _stage, _old, _new: None


class Judgement:
    """Judges stages one by one. The results of the stages before them are told by `settle`, or known from their own
    verdicts. known: results that are settled already."""

    def __init__(
        self,
        pipeline: Pipeline,
        tree: Tree,
        lockfile: Lockfile,
        question: Question,
        outside: Outside,
        known: Mapping[str, Result] | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.tree = tree
        self.lockfile = lockfile
        self.question = question
        self.outside = outside
        self.left_alone: frozenset[str] = frozenset()  # stages whose locked outputs count, whatever else is so
        self._results: dict[str, Result] = dict(known or {})

    def settle(self, stage: str, outs: tuple[LockedOut, ...], metrics: Mapping[str, float]) -> None:
        """Say what a stage has now: judged stages after it use it."""
        self._results[stage] = Result(outs=outs, metrics=metrics)

    def unsettle(self, stage: str) -> None:
        """Say that a stage is to be made anew: stages after it can't be known until it is."""
        self._results.pop(stage, None)

    def result(self, stage: str) -> Result | None:
        return self._results.get(stage)

    def judge(self, stage: Stage, *, forced: bool = False, needed: bool = False) -> Verdict:
        """Return a stage's verdict. Fresh and restorable ones settle it for the stages after it.

        needed: an output that may be absent is wanted after all."""
        if stage.name in self.left_alone and not needed:
            as_it_is = self._as_it_is(stage)
            if as_it_is is not None:
                return as_it_is
        parts = input_parts(stage, self.pipeline.stages)
        waiting = dict.fromkeys(part.stage for part in parts if part.stage and part.stage not in self._results)
        if waiting and not stage.frozen:
            reasons = tuple(Reason("upstream", name) for name in waiting)
            if forced:
                reasons = (Reason("forced"), *reasons)
            return Verdict(stage=stage.name, state=State.PENDING, reasons=reasons)
        problems: list[tuple[str, str, str | None]] = []
        inputs = [(part, self._input(stage, part, problems)) for part in parts if part.stage not in waiting]
        sources = {path: self._source(stage, path, problems) for path in stage.source}
        if stage.notebook is not None:
            sources[stage.notebook] = self._notebook(stage, stage.notebook, problems)
        hash_paths = {path: self._hash_path(stage, path, problems) for path in stage.hash_paths}
        environment, unresolved = self.outside.environment(stage)
        items = stage_items(
            stage,
            params=self.pipeline.params,
            sources=sources,
            inputs=[(part, found.digest) for part, found in inputs],
            hash_paths=hash_paths,
            environment=environment,
        )
        seen = Seen(
            source={path: identity for path, identity in sources.items() if identity is not None},
            deps=tuple(
                LockedDep(
                    name=part.item,
                    path=part.place or part.path,
                    digest=found.digest if not found.digest.executable else replace(found.digest, executable=False),
                    git=found.git,
                    at=part.path if part.place not in ("", part.path) else "",
                    of=self._whole(part),
                )
                for part, found in inputs
                if found.digest is not None
            ),
            params={key: lookup(self.pipeline.params, key) for key in stage.params},
            hash_paths={path: identity for path, identity in hash_paths.items() if identity is not None},
            environment=environment,
        )
        entry = self.lockfile.stages.get(stage.name)
        verdict = judge(stage, fingerprint_of(items), seen, entry, self.question, forced=forced, needed=needed)
        if (unresolved is not None or problems) and not stage.frozen:
            reasons = verdict.reasons
            if unresolved is not None:
                reasons = (*(r for r in reasons if r.kind != "environment" and r.item != "fingerprint"), unresolved)
            verdict = replace(
                verdict, state=State.STALE, result=None, reasons=reasons, problems=(*verdict.problems, *problems)
            )
        if stage.environment is not None and any(reason.kind == "environment" for reason in verdict.reasons):
            verdict = replace(verdict, reasons=named(stage, verdict.reasons, self.outside.packages))
        if verdict.result is not None and stage.expect:
            broken = broken_expectations(stage, verdict.result.metrics, self.outside.metric_at)
            if broken:
                verdict = replace(verdict, broken=broken)
        for revision in unknown_revisions([stage], self.outside.has_revision):
            note = f"not compared with `{revision}`, which is no revision here"
            verdict = replace(verdict, notes=(*verdict.notes, note))
        if verdict.result is not None and verdict.state in (State.FRESH, State.RESTORABLE):
            self._results[stage.name] = verdict.result
        return verdict

    def _as_it_is(self, stage: Stage) -> Verdict | None:
        """Return a stage that is left alone as one that needs nothing, None where nothing is known of it. Outputs that
        are not as locked count as absent: they are brought where a stage that runs needs them."""
        entry = self.lockfile.stages.get(stage.name)
        if entry is None or {(o.name, o.path) for o in entry.outs} != {(n, o.path) for n, o in stage.outputs.items()}:
            return None
        result = Result(outs=entry.outs, metrics=entry.metrics)
        absent = []
        for out in entry.outs:
            now = self.question.output(out.path, out.digest.algorithm)
            if now is None or now.text != out.digest.text:
                absent.append(out.name)
        self._results[stage.name] = result
        return Verdict(stage=stage.name, state=State.FRESH, result=result, absent=tuple(absent), notes=("left alone",))

    def _input(self, stage: Stage, part: InputPart, problems: list[tuple[str, str, str | None]]) -> Found:
        key = f"stage.{stage.base}.inputs.{part.item.partition('/')[0]}"
        if part.stage:
            outs = self._results[part.stage].outs
            made = next((out for out in outs if out.name == part.output), None)
            digest = made.digest if made is not None else None
            if digest is not None and part.within:
                digest = self.outside.within(digest, part.within, part.place)
            if digest is None:
                problems.append((key, f"`{part.place}` is not among what stage `{part.stage}` made", None))
            return Found(digest=digest)
        if part.dataset:
            return Found(digest=self.outside.dataset(part.dataset))
        found = self.tree.input(part.place)
        if found.problem is not None:
            problems.append((key, found.problem, None))
        elif found.digest is None:
            near = nearest(part.place, [*self.pipeline.output_paths, *self.outside.beside(part.place)])
            help = f"did you mean `{near}`?" if near else "put it there, or name what makes it: `stage:NAME.OUTPUT`"
            problems.append((key, f"`{part.place}` does not exist and no stage makes it", help))
        return found

    def _whole(self, part: InputPart) -> str:
        """Return the hex of the folder output that an input is a path inside of; empty where it is none."""
        outs = self._results[part.stage].outs if part.within else ()
        return next((out.digest.hex for out in outs if out.name == part.output), "")

    def _source(self, stage: Stage, path: str, problems: list[tuple[str, str, str | None]]) -> str | None:
        key = f"stage.{stage.base}.source"
        try:
            identity = self.tree.source_id(path)
        except UserError as error:
            problems.append((key, error.text, error.help))
            return None
        if identity is None:
            help = f"write it, or see what ignores it: `git check-ignore -v {path}`, .pipeignore"
            problems.append((key, f"`{path}` does not exist, or git or .pipeignore ignores all of it", help))
        return identity

    def _hash_path(self, stage: Stage, path: str, problems: list[tuple[str, str, str | None]]) -> str | None:
        try:
            return self.tree.hash_path_id(path)
        except UserError as error:
            problems.append((f"stage.{stage.base}.hash-paths", error.text, error.help))
            return None

    def _notebook(self, stage: Stage, path: str, problems: list[tuple[str, str, str | None]]) -> str | None:
        key = f"stage.{stage.base}.notebook"
        text = self.tree.read(path)
        if text is None:
            problems.append((key, f"`{path}` does not exist", None))
            return None
        try:
            return self.outside.notebook(text)
        except UserError as error:
            problems.append((key, error.text, error.help))
            return None


def named(
    stage: Stage, reasons: Iterable[Reason], packages: Callable[[Stage, str, str | None], tuple[str, str] | None]
) -> tuple[Reason, ...]:
    """Return reasons, those of the environment with its name, and the packages that differ where they can be told."""
    found = []
    for reason in reasons:
        if reason.kind == "environment" and stage.environment is not None:
            told = packages(stage, reason.old, reason.new) if reason.old is not None else None
            found.append(Reason(reason.kind, stage.environment, *(told or (reason.old, reason.new))))
        else:
            found.append(reason)
    return tuple(found)
