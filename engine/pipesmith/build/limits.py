"""What may run at the same time: slots of -j, CPUs, memory, GPUs, mutex words. Nothing here blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipesmith.errors import EnvironmentFailure
from pipesmith.executors.base import Capacity
from pipesmith.pipeline.model import Stage
from pipesmith.records import record
from pipesmith.store.locks import Hold, LockTable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pipesmith.executors.gpus import GpuHold, GpuPool

__all__ = ["Grant", "Limits"]


@record(frozen=False)
class Grant:
    """What a stage was given for its time. node: of its compute, where that has several. names: of its locks. locks,
    gpus: freed by `Limits.release`."""

    stage: Stage
    node: str = ""
    names: tuple[str, ...] = ()
    locks: tuple[Hold, ...] = ()
    gpus: GpuHold | None = None


class Limits:
    """Counts what runs. Used from the scheduler's thread only."""

    def __init__(
        self,
        jobs: int,
        capacities: Mapping[str, Capacity],
        machines: Mapping[str, str],
        max_jobs: Mapping[str, int | None],
        locks: LockTable,
        gpus: Callable[[str], GpuPool | None],
    ) -> None:
        """capacities: by machine; what is in none has no limit. machines: compute to its machine, which several may
        share; another is one by itself. gpus(compute): of this machine; None where others give them out."""
        self._jobs = jobs
        self._capacities = capacities
        self._machines = machines
        self._max_jobs = max_jobs
        self._locks = locks
        self._gpus = gpus
        self._far = frozenset(capacities) - {"local"}
        self._running: list[Grant] = []

    def free_slot(self) -> bool:
        return len(self._running) < self._jobs

    def acquire(self, stage: Stage, action_key: str | None) -> Grant | str:
        """Return a grant, or for people what the stage waits for (`` when just for a slot, CPUs or memory).

        action_key: of what is to run; None for what is only restored, which takes no GPU. Raises EnvironmentFailure
        where GPUs can't be had any more."""
        if not self.free_slot():
            return ""
        most = self._max_jobs.get(stage.compute)
        if most is not None and sum(grant.stage.compute == stage.compute for grant in self._running) >= most:
            return ""
        node = self._node_with_room(stage)
        if node is None:
            if stage.compute in self._far and self._node_with_room(stage, but_gpus=True) is not None:
                return f"{stage.resources.gpus} GPU{'s' if stage.resources.gpus > 1 else ''} of `{stage.compute}`"
            return ""
        held: list[Hold] = []
        wanted = [f"mutex {word}" for word in sorted(stage.mutex)]
        if action_key is not None:
            wanted.append(f"action {action_key}")
        for name in wanted:
            hold = self._locks.try_acquire(name)
            if hold is None:
                self._free(held)
                holder = self._locks.holder(name)
                here = self._holder(name)
                if name.startswith("mutex"):
                    return f"{name}, held by {here or holder}" if here or holder else name
                what = f"{here}, which does the same" if here else "the same stage in another build"
                return f"{what}, held by {holder}" if holder and not here else what
            held.append(hold)
        gpus: GpuHold | None = None
        pool = self._gpus(stage.compute) if stage.resources.gpus and action_key is not None else None
        if pool is not None:
            try:
                found = pool.acquire(stage.resources.gpus, stage.resources.gpu_memory_bytes)
            except EnvironmentFailure:
                self._free(held)
                raise
            if isinstance(found, str):
                self._free(held)
                return found
            gpus = found
        grant = Grant(stage=stage, node=node, names=tuple(wanted), locks=tuple(held), gpus=gpus)
        self._running.append(grant)
        return grant

    def _machine(self, stage: Stage) -> str:
        return self._machines.get(stage.compute, stage.compute)

    def _node_with_room(self, stage: Stage, *, but_gpus: bool = False) -> str | None:
        """Return the node of a stage's compute that has room for it beside what runs there, that with the fewest jobs
        of several; None for none. but_gpus: whatever GPUs are free."""
        machine = self._machine(stage)
        capacity = self._capacities.get(machine)
        if capacity is None:
            return ""
        beside: dict[str, list[Stage]] = {node: [] for node in capacity.nodes or ("",)}
        for grant in self._running:
            if self._machine(grant.stage) == machine:
                beside[grant.node].append(grant.stage)
        found = [
            node
            for node, others in beside.items()
            if self._fits(stage, others, capacity.nodes.get(node, capacity), gpus=machine in self._far and not but_gpus)
        ]
        return min(found, key=lambda node: len(beside[node]), default=None)

    @staticmethod
    def _fits(stage: Stage, others: list[Stage], capacity: Capacity, *, gpus: bool) -> bool:
        """Return whether a stage fits beside others. One that asks for more than there is runs alone."""
        together = [stage.resources, *(other.resources for other in others)]
        if gpus and stage.resources.gpus and sum(each.gpus or 0 for each in together) > len(capacity.gpus):
            return False
        if not others:
            return True
        if sum(each.cpus or 0 for each in together) > capacity.cpus:
            return False
        memory = sum(each.memory_bytes or 0 for each in together)
        return capacity.memory_bytes is None or memory <= capacity.memory_bytes

    def _holder(self, name: str) -> str | None:
        """Return the stage of this build that holds a lock, for people."""
        return next((f"`{grant.stage.name}`" for grant in self._running if name in grant.names), None)

    def release(self, grant: Grant) -> None:
        self._running.remove(grant)
        self._free(list(grant.locks))
        if grant.gpus is not None:
            grant.gpus.release()

    @staticmethod
    def _free(holds: list[Hold]) -> None:
        for hold in holds:
            hold.release()
