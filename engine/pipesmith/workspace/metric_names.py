"""What people call a metric: by its full name, or by as much of it as there is one of."""

from __future__ import annotations

from collections.abc import Mapping

from pipesmith.errors import UserError, nearest
from pipesmith.pipeline.model import Pipeline

__all__ = ["named_metric"]


def named_metric(name: str, known: Mapping[str, Mapping[str, float]], pipeline: Pipeline | None) -> tuple[str, str]:
    """Return the stage and the key (`OUTPUT:dotted.name`) of a metric.

    name: `OUTPUT:dotted.name`, `dotted.name`, and either with `STAGE:` or `STAGE.` before it. known: stage to the
    metrics that lockfiles hold. pipeline: says which outputs hold metrics, where no lockfile knows any of theirs.
    Raises UserError for a name that is none, with the nearest one, or that is many.
    """
    found = {(stage, key) for stage, keys in known.items() for key in keys if name in _names(stage, key)}
    if not found and pipeline is not None:
        found = _declared(name, known, pipeline)
    if len(found) == 1:
        return next(iter(found))
    if found:
        listed = ", ".join(f"`{stage}:{key}`" for stage, key in sorted(found))
        raise UserError(f"more than one metric is called `{name}`", f"one of {listed}")
    every = sorted({each for stage, keys in known.items() for key in keys for each in _names(stage, key)})
    near = nearest(name, every)
    raise UserError(
        f"no metric `{name}`", f"did you mean `{near}`?" if near else "`pipe metrics` lists those of the lockfile"
    )


def _names(stage: str, key: str) -> set[str]:
    plain = key.partition(":")[2]
    return {key, plain} | {f"{stage}{mark}{each}" for mark in ":." for each in (key, plain)}


def _declared(name: str, known: Mapping[str, Mapping[str, float]], pipeline: Pipeline) -> set[tuple[str, str]]:
    """Return what a name can mean of stages whose numbers nobody knows yet."""
    found = set()
    for stage in pipeline.stages.values():
        if not stage.metrics or known.get(stage.name):
            continue
        rest = name
        for mark in ":.":
            rest = rest.removeprefix(f"{stage.name}{mark}")
        output, colon, plain = rest.partition(":")
        if colon:
            if output in stage.metrics and plain:
                found.add((stage.name, rest))
        elif len(stage.metrics) == 1:
            found.add((stage.name, f"{stage.metrics[0]}:{rest}"))
    return found
