"""Building the image of a Dockerfile: by BuildKit where it is there, else by the daemon's classic builder.

The daemon's API speaks to BuildKit only through a session that the client holds open, which the Python package does not
do. The `docker` command does: one that can (any before 23, or one with the plugin buildx) is given the context, for
whatever daemon. DOCKER_BUILDKIT=0 turns that off, as it does for the command itself.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from pipesmith.docker_client import Daemon, answer
from pipesmith.errors import EnvironmentFailure
from pipesmith.pipeline.model import Environment

__all__ = ["build_dockerfile", "buildkit_command", "words"]

_FIRST_WITH_PLUGIN = 23
_LAST_LINES = 3
_STEP_OUTPUT = re.compile(r"#\d+ \d+\.\d+ (.*)")


def build_dockerfile(
    client: Any,
    daemon: Daemon,
    environment: Environment,
    name: str,
    context: Sequence[tuple[str, str]],
    labels: Mapping[str, str],
) -> None:
    """Build an image on a daemon and give it a name. context: (absolute origin, path in its folder) of its files, less
    what a `.dockerignore` among them leaves out. Raises EnvironmentFailure with the builder's own words."""
    file = os.path.basename(environment.dockerfile or "")
    command = buildkit_command()
    with tempfile.TemporaryDirectory(prefix="pipe-context-") as folder:
        for origin, path in context:
            place = os.path.join(folder, path)
            os.makedirs(os.path.dirname(place), exist_ok=True)
            shutil.copy2(origin, place, follow_symlinks=False)
        if command is None:
            failure = _classic(client, file, name, folder, labels)
        else:
            failure = _buildkit([*command, *daemon.flags()], file, name, folder, labels)
    if failure is not None:
        raise EnvironmentFailure(
            f"the image of `{environment.dockerfile}` can't be built on {daemon.title}: {failure}",
            f"`docker build -f {environment.dockerfile} {environment.context}` shows more",
        )


def buildkit_command() -> list[str] | None:
    """Return the `docker` command, where it is there and can speak to BuildKit."""
    program = shutil.which("docker")
    if program is None or os.environ.get("DOCKER_BUILDKIT", "1") in ("0", "false"):
        return None
    told = _said([program, "--version"])
    version = re.search(r"version (\d+)\.", told or "")
    if version is None:
        return None
    if int(version[1]) >= _FIRST_WITH_PLUGIN and _said([program, "buildx", "version"]) is None:
        return None
    return [program]


def _said(command: list[str]) -> str | None:
    """Return what a command prints, None where it fails."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def _buildkit(command: list[str], file: str, name: str, folder: str, labels: Mapping[str, str]) -> str | None:
    """Build by the `docker` command; return what went wrong. In a session of its own, so that it goes on for the next
    build where this one is interrupted."""
    marks = [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]
    settings = {"DOCKER_BUILDKIT": "1", "BUILDX_BUILDER": "default", "BUILDKIT_COLORS": "", "NO_COLOR": "1"}
    done = subprocess.run(
        [*command, "build", "--progress", "plain", "--file", os.path.join(folder, file), "--tag", name, *marks, folder],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **settings},
        text=True,
        errors="replace",
        start_new_session=True,
        check=False,
    )
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    told = next((line for line in reversed(lines) if re.match(r"(?i)error\b", line)), lines[-1] if lines else "")
    what = re.sub(r"(?i)^error:?\s*(response from daemon:|failed to solve:)?\s*", "", told) or "it ended without a word"
    printed = [match[1] for line in lines if (match := _STEP_OUTPUT.fullmatch(line))]
    return _with_output(what, printed)


def _classic(client: Any, file: str, name: str, folder: str, labels: Mapping[str, str]) -> str | None:
    """Build by the daemon's classic builder; return what went wrong."""
    try:
        client.images.build(path=folder, dockerfile=file, tag=name, rm=True, forcerm=True, labels=dict(labels))
    except Exception as error:
        if type(error).__module__ != "docker.errors":
            raise
        log = [str(entry.get("stream", "")) for entry in getattr(error, "build_log", None) or ()]
        printed = [line.strip() for text in log for line in text.splitlines() if line.strip()]
        printed = [line for line in printed if not line.startswith(("--->", "Step ", "Removing intermediate"))]
        return _with_output(words(error), printed)
    return None


def _with_output(what: str, printed: Sequence[str]) -> str:
    """Return what went wrong, with the last lines that the failed step printed."""
    last = " / ".join(printed[-_LAST_LINES:])
    return f"{what} ({last[:300]})" if last and last not in what else what


def words(error: Exception) -> str:
    """Return what an error of a daemon says, in one line that is not too long."""
    return (answer(error) or " ".join(str(error).split()))[:300]
