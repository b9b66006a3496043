"""Outputs that are still to be brought to a datastore (`to`): noted before a stage is locked, struck off when there.

So a delivery that failed, or that a kill came before, is made up for by the next build, though the stage is fresh.
"""

from __future__ import annotations

import json
import os
from _blake2 import blake2b
from collections.abc import Mapping, Sequence
from typing import Any

from pipesmith.digest import Digest
from pipesmith.lockfile.model import LockedOut
from pipesmith.percent import quote
from pipesmith.pipeline.model import Datastore, Stage
from pipesmith.records import record
from pipesmith.store.modes import make_folders, share
from pipesmith.store.object_store import ObjectStore

__all__ = ["Deliveries"]


@record
class Deliveries:
    """What one workspace owes. folder: in the repository's pipe folder; made when something is owed. root: where
    relative paths begin. spared: a folder into which nothing is delivered."""

    folder: str
    root: str
    datastores: Mapping[str, Datastore]
    store: ObjectStore
    spared: str | None = None

    @classmethod
    def of(
        cls,
        pipe_dir: str,
        root: str,
        datastores: Mapping[str, Datastore],
        store: ObjectStore,
        *,
        owner: str | None = None,
        spared: str | None = None,
    ) -> Deliveries:
        """owner: who owes them, the workspace itself if None."""
        own = blake2b(os.fsencode(owner if owner is not None else root), digest_size=8).hexdigest()
        folder = os.path.join(pipe_dir, "deliveries", own)
        return cls(folder=folder, root=root, datastores=datastores, store=store, spared=spared)

    def owe(self, stage: Stage, outs: Sequence[LockedOut], *, run: str, git: Mapping[str, Any]) -> list[str]:
        """Note what is to be delivered of a stage's outputs, for the run that made or restored them. Returns the
        targets that are spared."""
        owed, passed_over = [], []
        for out in outs:
            to, digest = stage.outputs[out.name].to, out.digest
            if to is not None and self.is_spared(to):
                passed_over.append(to)
            elif to is not None:
                said = [digest.algorithm, digest.hex, digest.size, digest.nfiles]
                owed.append({"path": out.path, "to": to, "digest": said})
        if not owed:
            return passed_over
        values = {"run.id": run, "git.commit": git.get("commit"), "git.branch": git.get("branch")}
        make_folders(self.folder)
        part = os.path.join(self.folder, f".{os.urandom(6).hex()}")
        with open(part, "w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump({"version": 1, "stage": stage.name, "values": values, "outputs": owed}, file)
        share(part)
        os.rename(part, self._note(stage.name))
        return passed_over

    def is_spared(self, to: str) -> bool:
        """Tell whether a target lies where nothing is delivered."""
        if self.spared is None:
            return False
        from pipesmith.data.places import place_of

        base = os.path.realpath(place_of(to, self.datastores, self.root).base)
        return base == self.spared or base.startswith(self.spared + os.sep)

    def owed(self, names: Sequence[str]) -> list[str]:
        """Return those of the stages that owe something."""
        if not os.path.isdir(self.folder):
            return []
        return [name for name in names if os.path.exists(self._note(name))]

    def pay(self, stage: str) -> list[str]:
        """Deliver what a stage owes and return where to. Raises StageError, naming the place; then it is owed still."""
        note = self._note(stage)
        try:
            with open(note, encoding="utf-8", errors="surrogateescape") as file:
                said = json.load(file)
            owed = [(each["path"], each["to"], Digest(*each["digest"])) for each in said["outputs"]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError):
            os.unlink(note)  # written by nobody who knew how
            return []
        from pipesmith.data.deliver import deliver, filled

        places = []
        for path, to, digest in owed:
            place = filled(to, said["values"])
            deliver(digest, path, place, self.datastores, self.root, self.store)
            places.append(place)
        os.unlink(note)
        return places

    def _note(self, stage: str) -> str:
        return os.path.join(self.folder, f"{quote(stage, safe='@+')}.json")
