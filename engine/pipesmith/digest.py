"""Ids of content: what a file, a folder or a link holds, as a typed value.

A folder's digest is the hash of its manifest (docs/formats/object-store.md). Its hex ends with `.dir`, a link's with
`.link`, so that the three kinds can't be taken for one another.
"""

from __future__ import annotations

from typing import Any, Protocol

from pipesmith.records import record

__all__ = ["ALGORITHMS", "Digest", "Hasher", "new_hasher"]

ALGORITHMS = ("blake3", "md5")


@record(kw_only=False)
class Digest:
    """Hash of content.

    algorithm: `blake3` or `md5`. hex: lower-case hex, then `.dir` for a folder and `.link` for a symbolic link. size:
    bytes of all its files. nfiles: number of files in a folder (links count, empty folders don't), None for a file or
    link. executable: an output that is a file and was made executable; no part of what `text` names.
    """

    algorithm: str
    hex: str
    size: int
    nfiles: int | None = None
    executable: bool = False

    @property
    def is_folder(self) -> bool:
        return self.hex.endswith(".dir")

    @property
    def is_link(self) -> bool:
        return self.hex.endswith(".link")

    @property
    def text(self) -> str:
        """`ALGORITHM:HEX`: what fingerprints and messages hold. Equal texts mean equal content."""
        return f"{self.algorithm}:{self.hex}"

    @property
    def short(self) -> str:
        """First eight digits, for people."""
        return self.hex[:8]


class Hasher(Protocol):
    """What blake3 and hashlib objects have in common."""

    def update(self, data: Any, /) -> object:
        """Take more bytes."""

    def hexdigest(self) -> str:
        """Return the hash of all bytes so far, in lower-case hex."""
        ...


def new_hasher(algorithm: str) -> Hasher:
    """Return an empty hasher. Raises ValueError for an unknown algorithm."""
    if algorithm == "blake3":
        from blake3 import blake3

        return blake3()
    if algorithm == "md5":
        from hashlib import md5

        return md5(usedforsecurity=False)
    raise ValueError(f"unknown hash algorithm {algorithm!r}")
