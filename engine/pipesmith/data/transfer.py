"""`transfer = { from, to }`: data moved between datastores, verified, and taken up where an earlier try was cut off."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from pipesmith.data.places import TEMPORARY, Place, find, place_of
from pipesmith.errors import Cancelled, StageError
from pipesmith.pipeline.model import Datastore
from pipesmith.records import record
from pipesmith.store.hashing import hash_file
from pipesmith.store.links import copy_hashing

__all__ = ["Moved", "put", "target_of", "transfer"]

_ALGORITHM = "blake3"


@record(frozen=False)
class Moved:
    """What a transfer did. copied, skipped: numbers of files; a skipped one was there already, with this content."""

    copied: int = 0
    skipped: int = 0
    bytes: int = 0


def transfer(
    source: str,
    target: str,
    stores: Mapping[str, Datastore],
    root: str,
    *,
    said: Callable[[str], None] = lambda text: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Moved:
    """Copy what `source` finds to `target`, under names below the glob's fixed part.

    A file is compared when it has been copied, and has its name only then. said: told one line a file.
    Raises UserError for what this version does not read, StageError where nothing is found or a file can't be moved,
    Cancelled.
    """
    to = place_of(target, stores, root)
    if to.pattern:
        raise StageError(f"transfer to `{target}`: a target is no glob", "name a folder, with `/` at its end")
    found = find(place_of(source, stores, root))
    if not found:
        raise StageError(f"transfer from `{source}` finds nothing", "mend `from`, or put the data there")
    moved = Moved()
    for path, name in found:
        if cancelled():
            raise Cancelled
        there = target_of(to, name, os.path.basename(path))
        try:
            hex, size = hash_file(path, _ALGORITHM)
            if holds(there, hex, size):
                moved.skipped += 1
                continue
            put(there, lambda part, path=path: copy_hashing(path, part, 0o644, _ALGORITHM), hex)  # type: ignore[misc]
            os.chmod(there, os.stat(path).st_mode & 0o777 | 0o200)
        except OSError as error:
            where = error.filename or there
            raise StageError(
                f"transfer of `{path}` failed: `{where}`: {error.strerror}", "build again to go on"
            ) from None
        moved.copied += 1
        moved.bytes += size
        said(f"{name or os.path.basename(path)}: {size} bytes")
    return moved


def target_of(place: Place, name: str, own: str) -> str:
    """Return the path of one file at a target: `name` below it; of a single file `own`, where that is a folder."""
    if name:
        return os.path.join(place.base, *name.split("/"))
    return os.path.join(place.base, own) if place.folder or os.path.isdir(place.base) else place.base


def holds(path: str, hex: str, size: int, algorithm: str = _ALGORITHM) -> bool:
    """Return whether a file is there with this content already."""
    try:
        return os.path.getsize(path) == size and not os.path.islink(path) and hash_file(path, algorithm)[0] == hex
    except OSError:
        return False


def put(path: str, write: Callable[[str], str | None], hex: str | None = None) -> None:
    """Make a file whole or not at all: `write` makes it under another name beside its place, then it is renamed.

    write(path): returns the hash of what it wrote, compared with `hex`. Raises StageError where they differ, OSError.
    """
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    part = os.path.join(folder, f"{TEMPORARY}{os.urandom(6).hex()}")
    try:
        written = write(part)
        if hex is not None and written != hex:
            raise StageError(f"`{path}` was changed while it was read", "build again")
        os.rename(part, path)
    except IsADirectoryError:
        raise StageError(f"`{path}` is a folder, and a file is to lie there", "move it away") from None
    finally:
        if os.path.lexists(part):
            os.unlink(part)
