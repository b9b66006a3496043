"""One try of a job in a container: made, given its files, started, followed, and what it made brought back."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pipesmith.docker_client import Daemon, answer, is_conflict, is_missing, remove_container
from pipesmith.errors import Cancelled, EnvironmentFailure, PipeError
from pipesmith.executors.base import FAR_HOME, FAR_SIDE, FAR_TMPDIR, FAR_WORKSPACE, Job, JobResult, Usage
from pipesmith.executors.docker_inputs import ensure_volume, mountpoint, units_of
from pipesmith.executors.docker_labels import CLONE, OWNER, RUN, STAGE, owner, owner_is_gone
from pipesmith.executors.output import JobOutput
from pipesmith.tars import Parcel, pack, unpack

if TYPE_CHECKING:
    from pipesmith.executors.docker import DockerExecutor

__all__ = ["DockerAttempt"]

_SAMPLE_S = 1.0
_WAKE_S = 0.2
_LOOK_S = 0.1
_WAIT_S = 24 * 3600
_CHUNK = 2 << 20
_GONE_PATIENCE_S = 15.0
_INIT_FAILED = "[FATAL tini"  # what Docker's init says of a command that can't be executed


class DockerAttempt:
    """Made by DockerExecutor.submit; lives in a thread of its own."""

    def __init__(self, executor: DockerExecutor, job: Job, on_line: Callable[[str, str], None]) -> None:
        self._executor = executor
        self._job = job
        self._on_line = on_line
        self._cancelled = threading.Event()
        self._result: JobResult | None = None
        self._thread = threading.Thread(target=self._live, name=f"container {job.stage}", daemon=True)
        self._began = time.monotonic()
        self._log: int | None = None
        self._output: JobOutput | None = None
        self._reading = threading.Lock()
        self._lost = False  # whether the daemon went away: its container may still be there
        self._imaging = False  # whether the daemon is busy with its image
        self._peak_bytes = 0
        self._cpu_s = 0.0

    def start(self) -> None:
        self._thread.start()

    def wait(self) -> JobResult:
        """Block until the container is gone, then return how it ended.

        One that is cancelled while its image is pulled or built is not waited for: that goes on, for the next one."""
        while self._thread.is_alive():
            self._thread.join(_WAKE_S)
            if self._cancelled.is_set() and self._imaging:
                return JobResult(exit_code=None, root=os.path.join(self._job.scratch, "sandbox"), cancelled=True)
        assert self._result is not None
        return self._result

    def cancel(self) -> None:
        """Ask it to end."""
        self._cancelled.set()

    # -- its life -----------------------------------------------------------------------------------------------------

    def _live(self) -> None:
        told: dict[str, Any] = {}
        try:
            told = self._in_a_container()
        except Cancelled:
            told = {"cancelled": True}
        except PipeError as error:
            told = {"problem": error.headline}
        except OSError as error:
            told = {"problem": f"`{error.filename}`: {error.strerror}" if error.filename else str(error)}
        except Exception as error:
            told = {"problem": answer(error) or f"its container failed: {error!r}"}
        finally:
            tail: tuple[str, ...] = ()
            if self._output is not None:
                with self._reading:
                    tail = self._output.end()
                    told["problem"] = told.get("problem") or self._output.problem
            if told.get("exit") == 127 and any(line.startswith(_INIT_FAILED) for line in tail):
                told["problem"] = told.get("problem") or f"the command `{self._job.argv[0]}` is not in its image"
            if self._log is not None:
                os.close(self._log)
            self._result = JobResult(
                exit_code=told.get("exit"),
                root=os.path.join(self._job.scratch, "sandbox"),
                timed_out=told.get("timed_out", False),
                cancelled=told.get("cancelled", False),
                out_of_memory=told.get("out_of_memory", False),
                problem=told.get("problem"),
                usage=Usage(wall_s=time.monotonic() - self._began, cpu_s=self._cpu_s, peak_bytes=self._peak_bytes),
                tail=tail,
            )
            self._executor.ended(self)

    def _in_a_container(self) -> dict[str, Any]:
        job = self._job
        os.makedirs(os.path.join(job.scratch, "sandbox"))
        if job.log_path:
            os.makedirs(os.path.dirname(job.log_path), exist_ok=True)
            self._log = os.open(job.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        self._output = JobOutput(self._log, job.secrets, self._on_line)
        taken = self._executor.take_host(job, self._cancelled.is_set)
        if taken is None:
            raise Cancelled()
        host, gpus = taken
        try:
            with host.daemon.client() as client:
                return self._on(client, host.daemon, gpus)
        finally:
            self._executor.give_host(host, job, gpus)

    def _on(self, client: Any, daemon: Daemon, gpus: tuple[str, ...]) -> dict[str, Any]:
        container = self._adopted(client)
        following: list[threading.Thread]
        if container is not None:
            self._executor.said(f"`{self._job.stage}` goes on in a container of an earlier build, on {daemon.title}")
            following = [self._follow(daemon, container.id, stream, self._replayed) for stream in ("stdout", "stderr")]
        else:
            container = self._made(client, daemon, gpus)
        try:
            if container.status == "created":
                ready = threading.Event()
                following = [self._follow(daemon, container.id, "both", self._attached, ready)]
                ready.wait(10)
                self._start(container)
            told = self._watch(client, daemon, container.id)
            for thread in following:
                thread.join(5)
            self._bring_back(container, whole=told.get("exit") == 0 and not told.get("timed_out"))
            return told
        finally:
            if not self._lost:
                remove_container(container)

    # -- made ---------------------------------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return f"pipesmith-{self._job.key[-24:]}-{self._executor.clone}"

    def _adopted(self, client: Any) -> Any | None:
        """Return a container that an ended build left running, or ended, with this very job."""
        if not self._job.key:
            return None
        try:
            container = client.containers.get(self._name)
        except Exception as error:
            if is_missing(error):
                return None
            raise
        if not owner_is_gone(container.labels.get(OWNER, "")):
            raise EnvironmentFailure(
                f"a container of another build has the name `{self._name}`", f"`docker rm -f {self._name}`"
            )
        if container.status in ("running", "exited"):
            return container
        remove_container(container)
        return None

    def _taken(self) -> EnvironmentFailure:
        return EnvironmentFailure(f"a container of another build has its name, `{self._name}`")

    def _made(self, client: Any, daemon: Daemon, gpus: tuple[str, ...]) -> Any:
        job = self._job
        if job.image is None:
            raise EnvironmentFailure("it has no environment that a container could be made of")
        self._imaging = True
        try:
            image = self._executor.image(daemon, job.image)
        finally:
            self._imaging = False
        units, copied = units_of(job.layout, self._executor.digest)
        mounts = []
        for unit in units:
            volume = ensure_volume(
                client, daemon, unit, image, digest=self._executor.digest, stop=self._cancelled.is_set
            )
            mounts += _mounts(f"{FAR_WORKSPACE}/{unit.path}", volume, mountpoint(client, daemon, volume))
        if self._cancelled.is_set():
            raise Cancelled()
        settings = self._settings(image, mounts, gpus)
        try:
            container = client.containers.create(**settings)
        except Exception as error:
            if not is_conflict(error):
                raise
            raise EnvironmentFailure(
                f"a container named `{self._name}` is there already", f"`docker rm -f {self._name}`"
            ) from None
        try:
            parcels = [*_parcels(job, [unit.path for unit in units]), *(_copied(mount) for mount in copied)]
            container.put_archive("/", self._sent(pack(parcels, os.getuid(), os.getgid())))
        except BaseException:
            remove_container(container)
            raise
        return container

    def _sent(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            if self._cancelled.is_set():
                raise Cancelled()
            yield chunk

    def _settings(self, image: str, mounts: list[Any], gpus: tuple[str, ...]) -> dict[str, Any]:
        import docker.types

        job = self._job
        settings: dict[str, Any] = {
            "image": image,
            "command": list(job.argv),
            "entrypoint": [],
            "environment": {**job.env, "CUDA_VISIBLE_DEVICES": ",".join(str(index) for index, _gpu in enumerate(gpus))},
            "working_dir": os.path.normpath(f"{FAR_WORKSPACE}/{job.cwd}"),
            "user": f"{os.getuid()}:{os.getgid()}",
            "mounts": mounts,
            "init": True,
            "labels": {CLONE: self._executor.clone, RUN: job.run, STAGE: job.stage, OWNER: owner()},
            "stdin_open": False,
            "tty": False,
        }
        if job.key:
            settings["name"] = self._name
        if job.cpus:
            settings["nano_cpus"] = int(job.cpus * 1e9)
        if job.memory_bytes:
            settings["mem_limit"] = settings["memswap_limit"] = job.memory_bytes
        if gpus:
            request = docker.types.DeviceRequest(device_ids=list(gpus), capabilities=[["gpu"]])
            settings["device_requests"] = [request]
        return settings

    def _start(self, container: Any) -> None:
        try:
            container.start()
        except Exception as error:
            text = answer(error)
            if text is None:
                raise
            missing = "executable file not found" in text or "no such file or directory" in text
            name = self._job.argv[0]
            raise EnvironmentFailure(
                f"the command `{name}` is not in its image" if missing else f"it can't be started: {text}"
            ) from None

    # -- followed -----------------------------------------------------------------------------------------------------

    def _follow(
        self, daemon: Daemon, container: str, stream: str, read: Callable[..., None], *more: Any
    ) -> threading.Thread:
        def work() -> None:
            try:
                with daemon.client() as client:
                    read(client, container, stream, *more)
            except Exception:
                pass  # the daemon is gone, which the one that waits for the end finds out
            finally:
                for event in more:
                    event.set()

        thread = threading.Thread(target=work, name=f"output {self._job.stage}", daemon=True)
        thread.start()
        return thread

    def _attached(self, client: Any, container: str, _both: str, ready: threading.Event) -> None:
        stream = client.api.attach(container, stdout=True, stderr=True, stream=True, demux=True)
        ready.set()
        for out, err in stream:
            self._take("stdout", out)
            self._take("stderr", err)

    def _replayed(self, client: Any, container: str, stream: str) -> None:
        """Take all that a container has said so far, and what follows."""
        chosen = {"stdout": stream == "stdout", "stderr": stream == "stderr"}
        for data in client.api.logs(container, stream=True, follow=True, **chosen):
            self._take(stream, data)

    def _take(self, stream: str, data: bytes | None) -> None:
        if data and self._output is not None:
            with self._reading:
                self._output.feed(stream, data)

    def _watch(self, client: Any, daemon: Daemon, container: str) -> dict[str, Any]:
        """Wait for the end of a container, ask it to end when that is due, and return how it ended."""
        job = self._job
        told: dict[str, Any] = {"timed_out": False, "cancelled": False}
        ended = threading.Event()
        failure: list[Exception] = []

        def wait() -> None:
            try:
                with daemon.client() as own:
                    own.api.wait(container, timeout=_WAIT_S)
            except Exception as error:
                failure.append(error)
            ended.set()

        threading.Thread(target=wait, name=f"wait {job.stage}", daemon=True).start()
        self._began = time.monotonic()  # what came before was the way there
        deadline = self._began + job.timeout_s if job.timeout_s is not None else None
        kill_at: float | None = None
        sample_at = time.monotonic() + _LOOK_S
        while not ended.wait(_LOOK_S):
            now = time.monotonic()
            if kill_at is None and (self._cancelled.is_set() or (deadline is not None and now >= deadline)):
                told["cancelled" if self._cancelled.is_set() else "timed_out"] = True
                kill_at = now + job.grace_s
                _signal(client, container, "SIGTERM")
            elif kill_at is not None and now >= kill_at:
                kill_at = now + 1.0
                _signal(client, container, "SIGKILL")
            if now >= sample_at:
                self._sample(client, container)
                sample_at = time.monotonic() + _SAMPLE_S
        state = self._state(client, daemon, container, failure[0] if failure else None)
        told["exit"] = state.get("ExitCode")
        told["out_of_memory"] = bool(state.get("OOMKilled")) and told["exit"] != 0
        if state.get("Error"):
            told["problem"] = str(state["Error"])
        return told

    def _state(self, client: Any, daemon: Daemon, container: str, failure: Exception | None) -> dict[str, Any]:
        """Return how a container ended. A daemon that is gone is given a moment to come back: it may have kept it."""
        until = time.monotonic() + _GONE_PATIENCE_S
        while True:
            try:
                with daemon.client() as own:
                    state: dict[str, Any] = own.api.inspect_container(container)["State"]
                if not state.get("Running"):
                    return state
                if failure is None:
                    return state
                with daemon.client() as own:
                    own.api.wait(container, timeout=_WAIT_S)
                failure = None
            except Exception as error:
                if is_missing(error):
                    raise EnvironmentFailure("somebody removed its container") from None
                if time.monotonic() > until or self._cancelled.is_set():
                    self._lost = True
                    raise EnvironmentFailure(
                        f"the Docker daemon of {daemon.title} went away while it ran; "
                        "the next build takes its container up, if that is still there"
                    ) from None
                time.sleep(0.5)

    def _sample(self, client: Any, container: str) -> None:
        """Note what a container uses."""
        try:
            stats = client.api.stats(container, stream=False, one_shot=True)
        except Exception:
            return
        memory = stats.get("memory_stats", {})
        self._peak_bytes = max(self._peak_bytes, int(memory.get("max_usage") or memory.get("usage") or 0))
        self._cpu_s = max(self._cpu_s, stats.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage", 0) / 1e9)

    # -- brought back -------------------------------------------------------------------------------------------------

    def _bring_back(self, container: Any, *, whole: bool) -> None:
        """Bring outputs back, where the command ended well, and what it left beside the workspace in any case."""
        for side in self._job.sides:
            if side.back:
                self._fetch(container, side.place, side.origin)
        if whole:
            for output in self._job.layout.outputs:
                place = os.path.join(self._job.scratch, "sandbox", output.path)
                os.makedirs(os.path.dirname(place), exist_ok=True)
                self._fetch(container, f"{FAR_WORKSPACE}/{output.path}", place)

    @staticmethod
    def _fetch(container: Any, path: str, place: str) -> None:
        """Unpack what lies at a path in a container; nothing there is fine."""
        try:
            chunks, _info = container.get_archive(path, chunk_size=_CHUNK)
        except Exception as error:
            if is_missing(error):
                return
            raise
        if os.path.isdir(place) and not os.path.islink(place):
            shutil.rmtree(place)
        elif os.path.lexists(place):
            os.unlink(place)
        unpack(chunks, place)


def _parcels(job: Job, units: list[str]) -> list[Parcel]:
    """Return what a container is given, besides inputs: source, folders, and what lies beside the workspace."""
    layout = job.layout
    found = [Parcel(None, place) for place in (FAR_WORKSPACE, FAR_SIDE, FAR_HOME, FAR_TMPDIR)]
    found += [Parcel(mount.origin, f"{FAR_WORKSPACE}/{mount.path}") for mount in layout.mounts if mount.copy]
    folders = {os.path.normpath(folder) for folder in layout.folders}
    folders |= {os.path.dirname(os.path.normpath(output.path)) for output in layout.outputs}
    folders |= {os.path.dirname(unit) for unit in units}
    found += [Parcel(None, f"{FAR_WORKSPACE}/{folder}") for folder in sorted(folders) if folder not in ("", ".")]
    for side in job.sides:
        if os.path.lexists(side.origin):
            found.append(Parcel(side.origin, side.place))
    return found


def _copied(mount: Any) -> Parcel:
    return Parcel(mount.origin, f"{FAR_WORKSPACE}/{os.path.normpath(mount.path)}", read_only=True)


def _mounts(place: str, volume: str, lies: str) -> list[Any]:
    """Return a read-only mount of what lies in a volume, and one of the volume itself, which keeps it from being
    removed as long as the container is there."""
    import docker.types

    return [
        docker.types.Mount(target=place, source=f"{lies}/data", type="bind", read_only=True),
        docker.types.Mount(target=f"/run/{volume}", source=volume, type="volume", read_only=True),
    ]


def _signal(client: Any, container: str, name: str) -> None:
    import docker.errors

    try:
        client.api.kill(container, signal=name)
    except docker.errors.APIError:
        pass  # it has ended
