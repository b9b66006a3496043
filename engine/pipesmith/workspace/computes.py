"""The computes of a pipeline: the executor of each, what it has, and whether it can be reached."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipesmith.docker_client import Daemon
from pipesmith.errors import ConfigError, EnvironmentFailure, Finding, PipeError, UserError
from pipesmith.executors.base import Capacity, Executor
from pipesmith.pipeline.model import Compute, Environment, Stage

if TYPE_CHECKING:
    from pipesmith.executors.docker import DockerExecutor, DockerHost
    from pipesmith.workspace.session import Session

__all__ = ["ComputeState", "Computes", "compute_states"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeState:
    """One compute as it is now. state: `up`, `down` (it can't be reached), or `unsupported`. cpus, memory_bytes, gpus:
    (free, all). queue: containers of jobs that it has."""

    name: str
    kind: str
    state: str
    nodes: int = 0
    cpus: tuple[float, float] = (0.0, 0.0)
    memory_bytes: tuple[int, int] = (0, 0)
    gpus: tuple[int, int] = (0, 0)
    queue: int = 0
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what `compute status --json` prints of it."""
        names = ("free", "total")
        return {
            "name": self.name,
            "kind": self.kind,
            "state": self.state,
            "nodes": self.nodes,
            "cpus": dict(zip(names, self.cpus, strict=True)),
            "memory": dict(zip(names, self.memory_bytes, strict=True)),
            "gpus": dict(zip(names, self.gpus, strict=True)),
            "queue": self.queue,
            "error": self.error,
        }


@dataclass(slots=True)
class Computes:
    """The computes of one session. said: told what takes long, set by who builds."""

    session: Session
    said: Callable[[str], None] = lambda _text: None
    _daemons: dict[str, list[Daemon]] = field(default_factory=dict)
    _executors: dict[str, DockerExecutor] = field(default_factory=dict)

    def executors(self, local: Executor) -> Mapping[str, Executor]:
        """Return the executor of each compute that this version has one for. None is connected yet."""
        found: dict[str, Executor] = {"local": local}
        for name, compute in self.session.pipeline.computes.items():
            if compute.kind == "docker":
                found[name] = self._docker(compute)
            elif compute.kind == "local":
                found[name] = local
        return found

    def capacities(self, stages: Iterable[Stage], local: Executor) -> dict[str, Capacity]:
        """Return what the computes of stages that are to run have.

        Raises EnvironmentFailure where one can't be reached, ConfigError where a stage asks for more than it has."""
        found = {"local": local.capacity()}
        findings: list[Finding] = []
        for stage in stages:
            compute = self.session.pipeline.computes[stage.compute]
            if compute.kind != "docker":
                continue
            executor = self._docker(compute)
            if compute.name not in found:
                found[compute.name] = executor.capacity()
            findings += self._too_much(stage, executor.largest())
        if findings:
            raise ConfigError(findings)
        return found

    def _too_much(self, stage: Stage, most: Capacity) -> Iterable[Finding]:
        asked, where = stage.resources, f"`{stage.compute}`"
        told: list[tuple[str, str, str | None]] = []
        if asked.cpus is not None and asked.cpus > most.cpus:
            told.append(("cpus", f"`{stage.name}` asks for {asked.cpus:g} CPUs, {where} has {most.cpus:g}", None))
        if asked.memory_bytes and most.memory_bytes and asked.memory_bytes > most.memory_bytes:
            have = most.memory_bytes / 1024**3
            text = f"`{stage.name}` asks for {asked.raw.get('memory')} of memory, {where} has {have:.1f}G"
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
        return resolve_image(self.daemons(pipeline.computes[names[0]])[0], environment)

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

    def _docker(self, compute: Compute) -> DockerExecutor:
        if compute.name not in self._executors:
            from pipesmith.environments.images import Images
            from pipesmith.executors.docker import DockerExecutor, clone_name

            session = self.session
            images = Images(session.workspace.root, self._say)

            def image(daemon: Daemon, name: str) -> str:
                environment = session.pipeline.environments[name]
                pin = session.pins.environment_pin(environment)
                if pin is None:
                    raise EnvironmentFailure(f"environment `{name}` has no pin", "run `pipe env update`")
                return images.ensure(daemon, environment, pin)

            self._executors[compute.name] = DockerExecutor(
                compute.name,
                self._hosts(compute),
                clone=clone_name(session.workspace.root),
                image=image,
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
        """End what runs on computes besides this machine, and the connections to them."""
        for executor in self._executors.values():
            executor.close()
        for daemons in self._daemons.values():
            for daemon in daemons:
                daemon.close()


def _bytes(value: Any) -> int | None:
    from pipesmith.pipeline.units import parse_size_bytes

    return parse_size_bytes(value) if isinstance(value, str) else value


def compute_states(session: Session, names: Sequence[str] = ()) -> list[ComputeState]:
    """Return the computes (all without names) as they are now. One that can't be reached is `down`, with the error.

    Raises UserError for a name that is none."""
    from pipesmith.errors import nearest

    computes = session.pipeline.computes
    for name in names:
        if name not in computes:
            near = nearest(name, computes)
            raise UserError(
                f"no compute `{name}`", f"did you mean `{near}`?" if near else "`pipe compute ls` lists them"
            )
    try:
        return [_state(session, computes[name]) for name in (names or computes)]
    finally:
        session.computes.close()


def _state(session: Session, compute: Compute) -> ComputeState:
    if compute.kind == "local":
        return _this_machine(compute)
    if compute.kind != "docker":
        return ComputeState(
            name=compute.name,
            kind=compute.kind,
            state="unsupported",
            error=f"this version does not run stages on `{compute.kind}`",
        )
    try:
        executor = session.computes._docker(compute)
        capacity = executor.capacity()
        used_cpus, used_memory, used_gpus, queue = 0.0, 0, 0, 0
        for host in executor.hosts:
            cpus, memory, gpus, running = _used(host.daemon)
            used_cpus, used_memory, used_gpus = used_cpus + cpus, used_memory + memory, used_gpus + gpus
            queue += running
    except PipeError as error:
        return ComputeState(
            name=compute.name,
            kind=compute.kind,
            state="down",
            nodes=len(session.computes.daemons(compute)),
            error=error.text,
        )
    total_memory = capacity.memory_bytes or 0
    return ComputeState(
        name=compute.name,
        kind=compute.kind,
        state="up",
        nodes=len(executor.hosts),
        cpus=(max(0.0, capacity.cpus - used_cpus), capacity.cpus),
        memory_bytes=(max(0, total_memory - used_memory), total_memory),
        gpus=(max(0, len(capacity.gpus) - used_gpus), len(capacity.gpus)),
        queue=queue,
    )


def _used(daemon: Daemon) -> tuple[float, int, int, int]:
    """Return the CPUs, bytes and GPUs that running containers of pipesmith's were given, and how many they are."""
    from pipesmith.executors.docker_labels import STAGE

    cpus, memory, gpus, running = 0.0, 0, 0, 0
    with daemon.client() as client:
        for container in client.containers.list(filters={"label": STAGE}, ignore_removed=True):
            settings = container.attrs["HostConfig"]
            cpus += (settings.get("NanoCpus") or 0) / 1e9
            memory += settings.get("Memory") or 0
            gpus += sum(len(each.get("DeviceIDs") or ()) for each in settings.get("DeviceRequests") or ())
            running += 1
    return cpus, memory, gpus, running


def _this_machine(compute: Compute) -> ComputeState:
    from pipesmith.executors.gpus import GpuPool
    from pipesmith.executors.probe import machine_capacity

    capacity = machine_capacity()
    gpus = len(GpuPool(compute.gpus).gpus)
    memory = capacity.memory_bytes or 0
    return ComputeState(
        name=compute.name,
        kind=compute.kind,
        state="up",
        nodes=1,
        cpus=(max(0.0, capacity.cpus - os.getloadavg()[0]), capacity.cpus),
        memory_bytes=(_free_memory(memory), memory),
        gpus=(gpus, gpus),
    )


def _free_memory(total: int) -> int:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            rows = dict(line.split(":", 1) for line in file)
        return min(total, int(rows["MemAvailable"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError):
        return total
