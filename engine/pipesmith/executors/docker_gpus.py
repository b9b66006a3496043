"""GPUs of a Docker daemon's machine: which are free, and what a container does with those that it was given.

Each is known by its number there. The container of a stage has a label with the numbers of its own, so whoever speaks
to the daemon sees what was given out. Choosing GPUs and making the container that has them is one step: it is done in
turn, by who has the container of a certain name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pipesmith.docker_api import DaemonAnswer, DockerApi, moment
from pipesmith.docker_client import is_conflict
from pipesmith.docker_labels import GPUS, HELPER, OWNER, STAGE, owner, owner_is_gone
from pipesmith.errors import Cancelled
from pipesmith.executors.gpu import GpuUsage

__all__ = ["ContainerGpus", "FreeGpus", "gpu_turn"]

_TURN = f"{HELPER}gpus"
_TURN_S = 0.1
_STALE_S = 120.0  # a turn takes no longer: who has it is gone
_THERE = ["created", "running", "paused", "restarting"]
_ALL = -1
_ASK_S = 5.0
_ASK = ["nvidia-smi", "--query-gpu=memory.used,utilization.gpu", "--format=csv,noheader,nounits"]


@contextmanager
def gpu_turn(api: DockerApi, image: str, stop: Callable[[], bool]) -> Iterator[None]:
    """Have a daemon's GPUs to oneself for the time of a `with`. image: any that the daemon has. Raises Cancelled."""
    while True:
        try:
            turn = api.create_container({"Image": image, "Cmd": ["none"], "Labels": {OWNER: owner()}}, _TURN)
            break
        except DaemonAnswer as error:
            if not is_conflict(error):
                raise
        other = api.container(_TURN)
        if other is not None and _is_stale(api, other):
            api.remove_container(other["Id"])
        elif stop():
            raise Cancelled()
        else:
            time.sleep(_TURN_S)
    try:
        yield
    finally:
        api.remove_container(turn)


def _is_stale(api: DockerApi, turn: dict[str, Any]) -> bool:
    if owner_is_gone(turn["Config"]["Labels"].get(OWNER, "")):
        return True
    return moment(api.info()["SystemTime"]) - moment(turn["Created"]) > _STALE_S


class FreeGpus:
    """The GPUs of a daemon's machine at a moment. numbers: all that may be given out. free: those that no stage has,
    whoever runs it, with those first that no other container was given either. holders: stages that have some."""

    def __init__(self, api: DockerApi, numbers: Sequence[str]) -> None:
        given: dict[str, str] = {}
        others: set[str] = set()
        for container in api.containers({"status": _THERE}, ended=True):
            labels = container["Labels"] or {}
            if GPUS in labels:
                if container["State"] != "created" or not owner_is_gone(labels.get(OWNER, "")):
                    given |= dict.fromkeys(labels[GPUS].split(","), labels.get(STAGE, ""))
            elif STAGE not in labels and container["State"] != "created":
                others |= _requested(api.container(container["Id"]), numbers)
        self.free = sorted((number for number in numbers if number not in given), key=lambda each: each in others)
        self.holders = sorted({stage for number, stage in given.items() if number in numbers and stage})


def _requested(container: dict[str, Any] | None, numbers: Sequence[str]) -> set[str]:
    """Return the GPUs that a container of somebody else's was given."""
    found: set[str] = set()
    for request in (container or {}).get("HostConfig", {}).get("DeviceRequests") or ():
        if any("gpu" in words for words in request.get("Capabilities") or ()):
            count = request.get("Count") or 0
            found |= set(request.get("DeviceIDs") or (numbers if count == _ALL else numbers[:count]))
    return found


class ContainerGpus:
    """What a container does with its GPUs, as far as `nvidia-smi` in it tells: NVIDIA's container toolkit puts it
    there, where the image does not ask it to do otherwise."""

    def __init__(self, container: str, numbers: Sequence[str]) -> None:
        self._container = container
        self._numbers = tuple(numbers)
        self._told = True
        self._ask_at = 0.0
        self._peak_bytes: int | None = None
        self._percents: list[float] = []

    def poll(self, api: DockerApi) -> None:
        """Ask, when it is time to."""
        if not self._numbers or not self._told or time.monotonic() < self._ask_at:
            return
        self._ask_at = time.monotonic() + _ASK_S
        try:
            code, said = api.execute(self._container, _ASK)
        except DaemonAnswer:
            code, said = 1, b""
        self._told = code == 0  # else it is not there, or can't tell
        rows = [[_number(word) for word in line.split(",")] for line in said.decode("utf-8", "replace").splitlines()]
        used = [row[0] for row in rows if len(row) == 2 and row[0] is not None]
        busy = [row[1] for row in rows if len(row) == 2 and row[1] is not None]
        if used:
            self._peak_bytes = max(self._peak_bytes or 0, int(sum(used)) << 20)
        if busy:
            self._percents.append(sum(busy) / len(busy))

    def usage(self, seconds: float) -> GpuUsage | None:
        """Return what it did, once it has ended. seconds: how long it ran."""
        if not self._numbers:
            return None
        return GpuUsage(
            ids=self._numbers,
            seconds=seconds * len(self._numbers),
            peak_bytes=self._peak_bytes,
            percent=sum(self._percents) / len(self._percents) if self._percents else None,
        )


def _number(word: str) -> float | None:
    """Return a number that `nvidia-smi` tells, None for `[N/A]` and its like."""
    try:
        return float(word)
    except ValueError:
        return None
