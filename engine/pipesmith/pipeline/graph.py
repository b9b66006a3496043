"""The stage graph: what must end before what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pipesmith.pipeline.model import OriginKind, Pipeline, Stage

__all__ = ["cycles", "downstream", "edges", "followers", "order", "stage_edges", "upstream"]


def stage_edges(stage: Stage) -> tuple[str, ...]:
    """Return the stages that a stage comes after: makers of its inputs, then `after`; each once."""
    found: dict[str, None] = {}
    for given in stage.inputs.values():
        if given.origin.kind is OriginKind.STAGE:
            found[given.origin.stage] = None
        elif given.origin.kind is OriginKind.CELLS:
            found.update(dict.fromkeys(given.origin.cells.values()))
    found.update(dict.fromkeys(stage.after))
    return tuple(found)


def edges(pipeline: Pipeline) -> dict[str, tuple[str, ...]]:
    """Return each stage's direct predecessors."""
    return {name: stage_edges(stage) for name, stage in pipeline.stages.items()}


def followers(pipeline: Pipeline) -> dict[str, list[str]]:
    """Return each stage's direct successors."""
    later: dict[str, list[str]] = {name: [] for name in pipeline.stages}
    for name, before in edges(pipeline).items():
        for earlier in before:
            later[earlier].append(name)
    return later


def order(pipeline: Pipeline) -> tuple[str, ...]:
    """Return all stages, each after those before it, otherwise in the order of the file."""
    return _order(edges(pipeline))


def _order(before: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    done: dict[str, None] = {}
    for start in before:
        stack = [(start, iter(before[start]))]
        if start in done:
            continue
        while stack:
            name, rest = stack[-1]
            following = next((earlier for earlier in rest if earlier not in done), None)
            if following is None:
                done[name] = None
                stack.pop()
            else:
                stack.append((following, iter(before[following])))
    return tuple(done)


def cycles(before: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Return cycles until none would be left, each as stages where every one needs the next, first and last the same.

    before: stage to its predecessors. A cycle starts with its stage that comes first in `before`.
    """
    from graphlib import CycleError, TopologicalSorter

    left = {name: tuple(earlier) for name, earlier in before.items()}
    rank = {name: number for number, name in enumerate(left)}
    found = []
    while True:
        try:
            TopologicalSorter(left).prepare()
        except CycleError as error:
            members = error.args[1][:0:-1]
            first = members.index(min(members, key=rank.__getitem__))
            found.append([*members[first:], *members[: first + 1]])
            gone = set(members)
            left = {
                name: tuple(e for e in earlier if e not in gone) for name, earlier in left.items() if name not in gone
            }
        else:
            return found


def _reach(start: Iterable[str], neighbours: Mapping[str, Iterable[str]]) -> set[str]:
    found = set(start)
    stack = list(found)
    while stack:
        for name in neighbours[stack.pop()]:
            if name not in found:
                found.add(name)
                stack.append(name)
    return found


def upstream(pipeline: Pipeline, names: Iterable[str]) -> set[str]:
    """Return the stages and all that come before them."""
    return _reach(names, edges(pipeline))


def downstream(pipeline: Pipeline, names: Iterable[str]) -> set[str]:
    """Return the stages and all that come after them."""
    return _reach(names, followers(pipeline))
