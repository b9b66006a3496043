"""Docker daemons, here or on other hosts: a job is a container, and no folder is shared with it.

What a job is given goes in as a tar stream before it is started; inputs lie in volumes named by their content, so that
a daemon is sent each content once; outputs come back as tar streams when it has ended. Containers are named by the
job's fingerprint: one that its pipe did not outlive is found by the next build that wants it, and taken up.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipesmith.docker_client import Daemon, is_conflict, is_missing, remove_container
from pipesmith.errors import EnvironmentFailure, PipeError
from pipesmith.executors.base import Attempt, Capacity, Job
from pipesmith.executors.docker_attempt import DockerAttempt
from pipesmith.executors.docker_labels import CLONE, CONTENT, OWNER, STAGE, owner_is_gone

__all__ = ["DockerExecutor", "DockerHost"]


@dataclass(slots=True, eq=False)
class DockerHost:
    """One daemon of a compute. cpus, memory_bytes: what jobs may have of it together, None for all. gpus: ids."""

    daemon: Daemon
    cpus: float | None = None
    memory_bytes: int | None = None
    gpus: tuple[str, ...] = ()
    jobs: list[Job] = field(default_factory=list)
    free_gpus: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.free_gpus = list(self.gpus)

    def capacity(self) -> Capacity:
        """Return what jobs may have of it together. Raises EnvironmentFailure where it can't be reached."""
        info = self.daemon.info()
        return Capacity(
            cpus=self.cpus or float(info.cpus), memory_bytes=self.memory_bytes or info.memory_bytes, gpus=self.gpus
        )

    def has_room(self, job: Job) -> bool:
        """Return whether a job fits beside those that run. One that would never fit is let through when it is alone."""
        if job.gpu_count > len(self.free_gpus):
            return False
        if not self.jobs:
            return True
        capacity = self.capacity()
        cpus = sum(each.cpus or 0 for each in self.jobs) + (job.cpus or 0)
        memory = sum(each.memory_bytes or 0 for each in self.jobs) + (job.memory_bytes or 0)
        return cpus <= capacity.cpus and (capacity.memory_bytes is None or memory <= capacity.memory_bytes)


class DockerExecutor:
    """name: the compute's in pipeline.toml. clone: names this clone's workspace to daemons that serve many.
    image(daemon, environment): the reference of an image that the daemon has then. digest(path): of what lies at an
    absolute path here. said(text): told what takes long."""

    is_far = True

    def __init__(
        self,
        name: str,
        hosts: Sequence[DockerHost],
        *,
        clone: str,
        image: Callable[[Daemon, str], str],
        digest: Callable[[str], str | None],
        said: Callable[[str], None],
    ) -> None:
        self.name = name
        self.hosts = tuple(hosts)
        self.clone = clone
        self.image = image
        self.digest = digest
        self.said = said
        self._changed = threading.Condition()
        self._attempts: set[DockerAttempt] = set()
        self._used: set[DockerHost] = set()
        self._closed = False
        self.sending = threading.Lock()  # one thing a time: the way there is what is short

    def capacity(self) -> Capacity:
        """Return what all hosts have together. Raises EnvironmentFailure where one can't be reached."""
        found = [host.capacity() for host in self.hosts]
        memory = [each.memory_bytes for each in found if each.memory_bytes is not None]
        return Capacity(
            cpus=sum(each.cpus for each in found),
            memory_bytes=sum(memory) if memory else None,
            gpus=tuple(gpu for each in found for gpu in each.gpus),
        )

    def largest(self) -> Capacity:
        """Return the most that one job can have: of each, that of the host which has most."""
        found = [host.capacity() for host in self.hosts]
        return Capacity(
            cpus=max(each.cpus for each in found),
            memory_bytes=max((each.memory_bytes or 0 for each in found), default=0) or None,
            gpus=max((each.gpus for each in found), key=len),
        )

    def submit(self, job: Job, on_line: Callable[[str, str], None]) -> Attempt:
        """Start a job on a host that has room, as soon as one has. What goes wrong from here on its result tells."""
        attempt = DockerAttempt(self, job, on_line)
        with self._changed:
            if self._closed:
                raise EnvironmentFailure(f"the compute `{self.name}` was closed")
            self._attempts.add(attempt)
        attempt.start()
        return attempt

    def close(self) -> None:
        """End what is left, and what builds that are gone have left on the hosts that were used."""
        with self._changed:
            self._closed = True
            left = list(self._attempts)
            self._changed.notify_all()
        for attempt in left:
            attempt.cancel()
        for attempt in left:
            attempt.wait()
        for host in self._used:
            try:
                self._sweep(host)
            except PipeError:
                pass  # it is gone: the next build that uses it sweeps
            host.daemon.close()

    # -- for attempts -------------------------------------------------------------------------------------------------

    def take_host(self, job: Job, stop: Callable[[], bool]) -> tuple[DockerHost, tuple[str, ...]] | None:
        """Wait for a host that has room, and take it with as many GPUs as the job asks for. None: stopped meanwhile."""
        with self._changed:
            while not stop():
                with_room = [host for host in self.hosts if host.has_room(job)]
                if with_room:
                    host = min(with_room, key=lambda each: len(each.jobs))
                    host.jobs.append(job)
                    gpus = tuple(host.free_gpus[: job.gpu_count])
                    del host.free_gpus[: job.gpu_count]
                    self._used.add(host)
                    return host, gpus
                self._changed.wait(0.2)
        return None

    def give_host(self, host: DockerHost, job: Job, gpus: tuple[str, ...]) -> None:
        with self._changed:
            host.jobs.remove(job)
            host.free_gpus = sorted([*host.free_gpus, *gpus], key=host.gpus.index)
            self._changed.notify_all()

    def ended(self, attempt: DockerAttempt) -> None:
        with self._changed:
            self._attempts.discard(attempt)

    def _sweep(self, host: DockerHost) -> None:
        """Remove containers of this workspace whose pipe is gone, and that no stage of this build took up."""
        with host.daemon.client() as client:
            for container in containers_of(client, self.clone):
                labels = container.labels
                if owner_is_gone(labels.get(OWNER, "")):
                    self.said(
                        f"a container that an ended build left on {host.daemon.title} is removed: {labels[STAGE]}"
                    )
                    remove_container(container)


def containers_of(client: Any, clone: str) -> list[Any]:
    """Return a workspace's containers on a daemon, ended ones too."""
    found: list[Any] = client.containers.list(all=True, filters={"label": f"{CLONE}={clone}"}, ignore_removed=True)
    return found


def drop_leftovers(daemon: Daemon, clone: str) -> tuple[int, int]:
    """Remove a workspace's containers whose pipe is gone, and inputs that no container uses; return how many of each.

    Raises EnvironmentFailure where the daemon can't be reached."""
    containers = volumes = 0
    with daemon.client() as client:
        for container in containers_of(client, clone):
            if owner_is_gone(container.labels.get(OWNER, "")):
                remove_container(container)
                containers += 1
        for mark in client.volumes.list(filters={"label": CONTENT}):
            name = mark.name.removesuffix("-whole")
            try:
                mark.remove()  # first: what is not marked is not trusted
                client.api.remove_volume(name)
                volumes += 1
            except Exception as error:
                if is_conflict(error):  # in use: it is whole all the same
                    client.volumes.create(mark.name, labels=mark.attrs.get("Labels"))
                elif not is_missing(error):
                    raise
    return containers, volumes


def clone_name(common_dir: str, prefix: str) -> str:
    """Return a name for a workspace of a clone that daemons which serve many machines can tell from others.

    common_dir: git's, which all worktrees share. prefix: the workspace's folder in the repository."""
    from hashlib import blake2b
    from socket import gethostname

    text = f"{gethostname()}\0{os.path.realpath(common_dir)}\0{prefix}"
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
