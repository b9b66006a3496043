"""Links in what earlier stages made: one that dangles or leads out of the workspace can't be given to a stage."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from pipesmith.build.context import BuildContext
from pipesmith.errors import StageError
from pipesmith.fingerprint.items import InputPart, input_parts
from pipesmith.lockfile.model import LockedDep
from pipesmith.pipeline.model import Stage
from pipesmith.records import replace
from pipesmith.store.object_store import ObjectDamaged, ObjectMissing

__all__ = ["check_given_links"]


def check_given_links(build: BuildContext, stage: Stage, deps: Iterable[LockedDep]) -> None:
    """Raise StageError for such a link. deps: what the stage's inputs are. What lies in the workspace without a stage
    that makes it was looked at when the stage was judged."""
    by_name = {dep.name: dep for dep in deps}
    roots = {os.path.realpath(build.root), os.path.realpath(build.seen_at)}
    for part in input_parts(stage, build.pipeline.stages):
        dep = by_name.get(part.item)
        if not part.stage or dep is None:
            continue
        for path, text in _links(build, part, dep):
            there = os.path.join(build.root, path)
            target = os.path.realpath(there)
            if not any(target == root or target.startswith(root + os.sep) for root in roots):
                raise StageError(
                    f"`{path}` is a link that leads out of the workspace, to `{text}`",
                    f"let `{part.stage}` write a file or folder there",
                )
            if not os.path.exists(there):
                raise StageError(
                    f"`{path}` is a link to `{text}`, which does not exist",
                    f"let `{part.stage}` take it out, or write a file or folder there",
                )


def _links(build: BuildContext, part: InputPart, dep: LockedDep) -> Iterator[tuple[str, str]]:
    """Yield (path, text) of the links in an input. The manifest names them: no folder has to be walked through."""
    whole = replace(dep.digest, hex=dep.of) if dep.of else dep.digest
    if not whole.is_folder or not build.store.has_manifest(whole):
        return
    try:
        entries = build.store.manifest(whole).entries
    except (ObjectMissing, ObjectDamaged):
        return
    top = part.place.removesuffix(f"/{part.within}") if part.within else part.place
    for entry in entries:
        if entry.kind == "l" and (not part.within or f"{entry.path}/".startswith(f"{part.within}/")):
            yield f"{top}/{entry.path}", entry.text
