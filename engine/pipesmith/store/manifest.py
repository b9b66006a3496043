"""A folder's content as a list of entries, and its canonical bytes, whose hash is the folder's digest.

BLAKE3: a header line, then one compact JSON array a line, sorted by path: `["f", path, hex, size, executable]`,
`["l", path, text]` or, for a folder with nothing in it, `["d", path]`. MD5: DVC's `.dir` files.
Source: docs/formats/object-store.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from pipesmith.digest import Digest, new_hasher
from pipesmith.errors import StageError, UserError
from pipesmith.records import record

__all__ = ["HEADER", "Entry", "Manifest", "digest_of", "link_digest", "parse", "render"]

HEADER = '["pipesmith-folder",1]'


@record(kw_only=False)
class Entry:
    """kind: `f` file, `l` link, `d` empty folder. path: relative, `/`-separated.

    hex, size, executable: of a file. text: of a link.
    """

    kind: str
    path: str
    hex: str = ""
    size: int = 0
    executable: bool = False
    text: str = ""


def render(entries: Iterable[Entry], algorithm: str) -> bytes:
    """Return the canonical bytes. Raises UserError for what DVC's format can't hold."""
    ordered = sorted(entries, key=lambda entry: entry.path.encode("utf-8", "surrogateescape"))
    if algorithm == "md5":
        rows = []
        for entry in ordered:
            if entry.kind != "f":
                what = "a symbolic link" if entry.kind == "l" else "an empty folder"
                raise UserError(
                    f"`{entry.path}` is {what}, which DVC's format can't hold",
                    'leave it out, or set [cache] hash = "blake3"',
                )
            rows.append({"md5": entry.hex, "relpath": entry.path})
        rows.sort(key=lambda row: row["relpath"])
        return json.dumps(rows, sort_keys=True).encode()
    lines = [HEADER]
    for entry in ordered:
        if entry.kind == "f":
            lines.append(_line(["f", entry.path, entry.hex, entry.size, entry.executable]))
        elif entry.kind == "l":
            lines.append(_line(["l", entry.path, entry.text]))
        else:
            lines.append(_line(["d", entry.path]))
    return ("\n".join(lines) + "\n").encode("ascii")


_line = json.JSONEncoder(separators=(",", ":")).encode


def parse(data: bytes, algorithm: str) -> list[Entry]:
    """Return the entries. Raises StageError for bytes that are no manifest, or one of a later version.

    A manifest may come from elsewhere: one whose paths would lead out of the folder is none.
    """
    try:
        if algorithm == "md5":
            entries = [Entry("f", row["relpath"], row["md5"]) for row in json.loads(data)]
        else:
            head, *lines = data.decode("ascii").splitlines()
            if head != HEADER:
                name, version = json.loads(head)
                raise StageError(
                    f"a folder manifest of version {version}, this pipesmith reads version 1", f"update it ({name})"
                )
            entries = [_entry(*row) for row in json.loads(f"[{','.join(lines)}]")]
        _check(entries)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise StageError("a folder manifest in the cache is damaged", "run `pipe verify`") from None
    return entries


def _entry(kind: str, path: str, hex: str = "", size: int = 0, executable: bool = False) -> Entry:
    if kind == "f":
        return Entry("f", path, hex, size, executable)
    if kind == "l":
        return Entry("l", path, text=hex)
    if kind == "d":
        return Entry("d", path)
    raise ValueError(kind)


def _check(entries: list[Entry]) -> None:
    """Raise ValueError for paths that lead out of the folder, also through a link, and for what is no hash."""
    leaves = {entry.path for entry in entries if entry.kind == "l"}
    for entry in entries:
        path = entry.path
        if path.startswith("/") or not path or "\0" in path or (".." in path and ".." in path.split("/")):
            raise ValueError(path)
        if entry.kind == "f" and not entry.hex.isalnum():
            raise ValueError(entry.hex)
        if leaves and "/" in path:
            parts = path.split("/")
            if any("/".join(parts[:end]) in leaves for end in range(1, len(parts))):
                raise ValueError(path)


def digest_of(entries: Iterable[Entry], algorithm: str) -> tuple[Digest, bytes]:
    """Return a folder's digest and its canonical bytes."""
    listed = list(entries)
    data = render(listed, algorithm)
    hasher = new_hasher(algorithm)
    hasher.update(data)
    size = sum(entry.size for entry in listed)
    count = sum(1 for entry in listed if entry.kind != "d")
    return Digest(algorithm, f"{hasher.hexdigest()}.dir", size, count), data


def link_digest(text: str, algorithm: str) -> Digest:
    """Return the digest of a symbolic link that is an input itself: of its target's text."""
    hasher = new_hasher(algorithm)
    hasher.update(text.encode("utf-8", "surrogateescape"))
    return Digest(algorithm, f"{hasher.hexdigest()}.link", len(text))


class Manifest:
    """The entries of one folder."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries

    def subtree(self, inner: str, algorithm: str) -> Digest | None:
        """Return the digest of a file or folder inside, None where there is none."""
        below = []
        for entry in self.entries:
            if entry.path == inner:
                if entry.kind == "f":
                    return Digest(algorithm, entry.hex, entry.size)
                if entry.kind == "l":
                    return link_digest(entry.text, algorithm)
                return digest_of([], algorithm)[0]
            if entry.path.startswith(f"{inner}/"):
                below.append(
                    Entry(entry.kind, entry.path[len(inner) + 1 :], entry.hex, entry.size, entry.executable, entry.text)
                )
        return digest_of(below, algorithm)[0] if below else None
