"""The smaller tables and lists of a stage: resources, env, metrics, plots, expectations."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pipesmith.pipeline.faults import Faults
from pipesmith.pipeline.keys import TABLES, Path
from pipesmith.pipeline.model import Expectation, Output, Plot, Resources
from pipesmith.pipeline.texts import Texts
from pipesmith.pipeline.units import parse_size_bytes

__all__ = ["read_env", "read_expect", "read_metrics", "read_pass_env", "read_plots", "read_resources"]

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_METRIC_FILES = (".json", ".yaml", ".yml", ".toml", ".csv", ".tsv")


def read_resources(value: Mapping[str, Any], where: Path, faults: Faults) -> Resources:
    table = faults.table(value, TABLES["resources"], where)
    custom = {}
    for name, amount in table.get("custom", {}).items():
        if isinstance(amount, bool) or not isinstance(amount, (int, float)):
            faults.add((*where, "custom", name), "expected a number")
        else:
            custom[name] = float(amount)
    if table.get("cpus", 1) <= 0:
        faults.add((*where, "cpus"), "must be more than 0")
    if "gpu-memory" in table and table.get("gpus") == 0:
        faults.add((*where, "gpu-memory"), "needs a GPU, and `gpus` is 0", "leave one of them out")
    return Resources(
        cpus=table.get("cpus"),
        gpus=table.get("gpus", 1 if "gpu-memory" in table else 0),
        memory_bytes=parse_size_bytes(str(table["memory"])) if "memory" in table else None,
        gpu_memory_bytes=parse_size_bytes(str(table["gpu-memory"])) if "gpu-memory" in table else None,
        custom=custom,
        raw={key: entry for key, entry in table.items() if key != "custom"},
    )


def read_env(value: Mapping[str, str], texts: Texts, where: Path, faults: Faults) -> dict[str, str]:
    env = {}
    for name, text in value.items():
        place = (*where, "env", name)
        _check_variable(name, place, faults)
        env[name] = texts.plain(text, place)
        if "\0" in env[name]:
            faults.add(place, "a NUL character, which no variable can hold")
    return env


def read_pass_env(names: Sequence[str], env: Mapping[str, str], where: Path, faults: Faults) -> tuple[str, ...]:
    for index, name in enumerate(names):
        place = (*where, "pass-env", index)
        _check_variable(name, place, faults)
        if name in env:
            faults.add(place, f"`{name}` stands in `env` as well", "keep one of them")
    return tuple(dict.fromkeys(names))


def _check_variable(name: str, place: Path, faults: Faults) -> None:
    if not _VARIABLE.fullmatch(name):
        faults.add(place, f"`{name}` can't be a variable's name", "use letters, digits and `_`")
    elif name.startswith("PIPE_") or name in ("TMPDIR", "CUDA_VISIBLE_DEVICES"):
        faults.add(place, f"`{name}` is set by pipe", "use another name")


def read_metrics(
    names: Sequence[str], outputs: Mapping[str, Output], known: Collection[str], where: Path, faults: Faults
) -> tuple[str, ...]:
    """known: names of all outputs, also of those with a fault of their own."""
    for index, name in enumerate(names):
        place = (*where, "metrics", index)
        if name not in known:
            faults.unknown(place, "output", name, known)
        elif name in outputs and not outputs[name].path.lower().endswith(_METRIC_FILES):
            text = f"`{outputs[name].path}` is neither .json, .yaml, .toml nor .csv"
            faults.add(place, text, "write the numbers as JSON")
    return tuple(name for name in dict.fromkeys(names) if name in outputs)


def read_plots(value: Sequence[Any], known: Collection[str], where: Path, faults: Faults) -> tuple[Plot, ...]:
    plots = []
    for index, entry in enumerate(value):
        place = (*where, "plots", index)
        table = faults.table(entry, TABLES["plot"], place)
        output = table.get("output", "")
        if "output" not in entry:
            faults.add(place, "has no `output`", 'write `{ output = "NAME" }`')
        elif "output" in table and output not in known:
            faults.unknown((*place, "output"), "output", output, known)
        y = table.get("y", ())
        lines = (y,) if isinstance(y, str) else tuple(y)
        plots.append(Plot(output=output, x=table.get("x"), y=lines, title=table.get("title")))
    return tuple(plots)


def read_expect(
    value: Mapping[str, Any], metrics: Sequence[str], known: Collection[str], where: Path, faults: Faults
) -> tuple[Expectation, ...]:
    found = []
    for key, entry in value.items():
        place = (*where, "expect", key)
        table = faults.table(entry, TABLES["expectation"], place)
        output, colon, metric = key.partition(":")
        if not colon or not metric:
            faults.add(place, f"`{key}` is not `OUTPUT:METRIC`", 'write `"report:auc" = { min = 0.9 }`')
        elif output not in known:
            faults.unknown(place, "output", output, known)
        elif output not in metrics:
            text = f"`{output}` is not among the stage's `metrics`"
            faults.add(place, text, f'add it: `metrics = ["{output}"]`')
        if isinstance(entry, dict):
            _check_bounds(entry, table, place, faults)
        found.append(
            Expectation(
                key=key,
                min=table.get("min"),
                max=table.get("max"),
                vs=table.get("vs"),
                drop=float(table.get("drop", 0.0)),
            )
        )
    return tuple(found)


def _check_bounds(entry: Mapping[str, Any], table: Mapping[str, Any], place: Path, faults: Faults) -> None:
    if not {"min", "max", "vs"} & entry.keys():
        faults.add(place, "has neither `min`, `max` nor `vs`", "write `{ min = 0.9 }`")
    if "drop" in entry and "vs" not in entry:
        faults.add(place, "has `drop` without `vs`", 'add `vs = "origin/main"`')
    if table.get("drop", 0) < 0:
        faults.add((*place, "drop"), "must be 0 or more", "write how much lower the metric may be")
    if "min" in table and "max" in table and table["min"] > table["max"]:
        faults.add(place, f"`min` {table['min']} is more than `max` {table['max']}", "swap them")
