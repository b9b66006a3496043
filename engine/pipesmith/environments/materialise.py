"""Virtual environments by what they resolved to: one a resolved set, shared by all clones, built once even by builds at once."""

from __future__ import annotations

import fcntl
import os
import platform
import secrets
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass

from pipesmith.digest import new_hasher
from pipesmith.environments.resolve import pin_digest, run_uv
from pipesmith.errors import EnvironmentFailure
from pipesmith.lockfile.model import EnvironmentPin

__all__ = ["Materialised", "ensure", "environments_folder", "listing"]

_MARK = "pipesmith-complete"


@dataclass(frozen=True, slots=True)
class Materialised:
    """An environment on this machine. bin: goes before PATH."""

    prefix: str
    bin: str
    python: str


def environments_folder() -> str:
    """Return the folder of all environments of this user."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "pipesmith", "envs")


def _key(pin: EnvironmentPin) -> str:
    """Return the folder name of a pin on this kind of machine."""
    hasher = new_hasher("blake3")
    hasher.update(f"{pin_digest(pin)} {sys.platform} {platform.machine()} {platform.libc_ver()[0]}".encode())
    return hasher.hexdigest()[:32]


def _made(prefix: str) -> Materialised:
    folder = os.path.join(prefix, "bin")
    return Materialised(prefix, folder, os.path.join(folder, "python"))


def _complete(prefix: str) -> bool:
    return os.path.exists(os.path.join(prefix, _MARK)) and os.path.exists(os.path.join(prefix, "bin", "python"))


def ensure(pin: EnvironmentPin, notice: Callable[[str], None]) -> Materialised:
    """Return the environment of a pin, built first if need be. Raises EnvironmentFailure."""
    folder = environments_folder()
    prefix = os.path.join(folder, _key(pin))
    if _complete(prefix):
        os.utime(os.path.join(prefix, _MARK))
        return _made(prefix)
    try:
        os.makedirs(folder, exist_ok=True)
        lock = os.open(f"{prefix}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise EnvironmentFailure(f"`{folder}` can't be written: {error.strerror}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 100, 0).decode(errors="replace").strip()
            notice(f"waiting for an environment that {holder or 'another process'} builds")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not _complete(prefix):
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"pid {os.getpid()}".encode(), 0)
            _build(pin, prefix, notice)
    finally:
        os.close(lock)
    return _made(prefix)


def _build(pin: EnvironmentPin, prefix: str, notice: Callable[[str], None]) -> None:
    notice(f"building an environment of {len(pin.resolved)} packages for Python {pin.python}")
    ready = f"{prefix}.tmp-{secrets.token_hex(4)}"
    try:
        run_uv(
            *("venv", "--quiet", "--relocatable", "--no-project", "--python", pin.python, ready),
            what=f"Python {pin.python} can't be had",
        )
        if pin.resolved:
            listed = os.path.join(ready, "pipesmith-resolved.txt")
            with open(listed, "w", encoding="utf-8") as file:
                file.write("\n".join(pin.resolved) + "\n")
            run_uv(
                *("pip", "sync", "--quiet", "--require-hashes", "--compile-bytecode"),
                *("--python", os.path.join(ready, "bin", "python"), listed),
                what="the environment can't be installed",
            )
        with open(os.path.join(ready, _MARK), "w", encoding="utf-8") as file:
            file.write(pin_digest(pin) + "\n")
        if os.path.lexists(prefix):
            os.rename(prefix, f"{ready}-old")
            shutil.rmtree(f"{ready}-old", ignore_errors=True)
        os.rename(ready, prefix)
    except OSError as error:
        raise EnvironmentFailure(f"the environment can't be written: {error.strerror}") from None
    finally:
        shutil.rmtree(ready, ignore_errors=True)


def listing() -> list[tuple[str, int, float]]:
    """Return (path, bytes, last use in seconds since the epoch) of all environments of this user."""
    folder = environments_folder()
    found = []
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        prefix = os.path.join(folder, name)
        if os.path.exists(os.path.join(prefix, _MARK)):
            size = sum(
                os.lstat(os.path.join(where, each)).st_size
                for where, _folders, files in os.walk(prefix)
                for each in files
            )
            found.append((prefix, size, os.stat(os.path.join(prefix, _MARK)).st_mtime))
    return found
