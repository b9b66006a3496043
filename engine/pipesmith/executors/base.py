"""The executor protocol: where a stage runs.

An executor gets whole jobs: what to run, what the job is given, what must come back. It knows nothing of lock, cache
or history. `submit` never blocks on the job; `Attempt.wait` does. The protocol fits far sides too: jobs that are
polled, no shared folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from pipesmith.records import field, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pipesmith.executors.gpu import GpuUsage

__all__ = [
    "FAR_HOME",
    "FAR_SIDE",
    "FAR_TMPDIR",
    "FAR_WORKSPACE",
    "Attempt",
    "Capacity",
    "Executor",
    "Job",
    "JobResult",
    "Layout",
    "Mount",
    "OutputSpec",
    "Side",
    "Usage",
]

# Where a job finds things on a far side, whatever they are called here: so that a job can be taken up by another build.
FAR_WORKSPACE = "/workspace"
FAR_SIDE = "/tmp/pipesmith"
FAR_HOME = f"{FAR_SIDE}/home"
FAR_TMPDIR = f"{FAR_SIDE}/tmp"


@record
class Mount:
    """One thing a job is given. origin: absolute path of a file, folder or link here. path: where it appears, relative
    to the workspace. copy True: a private copy that the job may scribble on (source); False: read-only (inputs), unless
    writable: what it writes is written at the origin then. A writable one may have an absolute path, in `tmpdir`.
    unit: the folder that it belongs to with others (the files of a dataset), which a far side may be sent as a whole.
    """

    origin: str
    path: str
    copy: bool = False
    writable: bool = False
    unit: str = ""


@record
class Side:
    """What a job on a far side has beside its workspace. origin: an absolute path here, which need not be there. place:
    where it appears there. back: what is there when the job has ended, whatever its end, replaces it. live: what is
    there while it runs does so too."""

    origin: str
    place: str
    back: bool = False
    live: bool = False


@record
class OutputSpec:
    name: str
    path: str


@record
class Layout:
    """What a sandbox holds. mounts: in order, later ones lie over earlier ones. folders: made empty, relative paths.
    outputs: what must be there after exit 0; their parent folders are made, they themselves are not.
    visible: absolute paths inside the workspace that stay readable at their own place (an interpreter's prefix, PATH
    folders). hidden: absolute folders outside the workspace that appear empty (the repository's git folder). withheld:
    relative paths in what is mounted that are not there (a nested repository's git folder)."""

    workspace: str  # absolute
    mounts: tuple[Mount, ...] = ()
    folders: tuple[str, ...] = ()
    outputs: tuple[OutputSpec, ...] = ()
    visible: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()


@record
class Job:
    """argv: executed as it is, in `cwd` (relative to the workspace). env: the whole environment. scratch: an absolute
    folder of this attempt's own, on the cache's file system; the sandbox is made inside it and outputs are found inside
    it. sandboxed False: runs in the workspace itself. log_path: where whole output goes. secrets: values masked in all
    that leaves the executor. node: the one of its compute's that was found to have room for it. key: its fingerprint,
    by which a far side knows it again. image: the environment that a container is made of. sides: for a far side alone;
    its `env` speaks of FAR_WORKSPACE and FAR_SIDE then. last: no other try follows, so that a person may look at the
    sandbox of this one when it has failed. interactive: a person sits at it."""

    run: str
    stage: str
    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    layout: Layout
    scratch: str
    log_path: str
    tmpdir: str
    sandboxed: bool = True
    timeout_s: float | None = None
    grace_s: float = 5.0
    secrets: tuple[str, ...] = ()
    cpus: float | None = None
    memory_bytes: int | None = None
    gpus: tuple[str, ...] = ()
    gpu_count: int = 0
    node: str = ""
    key: str = ""
    image: str | None = None
    sides: tuple[Side, ...] = ()
    last: bool = True
    interactive: bool = False


@record
class Usage:
    """wall_s, cpu_s: seconds. peak_bytes: largest resident size of one process."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_bytes: int = 0


@record
class JobResult:
    """exit_code: 0-255, or None when ended by `signal`. root: absolute folder in which the outputs lie at their paths.
    problem: one line when the job could not be started or was ended from outside, else None; help: what to do about it.
    gpu: of GPUs that the executor chose itself."""

    exit_code: int | None
    root: str
    signal: int | None = None
    timed_out: bool = False
    cancelled: bool = False
    out_of_memory: bool = False
    problem: str | None = None
    help: str | None = None
    usage: Usage = field(default_factory=Usage)
    gpu: GpuUsage | None = None
    tail: tuple[str, ...] = ()  # last lines of output, masked

    @property
    def ok(self) -> bool:
        return self.exit_code == 0 and not (self.timed_out or self.cancelled or self.problem)


@record
class Capacity:
    """What a compute has. gpus: ids as CUDA_VISIBLE_DEVICES names them. memory_bytes: None where unknown. nodes: name
    to what each of several machines has of it, on one of which a job must fit."""

    cpus: float
    memory_bytes: int | None
    gpus: tuple[str, ...] = ()
    nodes: Mapping[str, Capacity] = field(default_factory=dict)


class Attempt(Protocol):
    """One try of a job."""

    def wait(self) -> JobResult:
        """Block until the job has ended and all it left running is gone, then return how."""

    def cancel(self) -> None:
        """Ask it to end: TERM, then KILL after the grace time. Returns at once; safe from any thread, at any time."""


class Executor(Protocol):
    """Runs jobs on one compute. Thread-safe. is_far: jobs see none of this machine's files but those they are given."""

    is_far: bool

    def capacity(self) -> Capacity:
        """Return what the compute has. Raises EnvironmentFailure where it can't be reached."""

    def submit(
        self, job: Job, on_line: Callable[[str, str], None], may_start: Callable[[], object] = lambda: None
    ) -> Attempt:
        """Start a job. on_line(stream, text): each line of its output, masked, from a thread of the executor's.
        may_start(): asked when all is ready but the start of its command, by a thread of the executor's; blocks until
        that may start, and raises a PipeError where it must not."""

    def close(self) -> None:
        """End what is left and free what is held."""
