"""Which stages words mean."""

from __future__ import annotations

from collections.abc import Sequence
from posixpath import normpath

from pipesmith.errors import UserError
from pipesmith.pipeline.model import Pipeline

__all__ = ["select_stages"]


def select_stages(pipeline: Pipeline, names: Sequence[str]) -> tuple[str, ...]:
    """Return the stages that `names` mean: stages, tables with a matrix (all cells), or output paths; in the order of
    the file.

    Raises UserError for a name that is none of these, with the nearest one.
    """
    from pipesmith.errors import nearest

    by_path = {out.path: stage.name for stage in pipeline.stages.values() for out in stage.outputs.values()}
    chosen: set[str] = set()
    for name in names:
        if name in pipeline.groups:
            chosen.update(pipeline.groups[name])
        elif name in pipeline.stages:
            chosen.add(name)
        elif normpath(name) in by_path:
            chosen.add(by_path[normpath(name)])
        else:
            near = nearest(name, [*pipeline.groups, *pipeline.stages, *by_path])
            raise UserError(
                f"no stage `{name}`", f"did you mean `{near}`?" if near else "`pipe status` lists the stages"
            )
    return tuple(name for name in pipeline.stages if name in chosen)
