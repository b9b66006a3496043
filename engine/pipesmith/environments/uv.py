"""The uv program: where it is, how it is called, and its errors told in one line."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence

from pipesmith.environments.programs import run_program
from pipesmith.errors import EnvironmentFailure

__all__ = ["explain", "run_uv", "uv_binary"]

# What would make uv look at another interpreter or file than the one it is told.
_UNWANTED = (
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "UV_PYTHON",
    "UV_SYSTEM_PYTHON",
    "UV_PROJECT_ENVIRONMENT",
    "UV_REQUIRE_HASHES",
    "PYTHONPATH",
)


def uv_binary() -> str:
    """Return the path of uv, installed beside pipesmith or on PATH. Raises EnvironmentFailure without one."""
    try:
        from uv import find_uv_bin

        return os.fspath(find_uv_bin())
    except (ImportError, FileNotFoundError):
        from shutil import which

        found = which("uv")
        if found is None:
            raise EnvironmentFailure(
                "uv was not found, which builds environments", "install it: `pip install uv`"
            ) from None
        return found


def run_uv(arguments: Sequence[str], *, cwd: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run uv to its end, whatever its exit status. cwd: where it looks for its configuration.

    Raises Cancelled where it was interrupted: Ctrl-C reaches it as well.
    """
    environ = {name: value for name, value in os.environ.items() if name not in _UNWANTED}
    environ |= {"NO_COLOR": "1", "UV_NO_PROGRESS": "1", "UV_NO_WRAP": "1"}  # its messages are read line by line
    return run_program([uv_binary(), *arguments], env=environ, cwd=cwd)


def explain(stderr: str) -> tuple[str, str]:
    """Return what went wrong, as one line of uv's own, and all of uv's text on one line.

    uv writes a chain: what it could not do, then each cause below it.
    """
    cleaned = (
        re.sub(r"^[\s×╰│├─▶›]*(?:(?:error|cause|Caused by):)?\s*", "", line).strip() for line in stderr.splitlines()
    )
    lines = [line for line in cleaned if line and not line.startswith("warning:")]
    if not lines:
        return "uv ended without a word", "run uv by hand to see more"
    lines = [re.sub(r" in `[^`]*` at position \d+$", "", line) for line in lines]
    whole = "; ".join(lines)
    for line in lines:
        if line.startswith("Couldn't parse requirement"):
            return (f"`{lines[2]}`: {lines[1]}" if len(lines) > 2 else lines[-1]), whole
        if re.match(r"(?i)request failed|failed to fetch|network|error sending request", line):
            unreached = next((text for text in lines if text.startswith("Failed to fetch")), lines[0])
            return f"the package index can't be reached ({unreached})", whole
    cause = next((line for line in lines if line.startswith("Because")), None)
    if cause is not None:
        cause = re.sub(r",? we can conclude that your requirements are unsatisfiable\.?$", "", cause)
        return f"{cause[0].lower()}{cause[1:]}", whole
    return lines[-1] if len(lines) > 1 and len(lines[-1]) > 12 else lines[0], whole
