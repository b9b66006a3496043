"""Bounds on metrics: whether a result is good enough to be used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from pipesmith.pipeline.model import Stage

__all__ = ["broken_expectations", "unknown_revisions"]


def broken_expectations(
    stage: Stage,
    metrics: Mapping[str, float],
    metric_at: Callable[[str, str, str], float | None],
) -> tuple[str, ...]:
    """Return one line an expectation that `metrics` (key `OUTPUT:dotted.name`) does not meet.

    metric_at(revision, stage, key): the locked metric at a revision, None where there is none; then nothing is
    compared.
    """
    broken = []
    for expected in stage.expect:
        value = metrics.get(expected.key)
        if value is None:
            broken.append(f"`{expected.key}` is not among the metrics")
            continue
        if expected.min is not None and value < expected.min:
            broken.append(f"`{expected.key}` is {value:g}, expected at least {expected.min:g}")
        if expected.max is not None and value > expected.max:
            broken.append(f"`{expected.key}` is {value:g}, expected at most {expected.max:g}")
        if value != value and (expected.min is not None or expected.max is not None):
            broken.append(f"`{expected.key}` is not a number")
        if expected.vs is not None:
            before = metric_at(expected.vs, stage.name, expected.key)
            if before is not None and value < before - expected.drop:
                broken.append(
                    f"`{expected.key}` is {value:g}, at `{expected.vs}` it is {before:g}: "
                    f"a drop of more than {expected.drop:g}"
                )
    return tuple(broken)


def unknown_revisions(stages: Iterable[Stage], has_revision: Callable[[str], bool]) -> list[str]:
    """Return the revisions that metrics of these stages are to be compared with and that do not exist, each once."""
    named = dict.fromkeys(each.vs for stage in stages for each in stage.expect if each.vs is not None)
    return [revision for revision in named if not has_revision(revision)]
