"""Environments on disk: one virtual environment a resolved set, shared by all clones, built once and only trusted when whole."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b

from pipesmith.environments.resolve import pin_digest
from pipesmith.environments.uv import explain, run_uv
from pipesmith.errors import EnvironmentFailure
from pipesmith.lockfile.model import EnvironmentPin
from pipesmith.store.locks import LockTable

__all__ = ["MARKER", "Materialised", "ensure", "environment_key", "environments_folder", "hold", "is_whole"]

MARKER = "pipesmith-environment.json"
_TOUCH_EVERY_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Materialised:
    """An interpreter with its packages, here. prefix: of the virtual environment, None for an interpreter that is none.
    bin: the folder that goes before PATH. python: the interpreter. All absolute."""

    prefix: str | None
    bin: str
    python: str


def environments_folder() -> str:
    """Return `${XDG_CACHE_HOME:-~/.cache}/pipesmith/envs`."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):
        cache = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "pipesmith", "envs")


def environment_key(pin: EnvironmentPin) -> str:
    """Return the name of an environment's folder: a hash of the pin and of what makes a build of it unlike one elsewhere."""
    platform = f"{sysconfig.get_platform()}-{_libc()}"
    text = "\n".join(["venv-1", pin_digest(pin), platform, pin.python])
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _libc() -> str:
    """Return `glibc` or what else the running interpreter stands on."""
    try:
        name = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError, AttributeError):
        name = None
    return "glibc" if name else "other"


def ensure(pin: EnvironmentPin, notice: Callable[[str], None], *, root: str | None = None) -> Materialised:
    """Return the environment of a pin, built first where it is not there or its interpreter is gone.

    notice: told, in one line each, that it is built or who is waited for. root: where uv looks for its own configuration.
    Any number of processes may ask at once: one builds, the others wait. Raises EnvironmentFailure.
    """
    folder = environments_folder()
    key = environment_key(pin)
    prefix = os.path.join(folder, key)
    if not is_whole(prefix):
        try:
            os.makedirs(folder, exist_ok=True)
            with hold(key, notice):
                if not is_whole(prefix):
                    notice(f"building an environment of {_count(len(pin.resolved))}, Python {pin.python}")
                    _build(pin, folder, key, root)
        except OSError as error:
            raise EnvironmentFailure(
                f"an environment can't be built in `{folder}`: {error.strerror or error}",
                "free some space or mend its permissions, or set XDG_CACHE_HOME to a folder that can be written",
            ) from None
    _touch(prefix)
    return Materialised(prefix=prefix, bin=os.path.join(prefix, "bin"), python=os.path.join(prefix, "bin", "python"))


def is_whole(prefix: str) -> bool:
    """Return whether an environment was finished, and the interpreter that it stands on is still there."""
    return os.path.isfile(os.path.join(prefix, MARKER)) and os.access(os.path.join(prefix, "bin", "python"), os.X_OK)


@contextmanager
def hold(key: str, notice: Callable[[str], None]) -> Iterator[None]:
    """Hold an environment's lock for the time of a `with`; who holds it is told once while waiting."""
    locks = LockTable(os.path.join(environments_folder(), ".locks"))
    pause, told, started = 0.01, False, time.monotonic()
    while (held := locks.try_acquire(key)) is None:
        if not told and time.monotonic() - started > 0.1:
            notice(f"waiting for an environment that {locks.holder(key) or 'another process'} builds")
            told = True
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)
    try:
        yield
    finally:
        held.release()


def _count(packages: int) -> str:
    return "1 package" if packages == 1 else f"{packages} packages"


def _touch(prefix: str) -> None:
    """Remember that an environment was used, for `pipe env ls` and gc."""
    marker = os.path.join(prefix, MARKER)
    try:
        if time.time() - os.stat(marker).st_mtime > _TOUCH_EVERY_S:
            os.utime(marker)
    except OSError:
        pass


def _build(pin: EnvironmentPin, folder: str, key: str, root: str | None) -> None:
    """Build an environment beside its place and rename it there. The caller holds its lock, so leftovers are nobody's."""
    for entry in os.listdir(folder):
        if entry.startswith(f".tmp-{key}-"):
            shutil.rmtree(os.path.join(folder, entry), ignore_errors=True)
    made = os.path.join(folder, f".tmp-{key}-{secrets.token_hex(4)}")
    try:
        _venv(pin, made, root)
        if pin.resolved:
            _sync(pin, made, root)
        _mark(pin, made)
        prefix = os.path.join(folder, key)
        if os.path.lexists(prefix):  # half-made, or its interpreter is gone
            broken = os.path.join(folder, f".tmp-{key}-broken")
            os.rename(prefix, broken)
            shutil.rmtree(broken, ignore_errors=True)
        os.rename(made, prefix)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _interpreter(python: str) -> str:
    """Return how uv is told which interpreter: the one that runs pipe where it fits, else the version."""
    running = sys.version_info
    if sys.implementation.name == "cpython" and python in (
        f"{running.major}.{running.minor}",
        f"{running.major}.{running.minor}.{running.micro}",
    ):
        base: str = getattr(sys, "_base_executable", "") or sys.executable
        if os.access(base, os.X_OK):
            return base
    return python


def _venv(pin: EnvironmentPin, made: str, root: str | None) -> None:
    arguments = ["venv", "--quiet", "--no-project", "--relocatable", "--python", _interpreter(pin.python), made]
    done = run_uv(arguments, cwd=root)
    if done.returncode != 0:
        what, whole = explain(done.stderr)
        raise EnvironmentFailure(
            f"no Python {pin.python} for an environment: {what}", f"install Python {pin.python}; uv says: {whole}"
        )


def _sync(pin: EnvironmentPin, made: str, root: str | None) -> None:
    """Install the pinned set, each file checked against its hash; from uv's cache alone where that has all of it."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt", prefix="pipe-packages-", encoding="utf-8") as file:
        file.writelines(line.replace(" --hash=", " \\\n    --hash=") + "\n" for line in pin.resolved)
        file.flush()
        arguments = [
            "pip",
            "sync",
            "--quiet",
            "--require-hashes",
            "--compile-bytecode",
            "--python",
            os.path.join(made, "bin", "python"),
        ]
        done = run_uv([*arguments, "--offline", file.name], cwd=root)
        if done.returncode != 0:
            done = run_uv([*arguments, file.name], cwd=root)
    if done.returncode != 0:
        what, whole = explain(done.stderr)
        raise EnvironmentFailure(f"an environment could not be installed: {what}", f"uv says: {whole}")


def _mark(pin: EnvironmentPin, made: str) -> None:
    """Write the marker that makes an environment count, as the last of its files."""
    document = {
        "version": 1,
        "pin": pin_digest(pin),
        "python": pin.python,
        "packages": [line.partition(" --hash=")[0] for line in pin.resolved],
        "created": time.time(),
    }
    path = os.path.join(made, MARKER)
    with open(f"{path}.part", "w", encoding="utf-8") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{path}.part", path)
