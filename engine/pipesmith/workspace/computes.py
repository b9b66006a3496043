"""The computes of a pipeline: the executor of each, what it has, and whether it can be reached."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from pipesmith.build.later import Later
from pipesmith.docker_client import Daemon, DaemonGone
from pipesmith.docker_labels import used_by_jobs
from pipesmith.errors import ConfigError, EnvironmentFailure, Finding, PipeError, UserError
from pipesmith.executors.base import Capacity, Executor
from pipesmith.pipeline.model import Compute, Environment, Stage
from pipesmith.records import as_dict, record, replace

if TYPE_CHECKING:
    from pipesmith.environments.images import Images
    from pipesmith.executors.docker import DockerExecutor, DockerHost
    from pipesmith.executors.gpu import Driver
    from pipesmith.executors.gpu_watch import GpuWatch
    from pipesmith.executors.gpus import GpuPool
    from pipesmith.workspace.session import Session
    from pipesmith.workspace.workspace import Workspace

__all__ = [
    "ComputeState",
    "Computes",
    "GpuInfo",
    "Share",
    "compute_states",
    "give_back",
    "wait_for",
    "warm_up",
]

_Thing = TypeVar("_Thing")


@record(kw_only=False)
class Share:
    """How much there is of something, and how much of it jobs were given."""

    total: float = 0.0
    used: float = 0.0

    @property
    def free(self) -> float:
        return max(0.0, self.total - self.used)

    def as_json(self) -> dict[str, float]:
        return {"free": self.free, "used": self.used, "total": self.total}


@record
class ComputeState:
    """One compute as it is now. state: `up`, `down` (it can't be reached), or `unsupported`. nodes: its machines, of a
    pool those that can be reached; `error` names the others. memory: bytes. queue: jobs that it has at work. devices:
    the GPUs of this machine. where: it is, for people."""

    name: str
    kind: str
    state: str
    nodes: int = 0
    cpus: Share = Share()
    memory: Share = Share()
    gpus: Share = Share()
    queue: int = 0
    error: str | None = None
    devices: tuple[GpuInfo, ...] = ()
    where: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return what `compute ls --json` and `compute status --json` print of it."""
        return {
            "name": self.name,
            "kind": self.kind,
            "where": self.where,
            "state": self.state,
            "nodes": self.nodes,
            "cpus": self.cpus.as_json(),
            "memory": self.memory.as_json(),
            "gpus": self.gpus.as_json(),
            "queue": self.queue,
            "error": self.error,
            "devices": [as_dict(each) for each in self.devices],
        }


@record
class GpuInfo:
    """One GPU of this machine as it is now. used: bytes that all programs have of it; promised: bytes that stages were
    given; None where unknown. processes: of other programs. state: `free`, `shared` (a part of it is given out),
    `given` (all of it is), `used` (no stage has it, and other programs do), or why it is of no use any more."""

    id: str
    index: int
    name: str
    state: str
    mig: bool
    memory: int | None
    used: int | None
    promised: int | None
    percent: int | None
    processes: tuple[str, ...] = ()


class Computes:
    """The computes of one session. said: told what takes long, set by who builds."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.said: Callable[[str], None] = lambda _text: None
        self._daemons: dict[str, list[Daemon]] = {}
        self._executors: dict[str, DockerExecutor] = {}
        self._watch: GpuWatch | None = None
        self._pools: dict[str, GpuPool] = {}

    @cached_property
    def driver(self) -> Driver:
        """What the driver of this machine's GPUs counts; asked once."""
        if not self.has_driver:
            from pipesmith.executors.gpu import Driver

            return Driver(problem="no NVIDIA driver is installed")
        from pipesmith.executors.nvml import ask_driver

        return ask_driver()

    @cached_property
    def has_driver(self) -> bool:
        """Whether there is a driver that could be asked. Costs next to nothing, where asking it may take a second."""
        from pipesmith.executors.gpu import driver_may_be_there

        return driver_may_be_there()

    def gpu_pool(self, name: str) -> GpuPool | None:
        """Return the GPUs of this machine that stages on a compute can have; None where that is another machine."""
        computes = self.session.pipeline.computes
        if computes[name].kind != "local":
            return None
        if name not in self._pools:
            self._pools[name] = self._pool(computes[name], computes["local"])
        return self._pools[name]

    def _pool(self, compute: Compute, default: Compute) -> GpuPool:
        from pipesmith.executors.gpus import pool_of

        if self._watch is None and self.driver.gpus:
            from pipesmith.executors.gpu_watch import GpuWatch

            self._watch = GpuWatch()
        return pool_of(default.gpus if compute.gpus is None else compute.gpus, self.driver, self._watch)

    def executors(self, local: Executor) -> Mapping[str, Executor]:
        """Return the executor of each compute that this version has one for. None is connected yet."""
        found: dict[str, Executor] = {"local": local}
        for name, compute in self.session.pipeline.computes.items():
            if compute.kind == "docker":
                found[name] = self.docker(compute)
            elif compute.kind == "local":
                found[name] = local
        return found

    def here(self, name: str = "local") -> Capacity:
        """Return what stages may have of this machine together: what there is, and no more than the compute says."""
        from pipesmith.executors.machine import machine_capacity

        found = machine_capacity()
        options = self.session.pipeline.computes[name].options if name in self.session.pipeline.computes else {}
        cpus, memory = options.get("cpus"), _bytes(options.get("memory"))
        return replace(
            found,
            cpus=found.cpus if cpus is None else min(found.cpus, cpus),
            memory_bytes=min(filter(None, (found.memory_bytes, memory)), default=None),
        )

    def look_ahead(self, stages: Iterable[Stage]) -> None:
        """Begin to ask the daemons of stages that are to run, whose answers are wanted soon."""
        computes = self.session.pipeline.computes
        for name in {stage.compute for stage in stages if computes[stage.compute].kind == "docker"}:
            Later(self.docker(computes[name]).reachable, f"look ahead {name}")
            _ = self._images  # imported while that is on its way

    def capacities(self, stages: Iterable[Stage]) -> dict[str, Capacity]:
        """Return what the computes of stages that are to run have.

        Raises EnvironmentFailure where one can't be reached, ConfigError where a stage asks for more than it has."""
        found = {"local": self.here()}
        findings: list[Finding] = []
        for stage in stages:
            compute = self.session.pipeline.computes[stage.compute]
            if compute.kind != "docker":
                continue
            executor = self.docker(compute)
            if compute.name not in found:
                found[compute.name] = executor.capacity()
            more = list(self._too_much(stage, executor.largest()))
            down = [host.down.text for host in executor.hosts if host.down is not None]
            if more and down:
                raise EnvironmentFailure(
                    f"{more[0].text} without the hosts that can't be reached: {'; '.join(down)}",
                    "`pipe compute status` asks all of them",
                )
            findings += more
        if findings:
            raise ConfigError(findings)
        return found

    def _too_much(self, stage: Stage, most: Capacity) -> Iterable[Finding]:
        asked, where = stage.resources, f"`{stage.compute}`"
        told: list[tuple[str, str, str | None]] = []
        if asked.cpus is not None and asked.cpus > most.cpus:
            told.append(("cpus", f"`{stage.name}` asks for {asked.cpus:g} CPUs, {where} has {most.cpus:g}", None))
        if asked.memory_bytes and most.memory_bytes and asked.memory_bytes > most.memory_bytes:
            from pipesmith.pipeline.units import memory_text

            have = memory_text(most.memory_bytes)
            text = f"`{stage.name}` asks for {asked.raw.get('memory')} of memory, {where} has {have}"
            told.append(("memory", text, None))
        if (asked.gpus or 0) > len(most.gpus):
            gpus = f"{asked.gpus} GPU{'s' if asked.gpus != 1 else ''}"
            text = f"`{stage.name}` asks for {gpus}, {where} has {len(most.gpus)}"
            told.append(("gpus", text, f"say how many it has: `[compute.{stage.compute}]` with `gpus = N`"))
        for name, text, help in told:
            key = f"stage.{stage.base}.resources.{name}"
            yield Finding(file=self.session.pipeline.file, line=self.session.line(key), key=key, text=text, help=help)

    def resolve_image(self, environment: Environment) -> str:
        """Return an environment's `image` with its digest, as a daemon that will need it knows it."""
        from pipesmith.environments.images import resolve_image

        pipeline = self.session.pipeline
        users = [stage.compute for stage in pipeline.stages.values() if stage.environment == environment.name]
        names = [name for name in dict.fromkeys(users) if pipeline.computes[name].kind == "docker"]
        if not names:
            raise UserError(
                f"environment `{environment.name}` is an image, and no stage that uses it runs in containers",
                'give one a `compute` of `kind = "docker"`',
            )
        failure: EnvironmentFailure | None = None
        for daemon in (daemon for name in names for daemon in self.daemons(pipeline.computes[name])):
            try:
                return resolve_image(daemon, environment)
            except DaemonGone as error:  # another one will do
                failure = failure or error
        assert failure is not None
        raise failure

    def daemons(self, compute: Compute) -> list[Daemon]:
        """Return the daemons of a compute of kind docker."""
        if compute.name not in self._daemons:
            entries: Sequence[Any] = compute.options.get("hosts") or [compute.options.get("host")]
            tls = {
                name: os.path.join(self.session.workspace.root, os.path.expanduser(path))
                for name, path in (compute.options.get("tls") or {}).items()
            }
            urls = [entry.get("url") if isinstance(entry, Mapping) else entry for entry in entries]
            self._daemons[compute.name] = [Daemon(compute.name, url, tls) for url in urls]
        return self._daemons[compute.name]

    def image_on(self, daemon: Daemon, environment: str) -> str:
        """Return the reference of an environment's image, made or pulled where the daemon lacks it. Thread-safe.

        Raises EnvironmentFailure."""
        declared = self.session.pipeline.environments[environment]
        with self.session.pins.located(environment):
            if declared.dockerfile:
                return self._built(daemon, declared)
            pin = self.session.pins.environment_pin(declared)
            if pin is None:
                raise EnvironmentFailure(f"environment `{environment}` has no pin", "run `pipe env update`")
            return self._images.ensure(daemon, declared, pin)

    def _built(self, daemon: Daemon, environment: Environment) -> str:
        from pipesmith.environments.definition import dockerfile_digest

        session, folder = self.session, environment.context
        assert folder is not None
        digest = dockerfile_digest(environment, session.tree.source_id)
        if digest is None:
            raise EnvironmentFailure(f"`{environment.dockerfile}` is not there")
        files = [path for path, _mode in session.tree.source_files(folder)]
        context = [(os.path.join(session.workspace.root, path), os.path.relpath(path, folder)) for path in files]
        return self._images.built(daemon, environment, digest, context)

    def push_image(self, compute: Compute, environment: str) -> str:
        """Send an environment's image to its registry and return its name there. Raises EnvironmentFailure."""
        daemon = self.docker(compute).reachable()[0].daemon
        name = self.image_on(daemon, environment)
        with self.session.pins.located(environment):
            self._images.push(daemon, name)
        return name

    def images_on(self, compute: Compute, environment: str) -> list[str]:
        """Return an environment's image on each daemon of a compute that can be reached; one that can't is told.

        Raises EnvironmentFailure where none can."""
        return [self.image_on(host.daemon, environment) for host in self.docker(compute).reachable()]

    @cached_property
    def _images(self) -> Images:
        from pipesmith.environments.images import Images

        def beside(daemon: Daemon) -> list[Daemon]:
            """Those of its pool, then all others that are in use anyway."""
            pools = sorted(self._daemons.values(), key=lambda pool: daemon not in pool)
            others = [(other, daemon in pool) for pool in pools for other in pool if other is not daemon]
            return [other for other, of_pool in others if of_pool or other.reached]

        return Images(self.session.workspace.root, self._say, self.session.cold.making, beside)

    def docker(self, compute: Compute) -> DockerExecutor:
        if compute.name not in self._executors:
            from pipesmith.executors.docker import DockerExecutor, clone_name

            session = self.session
            self._executors[compute.name] = DockerExecutor(
                compute.name,
                self._hosts(compute),
                clone=clone_name(session.workspace.repo.common_dir, session.workspace.prefix),
                image=self.image_on,
                digest=self._digest,
                said=self._say,
            )
        return self._executors[compute.name]

    def _hosts(self, compute: Compute) -> list[DockerHost]:
        from pipesmith.executors.docker import DockerHost

        entries: Sequence[Any] = compute.options.get("hosts") or [None]
        found = []
        for daemon, entry in zip(self.daemons(compute), entries, strict=True):
            own = entry if isinstance(entry, Mapping) else {}
            gpus = own.get("gpus", compute.gpus) or 0
            found.append(
                DockerHost(
                    daemon,
                    cpus=own.get("cpus", compute.options.get("cpus")),
                    memory_bytes=_bytes(own.get("memory", compute.options.get("memory"))),
                    gpus=tuple(str(index) for index in range(gpus)),
                )
            )
        return found

    def _digest(self, path: str) -> str | None:
        found = self.session.stat_cache.digest(path)
        return found.text if found is not None else None

    def _say(self, text: str) -> None:
        self.said(text)

    def close(self) -> None:
        """End what runs on computes besides this machine, and the connections to them and to this machine's GPUs."""
        watch, self._watch = self._watch, None
        self._pools = {}
        if watch is not None:
            watch.close()
        for executor in self._executors.values():
            executor.close()
        for daemons in self._daemons.values():
            for daemon in daemons:
                daemon.close()


def _bytes(value: Any) -> int | None:
    from pipesmith.pipeline.units import parse_size_bytes

    return parse_size_bytes(value) if isinstance(value, str) else value


def _usable(session: Session, names: Sequence[str]) -> list[Compute]:
    """Return the named computes, all without names. Raises UserError, also for a named one that this version can't do
    anything with."""
    found = _named(session, names)
    for compute in found if names else ():
        if compute.kind not in ("local", "docker"):
            text = f"this version does not run stages on `{compute.kind}` (`{compute.name}`)"
            raise UserError(text, "`pipe compute ls` lists computes and their kinds")
    return found


def _named(session: Session, names: Sequence[str]) -> list[Compute]:
    from pipesmith.errors import nearest

    computes = session.pipeline.computes
    for name in names:
        if name not in computes:
            near = nearest(name, computes)
            help = f"did you mean `{near}`?" if near else "`pipe compute ls` lists them"
            raise UserError(f"no compute `{name}`", help)
    return [computes[name] for name in (names or computes)]


def _where(compute: Compute) -> str:
    """Return where a compute is, for people."""
    hosts = compute.options.get("hosts") or ()
    urls = [str(each.get("url")) if isinstance(each, Mapping) else str(each) for each in hosts]
    where = compute.options.get("host") or ", ".join(urls) or compute.options.get("address")
    default = {"local": "this machine", "docker": "the Docker daemon that `docker` uses here"}
    return str(where or default.get(compute.kind, ""))


def compute_states(workspace: Workspace, names: Sequence[str] = ()) -> list[ComputeState]:
    """Return the computes (all without names) as they are now. One that can't be reached is `down`, with the error.

    Raises UserError for a name that is none."""
    session = workspace.session()
    try:
        return [replace(_state(session, compute), where=_where(compute)) for compute in _named(session, names)]
    finally:
        session.computes.close()


def wait_for(workspace: Workspace, names: Sequence[str], timeout_s: float) -> list[ComputeState]:
    """Wait until all named computes can be reached, or the time is over, and return how they are then."""
    _usable(workspace.session(), names)
    until = time.monotonic() + timeout_s
    while True:
        states = compute_states(workspace, names)
        if all(state.state != "down" for state in states) or time.monotonic() >= until:
            return states
        time.sleep(1.0)


def warm_up(workspace: Workspace, names: Sequence[str], said: Callable[[str], None]) -> list[ComputeState]:
    """Have computes ready for the stages that run there: every daemon reached, and the images of their environments on
    it. One that can't be reached keeps none of the others waiting. Raises EnvironmentFailure where an image can't be
    had; pins that are missing are resolved and locked."""
    from pipesmith.workspace.build import refuse_inside_a_stage

    refuse_inside_a_stage("pipe compute up")
    session = workspace.session()
    session.computes.said = said
    session.cold.tell(said)
    chosen = {compute.name: compute for compute in _usable(session, names)}
    wanted = {
        (stage.compute, stage.environment)
        for stage in session.pipeline.stages.values()
        if stage.environment is not None and stage.compute in chosen and chosen[stage.compute].kind == "docker"
    }
    try:
        from pipesmith.workspace.envs import resolve_and_lock

        resolve_and_lock(session, sorted({name for _compute, name in wanted}), said)
        failures = _each(sorted(wanted), lambda pair: session.computes.images_on(chosen[pair[0]], pair[1]))
    finally:
        session.computes.close()
    return _states_after(failures, workspace, names)


def give_back(workspace: Workspace, names: Sequence[str], said: Callable[[str], None]) -> list[ComputeState]:
    """Remove what computes keep of ended builds: containers that nobody looks after, and inputs that no container uses.

    Images stay: they are the daemon's, and `docker image prune` knows them. A compute that can't be reached keeps none
    of the others from being cleaned."""
    from pipesmith.workspace.build import refuse_inside_a_stage

    refuse_inside_a_stage("pipe compute down")
    session = workspace.session()
    session.computes.said = said

    def clean(compute: Compute) -> None:
        from pipesmith.executors.docker import clone_name, drop_leftovers

        clone = clone_name(workspace.repo.common_dir, workspace.prefix)
        for host in session.computes.docker(compute).reachable():
            containers, volumes = drop_leftovers(host.daemon, clone)
            said(f"{host.daemon.title}: {_count(containers, 'container')} and {_count(volumes, 'input')} removed")

    try:
        failures = _each([compute for compute in _usable(session, names) if compute.kind == "docker"], clean)
    finally:
        session.computes.close()
    return _states_after(failures, workspace, names)


def _each(things: Iterable[_Thing], work: Callable[[_Thing], object]) -> list[EnvironmentFailure]:
    """Do something with each, whatever becomes of the others; return what failed."""
    failures = []
    for thing in things:
        try:
            work(thing)
        except EnvironmentFailure as error:
            failures.append(error)
    return failures


def _states_after(
    failures: Sequence[EnvironmentFailure], workspace: Workspace, names: Sequence[str]
) -> list[ComputeState]:
    """Return computes as they are now; raises the first failure that no state of theirs tells of."""
    states = compute_states(workspace, names)
    told = [state.error or "" for state in states]
    for failure in failures:
        if not any(failure.text in text for text in told):
            raise failure
    return states


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def _state(session: Session, compute: Compute) -> ComputeState:
    if compute.kind == "local":
        return _this_machine(session, compute)
    if compute.kind != "docker":
        return ComputeState(
            name=compute.name,
            kind=compute.kind,
            state="unsupported",
            error=f"this version does not run stages on `{compute.kind}`",
        )
    executor = session.computes.docker(compute)
    try:
        capacity, up = executor.capacity(), executor.reachable()
        cpus, memory, gpus, queue = 0.0, 0, 0, 0
        for host in up:
            used = used_by_jobs(host.daemon)
            cpus, memory, gpus, queue = cpus + used[0], memory + used[1], gpus + used[2], queue + used[3]
    except PipeError as error:
        nodes = len(executor.hosts)
        return ComputeState(name=compute.name, kind=compute.kind, state="down", nodes=nodes, error=error.text)
    down = [host.down.text for host in executor.hosts if host.down is not None]
    return ComputeState(
        name=compute.name,
        kind=compute.kind,
        state="up",
        nodes=len(up),
        error="; ".join(down) or None,
        cpus=Share(capacity.cpus, cpus),
        memory=Share(capacity.memory_bytes or 0, memory),
        gpus=Share(len(capacity.gpus), gpus),
        queue=queue,
    )


def _this_machine(session: Session, compute: Compute) -> ComputeState:
    devices, error = _gpus_here(session, compute.name)
    capacity = session.computes.here(compute.name)
    memory = capacity.memory_bytes or 0
    return ComputeState(
        name=compute.name,
        kind=compute.kind,
        state="up",
        nodes=1,
        cpus=Share(capacity.cpus, min(capacity.cpus, os.getloadavg()[0])),
        memory=Share(memory, memory - _free_memory(memory)),
        gpus=Share(len(devices), sum(each.state != "free" for each in devices)),
        error=error,
        devices=devices,
    )


def _gpus_here(session: Session, name: str) -> tuple[tuple[GpuInfo, ...], str | None]:
    """Return the GPUs of this machine as they are now, and what is wrong with them."""
    from pipesmith.liveness import told_process

    pool = session.computes.gpu_pool(name)
    assert pool is not None
    try:
        states = pool.states()
    except PipeError as error:
        return (), error.text
    driver = session.computes.driver
    devices = tuple(
        GpuInfo(
            id=state.gpu.id,
            index=state.gpu.index,
            name=state.gpu.name,
            state=state.word,
            mig=state.gpu.mig,
            memory=state.gpu.memory_bytes or None,
            used=state.reading.used_bytes,
            promised=state.promised_bytes if state.gpu.memory_bytes else None,
            percent=state.reading.percent,
            processes=tuple(told_process(pid) for pid in state.others),
        )
        for state in states
    )
    return devices, driver.problem if driver.gpus else None


def _free_memory(total: int) -> int:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            rows = dict(line.split(":", 1) for line in file)
        return min(total, int(rows["MemAvailable"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError):
        return total
