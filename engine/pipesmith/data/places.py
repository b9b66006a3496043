"""Where data lies: `DATASTORE:GLOB`, `file:` URLs and paths, and what a glob finds there."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from urllib.parse import unquote, urlsplit

from pipesmith.errors import UserError
from pipesmith.pipeline.model import Datastore
from pipesmith.records import record

__all__ = ["TEMPORARY", "Place", "find", "place_of", "scheme_of"]

TEMPORARY = ".pipe-tmp-"  # how names of files begin that are being written; no glob finds them
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://|(git\+[a-z]+):")
_SPECIAL = re.compile(r"[*?\[]")


@record
class Place:
    """One `from` or `to`. base: absolute path of the fixed part. pattern: parts of the glob below it, none for a path.
    text: as written. folder: whether it was written with a `/` at its end."""

    text: str
    base: str
    pattern: tuple[str, ...] = ()
    folder: bool = False

    def matches(self, name: str) -> bool:
        """Return whether a name below the base is one that the glob finds."""
        return _expression(self.pattern).fullmatch(name) is not None


def scheme_of(source: str, stores: Mapping[str, Datastore]) -> str:
    """Return what kind of place a dataset's source is in: `file`, `s3`, `git+https` …"""
    store = stores.get(source.partition(":")[0])
    url = store.url if store is not None else source
    return url.partition(":")[0] if "://" in url or url.startswith("git+") else "file"


def place_of(text: str, stores: Mapping[str, Datastore], root: str) -> Place:
    """Return where a text points. root: absolute path of the workspace, where relative paths begin.

    Raises UserError for what this version does not read, and for a glob that leaves its datastore.
    """
    name, colon, rest = text.partition(":")
    store = stores.get(name)
    if store is None or (colon and rest.startswith("//")):
        within, inner = "", _local(text, text)
        top = root
    else:
        top = os.path.normpath(os.path.join(root, _local(store.url, text)))
        within, inner = top, rest.lstrip("/")
    parts = [part for part in inner.split("/") if part not in ("", ".")]
    absolute = inner.startswith("/") and not within
    fixed, pattern = _split(os.sep if absolute else top, parts)
    base = os.path.normpath(os.path.join(os.sep if absolute else top, *fixed))
    if within and base != within and not base.startswith(within.rstrip(os.sep) + os.sep):
        raise UserError(f"`{text}` leads out of datastore `{name}`", "name a path below its `url`")
    return Place(text=text, base=base, pattern=tuple(pattern), folder=inner.endswith("/") or not inner)


def _split(top: str, parts: list[str]) -> tuple[list[str], list[str]]:
    """Return the parts before the first that is a glob, and the rest. What is named so in fact is no glob."""
    for index, part in enumerate(parts):
        if _SPECIAL.search(part) and not os.path.lexists(os.path.join(top, *parts[: index + 1])):
            return parts[:index], parts[index:]
    return parts, []


def _local(url: str, text: str) -> str:
    """Return the path of a `file:` URL or of a path. Raises UserError for any other scheme."""
    if url.startswith("file:"):
        split = urlsplit(url)
        if split.netloc not in ("", "localhost"):
            raise UserError(f"`{url}` names a host, and files are read from this machine only", "write `file:///PATH`")
        return unquote(split.path)
    other = _SCHEME.match(url)
    if other is not None:
        scheme = other[1] or other[2]
        which = f" (in `{text}`)" if text != url else ""
        raise UserError(
            f"this version does not read {scheme}:// datastores{which}", 'it reads files: `url = "file:///PATH"`'
        )
    return os.path.expanduser(url)


def find(place: Place) -> list[tuple[str, str]]:
    """Return (absolute path, name) of all files of a place: the name below the fixed part, `` for a single file.

    A plain folder has all files below it. Links are followed.
    """
    if not place.pattern:
        if not os.path.isdir(place.base):
            return [(place.base, "")] if os.path.exists(place.base) else []
        found = _below(place.base, "", frozenset())
    else:
        found = _expand(place.base, "", list(place.pattern))
    unique = {name: path for path, name in found}
    return [(unique[name], name) for name in sorted(unique)]


_Above = frozenset[tuple[int, int]]  # device and inode of the folders on the way: a link to one of them is not followed


def _expand(folder: str, prefix: str, parts: list[str], above: _Above = frozenset()) -> Iterator[tuple[str, str]]:
    """Yield what the parts of a glob find below a folder, never entering one that can't hold a match."""
    part, rest = parts[0], parts[1:]
    here = _with(folder, above)
    if here is None:
        return
    if part == "**":
        if not rest:
            yield from _below(folder, prefix, above)
            return
        yield from _expand(folder, prefix, rest, above)
        for path, name in _entries(folder):
            if os.path.isdir(path):
                yield from _expand(path, f"{prefix}{name}/", parts, here)
        return
    wanted = re.compile(_part(part), re.DOTALL)
    for path, name in _entries(folder):
        if not wanted.fullmatch(name):
            continue
        if os.path.isdir(path):
            if rest:
                yield from _expand(path, f"{prefix}{name}/", rest, here)
        elif not rest and _is_file(path):
            yield path, prefix + name


def _below(folder: str, prefix: str, above: _Above) -> Iterator[tuple[str, str]]:
    """Yield all files below a folder."""
    here = _with(folder, above)
    if here is None:
        return
    for path, name in _entries(folder):
        if os.path.isdir(path):
            yield from _below(path, f"{prefix}{name}/", here)
        elif _is_file(path):
            yield path, prefix + name


def _with(folder: str, above: _Above) -> _Above | None:
    """Return the folders on the way with this one; None where it is one of them already, or is not there."""
    try:
        info = os.stat(folder)
    except OSError:
        return None
    identity = (info.st_dev, info.st_ino)
    return None if identity in above else above | {identity}


def _entries(folder: str) -> list[tuple[str, str]]:
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"`{folder}` can't be read: {error.strerror}") from None
    return [(os.path.join(folder, name), name) for name in names if not name.startswith(TEMPORARY)]


def _is_file(path: str) -> bool:
    """Return whether there is a file, or a link that leads nowhere: that one is to be told, not passed over."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True


def _part(part: str) -> str:
    """Return one part of a glob as a regular expression: `*`, `?`, `[ab]`, `[!ab]`."""
    out = []
    index = 0
    while index < len(part):
        char = part[index]
        end = part.find("]", index + 2) if char == "[" else -1
        if char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif end > 0:
            body = part[index + 1 : end]
            inverted = body[0] in "!^"
            listed = re.sub(r"([\\\[\]^&~|])", r"\\\1", body[1:] if inverted else body)
            out.append(f"[{'^/' if inverted else ''}{listed}]")
            index = end
        else:
            out.append(re.escape(char))
        index += 1
    return "".join(out)


def _expression(parts: tuple[str, ...]) -> re.Pattern[str]:
    """Return what names a whole glob matches."""
    out = ""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            out += ".+" if last else "(?:[^/]+/)*"
        else:
            out += _part(part) + ("" if last else "/")
    return re.compile(out, re.DOTALL)
