"""`hooks install` and `uninstall`: which of pipe's hooks a clone has, never at the cost of somebody's own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from pipesmith.git.drivers import install_drivers, installed_drivers, uninstall_drivers
from pipesmith.git.hook_folder import HookFolder, HooksApart, hook_folder
from pipesmith.git.hook_scripts import HOOKS
from pipesmith.git.repository import Repository
from pipesmith.records import record

__all__ = ["HOOKS", "HooksDone", "InstalledHook", "install_hooks", "installed_hooks", "uninstall_hooks"]


@record
class InstalledHook:
    """path: absolute. first: the hook that runs before ours, None without one. by_itself: the hook is somebody's own,
    and runs `pipe hooks run NAME`."""

    name: str
    path: str
    first: str | None = None
    by_itself: bool = False

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "path": self.path, "first": self.first, "by_itself": self.by_itself}


@record
class HooksDone:
    """hooks: all that are there now. changed: names of those that were installed, written anew or taken away.
    led_from: the folder that core.hooksPath led to before it led to one of ours, None where it does not.
    drivers: which of `merge` and `diff` git asks pipe for, of pipe.lock. drivers_changed: whether that was different.
    """

    hooks: tuple[InstalledHook, ...]
    changed: tuple[str, ...]
    led_from: str | None = None
    drivers: tuple[str, ...] = ()
    drivers_changed: bool = False

    def as_json(self) -> dict[str, Any]:
        return {
            "hooks": [hook.as_json() for hook in self.hooks],
            "changed": list(self.changed),
            "led_from": self.led_from,
            "drivers": list(self.drivers),
        }


def install_hooks(folder: str, names: Sequence[str]) -> HooksDone:
    """Install hooks of the repository that holds `folder`, and the drivers of pipe.lock; those that are there stay.

    Raises UserError where git looks for hooks in what is no folder, EnvironmentFailure where that can't be written.
    """
    repo = Repository.discover(folder)
    apart = HooksApart(repo)
    place = apart.behind()
    place.check()
    wanted = [name for name in names if place.caller(name) is None]
    if apart.in_use or any(place.stands_apart(name) for name in wanted):
        before = apart.names()
        filled = apart.fill({*before, *wanted}) if wanted else False
        changed = [name for name in wanted if filled and name not in before]
    else:
        changed = [name for name in wanted if place.put(name)]
    return _done(folder, changed, drivers_changed=bool(install_drivers(repo)))


def uninstall_hooks(folder: str, names: Sequence[str] = HOOKS) -> HooksDone:
    """Take hooks away, with all of them the drivers of pipe.lock too, and put back what was there before; what is not
    pipe's stays as it is."""
    repo = Repository.discover(folder)
    apart = HooksApart(repo)
    changed = []
    if apart.in_use:
        before = apart.names()
        changed = [name for name in before if name in names]
        left = [name for name in before if name not in names]
        if left:
            apart.fill(left)
        else:
            apart.end()
    elif os.path.isdir(apart.path):
        apart.end()  # somebody has led git elsewhere since
    for place in _places(repo):
        changed += [name for name in names if place.take(name) and name not in changed]
    gone = bool(uninstall_drivers(repo)) if set(names) == set(HOOKS) else False
    return _done(folder, changed, drivers_changed=gone)


def _places(repo: Repository) -> list[HookFolder]:
    """Return where hooks of ours may lie: where git looks now, and in the clone's own folder."""
    now = hook_folder(repo)
    own = os.path.join(repo.common_dir, "hooks")
    return [now] if os.path.realpath(now.path) == os.path.realpath(own) else [now, HookFolder(repo, own)]


def _done(folder: str, changed: Sequence[str], *, drivers_changed: bool) -> HooksDone:
    repo = Repository.discover(folder)  # the configuration is another one now
    apart = HooksApart(repo)
    led_from = apart.behind().path if apart.in_use else None
    return HooksDone(
        hooks=tuple(installed_hooks(repo)),
        changed=tuple(changed),
        led_from=led_from,
        drivers=tuple(installed_drivers(repo)),
        drivers_changed=drivers_changed,
    )


def installed_hooks(repo: Repository) -> list[InstalledHook]:
    """Return pipe's hooks that git runs in this repository, those that somebody's own hooks run by themselves too."""
    apart = HooksApart(repo)
    place = apart.behind()
    found = []
    for name in HOOKS:
        if name in apart.names():
            first = place.file(name) if os.path.lexists(place.file(name)) else None
            found.append(InstalledHook(name=name, path=apart.file(name), first=first))
        elif (caller := place.caller(name)) is not None:
            found.append(InstalledHook(name=name, path=caller, by_itself=True))
        elif (ours := place.ours(name)) is not None:
            first = place.before(name) if os.path.lexists(place.before(name)) else None
            found.append(InstalledHook(name=name, path=ours, first=first))
    return found
