"""From requirements to exact versions, by uv, for every platform at once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable

from pipesmith.digest import new_hasher
from pipesmith.environments.definition import DEFAULT_PYTHON, definition_digest, requirement_lines
from pipesmith.errors import EnvironmentFailure
from pipesmith.lockfile.model import EnvironmentPin
from pipesmith.pipeline.model import Environment

__all__ = ["changes", "pin_digest", "resolve", "run_uv", "uv_program"]


def uv_program() -> str:
    """Return the path of uv. Raises EnvironmentFailure without one."""
    try:
        from uv import find_uv_bin

        return os.fspath(find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
        if found is None:
            raise EnvironmentFailure(
                "`uv` is not installed, and environments are made by it", "run `pip install uv`"
            ) from None
        return found


def run_uv(*args: str, what: str, cwd: str | None = None) -> str:
    """Return what uv prints. Raises EnvironmentFailure with uv's own words."""
    env = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "UV_PYTHON", "PYTHONPATH")}
    done = subprocess.run(
        [uv_program(), *args], capture_output=True, text=True, stdin=subprocess.DEVNULL, env=env, cwd=cwd
    )
    if done.returncode != 0:
        raise EnvironmentFailure(
            f"{what}: {_words(done.stderr)}", "mend the table, or see `uv --help` for its index settings"
        )
    return done.stdout


def _words(text: str) -> str:
    """Return uv's message as one line."""
    lines = [re.sub(r"^[\s×╰│├▶─\-]+", "", line).strip() for line in text.splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(("Resolved", "Using")))[:600]


def resolve(
    environment: Environment,
    read: Callable[[str], bytes | None],
    previous: EnvironmentPin | None,
    *,
    upgrade: bool = False,
) -> EnvironmentPin:
    """Return the exact set that an environment's requirements resolve to now.

    previous: what still fits of it is kept, unless `upgrade`. Raises EnvironmentFailure where uv finds no set, UserError where the
    requirements file is missing.
    """
    python = environment.python or DEFAULT_PYTHON
    lines = requirement_lines(environment, read)
    resolved: tuple[str, ...] = ()
    if lines:
        with tempfile.TemporaryDirectory(prefix="pipe-resolve-") as folder:
            asked, answer = os.path.join(folder, "requirements.in"), os.path.join(folder, "requirements.txt")
            with open(asked, "w", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")
            if previous is not None and not upgrade:
                with open(answer, "w", encoding="utf-8") as file:
                    file.write("\n".join(_requirement(line) for line in previous.resolved) + "\n")
            run_uv(
                *("pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-header", "--no-annotate"),
                *(
                    "--no-emit-index-url",
                    "--no-emit-find-links",
                    "--python-version",
                    python,
                    "--output-file",
                    answer,
                    asked,
                ),
                what=f"environment `{environment.name}` can't be resolved",
                cwd=folder,
            )
            with open(answer, encoding="utf-8") as file:
                resolved = tuple(_canonical(file.read()))
    return EnvironmentPin(definition=definition_digest(environment, read), python=python, resolved=resolved)


def _canonical(text: str) -> Iterable[str]:
    """Return a resolved set as sorted lines `name==version ; marker --hash=…`, hashes sorted."""
    joined = text.replace("\\\n", " ")
    found = []
    for line in joined.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        requirement, *hashes = re.split(r"\s+--hash=", line)
        found.append(" --hash=".join([requirement.strip(), *sorted(h.strip() for h in hashes)]))
    return sorted(found)


def _requirement(line: str) -> str:
    return line.split(" --hash=", 1)[0]


def pin_digest(pin: EnvironmentPin) -> str:
    """Return what stands for a resolved set in fingerprints: Python's version and the exact packages, however they were written."""
    hasher = new_hasher("blake3")
    hasher.update("\n".join(("pipesmith-environment 1", pin.python, pin.image or "", *pin.resolved)).encode())
    return f"blake3:{hasher.hexdigest()}"


def changes(old: EnvironmentPin, new: EnvironmentPin) -> list[tuple[str, str | None, str | None]]:
    """Return (package, old version, new version) of what differs between two pins."""
    before, after = _versions(old), _versions(new)
    found = [(name, before.get(name), after.get(name)) for name in sorted(before.keys() | after.keys())]
    if old.python != new.python:
        found.insert(0, ("python", old.python, new.python))
    return [change for change in found if change[1] != change[2]]


def _versions(pin: EnvironmentPin) -> dict[str, str]:
    versions = {}
    for line in pin.resolved:
        name, _, rest = _requirement(line).partition("==")
        versions[name.strip()] = rest.split(";")[0].strip()
    return versions
