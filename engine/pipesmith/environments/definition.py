"""The digest of what an `[environment.N]` table says: a pin in pipe.lock holds for it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable

from pipesmith.digest import new_hasher
from pipesmith.errors import UserError
from pipesmith.pipeline.model import Environment

__all__ = ["DEFAULT_PYTHON", "definition_digest", "requirement_lines"]

DEFAULT_PYTHON = "3.11"
_SPACES = re.compile(r"\s+")
_NAME = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)")


def _canonical(line: str) -> str:
    """Return a requirement with its name normalised (PEP 503) and without spaces."""
    line = _SPACES.sub("", line) if ";" not in line else _SPACES.sub(" ", line).strip()
    return _NAME.sub(lambda match: re.sub(r"[-_.]+", "-", match[1]).lower(), line)


def requirement_lines(environment: Environment, read: Callable[[str], bytes | None]) -> list[str]:
    """Return the requirements of an environment: its packages, then the lines of its requirements file without comments.

    Raises UserError where the file does not exist.
    """
    lines = list(environment.packages)
    if environment.requirements is not None:
        data = read(environment.requirements)
        if data is None:
            raise UserError(
                f"`{environment.requirements}`, which [environment.{environment.name}] names, does not exist",
                "write it, or list `packages`",
            )
        lines += _without_comments(data.decode("utf-8", "replace").splitlines())
    return lines


def _without_comments(lines: Iterable[str]) -> list[str]:
    cut = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in lines)
    return [line for line in cut if line]


def definition_digest(environment: Environment, read: Callable[[str], bytes | None]) -> str:
    """Return a short text, equal for tables that say the same: order and spelling of packages don't matter."""
    said = {
        "python": environment.python or DEFAULT_PYTHON,
        "requirements": sorted({_canonical(line) for line in requirement_lines(environment, read)}),
        "conda": sorted(environment.conda),
        "image": environment.image,
        "dockerfile": environment.dockerfile,
    }
    hasher = new_hasher("blake3")
    hasher.update(json.dumps(said, sort_keys=True).encode())
    return hasher.hexdigest()[:32]
