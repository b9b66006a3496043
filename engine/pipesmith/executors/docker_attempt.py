"""One try of a job in a container: made, given its files, started, followed, and what it made brought back."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipesmith.docker_api import DaemonAnswer, DockerApi, moment
from pipesmith.docker_client import Daemon, DaemonGone, answer, is_conflict
from pipesmith.docker_labels import CLONE, GPUS, OWNER, RUN, SHARED, STAGE, is_left, owner
from pipesmith.errors import Cancelled, EnvironmentFailure, PipeError
from pipesmith.executors.base import FAR_WORKSPACE, Job, JobResult, Mount, Usage
from pipesmith.executors.docker_gpus import ContainerGpus, FreeGpus, gpu_turn
from pipesmith.executors.docker_inputs import Unit, ensure_volume, mountpoint, units_of
from pipesmith.executors.docker_output import ContainerOutput
from pipesmith.executors.docker_results import FAILED_LIMIT, ContainerResults, LiveSides
from pipesmith.executors.docker_shared import SharedFolder, SharedResults
from pipesmith.executors.docker_watch import PATIENCE_S, ContainerLost, ContainerWatch, was_ended_from_outside
from pipesmith.executors.gpu import GpuUsage, gpus_text
from pipesmith.executors.output import JobOutput
from pipesmith.pipeline.units import size_text

if TYPE_CHECKING:
    from pipesmith.executors.docker import DockerExecutor, DockerHost

__all__ = ["DockerAttempt"]

_WAKE_S = 0.2
_UNANSWERED_S = 15.0  # how long one that was cancelled waits for a daemon that says nothing
_INIT_FAILED = "[FATAL tini"  # what Docker's init says of a command that can't be executed
_GPU_S = 1.0  # how often one that waits for a GPU looks again
_DISK_FULL = "no space left on device"


class _NotShared(Exception):
    """A daemon can't mount a folder of this machine's after all."""


class DockerAttempt:
    """Made by DockerExecutor.submit; lives in a thread of its own."""

    def __init__(
        self,
        executor: DockerExecutor,
        job: Job,
        on_line: Callable[[str, str], None],
        may_start: Callable[[], object] = lambda: None,
    ) -> None:
        self._executor = executor
        self._job = job
        self._on_line = on_line
        self._may_start = may_start
        self._cancelled = threading.Event()
        self._result: JobResult | None = None
        self._thread = threading.Thread(target=self._live, name=f"container {job.stage}", daemon=True)
        self._began = time.monotonic()
        self._log: int | None = None
        self._output: JobOutput | None = None
        self._reading = threading.Lock()
        self._host: DockerHost | None = None
        self._lost = False  # whether its container may still be there, and is left to the next build
        self._imaging = False  # whether the daemon is busy with its image
        self._cancelled_at = 0.0
        self._ran_s = 0.0  # how long its container has run already, of one that is taken up
        self._heard = 0.0  # when something last went there
        self._watch: ContainerWatch | None = None
        self._results: ContainerResults | SharedResults | None = None
        self._shared: SharedFolder | None = None  # what its container has of this machine
        self._gpus: tuple[str, ...] = ()  # numbers of those of its host that it was given
        self._gpu: GpuUsage | None = None
        self._units: list[Unit] = []
        self._copied: list[Mount] = []

    def start(self) -> None:
        self._thread.start()

    def wait(self) -> JobResult:
        """Block until the container is gone, then return how it ended.

        One that is cancelled is not waited for while its image is pulled or built, which goes on, for the next one; nor
        when its daemon says nothing any more."""
        while self._thread.is_alive():
            self._thread.join(_WAKE_S)
            if self._cancelled.is_set() and (self._imaging or self._is_unanswered()):
                return JobResult(exit_code=None, root=self._root, cancelled=True)
        assert self._result is not None
        return self._result

    def cancel(self) -> None:
        """Ask it to end."""
        self._cancelled_at = self._cancelled_at or time.monotonic()
        self._cancelled.set()

    def _is_unanswered(self) -> bool:
        heard = [self._cancelled_at + self._job.grace_s, self._heard]
        heard += [each.heard for each in (self._watch, self._results) if each is not None]
        if self._host is None or time.monotonic() < max(heard) + _UNANSWERED_S:
            return False
        if not self._lost:
            self._lost = True
            self._executor.silent(self._host)
            self._executor.said(
                f"the Docker daemon of {self._host.daemon.title} says nothing: `{self._job.stage}` may go on there"
            )
        return True

    @property
    def _root(self) -> str:
        return os.path.join(self._job.scratch, "sandbox")

    # -- its life -----------------------------------------------------------------------------------------------------

    def _live(self) -> None:
        told: dict[str, Any] = {}
        try:
            told = self._in_a_container()
        except Cancelled:
            told = {"cancelled": True}
        except ContainerLost as error:
            if self._cancelled.is_set():
                self._executor.said(error.text)
            told = {"problem": error.text, "cancelled": self._cancelled.is_set()}
        except PipeError as error:
            told = {"problem": error.headline, "help": error.help}
        except Exception as error:
            told = {"problem": self._refusal(error) or _fault(error)}
        finally:
            tail: tuple[str, ...] = ()
            if self._output is not None:
                with self._reading:
                    tail = self._output.end()
            if self._log is not None:
                os.close(self._log)
            used = self._watch
            full = self._job.memory_bytes if told.get("out_of_memory") else None  # it had all of it, seen or not
            self._result = JobResult(
                exit_code=told.get("exit"),
                root=self._root,
                timed_out=told.get("timed_out", False),
                cancelled=told.get("cancelled", False),
                out_of_memory=told.get("out_of_memory", False),
                problem=told.get("problem") or self._problem(told, tail),
                help=told.get("help"),
                usage=Usage(
                    wall_s=time.monotonic() - self._began,
                    cpu_s=used.cpu_s if used is not None else 0.0,
                    peak_bytes=max(used.peak_bytes if used is not None else 0, full or 0),
                ),
                gpu=self._gpu,
                tail=tail,
            )
            self._executor.ended(self)

    def _problem(self, told: dict[str, Any], tail: tuple[str, ...]) -> str | None:
        """Return what its last words say of why it failed, or what is wrong with its output."""
        code = told.get("exit")
        if code == 127 and any(line.startswith(_INIT_FAILED) for line in tail):
            return f"the command `{self._job.argv[0]}` is not in its image"
        failed = bool(code) and not (told.get("timed_out") or told.get("out_of_memory"))
        if failed and self._host is not None and any(_DISK_FULL in line.lower() for line in tail):
            return f"exited with {code}: no space was left where it wrote, on {self._host.daemon.title}"
        return self._output.problem if self._output is not None else None

    def _refusal(self, error: Exception) -> str | None:
        """Return what a daemon said no with; None for what is no answer of a daemon."""
        text = answer(error)
        if text is None or self._host is None or _DISK_FULL not in text.lower():
            return text
        name = self._executor.name
        return (
            f"the disk of {self._host.daemon.title} is full: {text}; "
            f"`pipe compute down {name}` removes inputs there that nothing uses"
        )

    def _in_a_container(self) -> dict[str, Any]:
        job = self._job
        os.makedirs(self._root)
        if job.log_path:
            os.makedirs(os.path.dirname(job.log_path), exist_ok=True)
            self._log = os.open(job.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        self._output = JobOutput(self._log, job.secrets, self._on_line)
        self._host = self._executor.take_host(job, self._name, self._cancelled.is_set)
        if self._host is None:
            raise Cancelled()
        try:
            try:
                return self._on(self._host, self._output)
            except _NotShared:
                return self._on(self._host, self._output)
        except DaemonGone as error:
            self._executor.went_away(self._host, error)
            raise
        except ContainerLost as error:
            self._executor.went_away(self._host, error, self._name)
            raise
        finally:
            if not self._lost:
                self._share_no_more()
            self._executor.give_host(self._host, job)

    def _on(self, host: DockerHost, said: JobOutput) -> dict[str, Any]:
        daemon = host.daemon
        with daemon.api() as api:
            adopted = self._adopted(api, daemon)
            container = adopted or self._made(api, host)
        told: dict[str, Any] = {}
        try:
            output = ContainerOutput(daemon, container, said, self._reading)
            if adopted is not None:
                self._executor.said(
                    f"`{self._job.stage}` goes on in a container of an earlier build, on {daemon.title}"
                )
                output.resume()
            else:
                following = output.attach()
                with daemon.api() as api:
                    self._fill(api, container)
                    following()
                    self._may_start()
                    self._start(api, container)
            told = self._followed(daemon, container, output)
            return told
        except ContainerLost:
            self._lost = True
            raise
        finally:
            if told.get("exit") == 0 and not (told.get("problem") or self._lost):
                shared, self._shared = self._shared, None
                self._executor.remove_aside(
                    daemon, container, self._name, besides=shared.remove if shared is not None else lambda: None
                )
            elif not self._lost:  # another try may want its name
                patient = "exit" in told and not self._cancelled.is_set()  # its daemon may just be started anew
                _drop(daemon, container, patience_s=PATIENCE_S if patient else 0.0)

    @contextmanager
    def prepared(self, host: DockerHost) -> Iterator[str]:
        """Give a container with all that the job is given, for others to start; it is removed at the end."""
        daemon = host.daemon
        self._host = host
        try:
            with daemon.api() as api:
                container = self._made(api, host)
            try:
                with daemon.api() as api:
                    self._fill(api, container)
                yield container
                self._results_of(daemon, container, stop=lambda: False).bring_sides()
            finally:
                _drop(daemon, container)
        finally:
            self._share_no_more()

    def _share_no_more(self) -> None:
        if self._shared is not None:
            self._shared.remove()
            self._shared = None

    def _followed(self, daemon: Daemon, container: str, output: ContainerOutput) -> dict[str, Any]:
        """Wait for the end of a container that runs, and bring back what it made."""
        live = LiveSides(container, self._job.sides, self._shared)
        gpus = ContainerGpus(container, self._gpus)

        def sampled(api: DockerApi) -> None:
            live.poll(api)
            gpus.poll(api)

        self._watch = ContainerWatch(daemon, container, self._job, output, self._cancelled, sampled, self._ran_s)
        self._began = time.monotonic()  # what came before was the way there
        try:
            told = self._watch.until_ended()
        finally:
            live.close()
            self._gpu = gpus.usage(time.monotonic() - self._began)
        self._finish(output)
        self._results = results = self._results_of(
            daemon, container, stop=lambda: self._cancelled.is_set() and not told.get("cancelled")
        )
        results.bring_sides()
        if told.get("cancelled"):
            return told
        failed = self._job.last
        if told["exit"] == 0 and not (told.get("timed_out") or told.get("problem")):
            failed = not results.bring_outputs()
        told["problem"] = told.get("problem") or self._watch.ended_from_outside()
        if failed or (told["problem"] and self._job.last):
            self._bring_sandbox(results)
        return told

    def _results_of(self, daemon: Daemon, container: str, stop: Callable[[], bool]) -> ContainerResults | SharedResults:
        if self._shared is not None:
            return SharedResults(self._shared, self._job, self._units)
        return ContainerResults(daemon=daemon, container=container, job=self._job, stop=stop)

    def _finish(self, output: ContainerOutput) -> None:
        try:
            output.finish()
        except DaemonGone as error:
            raise ContainerLost(
                f"{error.text}, before all that it said was here; the next build takes its container up"
            ) from None
        except Exception as error:
            text = answer(error)
            if text is None:
                raise
            self._executor.said(f"the log of `{self._job.stage}` is not whole: {text}")

    def _bring_sandbox(self, results: ContainerResults | SharedResults) -> None:
        try:
            left_out = results.bring_sandbox([unit.path for unit in self._units])
        except Cancelled:
            raise
        except Exception as error:
            self._executor.said(f"the sandbox of `{self._job.stage}` is not kept: {answer(error) or error}")
            return
        for path in left_out:
            self._executor.said(
                f"`{path}` of the sandbox of `{self._job.stage}` is not kept: "
                f"it has more than {size_text(FAILED_LIMIT)} in all"
            )

    # -- made ---------------------------------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return f"pipesmith-{self._job.key[-24:]}-{self._executor.clone}"

    def _adopted(self, api: DockerApi, daemon: Daemon) -> str | None:
        """Return a container that an ended build, or an earlier try, left running, or ended, with this very job."""
        if not self._job.key:
            return None
        self._executor.await_removed(self._name)
        found = api.container(self._name)
        if found is None:
            return None
        container, state = str(found["Id"]), found["State"]
        label = found["Config"]["Labels"].get(OWNER, "")
        if not is_left(label):
            raise EnvironmentFailure(
                f"a container of another build has the name `{self._name}`", f"`docker rm -f {self._name}`"
            )
        self._gpus = tuple(number for number in found["Config"]["Labels"].get(GPUS, "").split(",") if number)
        self._units, self._copied = units_of(self._job.layout, lambda _path: "")
        shared = found["Config"]["Labels"].get(SHARED)
        if shared:
            self._shared = SharedFolder(shared)
            if not self._shared.is_there:  # somebody has removed what it would be taken up for
                state = {"Status": "lost"}
        if state["Status"] in ("running", "paused"):
            self._ran_s = max(0.0, moment(api.info()["SystemTime"]) - moment(state["StartedAt"]))
            return container
        if state["Status"] == "exited" and not was_ended_from_outside(state):
            if state.get("ExitCode") == 0 or label != owner():  # an earlier try of this build has failed before
                return container
        elif state["Status"] == "exited":
            self._executor.said(
                f"a container of `{self._job.stage}` on {daemon.title} was ended from outside: it runs anew"
            )
        api.remove_container(container)
        self._gpus = ()
        self._share_no_more()
        return None

    def _made(self, api: DockerApi, host: DockerHost) -> str:
        """Make the container, with the volumes of its inputs, and GPUs as soon as as many are free."""
        job, daemon = self._job, host.daemon
        if job.image is None:
            raise EnvironmentFailure("it has no environment that a container could be made of")
        self._imaging = True
        try:
            image = self._executor.image(daemon, job.image)
        finally:
            self._imaging = False
        self._units, self._copied = units_of(job.layout, self._executor.digest)
        mounts = []
        for unit in self._units:
            volume = ensure_volume(
                api,
                daemon,
                unit,
                image,
                digest=self._executor.digest,
                stop=self._is_not_wanted,
                done_with=lambda container, name: self._executor.remove_aside(daemon, container, name),
            )
            mounts += _mounts(f"{FAR_WORKSPACE}/{unit.path}", volume, mountpoint(api, daemon, volume))
        if self._cancelled.is_set():
            raise Cancelled()
        if host.may_share():
            self._shared = SharedFolder.for_job(job)
            self._shared.fill(job, self._units, self._copied, self._is_not_wanted)
        if not job.gpu_count:
            return self._without_gpus(api, image, mounts)
        waits = ""
        while True:
            gpus = FreeGpus(api, host.gpus)
            if len(gpus.free) >= job.gpu_count:
                with gpu_turn(api, image, self._is_not_wanted):
                    gpus = FreeGpus(api, host.gpus)
                    if len(gpus.free) >= job.gpu_count:
                        self._gpus = tuple(sorted(gpus.free[: job.gpu_count], key=host.gpus.index))
                        return self._created(api, image, mounts)
            held = f", held by `{'`, `'.join(gpus.holders)}`" if gpus.holders else ""
            if job.interactive:
                asks = f"`{job.stage}` asks for {gpus_text(job.gpu_count)}{held}"
                self._executor.said(f"no GPU is free now: {asks}; the shell sees none")
                return self._without_gpus(api, image, mounts)
            told = f"`{job.stage}` waits for {gpus_text(job.gpu_count)} of {daemon.title}{held}"
            if told != waits:
                waits = told
                self._executor.said(told)
            if self._cancelled.wait(_GPU_S):
                raise Cancelled()

    def _without_gpus(self, api: DockerApi, image: str, mounts: list[Any]) -> str:
        return self._created(api, image, mounts, hidden=self._executor.names_gpus(api, image))

    def _created(self, api: DockerApi, image: str, mounts: list[Any], *, hidden: bool = False) -> str:
        """hidden: its image asks NVIDIA's container runtime for GPUs, which it must not have."""
        name = self._name if self._job.key else None
        while True:
            try:
                return api.create_container(self._settings(image, mounts, hidden=hidden), name)
            except DaemonAnswer as error:
                if self._is_not_shared(error.text):
                    continue
                if not is_conflict(error):
                    raise
                raise EnvironmentFailure(
                    f"a container named `{self._name}` is there already", f"`docker rm -f {self._name}`"
                ) from None

    def _is_not_shared(self, answer: str) -> bool:
        """Return whether a daemon says that it does not see the folder of this machine's; it is given none then."""
        if self._shared is None or self._shared.path not in answer or self._host is None:
            return False
        self._host.shares = False
        self._share_no_more()
        return True

    def _fill(self, api: DockerApi, container: str) -> None:
        """Give a container what it gets besides inputs, unless that lies here."""
        if self._shared is not None:
            return
        from pipesmith.executors.docker_parcels import packed

        api.put(container, "/", self._sent(packed(self._job, self._units, self._copied)))

    def _sent(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            if self._is_not_wanted():
                raise Cancelled()
            yield chunk

    def _is_not_wanted(self) -> bool:
        """Return whether it was cancelled; asked whenever something goes there."""
        self._heard = time.monotonic()
        return self._cancelled.is_set()

    def _settings(self, image: str, mounts: list[Any], *, hidden: bool) -> dict[str, Any]:
        job, gpus = self._job, self._gpus
        env = {**job.env, "CUDA_VISIBLE_DEVICES": ",".join(str(index) for index, _gpu in enumerate(gpus))}
        labels = {CLONE: self._executor.clone, RUN: job.run, STAGE: job.stage, OWNER: owner()}
        if hidden:
            env["NVIDIA_VISIBLE_DEVICES"] = "void"
        shared = self._shared
        if shared is not None:
            labels[SHARED] = shared.path
        limits: dict[str, Any] = {"Mounts": [*(shared.mounts() if shared is not None else ()), *mounts], "Init": True}
        if self._host is not None and self._host.daemon.may_give_network:
            limits["NetworkMode"] = "host"  # as a stage on this machine has it
        if job.cpus:
            limits["NanoCpus"] = int(job.cpus * 1e9)
        if job.memory_bytes:
            limits["Memory"] = limits["MemorySwap"] = job.memory_bytes
        if gpus:
            limits["DeviceRequests"] = [{"DeviceIDs": list(gpus), "Capabilities": [["gpu"]]}]
            labels[GPUS] = ",".join(gpus)
        terminal = {"AttachStdin": True, "OpenStdin": True, "StdinOnce": True, "Tty": os.isatty(0)}
        return {
            **(terminal if job.interactive else {}),
            "Image": image,
            "Cmd": list(job.argv),
            "Entrypoint": [],
            "Env": [f"{name}={value}" for name, value in env.items()],
            "WorkingDir": os.path.normpath(f"{FAR_WORKSPACE}/{job.cwd}"),
            "User": f"{os.getuid()}:{os.getgid()}",
            "Labels": labels,
            "HostConfig": limits,
        }

    def _start(self, api: DockerApi, container: str) -> None:
        try:
            api.start(container)
        except DaemonAnswer as error:
            text = self._refusal(error)
            if text is None:
                raise
            if self._is_not_shared(text):
                raise _NotShared from None
            if "could not select device driver" in text:
                raise EnvironmentFailure(
                    f"its Docker daemon can't give it a GPU: install NVIDIA's container toolkit there ({text})"
                ) from None
            missing = "executable file not found" in text or "no such file or directory" in text
            name = self._job.argv[0]
            raise EnvironmentFailure(
                f"the command `{name}` is not in its image" if missing else f"it can't be started: {text}"
            ) from None


def _fault(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"`{error.filename}`: {error.strerror}"
    return f"its container failed: {error!r}"


def _drop(daemon: Daemon, container: str, *, patience_s: float = 0.0) -> None:
    """Remove a container; where its daemon is gone, and does not come back in time, it stays for the next build."""
    until = time.monotonic() + patience_s
    while True:
        try:
            with daemon.api() as api:
                api.remove_container(container)
            return
        except DaemonGone:
            if time.monotonic() >= until:
                return
            time.sleep(_WAKE_S)


def _mounts(place: str, volume: str, lies: str) -> list[dict[str, Any]]:
    """Return a read-only mount of what lies in a volume, and one of the volume itself, which keeps it from being
    removed as long as the container is there."""
    return [
        {"Type": "bind", "Source": f"{lies}/data", "Target": place, "ReadOnly": True},
        {"Type": "volume", "Source": volume, "Target": f"/run/{volume}", "ReadOnly": True},
    ]
