"""`to` of an output: its content brought to a file datastore as well."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pipesmith.data.places import place_of
from pipesmith.data.transfer import Moved, holds, put, target_of
from pipesmith.digest import Digest
from pipesmith.errors import PipeError, StageError
from pipesmith.pipeline.model import Datastore
from pipesmith.pipeline.placeholders import fill, unescape
from pipesmith.store.manifest import Entry
from pipesmith.store.object_store import ObjectStore

__all__ = ["deliver", "filled"]


def filled(to: str, values: Mapping[str, str | None]) -> str:
    """Return where an output goes, with `{run.id}`, `{git.commit}` and `{git.branch}` filled in.

    values: by name without braces. Raises StageError for one that there is none of here, such as the branch of a
    detached HEAD.
    """

    def value(name: str) -> str | None:
        found = values.get(name)
        if found is None:
            raise StageError(
                f"`{to}` names `{{{name}}}`, which there is none of here", "check out a branch, or name another place"
            )
        return found.replace("{", "{{").replace("}", "}}")

    return unescape(fill(to, value))


def deliver(
    digest: Digest, path: str, to: str, stores: Mapping[str, Datastore], root: str, store: ObjectStore
) -> Moved:
    """Bring an output's content to a place; files that are there with this content are left.

    path: the output's own, whose last part names a file in a target folder. to: without placeholders. A folder's
    files go below the target, under their names. Raises StageError, naming the place.
    """
    moved = Moved()
    try:
        place = place_of(to, stores, root)
        if place.pattern:
            raise StageError("a target is no glob", "name a file, or a folder with `/` at its end")
        if digest.is_folder:
            os.makedirs(place.base, exist_ok=True)
            for entry in store.manifest(digest).entries:
                _entry(entry, target_of(place, entry.path, ""), digest.algorithm, store, moved)
        else:
            _entry(
                Entry("f", "", digest.hex, digest.size),
                target_of(place, "", os.path.basename(path)),
                digest.algorithm,
                store,
                moved,
            )
    except PipeError as error:
        raise StageError(f"delivery of `{path}` to `{to}` failed: {error.text}", error.help) from None
    except OSError as error:
        where = f"`{error.filename}`: " if error.filename else ""
        raise StageError(
            f"delivery of `{path}` to `{to}` failed: {where}{error.strerror}", "build again to deliver it"
        ) from None
    return moved


def _entry(entry: Entry, target: str, algorithm: str, store: ObjectStore, moved: Moved) -> None:
    """Bring one entry of a folder, or the file that an output is."""
    if entry.kind == "d":
        os.makedirs(target, exist_ok=True)
    elif entry.kind == "l":
        if not os.path.islink(target) or os.readlink(target) != entry.text:
            put(target, lambda part: os.symlink(entry.text, part))
            moved.copied += 1
    elif holds(target, entry.hex, os.path.getsize(store.path(Digest(algorithm, entry.hex, entry.size))), algorithm):
        moved.skipped += 1
    else:

        def write(part: str) -> None:
            store.place(Digest(algorithm, entry.hex, entry.size), part, link=False)
            os.chmod(part, 0o755 if entry.executable else 0o644)

        put(target, write)
        moved.copied += 1
        moved.bytes += entry.size
