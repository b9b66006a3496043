"""Datasets of files: pinned object by object, and found again exactly as pinned, or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from urllib.parse import unquote

from pipesmith.digest import Digest
from pipesmith.errors import StageError, UserError
from pipesmith.lockfile.model import DatasetPin, PinnedObject
from pipesmith.pipeline.model import Dataset, Datastore
from pipesmith.store.manifest import Entry, digest_of

__all__ = ["locate", "pin"]

Hash = Callable[[str], Digest | None]


def _origin(source: str, stores: Mapping[str, Datastore], root: str) -> str:
    """Return a source as an absolute path or pattern. Raises UserError for what is no file."""
    name, colon, rest = source.partition(":")
    if colon and name in stores and not rest.startswith("//"):
        base = stores[name].url
        place = os.path.join(_path(base, root), rest) if rest else _path(base, root)
    else:
        place = _path(source, root)
    return os.path.normpath(place)


def _path(url: str, root: str) -> str:
    if url.startswith("file:"):
        path = unquote(url.removeprefix("file:"))
        while path.startswith("//"):
            path = path[1:]
        return os.path.join(root, path)
    if re.match(r"[a-z][a-z0-9+.-]*://", url) or url.startswith("git+"):
        raise UserError(f"this version does not read `{url.partition(':')[0]}` datasets")
    return os.path.join(root, os.path.expanduser(url))


def _is_pattern(path: str) -> bool:
    return any(char in path for char in "*?[")


def _match(pattern: str) -> list[tuple[str, str]]:
    """Return (absolute path, name below the fixed prefix) of the files that a pattern finds: `*` within a folder, `**` across."""
    parts = pattern.split(os.sep)
    fixed = next(index for index, part in enumerate(parts) if _is_pattern(part))
    base = os.sep.join(parts[:fixed]) or os.sep
    expression = re.compile(_regex(os.sep.join(parts[fixed:])) + r"\Z", re.DOTALL)
    found = []
    for where, folders, files in os.walk(base):
        folders.sort()
        for name in files:
            inner = os.path.relpath(os.path.join(where, name), base)
            if expression.match(inner):
                found.append((os.path.join(where, name), inner))
    return sorted(found, key=lambda each: each[1])


def _regex(pattern: str) -> str:
    out = []
    index = 0
    while index < len(pattern):
        if pattern.startswith("**/", index):
            out.append("(?:.*/)?")
            index += 3
        elif pattern.startswith("**", index):
            out.append(".*")
            index += 2
        elif pattern[index] == "*":
            out.append("[^/]*")
            index += 1
        elif pattern[index] == "?":
            out.append("[^/]")
            index += 1
        elif pattern[index] == "[" and "]" in pattern[index + 2 :]:
            end = pattern.index("]", index + 2)
            body = pattern[index + 1 : end].replace("\\", "\\\\")
            out.append(f"[{'^' + body[1:] if body[0] == '!' else body}]")
            index = end + 1
        else:
            out.append(re.escape(pattern[index]))
            index += 1
    return "".join(out)


def _objects(dataset: Dataset, stores: Mapping[str, Datastore], root: str) -> list[tuple[str, str]]:
    """Return (absolute path, name) of a dataset's objects now; the name is `` where the dataset is one file."""
    found: list[tuple[str, str]] = []
    for source in dataset.sources:
        place = _origin(source, stores, root)
        if _is_pattern(place):
            matched = _match(place)
        elif os.path.isdir(place):
            matched = _match(os.path.join(place, "**"))
        elif os.path.exists(place):
            matched = [(place, "" if len(dataset.sources) == 1 else os.path.basename(place))]
        else:
            matched = []
        if not matched:
            raise UserError(f"dataset `{dataset.name}`: `{source}` finds nothing", "mend its `from`")
        found += matched
    names: dict[str, str] = {}
    for path, name in found:
        if name in names:
            raise UserError(f"dataset `{dataset.name}`: `{names[name]}` and `{path}` are both `{name}`")
        names[name] = path
    return found


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

    Raises UserError where a source finds nothing.
    """
    if previous is not None and not update and previous.definition == dataset.definition:
        return previous
    objects = []
    entries = []
    single: Digest | None = None
    for path, name in _objects(dataset, stores, root):
        digest = hash(os.path.realpath(path))
        if digest is None or digest.is_folder:
            raise UserError(f"dataset `{dataset.name}`: `{path}` can't be read")
        objects.append(PinnedObject(name=name or os.path.basename(path), size=digest.size, version="", hash=digest.text))
        entries.append(Entry("f", name, digest.hex, digest.size, os.access(path, os.X_OK)))
        single = digest if not name else None
        algorithm = digest.algorithm
    whole = single if single is not None else digest_of(entries, algorithm)[0]
    return DatasetPin(definition=dataset.definition, digest=whole, objects=tuple(sorted(objects, key=lambda o: o.name)))


def locate(
    dataset: Dataset, pinned: DatasetPin, stores: Mapping[str, Datastore], root: str, hash: Hash
) -> list[tuple[str, str]]:
    """Return (absolute path, name) of a dataset's objects, each verified against the pin; the name is `` for a single file.

    Raises StageError, naming object and dataset, where pinned content is gone or another: never the new content.
    """
    try:
        now = _objects(dataset, stores, root)
    except UserError as error:
        raise StageError(error.text, "put it back, or run `pipe data update`") from None
    by_name = {name or os.path.basename(path): (path, name) for path, name in now}
    found = []
    for each in pinned.objects:
        here = by_name.get(each.name)
        digest = hash(os.path.realpath(here[0])) if here is not None else None
        if here is None or digest is None:
            raise StageError(f"`{each.name}` of dataset `{dataset.name}` is gone", "put it back, or run `pipe data update`")
        if digest.text != each.hash:
            raise StageError(
                f"`{each.name}` of dataset `{dataset.name}` is no longer what pipe.lock pins",
                f"put it back, or take the new content with `pipe data update {dataset.name}`",
            )
        found.append((os.path.realpath(here[0]), here[1]))
    return found
