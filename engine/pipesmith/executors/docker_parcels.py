"""What a container is sent before it is started, besides its inputs: one tar stream."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from pipesmith.executors.base import FAR_HOME, FAR_SIDE, FAR_TMPDIR, FAR_WORKSPACE, Job, Mount
from pipesmith.executors.docker_inputs import Unit, left_out
from pipesmith.tars import Parcel, pack

__all__ = ["packed"]


def packed(job: Job, units: Sequence[Unit], copied: Sequence[Mount]) -> Iterator[bytes]:
    """Yield a tar of source, folders, what lies beside the workspace, and inputs that no volume can hold (`copied`).

    units: the inputs that volumes hold, for which there are folders. Raises StageError for what can't be read."""
    parcels = [*_parcels(job, units), *(_copied(job, mount) for mount in copied)]
    return pack(parcels, os.getuid(), os.getgid())


def _parcels(job: Job, units: Sequence[Unit]) -> list[Parcel]:
    layout = job.layout
    found = [Parcel(None, place) for place in (FAR_WORKSPACE, FAR_SIDE, FAR_HOME, FAR_TMPDIR)]
    found += [Parcel(mount.origin, f"{FAR_WORKSPACE}/{mount.path}") for mount in layout.mounts if mount.copy]
    folders = {os.path.normpath(folder) for folder in layout.folders}
    folders |= {os.path.dirname(os.path.normpath(output.path)) for output in layout.outputs}
    folders |= {os.path.dirname(unit.path) for unit in units}
    found += [Parcel(None, f"{FAR_WORKSPACE}/{folder}") for folder in sorted(folders) if folder not in ("", ".")]
    for side in job.sides:
        if os.path.lexists(side.origin):
            found.append(Parcel(side.origin, side.place))
    return found


def _copied(job: Job, mount: Mount) -> Parcel:
    place = f"{FAR_WORKSPACE}/{os.path.normpath(mount.path)}"
    return Parcel(mount.origin, place, read_only=True, without=left_out(job.layout, mount))
