"""What git alone does not put into a place of its own: repositories inside, and files that no snapshot keeps."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pipesmith.errors import UserError
from pipesmith.executors.copying import copy_any
from pipesmith.git.detached import gitlinks, make_nested
from pipesmith.git.objects import ObjectReader
from pipesmith.git.repository import IN_PLACING as UNPLACED
from pipesmith.git.repository import Repository
from pipesmith.git.snapshot import write_snapshot
from pipesmith.git.submodules import submodule_reader
from pipesmith.pipeline.model import Pipeline

__all__ = ["copy_work_tree", "fill_submodules", "source_places"]


def fill_submodules(source: Repository, target: Repository, prefix: str) -> None:
    """Check submodules out at their commits, from what this clone has of them; those it lacks stay empty, which is told
    where a stage needs one."""
    links = gitlinks(target, prefix)
    if not links:
        return
    reader = ObjectReader(source)
    try:
        _fill_links(reader, target, links)
    finally:
        reader.close()


def _fill_links(reader: ObjectReader, target: Repository, links: list[tuple[str, str]]) -> None:
    for path, commit in links:
        try:
            inner = submodule_reader(reader, path, commit)
        except UserError:
            continue
        nested = make_nested(inner.repo, os.path.join(target.top, path), commit, commit)
        _fill_links(inner, nested, gitlinks(nested))


def copy_work_tree(source: Repository, target: Repository, prefix: str, wanted: Sequence[str] | None) -> None:
    """Bring what a snapshot's tree lacks: repositories inside as they are, and untracked files that no snapshot keeps
    (too big, secret, data) though stages are given them as source.

    wanted: where stages look, relative to the top; None for everywhere."""
    nested = [path for path, _commit in gitlinks(target, prefix)]
    where = [f":(top,literal){path}" if path else "." for path in wanted] if wanted is not None else ["."]
    if where:
        listed = source.run("ls-files", "-z", "-o", "--exclude-standard", "--", *where)
        for path in os.fsdecode(listed).split("\0")[:-1]:
            there = os.path.join(target.top, path)
            if path.endswith("/"):
                nested.append(path.rstrip("/"))
            elif f"/{UNPLACED}" not in f"/{path}" and not os.path.lexists(there):
                os.makedirs(os.path.dirname(there), exist_ok=True)
                copy_any(os.path.join(source.top, path), there, read_only=False, stop=lambda: False)
    for path in nested:
        here = os.path.join(source.top, path)
        if not os.path.lexists(os.path.join(here, ".git")):
            continue  # not checked out
        inner = Repository.discover(here, nested=True)
        index = os.path.join(target.git_dir, f"index-{os.getpid()}")
        tree, _missing = write_snapshot(
            inner, index, left_out={}, max_file_bytes=20_000_000, ignores=lambda _path: False
        )
        made = make_nested(inner, os.path.join(target.top, path), tree, inner.head())
        copy_work_tree(inner, made, ".", None)


def source_places(pipeline: Pipeline, prefix: str) -> list[str]:
    """Return where stages look for their code, relative to the top of the work tree, `` for all of it."""
    found: dict[str, None] = {}
    for stage in pipeline.stages.values():
        for path in (*stage.source, *stage.hash_paths, *([stage.notebook] if stage.notebook else ())):
            whole = os.path.normpath(os.path.join(prefix, path))
            found["" if whole == "." else whole] = None
    return list(found)
