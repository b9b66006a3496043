"""Inputs of containers: volumes named by their content, filled once a daemon.

A volume can't be renamed, so a second, empty one beside it says that it is whole. A container that is never started
gives access to it while it is filled, and by its fixed name keeps others from filling it too.
"""

from __future__ import annotations

import os
import threading
import time
from _blake2 import blake2b
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipesmith.docker_api import DaemonAnswer, DockerApi
from pipesmith.docker_client import Daemon, DaemonGone, is_conflict, is_missing
from pipesmith.docker_labels import CONTENT, HELPER, OWNER, is_left, owner
from pipesmith.errors import Cancelled, EnvironmentFailure, StageError
from pipesmith.executors.base import Layout, Mount
from pipesmith.records import record

__all__ = ["Unit", "ensure_volume", "forget_volume", "is_inside", "left_out", "mountpoint", "units_of"]

_DATA = "/v"
_RETRY_S = 0.2


@record(kw_only=False)
class Unit:
    """One input: path in the workspace, and what lies there as (path below it or ``, absolute origin, digest text).
    without: absolute paths here that are no part of it."""

    path: str
    entries: tuple[tuple[str, str, str], ...]
    without: frozenset[str] = frozenset()

    @property
    def content(self) -> str:
        """The name of what lies in it: the same wherever it is."""
        hasher = blake2b(digest_size=20)
        for below, _origin, digest in self.entries:
            hasher.update(f"{below}\0{digest}\0".encode("utf-8", "surrogateescape"))
        return hasher.hexdigest()


def units_of(layout: Layout, digest: Callable[[str], str | None]) -> tuple[list[Unit], list[Mount]]:
    """Return the inputs that volumes can hold, and the mounts that have to be copied in: links, and what lies inside of
    another one, or holds a folder of the job's own.

    digest(path): of what lies at an absolute path here. Raises StageError where nothing does."""
    grouped: dict[str, list[Mount]] = {}
    for mount in layout.mounts:
        if not (mount.copy or mount.writable or os.path.isabs(mount.path)):
            grouped.setdefault(os.path.normpath(mount.unit or mount.path), []).append(mount)
    own = [os.path.normpath(path) for path in (*(m.path for m in layout.mounts if m.copy), *layout.folders)]
    own += [os.path.normpath(output.path) for output in layout.outputs]
    units: list[Unit] = []
    copied: list[Mount] = []
    for path, mounts in grouped.items():
        others = [*own, *(other for other in grouped if other != path)]
        entangled = path == "." or any(
            is_inside(other, path) or is_inside(path, other) for other in others if other != "."
        )
        if entangled or any(os.path.islink(mount.origin) for mount in mounts):
            copied += mounts
            continue
        entries = []
        for mount in mounts:
            found = digest(mount.origin)
            if found is None:
                raise StageError(f"`{mount.path}` can't be given to it: there is nothing at {mount.origin}")
            below = os.path.relpath(mount.path, path)
            entries.append(("" if below == "." else below, mount.origin, found))
        without = frozenset().union(*(left_out(layout, mount) for mount in mounts))
        units.append(Unit(path, tuple(sorted(entries)), without))
    return units, copied


def left_out(layout: Layout, mount: Mount) -> frozenset[str]:
    """Return the absolute paths here of what is withheld of a mount."""
    path = os.path.normpath(mount.path)
    within = [os.path.relpath(each, path) for each in layout.withheld if is_inside(os.path.normpath(each), path)]
    return frozenset(os.path.join(mount.origin, each) for each in within)


def is_inside(path: str, folder: str) -> bool:
    """Return whether a path in normal form is a folder, or lies in it."""
    return path == folder or path.startswith(f"{folder}/")


def ensure_volume(
    api: DockerApi,
    daemon: Daemon,
    unit: Unit,
    image: str,
    *,
    digest: Callable[[str], str | None],
    stop: Callable[[], bool],
    done_with: Callable[[str, str], None],
) -> str:
    """Return the name of the volume that holds a unit, filled first where the daemon does not have it.

    image: any that is there. What lies in it is below `data`. done_with(id, name): told of the container that gave
    access to it, which is of no use any more. Raises StageError where the input changed meanwhile, Cancelled when
    `stop` says so."""
    name = f"pipesmith-{unit.content}"
    while api.volume(f"{name}-whole") is None:
        if stop():
            raise Cancelled()
        with _alone(name) as alone:
            holder = _hold(api, name, image) if alone else None
            if holder is None:
                time.sleep(_RETRY_S)
                continue
            try:
                _fill(api, holder, name, unit, digest, stop)
            except BaseException:
                _let_go(daemon, holder, name)
                raise
            done_with(holder, f"{HELPER}{name}")
    return name


_filled_here: set[str] = set()  # by some thread of this process
_guard = threading.Lock()


@contextmanager
def _alone(name: str) -> Iterator[bool]:
    """Give whether this thread is the only one of this process that fills a volume, for the time of a `with`."""
    with _guard:
        alone = name not in _filled_here
        _filled_here.add(name)
    try:
        yield alone
    finally:
        if alone:
            with _guard:
                _filled_here.discard(name)


def _fill(
    api: DockerApi,
    holder: str,
    name: str,
    unit: Unit,
    digest: Callable[[str], str | None],
    stop: Callable[[], bool],
) -> None:
    from pipesmith.tars import Parcel, pack

    if api.volume(f"{name}-whole") is not None:
        return  # another process was quicker
    parcels = [
        Parcel(origin, f"data/{below}" if below else "data", read_only=True, without=unit.without)
        for below, origin, _digest in unit.entries
    ]
    api.put(holder, _DATA, _checked(pack(parcels, os.getuid(), os.getgid()), stop))
    for below, origin, known in unit.entries:
        if digest(origin) != known:
            raise StageError(f"input `{os.path.join(unit.path, below)}` changed while it was sent", "build again")
    api.create_volume(f"{name}-whole", {CONTENT: unit.content})


def _let_go(daemon: Daemon, holder: str, volume: str) -> None:
    """Remove the container that gave access to a volume, and the volume, which is not whole. What a daemon that is gone
    keeps of them is found by who fills it next."""
    try:
        with daemon.api() as api:
            api.remove_container(holder)
            forget_volume(api, volume)
    except (DaemonAnswer, DaemonGone):
        pass


def forget_volume(api: DockerApi, name: str) -> None:
    """Remove a volume and what says that it is whole: the latter first."""
    for each in (f"{name}-whole", name):
        try:
            api.remove_volume(each, force=True)
        except DaemonAnswer as error:
            if not (is_missing(error) or is_conflict(error)):  # in use: another one has taken it up
                raise


def _checked(chunks: Iterator[bytes], stop: Callable[[], bool]) -> Iterator[bytes]:
    for chunk in chunks:
        if stop():
            raise Cancelled()
        yield chunk


def _hold(api: DockerApi, name: str, image: str) -> str | None:
    """Return a container that gives access to a volume, made anew with it; None while another process has one. No other
    thread of this one may."""
    filler = f"{HELPER}{name}"
    other = api.container(filler)
    if other is not None:
        if not is_left(other["Config"]["Labels"].get(OWNER, "")):
            return None
        api.remove_container(other["Id"])
        forget_volume(api, name)  # who knows what it was filled with
    try:
        return api.create_container(
            {
                "Image": image,
                "Cmd": ["none"],
                "Labels": {OWNER: owner(), CONTENT: name},
                "HostConfig": {"Binds": [f"{name}:{_DATA}"]},
            },
            filler,
        )
    except DaemonAnswer as error:
        if is_conflict(error):
            return None
        raise


def mountpoint(api: DockerApi, daemon: Daemon, name: str) -> str:
    """Return where a volume lies on the daemon's own machine."""
    found = (api.volume(name) or {}).get("Mountpoint")
    if not found:
        raise EnvironmentFailure(f"the Docker daemon of {daemon.title} keeps volumes where they can't be mounted from")
    return str(found)
