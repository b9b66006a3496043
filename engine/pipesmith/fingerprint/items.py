"""What counts of a stage, item by item. What never counts (times, owners, absolute paths, resources, …) has no item
here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pipesmith.digest import Digest
from pipesmith.fingerprint.fingerprint import Item
from pipesmith.pipeline.model import OriginKind, Stage, StageKind
from pipesmith.pipeline.params import lookup
from pipesmith.records import record

__all__ = ["ABSENT", "InputPart", "input_parts", "run_item", "stage_items", "stage_text"]

ABSENT = "absent"


@record
class InputPart:
    """One thing of an input with a digest of its own: the input itself, or one cell of a `stage:NAME@*.OUTPUT` folder.

    item: the input's name, or `NAME/CELL`. path: where the stage sees it. place: where it lies in the workspace,
    empty for a dataset. stage, output: who makes it, empty where nobody does. within: path inside that output.
    """

    item: str
    path: str
    place: str = ""
    stage: str = ""
    output: str = ""
    within: str = ""
    dataset: str = ""


def input_parts(stage: Stage, stages: Mapping[str, Stage]) -> tuple[InputPart, ...]:
    """Return all parts of a stage's inputs, inputs in the order of the file, cells in the order of the matrix.
    stages: all, by name."""
    parts: list[InputPart] = []
    for name, given in stage.inputs.items():
        origin = given.origin
        if origin.kind is OriginKind.CELLS:
            for cell, maker in origin.cells.items():
                place = stages[maker].outputs[origin.output].path
                parts.append(
                    InputPart(
                        item=f"{name}/{cell}",
                        path=f"{given.path}/{cell}",
                        place=place,
                        stage=maker,
                        output=origin.output,
                    )
                )
        elif origin.kind is OriginKind.STAGE:
            parts.append(
                InputPart(
                    item=name,
                    path=given.path,
                    place=given.lies,
                    stage=origin.stage,
                    output=origin.output,
                    within=given.within,
                )
            )
        elif origin.kind is OriginKind.DATASET:
            parts.append(InputPart(item=name, path=given.path, dataset=origin.dataset))
        else:
            parts.append(InputPart(item=name, path=given.path, place=given.lies))
    return tuple(parts)


def run_item(stage: Stage) -> str | tuple[str, ...] | None:
    """Return the command as it counts: matrix values filled in; inputs, outputs and params still by name."""
    if stage.kind is StageKind.NOTEBOOK:
        return f"notebook {stage.notebook}"
    if stage.kind is StageKind.TRANSFER and stage.transfer is not None:
        return f"transfer {stage.transfer.source} -> {stage.transfer.target}"
    return stage.run


def stage_text(value: Any) -> str:
    """Return the canonical text of a value from TOML: compact JSON with sorted keys; dates as ISO 8601."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)


def stage_items(
    stage: Stage,
    *,
    params: Mapping[str, Any],
    sources: Mapping[str, str | None],
    inputs: Iterable[tuple[InputPart, Digest | None]],
    hash_paths: Mapping[str, str | None],
    environment: str | None,
) -> list[Item]:
    """Return the items of a stage's fingerprint.

    params: all params of the pipeline, nested. sources, hash_paths: path to id, None where absent.
    environment: the text that stands for what the stage's environment resolved to, None without one.
    """
    run = run_item(stage)
    items = [
        Item("run", "", run if isinstance(run, str) else stage_text(list(run or ()))),
        Item("run", "cwd", stage.cwd),
    ]
    items += [Item("run", f"outs.{name}", output.path) for name, output in stage.outputs.items()]
    items += [Item("source", path, identity or ABSENT) for path, identity in sources.items()]
    for part, digest in inputs:
        items.append(Item("input", part.item, f"{part.path} {digest.text if digest else ABSENT}"))
    items += [Item("param", key, stage_text(lookup(params, key))) for key in stage.params]
    items += [Item("env", name, value) for name, value in stage.env.items()]
    items += [Item("hash-path", path, identity or ABSENT) for path, identity in hash_paths.items()]
    if environment is not None:
        items.append(Item("environment", "", environment))
    return items
