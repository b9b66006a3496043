"""What differs between trees, by one `git diff-tree` for many: in bare, partial and SHA-256 repositories alike."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pipesmith.git.co_process import nameless_file
from pipesmith.git.repository import Repository

__all__ = ["ABSENT", "TreeChange", "TreeDiffs"]

ABSENT = b"000000"

# path, mode and id before, mode and id now; modes have six digits, a folder that differs comes before what is in it
TreeChange = tuple[str, bytes, str, bytes, str]


class TreeDiffs:
    """git works on it while the caller does other things, until `read` takes it all."""

    def __init__(self, repo: Repository, pairs: Sequence[tuple[str, str]]) -> None:
        asked = nameless_file()
        try:
            with os.fdopen(os.dup(asked), "wb") as file:
                file.write("".join(f"{old} {new}\n" for old, new in pairs).encode())
            os.lseek(asked, 0, os.SEEK_SET)
            words = ("--stdin", "-r", "-t", "-z", "--raw", "--no-renames", "--ignore-submodules=none")
            self._process = repo.start("diff-tree", *words, stdin=asked)
        finally:
            os.close(asked)

    def read(self) -> dict[tuple[str, str], list[TreeChange]]:
        """Return pairs with what differs; none where git has ended in the middle, since an object can't be read."""
        with self._process as process:
            assert process.stdout is not None
            told = process.stdout.read()
        found: dict[tuple[str, str], list[TreeChange]] = {}
        if process.returncode != 0:
            return found
        last: list[TreeChange] = []
        *tokens, rest = told.split(b"\0")
        for at in range(0, len(tokens), 2):
            row = tokens[at]
            if row[:1] != b":":
                heads, _, row = row.rpartition(b"\n")
                last = _begin(heads, found)
            before, now, old, new, _how = row.split(b" ")
            last.append((os.fsdecode(tokens[at + 1]), before[1:], old.decode(), now, new.decode()))
        if rest:
            _begin(rest.removesuffix(b"\n"), found)
        return found

    def close(self) -> None:
        """End git where nobody has read what it says."""
        if self._process.returncode is None:
            self._process.kill()
            with self._process:
                pass


def _begin(heads: bytes, found: dict[tuple[str, str], list[TreeChange]]) -> list[TreeChange]:
    """Take heads `OLD NEW` in, and return the list for what follows the last of them."""
    last: list[TreeChange] = []
    for line in heads.decode().split("\n"):
        old, _, new = line.partition(" ")
        last = found[old, new] = []
    return last
