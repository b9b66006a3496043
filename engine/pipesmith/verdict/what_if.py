"""What a build would do with each stage, told before it is done: judged as the scheduler judges, in its order.

A restorable stage's outputs are known, so that what follows it is judged exactly. A stage that would run is supposed to
make what a known result of its very fingerprint holds, even where that is no longer at hand; where none is known its
outputs can't be, and what follows would run, unless they turn out to be what they were (early cutoff).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

from pipesmith.fingerprint.items import input_parts
from pipesmith.pipeline.model import Stage
from pipesmith.records import record
from pipesmith.verdict.judgement import Judgement
from pipesmith.verdict.reasons import Reason
from pipesmith.verdict.verdict import Result, State, Verdict

__all__ = ["Forecast", "Would", "forecast"]


class Would(Enum):
    """What a build would do with a stage."""

    FRESH = "fresh"  # nothing
    RESTORED = "restored"  # put a known result in place
    RUN = "run"  # run it


@record
class Forecast:
    """sure: False where it hangs on what a stage before it will make, or on pins that are not known yet. known: of
    a stage that would run, a result of its very fingerprint that can't be had any more or must not be used."""

    verdict: Verdict
    would: Would
    sure: bool = True
    known: Result | None = None


def forecast(
    judgement: Judgement,
    order: Sequence[str],
    known: Callable[[Stage, str], Result | None],
    unpinned: Callable[[Stage], bool],
) -> dict[str, Forecast]:
    """Return what a build of these stages, in topological order, would do with each.

    known(stage, action key): what was made of it once. unpinned(stage): whether an environment or dataset of the
    stage's is to be resolved first."""
    course = _Course(judgement, known, unpinned)
    for name in order:
        course.bring(name)
    return {name: course.told[name] for name in order}


class _Course:
    def __init__(
        self,
        judgement: Judgement,
        known: Callable[[Stage, str], Result | None],
        unpinned: Callable[[Stage], bool],
    ) -> None:
        self._judgement = judgement
        self._stages = judgement.pipeline.stages
        self._known = known
        self._unpinned = unpinned
        self._needed: set[str] = set()
        self._supposed: set[str] = set()  # stages whose outputs are what they were once, if they make the same again
        self.told: dict[str, Forecast] = {}

    def bring(self, name: str) -> None:
        """Foretell a stage, those before it being told."""
        stage = self._stages[name]
        before = dict.fromkeys(part.stage for part in input_parts(stage, self._stages) if part.stage)
        doubted = [each for each in before if each in self._supposed or not self.told[each].sure]
        verdict = self._judgement.judge(stage, needed=name in self._needed)
        sure = stage.frozen or (verdict.state is not State.PENDING and not doubted and not self._unpinned(stage))
        if verdict.problems and doubted and not stage.frozen:
            verdict = _pending(verdict, doubted)  # a part of a folder whose content is nowhere to be seen any more
        would = {State.FRESH: Would.FRESH, State.RESTORABLE: Would.RESTORED}.get(verdict.state, Would.RUN)
        known = self._result_of(stage, verdict) if would is Would.RUN else None
        self.told[name] = Forecast(verdict=verdict, would=would, sure=sure, known=known)
        if would is Would.RUN:
            self._suppose(stage, known)
            self._need_absent(stage)

    def _result_of(self, stage: Stage, verdict: Verdict) -> Result | None:
        if verdict.fingerprint is None or verdict.problems:
            return None
        return self._known(stage, verdict.fingerprint.key)

    def _suppose(self, stage: Stage, known: Result | None) -> None:
        self._supposed.discard(stage.name)
        self._judgement.unsettle(stage.name)
        if known is not None:
            self._judgement.settle(stage.name, known.outs, known.metrics)
            self._supposed.add(stage.name)

    def _need_absent(self, stage: Stage) -> None:
        """Foretell anew the stages before one that runs, of which it is given what may be absent and is."""
        for part in input_parts(stage, self._stages):
            told = self.told.get(part.stage)
            if told is None or part.stage in self._needed or part.output not in told.verdict.absent:
                continue
            self._needed.add(part.stage)
            self.bring(part.stage)


def _pending(verdict: Verdict, before: Sequence[str]) -> Verdict:
    reasons = tuple(Reason("upstream", name) for name in before)
    return Verdict(stage=verdict.stage, state=State.PENDING, reasons=reasons, notes=verdict.notes)
