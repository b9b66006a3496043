"""A tree: the workspace's files as they are now (`WorkTree`) or as they are at a commit (`Revision`).

Verdicts take a Tree and cannot tell which. Paths are relative to the workspace, `/`-separated, as str with
surrogateescape.
"""

from __future__ import annotations

from typing import Protocol

from pipesmith.digest import Digest
from pipesmith.records import record

__all__ = ["Found", "Lending", "Tree"]


@record
class Found:
    """What lies at a path. digest: by content, of the bytes git stores where git holds it, else of its own bytes;
    None where nothing lies there or (at a commit) nothing is known. git: git's object id of the part git holds, None
    where git holds none of it. problem: one line where the content can't count (a link that dangles or leads out, a
    missing submodule), else None."""

    digest: Digest | None
    git: str | None = None
    problem: str | None = None


class Lending(Protocol):
    """What a work tree lacks and has lent from elsewhere. None: nothing is lent at that path."""

    def input(self, path: str) -> Found | None: ...
    def hash_path_id(self, path: str) -> str | None: ...


class Tree(Protocol):
    """Where fingerprints come from."""

    def read(self, path: str) -> bytes | None:
        """Return a small file's bytes (pipeline.toml, params and requirements files), None where there is none."""

    def exclude(self, paths: frozenset[str]) -> None:
        """Say what is never part of a source: every stage's output paths. Called once, before any id is asked for."""

    def source_id(self, path: str) -> str | None:
        """Return the git tree or blob id of a source folder or file without what never counts, None where nothing
        lies there.

        Raises UserError where it can't be known (a link that leads out, a submodule that is not there)."""

    def input(self, path: str) -> Found:
        """Return what lies at an input's path that no stage makes."""

    def hash_path_id(self, path: str) -> str | None:
        """Return the id of a `hash-paths` entry: git's where git does not ignore it, else the digest's text; None
        where absent.

        Raises UserError where the way there leads out of the workspace."""

    def output(self, path: str, algorithm: str | None = None) -> Digest | None:
        """Return the digest of an output in the workspace, None where absent. At a commit: of one that git holds,
        else None.

        algorithm: that of what it is compared with; default: the pipeline's own."""
