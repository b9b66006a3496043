"""What one build works with: the rooms below, wired together, and the choices of this one invocation."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipesmith.digest import Digest
from pipesmith.events import Event, Notice
from pipesmith.executors.base import Executor
from pipesmith.fingerprint.work_tree import WorkTree
from pipesmith.git.repository import Repository
from pipesmith.lockfile.model import LockedOut
from pipesmith.pipeline.model import Pipeline, Stage
from pipesmith.records import field, record
from pipesmith.store.action_cache import ActionCache
from pipesmith.store.object_store import ObjectStore
from pipesmith.store.state_db import StateDB
from pipesmith.verdict.reasons import Reason

__all__ = ["BuildContext", "Choices", "Elsewhere", "Outcome", "StageEnvironment"]


@record
class Choices:
    """The choices of one invocation. jobs: most stages at once. force: expanded names that run whatever is known. held:
    stages that are not tried again while their fingerprint has this key. deliver: `to` counts."""

    jobs: int
    keep_going: bool = False
    force: frozenset[str] = frozenset()
    held: Mapping[str, str | None] = field(default_factory=dict)
    restore: bool = True
    allow_missing: bool = False
    deliver: bool = True
    grace_s: float = 5.0


@record
class StageEnvironment:
    """What a stage's interpreter is made of here. path: folders put before PATH. prefix: the folder of all of
    it, None for none. variables: what its programs are to find besides; a virtual environment has none."""

    path: tuple[str, ...] = ()
    prefix: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)


@record(frozen=False)
class Outcome:
    """How a stage ended. status: fresh, restored, ran, failed, skipped or cancelled. times: seconds since the epoch."""

    stage: str
    status: str
    why: tuple[Reason, ...] = ()
    fingerprint: str | None = None
    outs: tuple[LockedOut, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    started: float = 0.0
    ended: float = 0.0
    exit_code: int | None = None
    signal: int | None = None
    cpu_s: float = 0.0
    peak_bytes: int = 0
    gpus: tuple[str, ...] = ()
    gpu_s: float = 0.0
    gpu_peak_bytes: int | None = None
    gpu_percent: float | None = None
    error: str | None = None
    help: str | None = None
    tail: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    deps: tuple[Any, ...] = ()
    source: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    environment: str | None = None
    compute: str = "local"
    log: str | None = None
    attempts: int = 0


@record
class Elsewhere:
    """A place of its own. seen_at: where stages see the workspace: at the path it has for its users. data_root: where
    relative paths of datastores begin. spared: the user's work tree, into which nothing is delivered, None for none.
    owner: who owes deliveries. failed: folder for the sandboxes of failed stages. input_at(path): where an input lies
    that the place lacks, None for one that it has."""

    seen_at: str
    data_root: str
    spared: str | None
    owner: str
    failed: str
    input_at: Callable[[str], str | None]


@record(frozen=False)
class BuildContext:
    """Shared by all jobs of a build. emit is thread-safe. fresh_tree: a WorkTree that looks at everything anew.
    digest_now(path, algorithm): of what lies at a workspace path at this moment.

    dirty(): whether the work tree differs from its commit; None where that is nobody's business.
    cold_s(stage, since): the seconds after a moment in which a stage's environment was being made.
    elsewhere: set where a commit is built in a place of its own; None in the workspace itself."""

    repo: Repository
    root: str
    pipe_dir: str
    pipeline: Pipeline
    run: str
    tree: WorkTree
    fresh_tree: Callable[[], WorkTree]
    digest_now: Callable[[str, str], Digest | None]
    state: StateDB
    store: ObjectStore
    actions: ActionCache
    executors: Mapping[str, Executor]
    choices: Choices
    listener: Callable[[Event], None]
    environment: Callable[[Stage], StageEnvironment]
    dataset_files: Callable[[str], Sequence[tuple[str, str]]]
    git: Mapping[str, Any] = field(default_factory=dict)
    dirty: Callable[[], bool] | None = None
    user: str = ""
    host: str = ""
    elsewhere: Elsewhere | None = None
    cold_s: Callable[[Stage, float], float] = lambda _stage, _since: 0.0
    emit_lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def seen_at(self) -> str:
        """Where stages with a sandbox see the workspace."""
        return self.elsewhere.seen_at if self.elsewhere is not None else self.root

    @property
    def data_root(self) -> str:
        """Where relative paths of datastores begin."""
        return self.elsewhere.data_root if self.elsewhere is not None else self.root

    def input_at(self, path: str) -> str:
        """Return the absolute path of an input that no stage makes. Raises StageError where it can't be had."""
        lent = self.elsewhere.input_at(path) if self.elsewhere is not None else None
        return lent if lent is not None else os.path.join(self.root, path)

    def emit(self, event: Event) -> None:
        with self.emit_lock:
            self.listener(event)

    def notice(self, level: str, text: str, help: str | None = None, stage: str | None = None) -> None:
        self.emit(Notice(time=time.time(), level=level, text=text, help=help, stage=stage))
