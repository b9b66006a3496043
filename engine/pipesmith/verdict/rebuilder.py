"""The rebuilder: decides whether a stage must run. Verifying traces are the lockfile's entries, constructive ones the
action cache's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from pipesmith.digest import Digest
from pipesmith.fingerprint.fingerprint import Fingerprint
from pipesmith.lockfile.model import LockedOut, StageLock
from pipesmith.pipeline.model import Stage
from pipesmith.records import record, replace
from pipesmith.verdict.differences import differences, locked_items
from pipesmith.verdict.reasons import Reason
from pipesmith.verdict.verdict import Result, Seen, State, Verdict

__all__ = ["ActionCache", "KnownResult", "Question", "judge"]


class KnownResult(Protocol):
    """A constructive trace."""

    @property
    def outs(self) -> tuple[LockedOut, ...]: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...
    @property
    def seconds(self) -> float: ...
    @property
    def origin(self) -> str: ...


class ActionCache(Protocol):
    """What is known of fingerprints' results. Never raises; what is damaged is a miss."""

    def lookup(self, key: str) -> Sequence[KnownResult]: ...


@record
class Question:
    """How strictly to judge. output(path, algorithm): digest of what lies in the workspace. at_hand: are all these
    outputs in the object store.

    actions: None at a revision. building: `reuse = false` counts. check_outputs False: what the workspace holds does
    not matter (at a revision, but for outputs that git holds). lenient: a locked output may be absent. stored_counts:
    it may be where it is in the object store. algorithm: the hash of data that pipeline.toml asks for now: results of
    another are not restored, so that a change of it is over when each such stage has run. None: any.
    """

    output: Callable[[str, str], Digest | None]
    at_hand: Callable[[Sequence[LockedOut]], bool]
    actions: ActionCache | None
    building: bool = False
    check_cached_outputs: bool = True
    lenient: bool = False
    stored_counts: bool = False
    restore: bool = True
    algorithm: str | None = None


def judge(
    stage: Stage,
    fingerprint: Fingerprint,
    seen: Seen,
    entry: StageLock | None,
    question: Question,
    *,
    forced: bool = False,
    needed: bool = False,
) -> Verdict:
    """Return the verdict on a stage whose fingerprint is known.

    needed: a temporary or left-out output is wanted after all, so that an absent one counts.
    """
    if stage.frozen:
        return _judge_frozen(stage, fingerprint, seen, entry, question)
    reasons: list[Reason] = []
    if forced:
        reasons.append(Reason("forced"))
    elif question.building and not stage.reuse:
        reasons.append(Reason("reuse-off"))
    must_run = bool(reasons)
    notes: tuple[str, ...] = ()
    matched = entry is not None and entry.fingerprint == fingerprint.key
    accepted = entry is not None and entry.accepted is not None and entry.accepted.fingerprint == fingerprint.key
    result: Result | None = None
    absent: tuple[str, ...] = ()
    changed: tuple[tuple[str, Digest | None], ...] = ()
    if entry is not None:
        result = Result(outs=entry.outs, metrics=entry.metrics)
    if entry is not None and (matched or accepted):
        if accepted and not matched and entry.accepted is not None:
            notes = (f"accepted: {entry.accepted.reason}",)
        found, absent, changed = _outputs(stage, entry, question, needed)
        reasons += found
        if not reasons:
            return Verdict(
                stage=stage.name,
                state=State.FRESH,
                fingerprint=fingerprint,
                seen=seen,
                result=result,
                absent=absent,
                notes=notes,
            )
    elif entry is None:
        reasons.append(Reason("new"))
        result = None
    else:
        found_differences = differences(locked_items(entry), fingerprint.items)
        reasons += found_differences or [Reason("run", "fingerprint", entry.fingerprint, fingerprint.key)]
        result = None
    state = State.STALE
    if not must_run and question.restore:
        result = _known(result, fingerprint.key, stage, question)
        if result is not None:
            state = State.RESTORABLE
    else:
        result = None
    return Verdict(
        stage=stage.name,
        state=state,
        reasons=tuple(reasons),
        fingerprint=fingerprint,
        seen=seen,
        result=result,
        changed=changed,
        notes=notes,
    )


def _known(locked: Result | None, key: str, stage: Stage, question: Question) -> Result | None:
    """Return the lockfile's result if it is at hand, else the newest complete one of the action cache, else None."""
    if locked is not None and _hashed_so(locked.outs, question.algorithm) and question.at_hand(locked.outs):
        return replace(locked, outs=_as_declared(stage, locked.outs))
    if question.actions is None:
        return None
    names = {(output.name, output.path) for output in stage.outputs.values()}
    for known in question.actions.lookup(key):
        if {(out.name, out.path) for out in known.outs} != names or not _hashed_so(known.outs, question.algorithm):
            continue
        if question.at_hand(known.outs):
            return Result(
                outs=_as_declared(stage, known.outs),
                metrics=known.metrics,
                locked=False,
                instead=locked is not None,
                origin=known.origin,
                seconds=known.seconds,
            )
    return None


def _hashed_so(outs: Sequence[LockedOut], algorithm: str | None) -> bool:
    return algorithm is None or all(out.digest.algorithm == algorithm for out in outs)


def _as_declared(stage: Stage, outs: tuple[LockedOut, ...]) -> tuple[LockedOut, ...]:
    """Return a result's outputs, left to git or not as the stage says now."""
    return tuple(
        replace(out, cache=stage.outputs[out.name].cache) if out.name in stage.outputs else out for out in outs
    )


def _outputs(
    stage: Stage, entry: StageLock, question: Question, needed: bool
) -> tuple[list[Reason], tuple[str, ...], tuple[tuple[str, Digest | None], ...]]:
    reasons: list[Reason] = []
    absent: list[str] = []
    changed: list[tuple[str, Digest | None]] = []
    for out in entry.outs:
        declared = stage.outputs.get(out.name)
        if not question.check_cached_outputs and out.cache:
            continue
        hashed_by = question.algorithm if question.algorithm and not stage.frozen else out.digest.algorithm
        now = question.output(out.path, hashed_by)
        if now is None and not question.check_cached_outputs:
            continue
        if now is None:
            excused = question.lenient or (declared is not None and declared.temp)
            if not needed and (excused or (question.stored_counts and question.at_hand((out,)))):
                absent.append(out.name)
            else:
                reasons.append(Reason("output-missing", out.path, out.digest.text, None))
                changed.append((out.path, None))
        elif now.text != out.digest.text:
            reasons.append(Reason("output-changed", out.path, out.digest.text, now.text))
            changed.append((out.path, now))
    return reasons, tuple(absent), tuple(changed)


def _judge_frozen(
    stage: Stage, fingerprint: Fingerprint, seen: Seen, entry: StageLock | None, question: Question
) -> Verdict:
    if entry is None:
        return Verdict(
            stage=stage.name,
            state=State.STALE,
            reasons=(Reason("new"),),
            fingerprint=fingerprint,
            seen=seen,
            notes=("frozen",),
            problems=(
                (
                    f"stage.{stage.name}.frozen",
                    f"stage `{stage.name}` is frozen and was never built",
                    "remove `frozen = true` for one build",
                ),
            ),
        )
    reasons, absent, changed = _outputs(stage, entry, question, needed=False)
    result = Result(outs=entry.outs, metrics=entry.metrics)
    if not reasons:
        state = State.FRESH
    elif question.at_hand(entry.outs):
        state = State.RESTORABLE
    else:
        state = State.STALE
    problems: tuple[tuple[str, str, str | None], ...] = ()
    if state is State.STALE:
        problems = (
            (
                f"stage.{stage.name}.frozen",
                f"stage `{stage.name}` is frozen and its locked outputs can't be had",
                "remove `frozen = true` to build it again",
            ),
        )
    return Verdict(
        stage=stage.name,
        state=state,
        reasons=tuple(reasons),
        fingerprint=fingerprint,
        seen=seen,
        result=result,
        absent=absent,
        changed=changed,
        notes=("frozen",),
        problems=problems,
    )
