"""Outputs of a stage that runs in the workspace itself: old ones are put aside, and come back unless it succeeds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable

from pipesmith.build.place import Placer
from pipesmith.lockfile.model import LockedOut
from pipesmith.pipeline.model import Stage
from pipesmith.store.removal import remove

__all__ = ["Aside"]


class Aside:
    """A `with` around one try. locked: the outputs that the lockfile knows; what lies there besides is kept in the
    cache. folder: where old outputs wait, None for a stage that has a sandbox: then nothing is moved."""

    def __init__(
        self, placer: Placer, root: str, stage: Stage, locked: Iterable[LockedOut], folder: str | None
    ) -> None:
        self._placer = placer
        self._root = root
        self._stage = stage
        self._known = {out.path: [out.digest.text] for out in locked}
        self._folder = folder
        self._done = False
        self._moved: list[tuple[str, str]] = []

    def commit(self) -> None:
        """The stage has succeeded: its new outputs stay."""
        self._done = True

    def __enter__(self) -> Aside:
        if self._folder is None:
            return self
        os.makedirs(self._folder, exist_ok=True)
        for index, output in enumerate(self._stage.outputs.values()):
            there = os.path.join(self._root, output.path)
            os.makedirs(os.path.dirname(there), exist_ok=True)
            if os.path.lexists(there):
                self._placer.put_away(self._stage.name, output.path, self._known.get(output.path, ()))
                aside = os.path.join(self._folder, str(index))
                shutil.move(there, aside)
                self._moved.append((aside, there))
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is None:
            return
        if not self._done:
            for output in self._stage.outputs.values():
                remove(os.path.join(self._root, output.path))
            for aside, there in self._moved:
                shutil.move(aside, there)
        remove(self._folder)
