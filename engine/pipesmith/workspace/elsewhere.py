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
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from pipesmith.build.interrupts import Interrupts
from pipesmith.errors import EnvironmentFailure, UserError
from pipesmith.git.detached import add_work_tree, fill
from pipesmith.git.repository import Repository
from pipesmith.git.snapshot import commit_tree
from pipesmith.records import field, record
from pipesmith.retention.places import REGISTERING, place, sweep_places
from pipesmith.store.modes import prepare
from pipesmith.workspace.filling import copy_work_tree, fill_submodules, source_places
from pipesmith.workspace.recording import snapshot_of
from pipesmith.workspace.workspace import PIPELINE_NAME, Workspace

__all__ = ["Place", "commit_elsewhere", "work_tree_elsewhere", "workspace_at"]


@record
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
    commit = repo.resolve(revision)
    folder = "" if repo.is_bare else os.path.relpath(start, repo.top)
    folder = "" if folder == "." else folder
    listed = os.fsdecode(repo.run("ls-tree", "-r", "-z", "--full-tree", "--name-only", commit)).split("\0")
    found = [each for each in listed if os.path.basename(each) == PIPELINE_NAME]
    while True:
        if (f"{folder}/{PIPELINE_NAME}" if folder else PIPELINE_NAME) in found:
            return Workspace(repo, os.path.join(repo.top, folder) if folder else repo.top)
        if not folder:
            break
        folder = os.path.dirname(folder)
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
    commit = repo.resolve(revision)
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
        fill_submodules(workspace.repo, other.repo, workspace.prefix)
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
            copy_work_tree(repo, other.repo, workspace.prefix, source_places(session.pipeline, workspace.prefix))
            if not os.path.lexists(os.path.join(other.root, PIPELINE_NAME)):  # git ignores it
                os.makedirs(other.root, exist_ok=True)
                shutil.copy2(os.path.join(workspace.root, PIPELINE_NAME), other.root)
        yield other


@contextmanager
def _worktree(workspace: Workspace, commit: str, made: Mapping[str, Any]) -> Iterator[Workspace]:
    repo = workspace.repo
    if os.environ.get("GIT_QUARANTINE_PATH"):
        raise EnvironmentFailure(
            "what is being pushed can't be built before it is accepted: git allows no work tree of it",
            "build it in the hook `post-receive`; `pipe status --rev` judges it before",
        )
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
        name = other.in_repo(PIPELINE_NAME)
        raise UserError(f"there is no {name} at {commit[:10]}", "name a commit that has one")
