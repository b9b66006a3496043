"""Pinned conda packages on this disk: installed, compared with the pin, and copied for another place."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from pipesmith.environments.conda import explain_conda, need_conda
from pipesmith.environments.conda_pins import PinnedPackage, packages_for, platforms_of
from pipesmith.errors import EnvironmentFailure
from pipesmith.lockfile.model import EnvironmentPin

__all__ = ["activation", "install_conda", "moved", "pinned_packages"]

_OF_EVERY_SHELL = ("_", "PATH", "PWD", "OLDPWD", "SHLVL", "CONDA_PREFIX")
_ACTIVATE = """
for each in "$CONDA_PREFIX"/etc/conda/activate.d/*.sh; do
    if [ -r "$each" ]; then . "$each"; fi
done >/dev/null 2>&1
env -0
"""


def pinned_packages(pin: EnvironmentPin, platform: str) -> list[PinnedPackage]:
    """Return a pin's conda packages for one platform. Raises EnvironmentFailure where it has none."""
    packages = packages_for(pin.conda, platform)
    if not packages:
        raise EnvironmentFailure(
            f"an environment was pinned for {', '.join(platforms_of(pin.conda))}, and {platform} has no such set",
            "`pipe env update` resolves it anew",
        )
    return packages


def install_conda(pin: EnvironmentPin, prefix: str, platform: str, root: str | None) -> None:
    """Install a pin's conda packages into a folder that is not there yet, and compare them with the pin.

    Raises EnvironmentFailure; UserError without a program."""
    program = need_conda("an environment")
    packages = pinned_packages(pin, platform)
    with tempfile.TemporaryDirectory(prefix="pipe-conda-") as folder:
        listed = os.path.join(folder, "explicit.txt")
        with open(listed, "w", encoding="utf-8") as file:
            file.write("@EXPLICIT\n")
            file.writelines(f"{each.url}#{each.md5 or f'sha256:{each.sha256}'}\n" for each in packages)
        done = program.run(
            ["create", "--yes", "--quiet", "--json", "--prefix", prefix, "--file", listed], subdir=platform, cwd=root
        )
    if done.returncode != 0:
        what, whole = explain_conda(done)
        raise EnvironmentFailure(f"an environment can't be installed: {what}", f"{program.name} says: {whole}")
    _compare(prefix, packages)


def _compare(prefix: str, packages: Sequence[PinnedPackage]) -> None:
    """Raise EnvironmentFailure where what was installed is not what was pinned, down to the packages' files."""
    found = {}
    folder = os.path.join(prefix, "conda-meta")
    for name in os.listdir(folder):
        if name.endswith(".json"):
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                record = json.load(file)
            found[record["name"], record["version"], record.get("build") or record.get("build_string")] = record
    wanted = {package.parts: package for package in packages}
    differing = sorted({parts[0] for parts in found.keys() ^ wanted.keys()})
    for parts, package in wanted.items():
        if parts in found and package.sha256 and package.sha256 != _sha256(found[parts]):
            differing.append(parts[0])
    if differing:
        raise EnvironmentFailure(
            f"an environment can't be installed: {', '.join(f'`{name}`' for name in differing)} is not what is pinned",
            "its channel serves other content by that name; `pipe env update` takes it",
        )


def _sha256(record: Mapping[str, object]) -> str | None:
    """Return the hash of the file that a package came in: itself where it is still there, else as it was noted."""
    path = str(record.get("package_tarball_full_path") or "")
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return str(record["sha256"]) if record.get("sha256") else None


def activation(prefix: str) -> dict[str, str]:
    """Return the variables that an installed set has its programs find, besides PATH: what activating it would set."""
    variables = {"CONDA_PREFIX": prefix}
    folder = os.path.join(prefix, "etc", "conda", "env_vars.d")
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            variables |= {str(key): str(value) for key, value in json.load(file).items()}
    if os.path.isdir(os.path.join(prefix, "etc", "conda", "activate.d")):
        base = {"PATH": f"{prefix}/bin:{os.defpath}", "HOME": os.path.expanduser("~"), "CONDA_PREFIX": prefix}
        shell = shutil.which("bash") or "/bin/sh"
        done = subprocess.run(
            [shell, "-c", _ACTIVATE], env=base, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        for entry in done.stdout.split(b"\0"):
            key, equals, value = os.fsdecode(entry).partition("=")
            if equals and base.get(key) != value and key not in _OF_EVERY_SHELL:
                variables[key] = value
    return variables


@contextmanager
def moved(prefix: str, target: str) -> Iterator[str]:
    """Give a copy of an installed set as it would be at another place, whose name is not longer: files that hold the
    name of its place hold that one instead."""
    if len(os.fsencode(target)) > len(os.fsencode(prefix)):
        raise EnvironmentFailure(f"`{prefix}` is too short a name to be moved", "set XDG_CACHE_HOME to a longer one")
    with tempfile.TemporaryDirectory(prefix=".tmp-moved-", dir=os.path.dirname(prefix)) as scratch:
        copy = os.path.join(scratch, "prefix")
        shutil.copytree(prefix, copy, symlinks=True, copy_function=_linked)
        old, new = os.fsencode(prefix), os.fsencode(target)
        for where, folders, files in os.walk(copy):
            for name in [*folders, *files]:
                path = os.path.join(where, name)
                if os.path.islink(path):
                    points = os.readlink(path)
                    if points.startswith(prefix):
                        os.unlink(path)
                        os.symlink(target + points[len(prefix) :], path)
                elif name in files and not name.endswith(".pyc"):
                    _rewrite(path, old, new)
        yield copy


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _rewrite(path: str, old: bytes, new: bytes) -> None:
    """Put one name in place of another one in a file. In a binary, what follows it moves up to the end of its text, so
    that all else stays where it is."""
    with open(path, "rb") as file:
        data = file.read()
    if old not in data:
        return
    if b"\0" in data:

        def shorter(match: re.Match[bytes]) -> bytes:
            text = match[0].replace(old, new)
            return text + b"\0" * (len(match[0]) - len(text))

        data = re.sub(re.escape(old) + rb"[^\0]*", shorter, data)
    else:
        data = data.replace(old, new)
    mode = os.stat(path).st_mode
    beside = f"{path}.moved"
    with open(beside, "wb") as changed:  # not in place: the file may be a hard link to the package's own
        changed.write(data)
    os.chmod(beside, mode)
    os.replace(beside, path)
