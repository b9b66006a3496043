"""GPUs of this machine, given to stages: whole, or as much of one as its memory has room for.

What other pipes have is known by the lock files that all of them share; what other programs have, by the driver. A
whole GPU is one that no pipe has given out; of several, one that no other program uses. By memory a GPU is shared: what
was promised to stages and what other programs have there does not exceed what it has.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence

from pipesmith.errors import EnvironmentFailure
from pipesmith.executors.gpu import Driver, Gpu, GpuReading, gib, gpus_text
from pipesmith.executors.gpu_shares import SHARES, ShareFile
from pipesmith.liveness import ancestors, told_process
from pipesmith.records import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pipesmith.executors.gpu_watch import GpuMeter, GpuWatch

__all__ = ["GpuHold", "GpuPool", "GpuState", "pool_of"]

_MANY = 3  # of other programs on a GPU, so many are named


class GpuHold:
    """GPUs that were given to one stage. ids: as CUDA_VISIBLE_DEVICES names them. notes: what a person should know of
    them."""

    def __init__(
        self,
        gpus: Sequence[Gpu],
        files: Sequence[ShareFile],
        *,
        notes: tuple[str, ...] = (),
        watch: GpuWatch | None = None,
    ) -> None:
        self.gpus = tuple(gpus)
        self.ids = tuple(gpu.id for gpu in gpus)
        self.notes = notes
        self._files = list(files)
        self._watch = watch

    def meter(self, run: str, stage: str) -> GpuMeter:
        """Begin to measure what a stage does with them."""
        from pipesmith.executors.gpu_watch import GpuMeter

        return GpuMeter(self.gpus, run, stage, self._watch)

    def release(self) -> None:
        """Give them back; once or more often."""
        files, self._files = self._files, []
        for file in files:
            file.close()


@record
class GpuState:
    """One GPU as it is now. taken: shares that pipes have given out; holders: those pipes' pids. others: pids of other
    programs on it, as far as the driver lists them; others_bytes: what other programs have of it."""

    gpu: Gpu
    reading: GpuReading
    taken: list[tuple[int, int]]
    holders: frozenset[int]
    others: tuple[int, ...]
    others_bytes: int

    @property
    def promised_bytes(self) -> int:
        return self.gpu.memory_bytes * self._shares // SHARES

    @property
    def free_shares(self) -> int:
        return SHARES - self._shares

    @property
    def word(self) -> str:
        """What it is: `free`, `shared`, `given`, `used` by other programs alone, or why it is of no use any more."""
        if self.reading.problem:
            return self.reading.problem
        if not self.taken:
            return "used" if self.is_used else "free"
        return "shared" if self.free_shares else "given"

    @property
    def is_used(self) -> bool:
        """Whether other programs have more of it than the little that is in use on every GPU."""
        return bool(self.others) or self.others_bytes > self.gpu.memory_bytes / 8 > 0

    @property
    def _shares(self) -> int:
        return sum(end - first for first, end in self.taken)


def _look(gpu: Gpu, reading: GpuReading, file: ShareFile) -> GpuState:
    taken = file.taken()
    holders = file.pids(taken)
    listed = reading.processes or {}
    others = tuple(pid for pid in listed if holders.isdisjoint(ancestors(pid)))
    seen = GpuState(gpu=gpu, reading=reading, taken=taken, holders=holders, others=others, others_bytes=0)
    used = reading.used_bytes or 0
    ours = [size for pid, size in listed.items() if pid not in others]
    if not taken:
        others_bytes = used
    elif listed and None not in ours:
        others_bytes = max(0, used - sum(size or 0 for size in ours))
    else:  # not told whose it is: what was there before, and what is more than was promised
        others_bytes = max(min(file.idle_bytes, used), used - seen.promised_bytes)
    return replace(seen, others_bytes=others_bytes)


class GpuPool:
    """The GPUs that this process may give out. why: there are no more of them. folder: where the lock files lie; for
    tests. watch: by which the driver is asked how they are, None where there is no driver."""

    def __init__(
        self,
        gpus: Sequence[Gpu],
        *,
        why: str | None = None,
        help: str | None = None,
        watch: GpuWatch | None = None,
        folder: str | None = None,
    ) -> None:
        self.gpus = tuple(gpus)
        self._why = why
        self._help = help
        self._watch = watch
        self._folder = folder

    def too_much(self, count: int, memory_bytes: int | None) -> tuple[str, str, str | None] | None:
        """Return what is more than there is (`gpus` or `gpu-memory`), in words that follow "asks for", and what to do;
        None for what can be had."""
        there = len(self.gpus)
        if count > there:
            why = f": {self._why}" if self._why else ""
            return "gpus", f"{gpus_text(count)}, this machine has {there}{why}", self._help
        there = len(self._big_enough(memory_bytes))
        if memory_bytes and there < count:
            text = f"{gib(memory_bytes)} of GPU memory"
            if not there:
                largest = max(gpu.memory_bytes for gpu in self.gpus)
                return "gpu-memory", f"{text}, the largest GPU here has {gib(largest)}", None
            has = "has" if there == 1 else "have"
            return "gpu-memory", f"{text} on each of {gpus_text(count)}, and {there} here {has} as much", None
        return None

    def _big_enough(self, memory_bytes: int | None) -> list[Gpu]:
        return [
            gpu for gpu in self.gpus if not memory_bytes or not gpu.memory_bytes or gpu.memory_bytes >= memory_bytes
        ]

    def acquire(self, count: int, memory_bytes: int | None = None) -> GpuHold | str:
        """Return `count` GPUs, whole or with that much memory on each, or for people what they are waited for.

        Raises EnvironmentFailure where they can't be had at all any more, or the lock files can't."""
        found = self._acquire(count, memory_bytes, self._readings())
        if isinstance(found, GpuHold) and found.notes:  # who uses it may have ended a moment ago
            found.release()
            found = self._acquire(count, memory_bytes, self._readings(anew=True))
        return found

    def _readings(self, *, anew: bool = False) -> Mapping[str, GpuReading]:
        return self._watch.readings(anew=anew) if self._watch is not None else {}

    def _acquire(self, count: int, memory_bytes: int | None, readings: Mapping[str, GpuReading]) -> GpuHold | str:
        usable = self._usable(count, memory_bytes, readings)
        offers: list[_Offer] = []
        states: list[GpuState] = []
        taken: list[_Offer] = []
        files: list[ShareFile] = []
        try:
            for gpu in usable:
                file = ShareFile(gpu.id, self._folder)
                files.append(file)
                if file.guard():
                    states.append(_look(gpu, readings.get(gpu.id, GpuReading()), file))
                    offer = _offer(states[-1], file, memory_bytes)
                    if offer is not None:
                        offers.append(offer)
            # A program of CUDA sees one MIG device at most: of several GPUs, whole ones first.
            offers.sort(key=lambda each: (count > 1 and each.state.gpu.mig, each.rank))
            if len(offers) < count:
                return self._waited_for(count, memory_bytes, states)
            taken = offers[:count]
            for offer in taken:
                offer.file.take(offer.shares, offer.state.taken, offer.state.reading.used_bytes or 0)
                offer.file.unguard()
            return GpuHold(
                [offer.state.gpu for offer in taken],
                [offer.file for offer in taken],
                notes=tuple(note for offer in taken if (note := _note(offer)) is not None),
                watch=self._watch,
            )
        finally:
            kept = [offer.file for offer in taken]
            for file in files:
                if file not in kept:
                    file.close()

    def states(self) -> list[GpuState]:
        """Return how each GPU is now. Raises EnvironmentFailure where the lock files can't be had."""
        readings = self._readings()
        found = []
        for gpu in self.gpus:
            file = ShareFile(gpu.id, self._folder)
            try:
                found.append(_look(gpu, readings.get(gpu.id, GpuReading()), file))
            finally:
                file.close()
        return found

    def _usable(self, count: int, memory_bytes: int | None, readings: Mapping[str, GpuReading]) -> list[Gpu]:
        """Return the GPUs that could serve some time. Raises EnvironmentFailure where those are too few."""
        lost = {id: reading.problem for id, reading in readings.items() if reading.problem}
        found = [gpu for gpu in self._big_enough(memory_bytes) if gpu.id not in lost]
        if len(found) >= count:
            return found
        if (more := self.too_much(count, memory_bytes)) is not None:
            raise EnvironmentFailure(f"it asks for {more[1]}", more[2])
        told = "; ".join(f"{gpu.title}: {lost[gpu.id]}" for gpu in self.gpus if gpu.id in lost)
        raise EnvironmentFailure(
            f"it asks for {gpus_text(count)}, and {told}",
            "`nvidia-smi` shows how they are; one that is lost comes back by a reset, or a restart of the machine",
        )

    @staticmethod
    def _waited_for(count: int, memory_bytes: int | None, states: Sequence[GpuState]) -> str:
        what = f"{gib(memory_bytes)} of GPU memory" if memory_bytes else gpus_text(count)
        pipes = {pid for state in states for pid in state.holders} - {os.getpid()}
        if pipes:
            what += f", held by {_told(pipes)}"
        known = [state for state in states if state.gpu.memory_bytes]
        if memory_bytes and any(memory_bytes > state.gpu.memory_bytes - state.others_bytes for state in known):
            programs = {pid for state in states for pid in state.others}
            what += f", which other programs use{f' ({_told(programs)})' if programs else ''}"
        return what


@record
class _Offer:
    """A GPU that could be given now. rank: the smaller the better."""

    state: GpuState
    file: ShareFile
    shares: int
    rank: tuple[float, ...]


def _offer(state: GpuState, file: ShareFile, memory_bytes: int | None) -> _Offer | None:
    total = state.gpu.memory_bytes
    shares = min(SHARES, max(1, -(-memory_bytes * SHARES // total))) if memory_bytes and total else SHARES
    if shares == SHARES:
        used = (state.reading.used_bytes or 0) >> 30  # a little is in use on every GPU
        rank: tuple[float, ...] = (bool(state.others), used)
        return _Offer(state=state, file=file, shares=shares, rank=rank) if not state.taken else None
    assert memory_bytes is not None
    room = total - state.promised_bytes - state.others_bytes
    if memory_bytes > room or shares > state.free_shares:
        return None
    return _Offer(state=state, file=file, shares=shares, rank=(room,))  # the fullest, so that whole ones stay free


def _note(offer: _Offer) -> str | None:
    """Return what to say of a whole GPU that is not free of other programs, since no other one was."""
    state = offer.state
    if offer.shares < SHARES or not state.is_used:
        return None
    who = f": {_told(state.others)}" if state.others else ""
    return f"{state.gpu.title} is used by other programs, no free one was left ({gib(state.others_bytes)}{who})"


def _told(pids: Collection[int]) -> str:
    told = [told_process(pid) for pid in sorted(pids)[:_MANY]]
    more = len(pids) - len(told)
    return ", ".join(told) + (f" and {more} more" if more else "")


def pool_of(declared: int | None, driver: Driver, watch: GpuWatch | None, folder: str | None = None) -> GpuPool:
    """Return the GPUs of this machine.

    declared: what pipeline.toml says of their number, used where no driver counts them. Where pipe itself was started
    with CUDA_VISIBLE_DEVICES, only those that it names of the driver's are given out."""
    if driver.gpus is None:
        numbers = range(declared or 0)
        return GpuPool(
            [Gpu(id=str(number), index=number, name="", memory_bytes=0) for number in numbers],
            why=None if numbers else driver.problem,
            help="where no driver counts them, say how many there are: `[compute.local]` with `gpus = N`"
            if not numbers
            else None,
            folder=folder,
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = _allowed(driver.gpus, visible)
    if len(gpus) < len(driver.gpus):
        why: str | None = f"of {len(driver.gpus)}, CUDA_VISIBLE_DEVICES=`{visible}` lets pipe have no more"
    else:
        why = driver.problem
    return GpuPool(gpus, why=why, watch=watch, folder=folder)


def _allowed(gpus: Sequence[Gpu], visible: str | None) -> list[Gpu]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES names, by index or the beginning of an id; the empty text names none.

    As for CUDA, the list ends at a name that is none, and the number of a GPU in MIG devices means the first."""
    if visible is None:
        return list(gpus)
    found: list[Gpu] = []
    for word in (word.strip() for word in visible.split(",")):
        named = [gpu for gpu in gpus if str(gpu.index) == word][:1]
        named = named or [gpu for gpu in gpus if word and gpu.id.startswith(word)]
        if len(named) != 1:
            break
        if named[0] not in found:
            found.append(named[0])
    return found
