"""The environments that lie on this disk, and removing those that nobody has used for long."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Collection

from pipesmith.environments.materialise import MARKER, environments_folder, hold, is_whole
from pipesmith.lockfile.model import EnvironmentPin
from pipesmith.records import record

__all__ = ["EnvironmentOnDisk", "list_environments", "pin_on_disk", "remove_unused"]


@record
class EnvironmentOnDisk:
    """pin: `pin_digest` of what it was built from. last_used, created: seconds since the epoch. whole: it can be used.
    size_bytes: what removing it would free, so files shared with uv's cache by hard links don't count."""

    key: str
    path: str
    pin: str
    python: str
    packages: tuple[str, ...]
    size_bytes: int
    created: float
    last_used: float
    whole: bool


def list_environments() -> list[EnvironmentOnDisk]:
    """Return all finished environments, the last used first."""
    folder = environments_folder()
    found: list[EnvironmentOnDisk] = []
    try:
        keys = os.listdir(folder)
    except OSError:
        return []
    for key in keys:
        path = os.path.join(folder, key)
        try:
            used = os.stat(os.path.join(path, MARKER)).st_mtime
            with open(os.path.join(path, MARKER), encoding="utf-8") as file:
                said = json.load(file)
            found.append(
                EnvironmentOnDisk(
                    key=key,
                    path=path,
                    pin=str(said["pin"]),
                    python=str(said["python"]),
                    packages=(*said.get("conda", ()), *said["packages"]),
                    size_bytes=_size(path),
                    created=float(said["created"]),
                    last_used=used,
                    whole=is_whole(path),
                )
            )
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return sorted(found, key=lambda each: (-each.last_used, each.key))


def pin_on_disk(digest: str) -> EnvironmentPin | None:
    """Return the pin that `pin_digest` gives this digest, without its hashes, as far as one was built from it here."""
    folder = environments_folder()
    try:
        keys = os.listdir(folder)
    except OSError:
        return None
    for key in keys:
        try:
            with open(os.path.join(folder, key, MARKER), encoding="utf-8") as file:
                said = json.load(file)
            if said["pin"] == digest:
                return EnvironmentPin(
                    definition="",
                    python=str(said["python"]),
                    resolved=tuple(said["packages"]),
                    conda=tuple(said.get("conda", ())),
                )
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def remove_unused(keep: Collection[str], *, older_than_s: float, dry_run: bool = False) -> list[EnvironmentOnDisk]:
    """Remove environments not used for that long whose pin (as `pin_digest` gives it) is not in `keep`; return them.

    One that is being built or waited for right now stays.
    """
    folder = environments_folder()
    removed: list[EnvironmentOnDisk] = []
    for each in list_environments():
        if each.pin in keep or time.time() - each.last_used < older_than_s:
            continue
        if not dry_run:
            with hold(each.key, lambda text: None):
                gone = os.path.join(folder, f".tmp-{each.key}-gone")
                try:
                    os.rename(each.path, gone)
                except OSError:
                    continue
                shutil.rmtree(gone, ignore_errors=True)
        removed.append(each)
    return removed


def _size(path: str) -> int:
    total = 0
    for where, _folders, files in os.walk(path):
        for name in files:
            try:
                info = os.lstat(os.path.join(where, name))
            except OSError:
                continue
            if info.st_nlink == 1:
                total += info.st_blocks * 512
    return total
