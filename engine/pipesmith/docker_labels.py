"""The labels of containers and volumes that pipesmith makes, and what they tell."""

from __future__ import annotations

import os
import socket

from pipesmith.docker_client import Daemon
from pipesmith.liveness import is_alive, process_mark

__all__ = [
    "CLONE",
    "CONTENT",
    "GPUS",
    "HELPER",
    "OWNER",
    "RUN",
    "SHARED",
    "STAGE",
    "is_left",
    "owner",
    "owner_is_gone",
    "used_by_jobs",
]

CLONE = "pipesmith.clone"  # of which workspace
RUN = "pipesmith.run"
STAGE = "pipesmith.stage"
OWNER = "pipesmith.owner"  # `HOST PID MARK`: the process that looks after it
GPUS = "pipesmith.gpus"  # of a container: the numbers of those that it was given
SHARED = "pipesmith.shared"  # of a container: the folder of its pipe's machine that holds its workspace
CONTENT = "pipesmith.content"  # of a volume: the name of what lies in it
HELPER = "pipesmith-for-"  # how the names of containers begin that give access to an image or a volume


def owner() -> str:
    """Return what names this process among those of all hosts."""
    return f"{socket.gethostname()} {os.getpid()} {process_mark()}"


def owner_is_gone(text: str) -> bool:
    """Return whether the process that an OWNER label names has ended. Another host's can't be asked: False."""
    host, _, rest = text.partition(" ")
    pid, _, mark = rest.partition(" ")
    return host == socket.gethostname() and pid.isdecimal() and not is_alive(int(pid), mark)


def is_left(text: str) -> bool:
    """Return whether what has an OWNER label was left by an ended process, or by this one itself, which a caller knows
    not to use it."""
    return text == owner() or owner_is_gone(text)


def used_by_jobs(daemon: Daemon) -> tuple[float, int, int, int]:
    """Return the CPUs, bytes and GPUs that running containers of pipesmith's were given, and how many they are.

    Raises EnvironmentFailure where the daemon can't be reached."""
    cpus, memory, gpus, running = 0.0, 0, 0, 0
    with daemon.api() as api:
        for each in api.containers({"label": [STAGE]}, ended=False):
            found = api.container(each["Id"])
            if found is None:
                continue  # it has ended meanwhile
            settings = found["HostConfig"]
            cpus += (settings.get("NanoCpus") or 0) / 1e9
            memory += settings.get("Memory") or 0
            gpus += sum(len(each.get("DeviceIDs") or ()) for each in settings.get("DeviceRequests") or ())
            running += 1
    return cpus, memory, gpus, running
