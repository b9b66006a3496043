"""`python = "system"`: the packages of the interpreter that runs pipe, read at each build, never pinned."""

from __future__ import annotations

import os
import sys

from pipesmith.digest import new_hasher
from pipesmith.environments.materialise import Materialised

__all__ = ["system_digest", "system_environment", "system_packages"]


def system_packages() -> list[str]:
    """Return `name==version` of what is installed, sorted."""
    from importlib.metadata import distributions

    found = {
        f"{str(d.metadata['Name']).lower().replace('_', '-')}=={d.version}"
        for d in distributions()
        if d.metadata["Name"]
    }
    return sorted(found)


def system_digest() -> str:
    """Return what stands for the running interpreter's packages in fingerprints."""
    hasher = new_hasher("blake3")
    version = f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}"
    hasher.update("\n".join(("pipesmith-system 1", version, *system_packages())).encode())
    return f"system:{hasher.hexdigest()}"


def system_environment() -> Materialised:
    """Return the running interpreter."""
    return Materialised(sys.prefix, os.path.dirname(sys.executable), sys.executable)
