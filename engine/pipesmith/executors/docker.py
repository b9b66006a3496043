"""Docker daemons, here or on other hosts: a job is a container, and no folder is shared with it.

What a job is given goes in as a tar stream before it is started; inputs lie in volumes named by their content, so that
a daemon is sent each content once; outputs come back as tar streams when it has ended. Containers are named by the
job's fingerprint: one that its pipe did not outlive is found by the next build that wants it, and taken up.
"""

from __future__ import annotations

import os
import threading
from _blake2 import blake2b
from collections.abc import Callable, Sequence
from typing import Any

from pipesmith.docker_api import DaemonAnswer, DockerApi
from pipesmith.docker_client import Daemon, is_conflict, is_missing
from pipesmith.docker_labels import CLONE, CONTENT, HELPER, OWNER, SHARED, STAGE, owner_is_gone
from pipesmith.errors import EnvironmentFailure, PipeError
from pipesmith.executors.base import Attempt, Capacity, Job
from pipesmith.executors.docker_attempt import DockerAttempt
from pipesmith.executors.docker_inputs import forget_volume
from pipesmith.executors.docker_shared import PREFIX, SharedFolder

__all__ = ["DockerExecutor", "DockerHost"]


class DockerHost:
    """One daemon of a compute. cpus, memory_bytes: what jobs may have of it together, None for all. gpus: ids. jobs:
    those that it has. down: why it can't be reached, None as long as it can. shares: whether containers have their
    workspace on this machine; None: not known yet."""

    def __init__(
        self,
        daemon: Daemon,
        cpus: float | None = None,
        memory_bytes: int | None = None,
        gpus: tuple[str, ...] = (),
    ) -> None:
        self.daemon = daemon
        self.cpus = cpus
        self.memory_bytes = memory_bytes
        self.gpus = gpus
        self.jobs: list[Job] = []
        self.down: EnvironmentFailure | None = None
        self.shares: bool | None = None

    @property
    def name(self) -> str:
        """What tells it from the other hosts of its compute."""
        return self.daemon.url or ""

    def look(self) -> None:
        """See whether it can be reached."""
        try:
            self.daemon.ask()
            self.down = None
        except EnvironmentFailure as error:
            self.down = error

    def capacity(self) -> Capacity:
        """Return what jobs may have of it together. Raises EnvironmentFailure where it can't be reached."""
        info = self.daemon.info()
        return Capacity(
            cpus=self.cpus or float(info.cpus), memory_bytes=self.memory_bytes or info.memory_bytes, gpus=self.gpus
        )

    def may_share(self) -> bool:
        """Return whether a container may be tried that has its workspace on this machine."""
        if self.shares is None:
            self.shares = self.daemon.may_share
        return self.shares

    def has_room(self, job: Job) -> bool:
        """Return whether a job fits beside those that run. One that would never fit is let through when it is alone."""
        if job.gpu_count and sum(each.gpu_count for each in (*self.jobs, job)) > len(self.gpus):
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
    absolute path here. said(text): told what takes long, and what went wrong that a build goes on without."""

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
        self._looking = threading.Lock()
        self._attempts: set[DockerAttempt] = set()
        self._used: set[DockerHost] = set()
        self._looked = False
        self._left: dict[str, DockerHost] | None = None  # where containers lie that a job may take up, by their names
        self._leaving: dict[str, threading.Event] = {}  # containers that are being removed, by name
        self._naming: dict[str, bool] = {}  # images that were looked at, whether they ask for GPUs
        self._closed = False

    def reachable(self) -> list[DockerHost]:
        """Return the hosts that can be reached; asked once, all at the same time. One of several that can't is told.

        Raises EnvironmentFailure where none can."""
        with self._looking:
            if not self._looked:
                self._look(self.hosts)
                self._looked = True
        return self._up()

    def _up(self) -> list[DockerHost]:
        found = [host for host in self.hosts if host.down is None]
        if not found:
            failures = [host.down for host in self.hosts if host.down is not None]
            if len(failures) == 1:
                raise failures[0]
            told = "; ".join(failure.text for failure in failures)
            raise EnvironmentFailure(f"none of the hosts of `{self.name}` can be reached: {told}", failures[0].help)
        return found

    def _look(self, hosts: Sequence[DockerHost]) -> None:
        threads = [threading.Thread(target=host.look, name=f"look {self.name}", daemon=True) for host in hosts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        down = [host.down for host in self.hosts if host.down is not None]
        if len(down) < len(self.hosts):
            for failure in down:
                self.said(f"{failure.text}; its stages go to the other hosts")

    def capacity(self) -> Capacity:
        """Return what all hosts that can be reached have together. Raises EnvironmentFailure where none can."""
        found = [host.capacity() for host in self.reachable()]
        memory = [each.memory_bytes for each in found if each.memory_bytes is not None]
        return Capacity(
            cpus=sum(each.cpus for each in found),
            memory_bytes=sum(memory) if memory else None,
            gpus=tuple(gpu for each in found for gpu in each.gpus),
            nodes={host.name: host.capacity() for host in self.reachable()} if len(self.hosts) > 1 else {},
        )

    def largest(self) -> Capacity:
        """Return the most that one job can have: of each, that of the host which has most."""
        found = [host.capacity() for host in self.reachable()]
        return Capacity(
            cpus=max(each.cpus for each in found),
            memory_bytes=max((each.memory_bytes or 0 for each in found), default=0) or None,
            gpus=max((each.gpus for each in found), key=len),
        )

    def submit(
        self, job: Job, on_line: Callable[[str, str], None], may_start: Callable[[], object] = lambda: None
    ) -> Attempt:
        """Start a job on a host that has room, as soon as one has. What goes wrong from here on its result tells."""
        attempt = DockerAttempt(self, job, on_line, may_start)
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
        for name in list(self._leaving):
            self.await_removed(name)
        for host in self._used:
            try:
                if host.down is None:
                    self._sweep(host)
            except PipeError:
                pass  # it is gone: the next build that uses it sweeps
            host.daemon.close()

    # -- for attempts -------------------------------------------------------------------------------------------------

    def take_host(self, job: Job, name: str, stop: Callable[[], bool]) -> DockerHost | None:
        """Wait for a host that has room, and take it. None: stopped meanwhile.

        name: of its container; a host that has it already comes first. Raises EnvironmentFailure where none can be
        reached."""
        self.reachable()
        self._find_left()
        with self._changed:
            while not stop():
                up = self._up()
                known = (self._left or {}).get(name)
                with_room = [
                    host for host in ([known] if known in up else up) if host is not None and host.has_room(job)
                ]
                if with_room:
                    host = min(with_room, key=lambda each: (each.name != job.node, len(each.jobs)))
                    host.jobs.append(job)
                    self._used.add(host)
                    return host
                self._changed.wait(0.2)
        return None

    def give_host(self, host: DockerHost, job: Job) -> None:
        with self._changed:
            host.jobs.remove(job)
            self._changed.notify_all()

    def went_away(self, host: DockerHost, why: EnvironmentFailure, container: str | None = None) -> None:
        """Send no more jobs to a host unless it answers. container: the name of one that may still be there."""
        with self._changed:
            if container is not None and self._left is not None:
                self._left[container] = host
        if len(self.hosts) == 1:
            return  # nothing else is left: each job asks it anew
        before = host.down
        host.look()
        if host.down is not None and before is None:
            self.said(f"{host.down.text}; stages go to the other hosts")

    def silent(self, host: DockerHost) -> None:
        """Ask nothing more of a host that answers nothing."""
        host.down = EnvironmentFailure(f"the Docker daemon of {host.daemon.title} says nothing")

    def names_gpus(self, api: DockerApi, image: str) -> bool:
        """Return whether an image asks NVIDIA's container runtime for GPUs, as those of CUDA do."""
        known = self._naming.get(image)
        if known is None:
            found = api.image(image) or {}
            variables = (found.get("Config") or {}).get("Env") or ()
            known = self._naming[image] = any(each.startswith("NVIDIA_VISIBLE_DEVICES=") for each in variables)
        return known

    def remove_aside(
        self, daemon: Daemon, container: str, name: str, besides: Callable[[], object] = lambda: None
    ) -> None:
        """Remove a container, and what is its own besides, while other things go on. name: its own, which is free once
        `await_removed` returns."""
        self._leaving[name] = gone = threading.Event()

        def work() -> None:
            try:
                with daemon.api() as api:
                    api.remove_container(container)
            except PipeError:
                pass  # the next build that uses this daemon removes it
            finally:
                besides()
                self._leaving.pop(name, None)
                gone.set()

        threading.Thread(target=work, name=f"remove {name}", daemon=True).start()

    def await_removed(self, name: str) -> None:
        """Wait until a container of this build is gone, if there was one of this name."""
        if leaving := self._leaving.get(name):
            leaving.wait()

    def ended(self, attempt: DockerAttempt) -> None:
        with self._changed:
            self._attempts.discard(attempt)

    def _find_left(self) -> None:
        """Note where containers of ended builds lie. With one host, there is nothing to choose."""
        with self._looking:
            if self._left is not None:
                return
            found: dict[str, DockerHost] = {}
            for host in self._up() if len(self.hosts) > 1 else ():
                try:
                    with host.daemon.api() as api:
                        found |= {name_of(each): host for each in containers_of(api, self.clone)}
                except EnvironmentFailure as error:
                    host.down = error
            self._left = found

    def _sweep(self, host: DockerHost) -> None:
        """Remove containers of this workspace whose pipe is gone, and that no stage of this build took up, and what was
        of use only to a pipe that is gone, of whichever workspace."""
        with host.daemon.api() as api:
            for container in containers_of(api, self.clone):
                labels = container["Labels"]
                if owner_is_gone(labels.get(OWNER, "")):
                    self.said(
                        f"a container that an ended build left on {host.daemon.title} is removed: {labels[STAGE]}"
                    )
                    remove_left(api, container)
            drop_helpers(api)


def containers_of(api: DockerApi, clone: str) -> list[dict[str, Any]]:
    """Return a workspace's containers on a daemon, ended ones too."""
    return api.containers({"label": [f"{CLONE}={clone}"]}, ended=True)


def remove_left(api: DockerApi, container: dict[str, Any]) -> None:
    """Remove a container that nobody will take up, with what it has of this machine."""
    api.remove_container(container["Id"])
    shared = container["Labels"].get(SHARED, "")
    if os.path.basename(shared).startswith(PREFIX):
        SharedFolder(shared).remove()


def name_of(container: dict[str, Any]) -> str:
    """Return the name of a container that a daemon has listed."""
    return str(container["Names"][0]).removeprefix("/")


def drop_helpers(api: DockerApi) -> int:
    """Remove containers that gave access to an image or a volume, and whose pipe is gone; return how many."""
    count = 0
    named = {"label": [OWNER], "name": [f"^/?{HELPER}"]}  # by name as well: an image hands its labels on
    for container in api.containers(named, ended=True):
        labels = container["Labels"]
        if STAGE not in labels and owner_is_gone(labels.get(OWNER, "")):
            api.remove_container(container["Id"])
            if labels.get(CONTENT):
                forget_volume(api, labels[CONTENT])
            count += 1
    return count


def drop_leftovers(daemon: Daemon, clone: str) -> tuple[int, int]:
    """Remove a workspace's containers whose pipe is gone, and inputs that no container uses; return how many of each.

    Raises EnvironmentFailure where the daemon can't be reached."""
    containers = volumes = 0
    with daemon.api() as api:
        for container in containers_of(api, clone):
            if owner_is_gone(container["Labels"].get(OWNER, "")):
                remove_left(api, container)
                containers += 1
        containers += drop_helpers(api)
        for mark in api.volumes(CONTENT):
            try:
                api.remove_volume(mark["Name"])  # first: what is not marked is not trusted
                api.remove_volume(mark["Name"].removesuffix("-whole"))
                volumes += 1
            except DaemonAnswer as error:
                if is_conflict(error):  # in use: it is whole all the same
                    api.create_volume(mark["Name"], mark["Labels"])
                elif not is_missing(error):
                    raise
    return containers, volumes


def clone_name(common_dir: str, prefix: str) -> str:
    """Return a name for a workspace of a clone that daemons which serve many machines can tell from others.

    common_dir: git's, which all worktrees share. prefix: the workspace's folder in the repository."""
    from socket import gethostname

    text = f"{gethostname()}\0{os.path.realpath(common_dir)}\0{prefix}"
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
