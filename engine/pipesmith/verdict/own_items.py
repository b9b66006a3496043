"""Which stages a difference between two states of a pipeline reaches: those that differ themselves, and all that read
what those make."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipesmith.errors import UserError
from pipesmith.fingerprint.items import ABSENT, input_parts, stage_items
from pipesmith.fingerprint.tree import Tree
from pipesmith.pipeline.model import Environment, Pipeline, Stage
from pipesmith.records import record
from pipesmith.verdict.judgement import Outside

__all__ = ["OwnItems", "own_items", "reached"]


@record
class OwnItems:
    """What counts of a stage besides what other stages make. items: (kind, item) to value. pins: `environment` or
    `dataset NAME` to (definition, what it resolved to or None where that is not known)."""

    items: Mapping[tuple[str, str], str]
    pins: Mapping[str, tuple[str, str | None]]

    def differs(self, other: OwnItems) -> bool:
        """Tell whether a stage with these items is another one. What a pin resolved to counts where both are known,
        else what it was made from."""
        if self.items != other.items or self.pins.keys() != other.pins.keys():
            return True
        for name, (definition, known) in self.pins.items():
            then, known_then = other.pins[name]
            both = known is not None and known_then is not None
            if (known != known_then) if both else (definition != then):
                return True
        return False


def own_items(
    stage: Stage, pipeline: Pipeline, tree: Tree, outside: Outside, read: Callable[[str], bytes | None]
) -> OwnItems:
    """Return what counts of a stage, from one tree. What can't be known there is an item of its own, equal to none that
    is. read: a small file's bytes, None where there is none."""
    pins: dict[str, tuple[str, str | None]] = {}
    made: dict[tuple[str, str], str] = {}
    inputs = []
    for part in input_parts(stage, pipeline.stages):
        if part.stage:
            made["input", part.item] = f"{part.path} from {part.stage}.{part.output}/{part.within}"
        elif part.dataset:
            digest = outside.dataset(part.dataset)
            pins[f"dataset {part.dataset}"] = (
                pipeline.datasets[part.dataset].definition,
                digest.text if digest is not None else None,
            )
            made["input", part.item] = f"{part.path} from dataset {part.dataset}"
        else:
            found = tree.input(part.place)
            inputs.append((part, found.digest))
            if found.problem is not None:
                made["input", part.item] = f"{part.path} {found.problem}"
    sources: dict[str, str | None] = {path: _known(tree.source_id, path) for path in stage.source}
    if stage.notebook is not None:
        sources[stage.notebook] = _notebook(tree, stage.notebook, outside)
    if stage.environment is not None:
        text, _reason = outside.environment(stage)
        pins["environment"] = (_definition(pipeline.environments[stage.environment], read), text)
    items = stage_items(
        stage,
        params=pipeline.params,
        sources=sources,
        inputs=inputs,
        hash_paths={path: _known(tree.hash_path_id, path) for path in stage.hash_paths},
        environment=None,
    )
    return OwnItems(items={(item.kind, item.item): item.value for item in items} | made, pins=pins)


def _definition(environment: Environment, read: Callable[[str], bytes | None]) -> str:
    """Return what stands for an environment's table and the files that it names."""
    texts = [read(path) or b"" for path in (environment.requirements, environment.dockerfile) if path]
    return repr((environment, texts))


def _known(id_of: Callable[[str], str | None], path: str) -> str | None:
    try:
        return id_of(path)
    except UserError as error:
        return f"{ABSENT}: {error.text}"


def _notebook(tree: Tree, path: str, outside: Outside) -> str | None:
    text = tree.read(path)
    if text is None:
        return None
    try:
        return outside.notebook(text)
    except UserError as error:
        return f"{ABSENT}: {error.text}"


def reached(pipeline: Pipeline, now: Mapping[str, OwnItems], then: Mapping[str, OwnItems]) -> set[str]:
    """Return the stages that differ, and those that read what such a stage makes. `after` alone reaches nothing."""
    found = {name for name, items in now.items() if name not in then or items.differs(then[name])}
    readers: dict[str, list[str]] = {name: [] for name in pipeline.stages}
    for name, stage in pipeline.stages.items():
        for part in input_parts(stage, pipeline.stages):
            if part.stage:
                readers[part.stage].append(name)
    waiting = list(found)
    while waiting:
        for name in readers[waiting.pop()]:
            if name not in found:
                found.add(name)
                waiting.append(name)
    return found
