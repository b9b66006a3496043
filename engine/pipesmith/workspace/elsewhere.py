"""A place of its own: a commit, or the work tree as it is, built where the user's work tree, index and lock are not.

    with commit_elsewhere(workspace, "v1.2") as other:
        other.build(["train"])

`other` is a workspace like any other, below the repository's `pipe` folder; it shares cache, history and locks with the
clone, and is gone after the `with`.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pipesmith.build.interrupts import Interrupts
from pipesmith.build.place import PREFIX as UNPLACED
from pipesmith.errors import EnvironmentFailure, UserError
from pipesmith.git.detached import add_work_tree, fill, gitlinks, make_nested
from pipesmith.git.objects import ObjectReader
from pipesmith.git.repository import Repository
from pipesmith.git.snapshot import commit_tree, write_snapshot
from pipesmith.git.submodules import submodule_reader
from pipesmith.retention.places import REGISTERING, place, sweep_places
from pipesmith.store.modes import prepare
from pipesmith.workspace.recording import snapshot_of
from pipesmith.workspace.workspace import PIPELINE_NAME, Workspace

if TYPE_CHECKING:
    from pipesmith.build.control import Control
    from pipesmith.events import Event
    from pipesmith.pipeline.model import Pipeline
    from pipesmith.workspace.plan import BuildOptions
    from pipesmith.workspace.results import BuildResult

__all__ = ["Place", "build_elsewhere", "commit_elsewhere", "resolve_commit", "work_tree_elsewhere", "workspace_at"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a workspace elsewhere is of. folder: all of it. of: the workspace it was made for. seen_at: where stages see
    it. revision: the commit that is built, None for the work tree. commit, branch, dirty, tree, left_out, experiment:
    as runs record them."""

    folder: str
    of: Workspace
    seen_at: str
    tree: str
    revision: str | None = None
    commit: str | None = None
    branch: str | None = None
    dirty: bool = False
    left_out: Mapping[str, str] = field(default_factory=dict)
    experiment: str | None = None

    @property
    def owner(self) -> str:
        """Who owes deliveries: builds of the same commit are one and the same."""
        return f"{self.of.root}\0{self.revision or self.experiment or ''}"


def resolve_commit(repo: Repository, revision: str) -> str:
    """Return the commit id of a revision. Raises UserError, which says what may be the reason here."""
    try:
        return repo.resolve(revision)
    except UserError as error:
        if repo.head() is None and revision in ("HEAD", "@"):
            raise UserError(
                f"there is no commit yet, so `{revision}` is none", "commit first, or build the work tree: `pipe build`"
            ) from None
        if os.path.exists(os.path.join(repo.common_dir, "shallow")):
            raise UserError(
                error.text, "this clone is shallow: `git fetch --unshallow` brings the commits that it lacks"
            ) from None
        raise


def workspace_at(path: str, revision: str) -> Workspace:
    """Return the workspace of the nearest pipeline.toml from `path` up, on disk or else at a revision.

    A bare repository has one only at a revision; its root leads nowhere then. Raises UserError.
    """
    start = os.path.realpath(path)
    if not os.path.isdir(start):
        raise UserError(f"`{path}` is not a folder")
    repo = Repository.discover(start)
    if not repo.is_bare:
        try:
            return Workspace.open(path)
        except UserError:
            pass  # not on disk
    commit = resolve_commit(repo, revision)
    folder = "" if repo.is_bare else os.path.relpath(start, repo.top)
    folder = "" if folder == "." else folder
    while True:
        file = f"{folder}/{PIPELINE_NAME}" if folder else PIPELINE_NAME
        if repo.process("cat-file", "-e", f"{commit}:{file}").returncode == 0:
            return Workspace(repo, os.path.join(repo.top, folder) if folder else repo.top)
        if not folder:
            break
        folder = os.path.dirname(folder)
    listed = os.fsdecode(repo.run("ls-tree", "-r", "-z", "--name-only", commit)).split("\0")
    found = [each for each in listed if os.path.basename(each) == PIPELINE_NAME]
    if repo.is_bare and len(found) == 1:
        return Workspace(repo, os.path.join(repo.top, os.path.dirname(found[0])))
    if found:
        raise UserError(
            f"there is no {PIPELINE_NAME} here at {commit[:10]}; there are {', '.join(found)}",
            "name its folder with `pipe -C`; of a bare repository make a work tree first: `git worktree add`",
        )
    raise UserError(f"there is no {PIPELINE_NAME} at {commit[:10]}", "name a commit that has one")


# -- places -----------------------------------------------------------------------------------------------------------


@contextmanager
def commit_elsewhere(
    workspace: Workspace, revision: str, *, experiment: str | None = None, tree: str | None = None
) -> Iterator[Workspace]:
    """Check a commit out in a place of its own, for the time of a `with`.

    tree: another tree in place of the commit's (of a merge made in memory, say); runs are recorded as of that tree, on
    top of the commit. Raises UserError, EnvironmentFailure.
    """
    repo = workspace.repo
    commit = resolve_commit(repo, revision)
    named = "" if revision.startswith("-") else revision
    name = os.fsdecode(repo.process("rev-parse", "--symbolic-full-name", named).stdout).strip()
    made = {
        "tree": tree or repo.run("rev-parse", f"{commit}^{{tree}}").decode().strip(),
        "revision": commit,
        "commit": commit,
        "branch": name.removeprefix("refs/heads/") if name.startswith("refs/heads/") else None,
        "dirty": tree is not None,
        "experiment": experiment,
    }
    with _terminable(), _worktree(workspace, commit, made) as other:
        _fill_submodules(workspace.repo, other.repo, workspace.prefix)
        _check_pipeline(other, commit)
        yield other


@contextmanager
def work_tree_elsewhere(
    workspace: Workspace, experiment: str, overrides: Mapping[str, str] | None = None
) -> Iterator[Workspace]:
    """Put the work tree as it is, uncommitted and untracked files included, in a place of its own, for the time of a
    `with`. Raises ConfigError, UserError, EnvironmentFailure."""
    repo = workspace.repo
    if repo.is_bare:
        raise UserError("a bare repository has no work tree", "build a commit: `pipe build --rev REV`")
    prepare(workspace.pipe_dir, repo.config.get("core.sharedrepository"))
    session = workspace.session(overrides)
    tree, left_out = snapshot_of(session)
    commit = repo.head()
    made = {
        "tree": tree,
        "commit": commit,
        "branch": repo.branch(),
        "dirty": repo.is_dirty(),
        "left_out": left_out,
        "experiment": experiment,
    }
    if commit is None:
        empty = repo.run("hash-object", "-t", "tree", "-w", "--stdin", input=b"").decode().strip()
        commit = commit_tree(repo, empty, None, "before the first commit\n")
    with _terminable(), _worktree(workspace, commit, made) as other:
        with _told(workspace):
            _copy_work_tree(repo, other.repo, workspace.prefix, _sources(session.pipeline, workspace.prefix))
            if not os.path.lexists(os.path.join(other.root, PIPELINE_NAME)):  # git ignores it
                os.makedirs(other.root, exist_ok=True)
                shutil.copy2(os.path.join(workspace.root, PIPELINE_NAME), other.root)
        yield other


@contextmanager
def _worktree(workspace: Workspace, commit: str, made: Mapping[str, Any]) -> Iterator[Workspace]:
    repo = workspace.repo
    prepare(workspace.pipe_dir, repo.config.get("core.sharedrepository"))
    sweep_places(workspace.pipe_dir, repo.common_dir, workspace.locks)
    with ExitStack() as stack:
        with _told(workspace):
            folder = stack.enter_context(
                _held_at_end(place(workspace.pipe_dir, repo.common_dir, workspace.locks)),
            )
            top = os.path.join(folder, os.path.basename(repo.top).removesuffix(".git") or "workspace")
            with workspace.locks.shared(REGISTERING):
                other = add_work_tree(repo, top, commit)
            fill(other, made["tree"], workspace.prefix)
            root = other.top if workspace.prefix == "." else os.path.join(other.top, workspace.prefix)
            seen_at = workspace.root
            if repo.is_bare or not os.path.isdir(workspace.root):
                aside = os.path.realpath(tempfile.mkdtemp(prefix="pipe-place-"))
                stack.callback(shutil.rmtree, aside, ignore_errors=True)
                seen_at = os.path.join(aside, os.path.basename(root))
                os.mkdir(seen_at)
        yield Workspace(other, root, Place(folder=folder, of=workspace, seen_at=seen_at, **made))


@contextmanager
def _told(workspace: Workspace) -> Iterator[None]:
    """Turn what the disk refuses while a place is made into words."""
    try:
        yield
    except OSError as error:
        where = error.filename or workspace.pipe_dir
        raise EnvironmentFailure(
            f"`{where}` can't be written: {error.strerror}",
            "a build in a place of its own needs to write into the repository's git folder",
        ) from None


@contextmanager
def _held_at_end(made: Any) -> Iterator[str]:
    """Hold interrupts while a place is taken away."""
    folder = made.__enter__()
    try:
        yield folder
    finally:
        with Interrupts():
            made.__exit__(None, None, None)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end what goes on as Ctrl-C does, so that the place is taken away."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_pipeline(other: Workspace, commit: str) -> None:
    if not os.path.isfile(os.path.join(other.root, PIPELINE_NAME)):
        within = "" if other.prefix == "." else f"{other.prefix}/"
        raise UserError(f"there is no {within}{PIPELINE_NAME} at {commit[:10]}", "name a commit that has one")


# -- repositories inside ----------------------------------------------------------------------------------------------


def _fill_submodules(source: Repository, target: Repository, prefix: str) -> None:
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


def _copy_work_tree(source: Repository, target: Repository, prefix: str, wanted: Sequence[str] | None) -> None:
    """Bring what a snapshot's tree lacks: repositories inside as they are, and untracked files that no snapshot keeps
    (too big, secret, data) though stages are given them as source.

    wanted: where stages look, relative to the top; None for everywhere."""
    from pipesmith.executors.copying import copy_any

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
        _copy_work_tree(inner, made, ".", None)


def _sources(pipeline: Pipeline, prefix: str) -> list[str]:
    """Return where stages look for their code, relative to the top of the work tree, `` for all of it."""
    found: dict[str, None] = {}
    for stage in pipeline.stages.values():
        for path in (*stage.source, *stage.hash_paths, *([stage.notebook] if stage.notebook else ())):
            whole = os.path.normpath(os.path.join(prefix, path))
            found["" if whole == "." else whole] = None
    return list(found)


# -- builds -----------------------------------------------------------------------------------------------------------


def build_elsewhere(
    workspace: Workspace, options: BuildOptions, on_event: Callable[[Event], None], control: Control
) -> BuildResult:
    """Build a commit (`rev`), or the work tree as it is with `overrides`, in a place of its own. Raises as `build`."""
    from pipesmith.workspace.build import build

    inner = replace(options, rev=None, experiment=None)
    if options.rev is None:
        assert options.experiment is not None
        with work_tree_elsewhere(workspace, options.experiment, options.overrides) as other:
            return build(other, inner, on_event, control=control)
    commit = resolve_commit(workspace.repo, options.rev)
    known = _fresh_already(workspace, commit, options)
    if known is not None:
        return replace(known, revision=commit)
    with commit_elsewhere(workspace, options.rev, experiment=options.experiment) as other:
        result = build(other, inner, on_event, control=control)
        return replace(result, revision=commit, not_locked=_not_locked(workspace, other, commit, result))


def _fresh_already(workspace: Workspace, commit: str, options: BuildOptions) -> BuildResult | None:
    """Return the answer where a commit's own lockfile and the cache give it, without a place; else None."""
    if options.overrides or options.force or options.since or options.compute or options.experiment:
        return None
    if any(name.startswith("PIPE_PARAM_") for name in os.environ):
        return None
    from pipesmith.build.deliveries import Deliveries
    from pipesmith.store.object_store import ObjectStore
    from pipesmith.workspace.at_commit import verdicts_at
    from pipesmith.workspace.plan import wanted_stages
    from pipesmith.workspace.results import BuildResult, StageResult
    from pipesmith.workspace.session import select_stages

    pipeline, verdicts = verdicts_at(workspace, commit)
    folder = workspace.pipe_dir
    store = ObjectStore(os.path.join(folder, "cache"), os.path.join(folder, "tmp"), workspace.state, pipeline.cache)
    named = select_stages(pipeline, options.stages) if options.stages else pipeline.targets
    wanted = wanted_stages(pipeline, named, options)
    owner = Place(folder="", of=workspace, seen_at="", tree="", revision=commit).owner
    deliveries = Deliveries.of(folder, workspace.root, pipeline.datastores, store, owner=owner)
    if options.deliver and deliveries.owed(wanted):
        return None
    stages = []
    for name in wanted:
        stage, verdict = pipeline.stages[name], verdicts[name]
        environment = pipeline.environments[stage.environment] if stage.environment else None
        if not verdict.fresh or verdict.broken or verdict.result is None or not stage.reuse:
            return None
        if environment is not None and environment.python == "system":
            return None  # only asking the running interpreter tells
        for out in verdict.result.outs:
            declared = stage.outputs.get(out.name)
            spared = options.allow_missing or (declared is not None and declared.temp)
            if not spared and not store.has(out.digest):
                return None
        stages.append(
            StageResult(
                name=name,
                status="fresh",
                fingerprint=verdict.fingerprint.key if verdict.fingerprint else None,
                outputs=verdict.result.outs,
                metrics=verdict.result.metrics,
                notes=verdict.notes,
            )
        )
    return BuildResult(run=None, status="up-to-date", stages=tuple(stages))


def _not_locked(workspace: Workspace, other: Workspace, commit: str, result: BuildResult) -> tuple[str, ...]:
    """Return the stages that are built now, and that the commit's own lockfile does not have so."""
    from pipesmith.workspace.revisions import lockfile_at

    if result.status == "planned":
        return ()
    theirs = lockfile_at(workspace, commit)
    ours = other.session().lockfile
    found = []
    for stage in result.stages:
        now = ours.stages.get(stage.name)
        then = theirs.stages.get(stage.name) if theirs is not None else None
        if now is not None and stage.status in ("ran", "restored", "fresh"):
            same = then is not None and then.fingerprint == now.fingerprint
            if (
                not same
                or then is None
                or {o.path: o.digest for o in then.outs} != {o.path: o.digest for o in now.outs}
            ):
                found.append(stage.name)
    return tuple(found)
