"""`python = "system"`: the packages of the interpreter that runs pipe, read at each build, never pinned."""

from __future__ import annotations

import os
import re
import site
import sys
from _blake2 import blake2b

from pipesmith.environments.definition import normal_name
from pipesmith.environments.materialise import Materialised

__all__ = ["system_digest", "system_environment", "system_folders", "system_packages"]

_EGG = re.compile(r"(.+?)-([^-]+?)(?:-py\d[\d.]*)?(?:-[a-z].*)?\.egg-info")


def system_folders() -> list[str]:
    """Return the folders that hold installed packages of the running interpreter, in the order of its search."""
    folders = list(site.getsitepackages())
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    return [folder for folder in dict.fromkeys(folders) if os.path.isdir(folder)]


def system_packages() -> dict[str, str]:
    """Return name to version of what is installed; of one that is there twice, the one that is imported."""
    packages: dict[str, str] = {}
    for folder in system_folders():
        try:
            entries = os.listdir(folder)
        except OSError:
            continue
        for entry in entries:
            if entry.endswith(".dist-info"):
                name, separator, version = entry.removesuffix(".dist-info").partition("-")
            else:
                match = _EGG.fullmatch(entry)
                if match is None:
                    continue
                name, separator, version = match[1], "-", match[2]
            if separator:
                packages.setdefault(normal_name(name), version)
    return packages


def system_digest() -> str:
    """Return what stands for the running interpreter in fingerprints: its X.Y and `name==version` of all packages."""
    packages = system_packages()
    parts = [sys.implementation.name, f"{sys.version_info.major}.{sys.version_info.minor}"]
    parts += [f"{name}=={packages[name]}" for name in sorted(packages)]
    return f"system:{blake2b(chr(10).join(parts).encode('utf-8', 'surrogateescape'), digest_size=20).hexdigest()}"


def system_environment() -> Materialised:
    """Return the running interpreter's own folders. prefix is None where it is no virtual environment."""
    folder = os.path.join(sys.prefix, "bin")
    if not os.path.exists(os.path.join(folder, "python")) and not os.path.exists(os.path.join(folder, "python3")):
        folder = os.path.dirname(sys.executable)
    return Materialised(sys.prefix if sys.prefix != sys.base_prefix else None, folder, sys.executable)
