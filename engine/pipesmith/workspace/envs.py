"""`env`: the environments of a pipeline."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pipesmith.environments.listing import list_environments as environments_on_disk
from pipesmith.environments.materialise import count, environment_key, environments_folder
from pipesmith.environments.resolve import changes
from pipesmith.environments.system import system_environment
from pipesmith.errors import UserError, nearest
from pipesmith.lockfile.model import EnvironmentPin
from pipesmith.workspace.lock_keeper import LockKeeper
from pipesmith.workspace.session import Session

if TYPE_CHECKING:
    from pipesmith.workspace.workspace import Workspace

__all__ = [
    "build_environments",
    "list_environments",
    "push_environments",
    "resolve_and_lock",
    "update_environments",
]


def _named(session: Session, names: Sequence[str]) -> list[str]:
    """Return the environments of these names, all without names. Raises UserError."""
    known = session.pipeline.environments
    for name in names:
        if name not in known:
            near = nearest(name, known)
            raise UserError(
                f"no environment `{name}`", f"did you mean `{near}`?" if near else "`pipe env ls` lists them"
            )
    return list(names or known)


def _names(session: Session, wanted: Sequence[str], notice: Callable[[str], None] = lambda _text: None) -> list[str]:
    """Return the environments of these names; without names all but images that no stage runs in, which no daemon is
    there for."""
    if wanted:
        return _named(session, wanted)
    known = session.pipeline.environments
    computes, stages = session.pipeline.computes, session.pipeline.stages.values()
    in_containers = {stage.environment for stage in stages if computes[stage.compute].kind == "docker"}
    found = []
    for name, environment in known.items():
        if environment.image and name not in in_containers:
            notice(f"environment `{name}` is an image that no stage in containers uses: it is left as it is")
        else:
            found.append(name)
    return found


def list_environments(workspace: Workspace, names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return name, python, packages (a number), state (`system`, `not resolved`, `not built`, `built`), prefix and size
    of each. Raises UserError for a name that is none."""
    session = workspace.session()
    sizes = {each.path: each.size_bytes for each in environments_on_disk() if each.whole}
    found = []
    for name in _named(session, names):
        environment = session.pipeline.environments[name]
        entry: dict[str, Any] = {
            "name": name,
            "python": environment.python,
            "packages": 0,
            "state": "not resolved",
            "prefix": None,
            "size": 0,
        }
        unpinned = environment.python == "system" or environment.dockerfile
        pin = session.pins.environment_pin(environment) if not unpinned else None
        if environment.python == "system":
            entry |= {"state": "system", "prefix": system_environment().prefix}
        elif environment.dockerfile:
            entry |= {"python": None, "state": "read at each build", "prefix": environment.dockerfile}
        elif pin is not None and pin.image is not None:
            entry |= {"python": None, "state": "pinned", "prefix": pin.image}
        elif pin is not None:
            prefix = os.path.join(environments_folder(), environment_key(pin))
            entry |= {"python": pin.python, "packages": count(pin), "prefix": prefix}
            entry |= {"state": "built" if prefix in sizes else "not built", "size": sizes.get(prefix, 0)}
        found.append(entry)
    return found


def resolve_and_lock(
    session: Session, names: Sequence[str], notice: Callable[[str], None], *, upgrade: bool = False
) -> None:
    """Resolve environments whose pin does not hold (all, to `upgrade`), write the pins. Raises EnvironmentFailure."""
    session.pins.resolve_environments(names, notice, upgrade=upgrade)
    LockKeeper(session).writer.write()


def build_environments(workspace: Workspace, names: Sequence[str], notice: Callable[[str], None]) -> dict[str, str]:
    """Resolve what is not, build what is not there, and return name to prefix. Raises EnvironmentFailure."""
    session = workspace.session()
    session.cold.tell(notice)
    wanted = _names(session, names, notice)
    resolve_and_lock(session, wanted, notice)
    built = {}
    for name in wanted:
        environment = session.pipeline.environments[name]
        if environment.python == "system":
            built[name] = system_environment().root
            continue
        if environment.dockerfile:
            built[name] = next(iter(_images(session, name, notice)), environment.dockerfile)
            continue
        pin = session.pins.environment_pin(environment)
        assert pin is not None
        for image in _images(session, name, notice):
            built[name] = image
        if name not in built:
            built[name] = session.pins.made_here(name, notice).root
    return built


def _images(session: Session, name: str, notice: Callable[[str], None]) -> list[str]:
    """Return an environment's images, made or pulled, on the daemons of all computes whose stages use it."""
    session.computes.said = notice
    stages = session.pipeline.stages.values()
    used = dict.fromkeys(stage.compute for stage in stages if stage.environment == name)
    computes = [session.pipeline.computes[each] for each in used]
    try:
        return [
            image
            for compute in computes
            if compute.kind == "docker"
            for image in session.computes.images_on(compute, name)
        ]
    finally:
        session.computes.close()


def push_environments(workspace: Workspace, names: Sequence[str], notice: Callable[[str], None]) -> dict[str, str]:
    """Send the images of environments of packages to their registries, and return name to image.

    Without names: of all that have a `registry`. Raises UserError for one that has none, or that no stage in containers
    uses; EnvironmentFailure where a registry does not take it."""
    session = workspace.session()
    known, computes = session.pipeline.environments, session.pipeline.computes
    wanted = _names(session, names) if names else [name for name, each in known.items() if each.registry]
    where: dict[str, str] = {}
    for stage in session.pipeline.stages.values():
        if stage.environment in wanted and computes[stage.compute].kind == "docker":
            where.setdefault(stage.environment, stage.compute)
    for name in wanted:
        if known[name].image:
            raise UserError(f"environment `{name}` is an image, which has a registry already", "name another one")
        if not known[name].registry:
            raise UserError(f"environment `{name}` has no `registry`", f"write one into [environment.{name}]")
        if name not in where:
            raise UserError(f"no stage in containers uses environment `{name}`", "there is no daemon to push from")
    session.computes.said = notice
    session.cold.tell(notice)
    try:
        resolve_and_lock(session, wanted, notice)
        return {name: session.computes.push_image(computes[where[name]], name) for name in wanted}
    finally:
        session.computes.close()


def update_environments(
    workspace: Workspace, names: Sequence[str], notice: Callable[[str], None]
) -> dict[str, list[tuple[str, str | None, str | None]]]:
    """Resolve all anew and return name to (package, old, new). Raises EnvironmentFailure."""
    session = workspace.session()
    wanted = _names(session, names, notice)
    before = dict(session.lockfile.environments)
    resolve_and_lock(session, wanted, notice, upgrade=True)
    found = {}
    for name, pin in session.pins.new_environments.items():
        old = before.get(name)
        found[name] = changes(
            old if old is not None else EnvironmentPin(definition="", python=pin.python, image=pin.image), pin
        )
    return found
