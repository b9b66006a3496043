"""Outputs that are still to be brought to a datastore (`to`): noted before a stage is locked, struck off when there.

So a delivery that failed, or that a kill came before, is made up for by the next build, though the stage is fresh.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any
from urllib.parse import quote

from pipesmith.digest import Digest
from pipesmith.lockfile.model import LockedOut
from pipesmith.pipeline.model import Datastore, Stage
from pipesmith.store.object_store import ObjectStore

__all__ = ["Deliveries"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliveries:
    """What one workspace owes. folder: in the repository's pipe folder; made when something is owed."""

    folder: str
    root: str
    datastores: Mapping[str, Datastore]
    store: ObjectStore

    @classmethod
    def of(cls, pipe_dir: str, root: str, datastores: Mapping[str, Datastore], store: ObjectStore) -> Deliveries:
        own = blake2b(os.fsencode(root), digest_size=8).hexdigest()
        return cls(folder=os.path.join(pipe_dir, "deliveries", own), root=root, datastores=datastores, store=store)

    def owe(self, stage: Stage, outs: Sequence[LockedOut], *, run: str, git: Mapping[str, Any]) -> None:
        """Note what is to be delivered of a stage's outputs, for the run that made or restored them."""
        owed = []
        for out in outs:
            to, digest = stage.outputs[out.name].to, out.digest
            if to is not None:
                said = [digest.algorithm, digest.hex, digest.size, digest.nfiles]
                owed.append({"path": out.path, "to": to, "digest": said})
        if not owed:
            return
        values = {"run.id": run, "git.commit": git.get("commit"), "git.branch": git.get("branch")}
        os.makedirs(self.folder, exist_ok=True)
        part = os.path.join(self.folder, f".{secrets.token_hex(6)}")
        with open(part, "w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump({"version": 1, "stage": stage.name, "values": values, "outputs": owed}, file)
        os.rename(part, self._note(stage.name))

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
