"""One command's view of a workspace: pipeline, lockfile, tree and stores, each read when first asked for."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from pipesmith.digest import Digest
from pipesmith.errors import UserError
from pipesmith.fingerprint.stat_cache import StatCache
from pipesmith.fingerprint.work_tree import WorkTree
from pipesmith.lockfile.model import LockedOut, Lockfile
from pipesmith.lockfile.reader import parse
from pipesmith.pipeline.model import Pipeline
from pipesmith.records import replace
from pipesmith.store.action_cache import ActionCache
from pipesmith.store.object_store import ObjectStore
from pipesmith.verdict.judgement import Judgement, Outside
from pipesmith.verdict.rebuilder import Question
from pipesmith.workspace.pins import Pins
from pipesmith.workspace.reading import read, text_of
from pipesmith.workspace.selecting import select_stages

if TYPE_CHECKING:
    from pipesmith.workspace.cold import ColdEnvironments
    from pipesmith.workspace.computes import Computes
    from pipesmith.workspace.lending import Lender
    from pipesmith.workspace.workspace import Workspace

__all__ = ["Session", "UnknownCompute", "select_stages"]


class UnknownCompute(UserError):
    """`--compute` names none of pipeline.toml's."""


class Session:
    """What one command sees. A second look at the disk is a second session (or `fresh_tree`)."""

    def __init__(self, workspace: Workspace, overrides: Mapping[str, str], compute: str | None = None) -> None:
        self.workspace = workspace
        self.overrides = overrides
        self.began_ns = time.time_ns()  # what is newer may not be what was seen
        self.compute = compute  # where stages run, whatever pipeline.toml says
        self._text = ""
        self.asked: set[str] = set()  # workspace files that were read, or looked for

    @cached_property
    def pipeline(self) -> Pipeline:
        """The checked pipeline. Raises ConfigError with all findings."""
        workspace = self.workspace
        path = os.path.join(workspace.root, "pipeline.toml")
        with open(path, "rb") as file:
            self._text = text = text_of(file.read(), self._file_name or "pipeline.toml")
        pipeline = read(
            text,
            root=workspace.root,
            files=self.read_file,
            overrides=self.overrides,
            environ={name: value for name, value in os.environ.items() if name.startswith("PIPE_PARAM_")},
            state=workspace.stamps,
            file=self._file_name,
        )
        return pipeline if self.compute is None else _moved(pipeline, self.compute)

    @property
    def _file_name(self) -> str | None:
        """What a commit's pipeline.toml is called in messages, None for the work tree's."""
        place = self.workspace.place
        if place is None or place.revision is None:
            return None
        return f"{place.revision[:10]}:{self.workspace.in_repo('pipeline.toml')}"

    def line(self, key: str) -> int | None:
        """Return the line of a dotted key of pipeline.toml, or of the nearest key above it."""
        from pipesmith.pipeline.reader import line_of

        return line_of(self._text, key)

    def read_file(self, path: str) -> bytes | None:
        """Return a workspace file's bytes, None where there is none.

        A place made of the work tree as it is lacks what git ignores: that is read in the work tree."""
        self.asked.add(path)
        workspace = self.workspace
        own = workspace.place is not None and workspace.place.revision is None
        for root in (workspace.root, *([workspace.home.root] if own else [])):
            try:
                with open(os.path.join(root, path), "rb") as file:
                    return file.read()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                continue
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENAMETOOLONG):
                    raise
        return None

    @cached_property
    def lock_text(self) -> str | None:
        data = self.read_file("pipe.lock")
        if data is None:
            return None
        try:
            return data.decode()
        except UnicodeDecodeError:
            from pipesmith.lockfile.markers import first_marker

            text = data.decode("utf-8", "surrogateescape")
            if first_marker(text) is not None:
                return text  # a marker may name a branch in any encoding
            raise UserError(
                "pipe.lock is not UTF-8", "restore it with `git checkout pipe.lock`, or remove it"
            ) from None

    @cached_property
    def lockfile(self) -> Lockfile:
        """The lockfile. Raises UserError where it can't be read; it is never overwritten then."""
        return parse(self.lock_text, cache=self.workspace.state) if self.lock_text is not None else Lockfile()

    @cached_property
    def stat_cache(self) -> StatCache:
        return StatCache(self.workspace.stamps, self.pipeline.cache.hash)

    @cached_property
    def lender(self) -> Lender | None:
        """What lends a place of its own what it lacks; None in the user's own workspace."""
        if self.workspace.place is None:
            return None
        from pipesmith.workspace.lending import Lender

        return Lender(self)

    @cached_property
    def tree(self) -> WorkTree:
        return self.fresh_tree()

    def trust(self, tree: WorkTree, stat_cache: StatCache) -> None:
        """Let the tree be this look, and the stat cache the one that it was made with."""
        self.__dict__["tree"], self.__dict__["stat_cache"] = tree, stat_cache

    def look_again(self) -> None:
        """Let the tree be one that looks at everything anew."""
        tree = self.__dict__.pop("tree", None)
        if tree is not None:
            tree.close()

    def fresh_tree(self) -> WorkTree:
        """Return a tree that looks at everything anew."""
        tree = WorkTree(self.workspace.repo, self.workspace.root, self.stat_cache, self.lender)
        tree.exclude(self.pipeline.output_paths)
        return tree

    def tracked(self, paths: Collection[str]) -> set[str]:
        """Return those of the workspace's paths that git tracks, or that hold a tracked file."""
        from pipesmith.git.ignore import tracked

        return tracked(self.workspace.repo, self.workspace.root, paths)

    def output_now(self, path: str, algorithm: str | None = None) -> Digest | None:
        """Return the digest of what lies at an output's path now, by the algorithm that it is compared by."""
        return self.stat_cache.output(os.path.join(self.workspace.root, path), algorithm)

    @cached_property
    def store(self) -> ObjectStore:
        pipe = self.workspace.pipe_dir
        return ObjectStore(
            os.path.join(pipe, "cache"), os.path.join(pipe, "tmp"), self.workspace.state, self.pipeline.cache
        )

    @cached_property
    def actions(self) -> ActionCache:
        return ActionCache(os.path.join(self.workspace.pipe_dir, "cache", "actions"))

    @cached_property
    def pins(self) -> Pins:
        return Pins(self)

    @cached_property
    def cold(self) -> ColdEnvironments:
        from pipesmith.workspace.cold import ColdEnvironments

        return ColdEnvironments()

    @cached_property
    def computes(self) -> Computes:
        """The computes of the pipeline; none is asked before a stage needs it."""
        from pipesmith.workspace.computes import Computes

        return Computes(self)

    def at_hand(self, outs: Sequence[LockedOut]) -> bool:
        """Return whether all these outputs are in the object store."""
        return all(self.store.has(out.digest) for out in outs)

    def within(self, digest: Digest, inner: str, path: str) -> Digest | None:
        """Return the digest of a path inside a folder output: from its manifest, else from the workspace."""
        if self.store.has_manifest(digest):
            return self.store.manifest(digest).subtree(inner, digest.algorithm)
        return self.tree.output(path, digest.algorithm)

    def metric_at(self, revision: str, stage: str, key: str) -> float | None:
        """Return a locked metric at a git revision, None where revision, lock or metric is missing."""
        from pipesmith.workspace.revisions import lockfile_at

        lockfile = lockfile_at(self._compared, revision)
        entry = lockfile.stages.get(stage) if lockfile else None
        return entry.metrics.get(key) if entry else None

    def has_revision(self, revision: str) -> bool:
        """Return whether there is a git revision for `metric_at`."""
        from pipesmith.workspace.revisions import is_revision

        return is_revision(self._compared, revision)

    @property
    def _compared(self) -> Workspace:
        """The workspace whose revisions count. A place of the work tree has a HEAD of its own before the first
        commit."""
        of = self.workspace.place
        return self.workspace.home if of is None or of.revision is None else self.workspace

    def beside(self, path: str) -> list[str]:
        """Return what lies in the folder of a workspace path, none where there is no such folder."""
        folder = os.path.dirname(path)
        try:
            return [os.path.join(folder, name) for name in os.listdir(os.path.join(self.workspace.root, folder))]
        except OSError:
            return []

    def judgement(self, *, building: bool = False, lenient: bool = False, restore: bool = True) -> Judgement:
        """Return what judges the stages of this work tree."""
        from pipesmith.build.notebook import notebook_source_id

        question = Question(
            output=self.tree.output,
            at_hand=self.at_hand,
            actions=self.actions,
            building=building,
            lenient=lenient,
            stored_counts=self.workspace.place is not None,
            restore=restore,
            algorithm=self.pipeline.cache.hash,
        )
        outside = Outside(
            environment=self.pins.environment_text,
            packages=self.pins.packages_between,
            dataset=self.pins.dataset_digest,
            within=self.within,
            notebook=notebook_source_id,
            metric_at=self.metric_at,
            has_revision=self.has_revision,
            beside=self.beside,
        )
        return Judgement(self.pipeline, self.tree, self.lockfile, question, outside)


def _moved(pipeline: Pipeline, compute: str) -> Pipeline:
    """Return a pipeline whose stages all run on one compute. Raises UnknownCompute where there is none of that name."""
    from pipesmith.errors import nearest

    if compute not in pipeline.computes:
        near = nearest(compute, pipeline.computes)
        help = f"did you mean `{near}`?" if near else "leave `--compute` out to build here"
        raise UnknownCompute(f"no compute `{compute}`", help)
    moved = {name: replace(stage, compute=compute) for name, stage in pipeline.stages.items()}
    return replace(pipeline, stages=moved)
