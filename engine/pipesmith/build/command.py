"""The command line of a stage, with everything filled in."""

from __future__ import annotations

from pipesmith.build.context import BuildContext
from pipesmith.pipeline.model import Stage, StageKind
from pipesmith.pipeline.placeholders import fill_run, relative_to

__all__ = ["argv_of"]


def argv_of(build: BuildContext, stage: Stage) -> tuple[str, ...]:
    """Return what is executed for a stage: a string `run` goes to /bin/sh, a list as it is, a notebook to its
    driver."""
    inputs = {name: relative_to(given.path, stage.cwd) for name, given in stage.inputs.items()}
    outputs = {name: relative_to(output.path, stage.cwd) for name, output in stage.outputs.items()}
    if stage.kind is StageKind.NOTEBOOK:
        from pipesmith.build.notebook import notebook_argv

        return notebook_argv(relative_to(stage.notebook or "", stage.cwd), outputs["notebook"])
    assert stage.run is not None
    run = fill_run(stage.run, inputs=inputs, outputs=outputs, params=build.pipeline.params)
    return ("/bin/sh", "-c", run) if isinstance(run, str) else tuple(run)
