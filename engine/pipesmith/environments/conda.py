"""The program that resolves and installs conda packages: micromamba, else mamba or conda. How it is called, and its
errors told in one line.

Nothing of it comes with pipesmith. What it is told stands on its command line and in variables that all three know; its
own settings (mirrors, proxies, credentials, channel aliases) hold.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipesmith.environments.programs import run_program
from pipesmith.errors import UserError
from pipesmith.records import record

__all__ = ["PLATFORMS", "CondaProgram", "documents", "explain_conda", "find_conda", "need_conda", "this_platform"]

# What a set is resolved for, whatever this machine is.
PLATFORMS = ("linux-64", "linux-aarch64", "osx-64", "osx-arm64")

_MACHINES = {"x86_64": "64", "amd64": "64", "aarch64": "aarch64", "arm64": "aarch64", "ppc64le": "ppc64le"}
# What would make it look at another environment than the one it is told.
_UNWANTED = (
    "CONDA_PREFIX",
    "CONDA_DEFAULT_ENV",
    "CONDA_SHLVL",
    "CONDA_PROMPT_MODIFIER",
    "CONDA_EXE",
    "CONDA_PYTHON_EXE",
    "PYTHONPATH",
    "PYTHONHOME",
    "VIRTUAL_ENV",
)
# What a machine is taken to have, so that a set does not hang on the one that resolves it. A user's own word counts.
_SUPPOSED = {
    "linux": {"CONDA_OVERRIDE_LINUX": "4.18", "CONDA_OVERRIDE_GLIBC": "2.28"},
    "osx": {"CONDA_OVERRIDE_OSX": "13.0"},
}
_ARCHSPEC = {"64": "x86_64", "aarch64": "aarch64", "arm64": "arm64"}


@record(kw_only=False)
class CondaProgram:
    """name: `micromamba`, `mamba` or `conda`, as it is called on this machine."""

    path: str

    @property
    def name(self) -> str:
        return os.path.basename(self.path)

    def run(
        self, arguments: Sequence[str], *, subdir: str, packages: str | None = None, cwd: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end, whatever its exit status. subdir: the platform it works for. packages: the folder of its
        cache, None for its own.

        Raises Cancelled where it was interrupted: Ctrl-C reaches it as well."""
        system, _, processor = subdir.partition("-")
        supposed = {**_SUPPOSED.get(system, {}), "CONDA_OVERRIDE_CUDA": ""}
        supposed["CONDA_OVERRIDE_ARCHSPEC"] = _ARCHSPEC.get(processor, processor)
        environ = {name: value for name, value in os.environ.items() if name not in _UNWANTED}
        environ = {**supposed, **environ, "CONDA_SUBDIR": subdir, "NO_COLOR": "1", "CONDA_REGISTER_ENVS": "false"}
        environ |= {"CONDA_NUMBER_CHANNEL_NOTICES": "0", "CONDA_ALWAYS_YES": "true", "MAMBA_NO_BANNER": "1"}
        if packages is not None:
            environ["CONDA_PKGS_DIRS"] = packages
        return run_program([self.path, *arguments], env=environ, cwd=cwd)


def find_conda() -> CondaProgram | None:
    """Return the program of this machine: on PATH, else the one that the user's shell was set up for."""
    for name, variable in (("micromamba", "MAMBA_EXE"), ("mamba", ""), ("conda", "CONDA_EXE")):
        found = shutil.which(name) or os.environ.get(variable)
        if found and os.access(found, os.X_OK):
            return CondaProgram(found)
    return None


def need_conda(what: str) -> CondaProgram:
    """Return the program of this machine. what: who needs it. Raises UserError where there is none."""
    found = find_conda()
    if found is None:
        raise UserError(
            f"{what} is of conda packages, and neither micromamba nor mamba nor conda is on PATH",
            "install micromamba (one file, no root needed) or conda, or write `packages` instead of `conda`",
        )
    return found


def this_platform() -> str:
    """Return the platform of this machine, as conda calls it."""
    processor = _MACHINES.get(platform.machine().lower(), platform.machine().lower())
    if sys.platform == "darwin":
        return "osx-arm64" if processor == "aarch64" else "osx-64"
    return f"linux-{processor}"


def documents(text: str) -> Iterator[Mapping[str, Any]]:
    """Give the JSON objects in a text: some versions print more than one, or words before it."""
    decoder, at = json.JSONDecoder(), text.find("{")
    while at >= 0:
        try:
            found, end = decoder.raw_decode(text, at)
        except ValueError:
            end = at + 1
        else:
            if isinstance(found, dict):
                yield found
        at = text.find("{", end)


def explain_conda(done: subprocess.CompletedProcess[str]) -> tuple[str, str]:
    """Return what went wrong, as one line of the program's own, and all of its text on one line."""
    told: list[str] = []
    for document in documents(done.stdout):
        several = [each.get("message") or each.get("error") for each in document.get("errors") or ()]
        problems = document.get("solver_problems") or several or document.get("message") or document.get("error")
        if problems:
            told = problems if isinstance(problems, list) else [str(problems)]
    if not told:
        words = (re.sub(r"^(error|critical)\s+(libmamba\s+)?", "", line.strip()) for line in done.stderr.splitlines())
        told = [line for line in words if line and not line.startswith(("warning", "info"))]
    if not told:
        return "it ended without a word", "run it by hand to see more"
    lines = [" ".join(line.split()) for text in told for line in str(text).splitlines() if line.strip()]
    whole = "; ".join(line.rstrip(";,") for line in lines)
    first = " ".join(lines[:3]) if lines[0].endswith(":") else lines[0]
    return first[:300], whole[:2000]
