"""From conda specs to exact packages, for every platform at once."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pipesmith.environments.conda import (
    PLATFORMS,
    CondaProgram,
    documents,
    explain_conda,
    this_platform,
)
from pipesmith.environments.conda_pins import PinnedPackage, line_of, packages_for
from pipesmith.errors import EnvironmentFailure
from pipesmith.pipeline.model import Environment
from pipesmith.records import record

__all__ = ["CondaSet", "resolve_conda"]

DEFAULT_CHANNEL = "conda-forge"

_SPEC_NAME = re.compile(r"(?:[^\s:]+::)?([A-Za-z0-9_.-]+)")
_SECRET = re.compile(r"(?<=://)[^/@]+@|/t/[^/]+(?=/)")
_NO_SUCH_SET = re.compile(
    r"(?i)could not solve|unsatisfiable|packagesnotfound|resolvepackagenotfound|specsconfigurationconflict"
    r"|nothing provides|does not exist|not available from|incompatible"
)


@record
class CondaSet:
    """lines: of the pin. python: X.Y of its interpreter. versions: name to version, for those that uv may ask for."""

    lines: tuple[str, ...]
    python: str
    versions: Mapping[str, str]


class _NoSet(Exception):
    """There is no such set for one platform."""

    def __init__(self, what: str, whole: str) -> None:
        super().__init__(what)
        self.what, self.whole = what, whole


def resolve_conda(
    program: CondaProgram,
    environment: Environment,
    python: str,
    kept: Sequence[str],
    root: str | None,
    notice: Callable[[str], None],
) -> CondaSet:
    """Return the exact set that an environment's `conda` resolves to now, on all platforms that have one.

    kept: lines of a pin; what still fits of them is kept. notice: told which platforms have none. Raises
    EnvironmentFailure where no platform has such a set, or a channel can't be read."""
    specs = [" ".join(spec.split()) for spec in environment.conda]
    if "python" not in {_name(spec) for spec in specs}:
        specs.append(f"python={python}")
    here = this_platform()
    found: dict[str, dict[str, dict[str, Any]]] = {}
    failures: dict[str, _NoSet] = {}
    solver = _Solver(environment.name, program, _channels(environment, program, root), root)
    for platform in sorted({*PLATFORMS, here}, key=lambda each: each != here):
        try:
            found[platform] = solver.kept(specs, packages_for(kept, platform), platform)
        except _NoSet as none:
            failures[platform] = none
    if not found:
        raise EnvironmentFailure(
            f"environment `{environment.name}` can't be resolved: {failures[here].what}",
            f"{program.name} says: {failures[here].whole}",
        )
    if failures:
        notice(f"environment `{environment.name}` has no set of conda packages for {', '.join(sorted(failures))}")
    first = next(iter(found.values()))
    version = str(first["python"]["version"]) if "python" in first else python
    return CondaSet(
        lines=_lines(environment.name, program, found),
        python=".".join(version.split(".")[:2]),
        versions={name: str(record["version"]) for name, record in first.items()},
    )


def _name(spec: str) -> str:
    match = _SPEC_NAME.match(spec)
    return match[1].lower() if match is not None else spec


def _channels(environment: Environment, program: CondaProgram, root: str | None) -> tuple[str, ...]:
    """Return an environment's channels, else those of the program's own settings, else conda-forge."""
    if environment.channels:
        return environment.channels
    ways = (["list", "channels"], ["--show", "channels"])  # the first is micromamba's and mamba's since version 2
    for asked in ways[1:] if program.name == "conda" else ways:
        done = program.run(["config", *asked, "--json"], subdir=this_platform(), cwd=root)
        for document in documents(done.stdout):
            known = document.get("channels")
            if isinstance(known, list) and known and known != ["defaults"]:
                return tuple(str(each) for each in known)
    return (DEFAULT_CHANNEL,)


class _Solver:
    """Asks the program for a set, without anything being downloaded but the channels' lists."""

    def __init__(self, environment: str, program: CondaProgram, channels: Iterable[str], root: str | None) -> None:
        from pipesmith.environments.materialise import environments_folder

        self._environment = environment
        self._program = program
        self._channels = [word for channel in channels for word in ("--channel", channel)]
        self._root = root
        # A cache without packages: of those that it has, conda says no hash.
        self._lists = os.path.join(os.path.dirname(environments_folder()), "conda-lists")

    def kept(self, specs: Sequence[str], kept: Sequence[PinnedPackage], platform: str) -> dict[str, dict[str, Any]]:
        """Return a set with as much as fits of a pin in it. Raises _NoSet."""
        pins = {package.parts[0]: "=".join(package.parts) for package in kept}
        if not pins:
            return self.solve(specs, platform)
        try:
            return _reachable(self.solve([*specs, *pins.values()], platform), specs)
        except _NoSet:
            anew = self.solve(specs, platform)
        asked = {_name(spec) for spec in specs}
        still = [pin for name, pin in pins.items() if name in anew and name not in asked]
        try:
            return _reachable(self.solve([*specs, *still], platform), specs) if still else anew
        except _NoSet:
            return anew

    def solve(self, specs: Sequence[str], platform: str) -> dict[str, dict[str, Any]]:
        """Return name to record. Raises _NoSet."""
        os.makedirs(self._lists, exist_ok=True)
        prefix = os.path.join(tempfile.gettempdir(), f"pipe-conda-{os.urandom(8).hex()}")  # which nothing makes
        arguments = ["create", "--dry-run", "--json", "--yes", "--prefix", prefix, "--override-channels"]
        if self._program.name == "conda":  # the others have none
            arguments.append("--no-default-packages")
        done = self._program.run(
            [*arguments, *self._channels, *specs], subdir=platform, packages=self._lists, cwd=self._root
        )
        records: dict[str, dict[str, Any]] = {}
        linked: set[str] = set()
        for document in documents(done.stdout):
            actions = document.get("actions") or {}
            for entry in [*actions.get("LINK", ()), *actions.get("FETCH", ())]:
                if entry.get("url"):
                    records[str(entry["name"])] = {**records.get(str(entry["name"]), {}), **entry}
            linked |= {str(entry["name"]) for entry in actions.get("LINK", ())}
        if done.returncode == 0 and linked and linked <= records.keys():
            return {name: records[name] for name in linked}
        what, whole = explain_conda(done)
        if done.returncode == 0:
            lacking = ", ".join(sorted(linked - records.keys())) or "any package"
            what = f"{self._program.name} does not say where it has {lacking} from"
        elif _NO_SUCH_SET.search(done.stdout + done.stderr):
            raise _NoSet(f"{what} (on {platform})", whole)
        raise EnvironmentFailure(
            f"environment `{self._environment}` can't be resolved: {what}", f"{self._program.name} says: {whole}"
        )


def _reachable(records: dict[str, dict[str, Any]], specs: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return what the specs need of a set that had more asked of it."""
    waiting = [_name(spec) for spec in specs]
    found: dict[str, dict[str, Any]] = {}
    while waiting:
        name = waiting.pop()
        if name in records and name not in found:
            found[name] = records[name]
            waiting += [_name(text) for text in records[name].get("depends") or ()]
    return found


def _lines(
    environment: str, program: CondaProgram, found: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> tuple[str, ...]:
    packages: dict[tuple[str, str, str], list[str]] = {}
    for platform, listed in found.items():
        for name, entry in listed.items():
            md5, sha256 = (str(entry.get(kind) or "") for kind in ("md5", "sha256"))
            if not md5 and not sha256:
                raise EnvironmentFailure(
                    f"environment `{environment}`: {program.name} gives no hash of `{name}`, so it can't be pinned",
                    f"see what its channel says of it: `{program.name} search {name}`",
                )
            packages.setdefault((_SECRET.sub("", str(entry["url"])), md5, sha256), []).append(platform)
    return tuple(
        sorted(
            line_of(PinnedPackage(url=url, platforms=tuple(sorted(platforms)), md5=md5, sha256=sha256))
            for (url, md5, sha256), platforms in packages.items()
        )
    )
