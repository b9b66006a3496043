"""The code that judges, as a value: what it found holds for the same code alone."""

from __future__ import annotations

import os

from pipesmith import __version__

__all__ = ["program_sign"]

# The rooms that have a say.
_JUDGING = ("build", "environments", "fingerprint", "git", "lockfile", "pipeline", "verdict", "workspace")


def program_sign() -> bytes:
    """Return what changes when the code that judges does: a version may stand for many states of a developer's."""
    from _blake2 import blake2b

    top = os.path.dirname(os.path.dirname(__file__))
    found = [__version__]
    for room in _JUDGING:
        with os.scandir(os.path.join(top, room)) as entries:
            for entry in entries:
                if entry.name.endswith(".py"):
                    info = entry.stat()
                    found.append(f"{entry.path} {info.st_size} {info.st_mtime_ns}")
    return blake2b("\0".join(sorted(found)).encode("utf-8", "surrogateescape"), digest_size=16).digest()
