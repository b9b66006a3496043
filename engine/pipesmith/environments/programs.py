"""Calling the programs that resolve and install packages."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence

from pipesmith.errors import Cancelled

__all__ = ["run_program"]


def run_program(
    command: Sequence[str], *, env: Mapping[str, str], cwd: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever its exit status, and return it with all that it printed.

    Raises Cancelled where it was interrupted: Ctrl-C reaches it as well."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode in (-signal.SIGINT, 128 + signal.SIGINT):
        raise Cancelled()
    return done
