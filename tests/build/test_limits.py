"""What may run at once on computes of several machines, by an oracle: every machine's own sums."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pipesmith.build.limits import Grant, Limits
from pipesmith.executors.base import Capacity
from pipesmith.pipeline.reader import read_pipeline
from pipesmith.store.locks import LockTable

NODES = {
    "a": Capacity(cpus=4, memory_bytes=8 << 30, gpus=("0", "1")),
    "b": Capacity(cpus=2, memory_bytes=4 << 30, gpus=("0",)),
}
POOL = Capacity(cpus=6, memory_bytes=12 << 30, gpus=("0", "1", "0"), nodes=NODES)

asked = st.fixed_dictionaries(
    {}, optional={"cpus": st.integers(1, 4), "memory": st.sampled_from(["1G", "3G", "6G"]), "gpus": st.integers(1, 2)}
)


def test_every_machine_keeps_to_what_it_has(tmp_path: Path) -> None:
    locks = LockTable(str(tmp_path / "locks"))

    @given(st.lists(st.tuples(asked, st.booleans()), max_size=30))
    def check(wanted) -> None:
        text = '[compute.pool]\nkind = "docker"\n[environment.e]\nimage = "i"\n'
        for number, (resources, _ends) in enumerate(wanted):
            listed = ", ".join(f"{key} = {value!r}".replace("'", '"') for key, value in resources.items())
            text += (
                f'[stage.s{number}]\nrun = "true"\ncompute = "pool"\nenvironment = "e"\nresources = {{ {listed} }}\n'
            )
        stages = list(read_pipeline(text, files=lambda _path: None, default_name="x").stages.values())
        limits = Limits(100, {"pool": POOL}, {}, {}, locks, None)
        running: list[Grant] = []
        for stage, (_resources, ends) in zip(stages, wanted, strict=True):
            grant = limits.acquire(stage, None)
            if isinstance(grant, Grant):
                running.append(grant)
            else:  # refused: it fits on no machine beside what runs there
                assert not any(fits([*on(running, node), stage], NODES[node]) for node in NODES)
            for node in NODES:
                assert len(on(running, node)) <= 1 or fits(on(running, node), NODES[node])
            if ends and running:
                limits.release(running.pop(0))
        for grant in running:
            limits.release(grant)

    check()


def on(running: list[Grant], node: str):
    return [grant.stage for grant in running if grant.node == node]


def fits(stages, capacity: Capacity) -> bool:
    asked = [stage.resources for stage in stages]
    return (
        sum(each.cpus or 0 for each in asked) <= capacity.cpus
        and sum(each.memory_bytes or 0 for each in asked) <= (capacity.memory_bytes or 0)
        and sum(each.gpus or 0 for each in asked) <= len(capacity.gpus)
    )
