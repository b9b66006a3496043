"""Datasets of files: pinned object by object, and found again exactly as pinned, or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping

from pipesmith.data.places import Place, find, place_of
from pipesmith.digest import Digest
from pipesmith.errors import StageError, UserError, nearest
from pipesmith.lockfile.model import DatasetPin, PinnedObject
from pipesmith.pipeline.model import Dataset, Datastore
from pipesmith.store.manifest import Entry, digest_of

__all__ = ["locate", "objects_now", "pin"]

Hash = Callable[[str], Digest | None]


def objects_now(dataset: Dataset, stores: Mapping[str, Datastore], root: str) -> list[tuple[str, str]]:
    """Return (absolute path, name) of a dataset's objects as they lie there now; the name is `` where it is one file.

    Raises UserError where a source finds nothing, where two have one name, and for what this version does not read.
    """
    if dataset.query is not None:
        raise UserError(
            f"dataset `{dataset.name}`: this version does not read SQL datastores", "export the rows to a file"
        )
    found: dict[str, str] = {}
    for source in dataset.sources:
        try:
            here = find(place_of(source, stores, root))
        except UserError as error:
            raise UserError(f"dataset `{dataset.name}`: {error.text}", error.help) from None
        if not here:
            raise UserError(f"dataset `{dataset.name}`: `{source}` finds nothing", _near(source, stores, root))
        for path, name in here:
            name = name or ("" if len(dataset.sources) == 1 else os.path.basename(path))
            if found.get(name, path) != path:  # what two sources both find is there once
                raise UserError(
                    f"dataset `{dataset.name}`: `{found[name]}` and `{path}` are both `{name}` in it",
                    "make two datasets of it",
                )
            found[name] = path
    return [(found[name], name) for name in sorted(found)]


def _near(source: str, stores: Mapping[str, Datastore], root: str) -> str:
    """Return what to do about a source that finds nothing: the nearest name beside it, where there is one."""
    missing = place_of(source, stores, root).base
    while missing != os.sep and not os.path.lexists(os.path.dirname(missing)):
        missing = os.path.dirname(missing)
    if not os.path.lexists(missing) and os.path.isdir(os.path.dirname(missing)):
        near = nearest(os.path.basename(missing), os.listdir(os.path.dirname(missing)))
        if near:
            return f"did you mean `{os.path.join(os.path.dirname(missing), near)}`?"
    return "mend its `from`, or put the data there"


def pin(
    dataset: Dataset,
    stores: Mapping[str, Datastore],
    root: str,
    hash: Hash,
    previous: DatasetPin | None,
    *,
    update: bool = False,
) -> DatasetPin:
    """Return the pin of a dataset: the one there is, if it holds for the definition, else one of its objects now.

    hash: digest of what lies at an absolute path. Raises UserError as `objects_now` does.
    """
    if previous is not None and not update and previous.definition == dataset.definition:
        return previous
    objects: list[PinnedObject] = []
    entries: list[Entry] = []
    digest: Digest | None = None
    listed = objects_now(dataset, stores, root)
    for path, name in listed:
        real = os.path.realpath(path)
        digest = hash(real)
        if digest is None or digest.is_folder or digest.is_link:
            raise UserError(f"dataset `{dataset.name}`: `{path}` leads nowhere", "mend the link, or narrow the glob")
        objects.append(
            PinnedObject(name=name or os.path.basename(path), size=digest.size, version="", hash=digest.text)
        )
        entries.append(Entry("f", name, digest.hex, digest.size, bool(os.stat(real).st_mode & 0o100)))
    assert digest is not None
    whole = digest if not listed[0][1] else digest_of(entries, digest.algorithm)[0]
    return DatasetPin(definition=dataset.definition, digest=whole, objects=tuple(sorted(objects, key=lambda o: o.name)))


def locate(
    dataset: Dataset, pinned: DatasetPin, stores: Mapping[str, Datastore], root: str, hash: Hash
) -> list[tuple[str, str]]:
    """Return (absolute path, name) of a dataset's objects, each as it is pinned; the name is `` for a single file.

    What came to the origin since is no part of it. Raises StageError, naming object and dataset, where pinned content
    is gone or another: never the new content.
    """
    places = [place_of(source, stores, root) for source in dataset.sources]
    single = not pinned.digest.is_folder
    found: list[tuple[str, str]] = []
    for each in pinned.objects:
        changed = False
        for path in _candidates(places, each.name):
            real = os.path.realpath(path)
            digest = hash(real)
            if digest is not None and digest.text == each.hash:
                found.append((real, "" if single else each.name))
                break
            changed = changed or digest is not None
        else:
            what = "is no longer what pipe.lock pins" if changed else "is gone"
            raise StageError(
                f"`{each.name}` of dataset `{dataset.name}` {what}",
                f"put it back, or take what is there now with `pipe data update {dataset.name}`",
            )
    return found


def _candidates(places: Iterable[Place], name: str) -> Iterator[str]:
    """Yield where an object of this name can lie: a file that a source names, or below its folder."""
    if name.startswith("/") or ".." in name.split("/"):
        return
    for place in places:
        if place.pattern:
            if place.matches(name):
                yield os.path.join(place.base, name)
        elif os.path.isdir(place.base):
            yield os.path.join(place.base, name)
        elif os.path.basename(place.base) == name:
            yield place.base
