"""`data`: the datasets of a pipeline and their pins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipesmith.errors import PipeError, UserError, nearest
from pipesmith.records import as_dict
from pipesmith.workspace.lock_keeper import LockKeeper
from pipesmith.workspace.session import Session

if TYPE_CHECKING:
    from pipesmith.workspace.workspace import Workspace

__all__ = ["list_datasets", "update_datasets"]


def _names(session: Session, wanted: Sequence[str]) -> list[str]:
    for name in wanted:
        if name not in session.pipeline.datasets:
            near = nearest(name, session.pipeline.datasets)
            raise UserError(f"no dataset `{name}`", f"did you mean `{near}`?" if near else "`pipe data ls` lists them")
    return list(wanted or session.pipeline.datasets)


def list_datasets(workspace: Workspace, names: Sequence[str], *, compare: bool = False) -> list[dict[str, Any]]:
    """Return name, state (`not pinned`, `pinned`; with `compare` also `moved on`, `gone`), hash, size and objects of
    each."""
    session = workspace.session()
    found = []
    for name in _names(session, names):
        pin = session.pins.dataset_pin(name)
        entry: dict[str, Any] = {"name": name, "state": "not pinned", "hash": None, "size": 0, "objects": []}
        if pin is not None:
            entry |= {"state": "pinned", "hash": pin.digest.text, "size": pin.digest.size}
            entry["objects"] = [as_dict(each) for each in pin.objects]
            if compare:
                try:
                    session.pins.pin_datasets([name], update=True)
                    now = session.pins.new_datasets.pop(name)
                    entry["state"] = "pinned" if now.digest == pin.digest else "moved on"
                except PipeError as error:
                    entry |= {"state": "gone", "problem": error.text}
        found.append(entry)
    session.stat_cache.flush()
    return found


def update_datasets(workspace: Workspace, names: Sequence[str]) -> dict[str, str]:
    """Pin what the origins hold now and return name to `changed` or `unchanged`. Raises UserError."""
    session = workspace.session()
    wanted = _names(session, names)
    session.pins.pin_datasets(wanted, update=True)
    old = session.lockfile.datasets
    LockKeeper(session).writer.write()
    session.stat_cache.flush()
    return {
        name: "unchanged" if name in old and old[name].digest == session.pins.new_datasets[name].digest else "changed"
        for name in wanted
    }
