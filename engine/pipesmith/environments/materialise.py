"""Environments on disk: one a resolved set, shared by all clones, built once, trusted only when whole."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

from pipesmith.digest import new_hasher
from pipesmith.environments.definition import pin_digest
from pipesmith.environments.uv import explain, run_uv
from pipesmith.errors import EnvironmentFailure
from pipesmith.lockfile.model import EnvironmentPin
from pipesmith.records import field, record

__all__ = [
    "MARKER",
    "Materialised",
    "add_packages",
    "count",
    "count_text",
    "ensure",
    "environment_key",
    "environments_folder",
    "hold",
    "is_whole",
]

MARKER = "pipesmith-environment.json"
_TOUCH_EVERY_S = 3600.0


@record(kw_only=False)
class Materialised:
    """An environment on this machine. bin: goes before PATH. prefix: None for what is no environment of its own.
    variables: what its programs are to find besides PATH; a virtual environment has none."""

    prefix: str | None
    bin: str
    python: str
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def root(self) -> str:
        """The folder that `bin` lies in, whether it is a virtual environment or not."""
        return self.prefix or os.path.dirname(self.bin)


def environments_folder() -> str:
    """Return the folder of all environments of this user: `${XDG_CACHE_HOME:-~/.cache}/pipesmith/envs`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # a relative one is to be ignored, says the XDG specification
        base = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "pipesmith", "envs")


def environment_key(pin: EnvironmentPin) -> str:
    """Return the folder name of a pin on this kind of machine."""
    import platform

    hasher = new_hasher("blake3")
    hasher.update(f"{pin_digest(pin)} {sys.platform} {platform.machine()} {platform.libc_ver()[0]}".encode())
    return hasher.hexdigest()[:32]


def is_whole(prefix: str) -> bool:
    """Return whether an environment was finished, and the interpreter that it stands on is still there."""
    return os.path.isfile(os.path.join(prefix, MARKER)) and os.access(os.path.join(prefix, "bin", "python"), os.X_OK)


def ensure(
    pin: EnvironmentPin,
    notice: Callable[[str], None],
    *,
    root: str | None = None,
    making: Callable[[str], AbstractContextManager[None]] | None = None,
) -> Materialised:
    """Return the environment of a pin, built first where it is not there or its interpreter is gone.

    notice: told that it is built, or who is waited for. making(what is done): held while it is built, instead of a
    notice. root: where uv looks for its configuration.
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
                    text = f"building an environment of {count_text(pin)} for Python {pin.python}"
                    if making is None:
                        notice(text)
                    with making(text) if making is not None else nullcontext():
                        _build(pin, folder, key, root)
        except OSError as error:
            raise EnvironmentFailure(
                f"an environment can't be built in `{folder}`: {error.strerror or error}",
                "free some space or mend its permissions, or set XDG_CACHE_HOME to a folder that can be written",
            ) from None
    _touch(prefix)
    variables = _variables(prefix) if pin.conda else {}
    return Materialised(prefix, os.path.join(prefix, "bin"), os.path.join(prefix, "bin", "python"), variables)


def count(pin: EnvironmentPin, platform: str | None = None) -> int:
    """Return how many packages a pin has on a platform, as conda calls it; default: this one."""
    if not pin.conda:
        return len(pin.resolved)
    from pipesmith.environments.conda import this_platform
    from pipesmith.environments.conda_pins import packages_for

    return len(pin.resolved) + len(packages_for(pin.conda, platform or this_platform()))


def count_text(pin: EnvironmentPin, platform: str | None = None) -> str:
    """Return that in words."""
    number = count(pin, platform)
    return "1 package" if number == 1 else f"{number} packages"


def _variables(prefix: str) -> dict[str, str]:
    with open(os.path.join(prefix, MARKER), encoding="utf-8") as file:
        variables: dict[str, str] = json.load(file)["variables"]
    return variables


@contextmanager
def hold(key: str, notice: Callable[[str], None]) -> Iterator[None]:
    """Hold an environment's lock during a `with`; who holds it is told before waiting. A dead process holds none."""
    os.makedirs(environments_folder(), exist_ok=True)
    lock = os.open(os.path.join(environments_folder(), f"{key}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 500, 0).decode(errors="replace").strip()
            notice(f"waiting for an environment that {holder or 'another process'} builds")
            fcntl.flock(lock, fcntl.LOCK_EX)
        command = " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:]])[:200]
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"pid {os.getpid()} on {socket.gethostname()} ({command})".encode("utf-8", "replace"), 0)
        yield
    finally:
        os.close(lock)


def _touch(prefix: str) -> None:
    """Remember that an environment was used, for `pipe env ls` and gc."""
    marker = os.path.join(prefix, MARKER)
    try:
        if time.time() - os.stat(marker).st_mtime > _TOUCH_EVERY_S:
            os.utime(marker)
    except OSError:
        pass


def _build(pin: EnvironmentPin, folder: str, key: str, root: str | None) -> None:
    """Build beside its place and rename it there. The caller holds the lock: what killed builds left is nobody's."""
    for entry in os.listdir(folder):
        if entry.startswith(f".tmp-{key}-"):
            shutil.rmtree(os.path.join(folder, entry), ignore_errors=True)
    if pin.conda:
        _build_conda(pin, os.path.join(folder, key), root)
        return
    ready = os.path.join(folder, f".tmp-{key}-{os.urandom(4).hex()}")
    try:
        _venv(pin, ready, root)
        if pin.resolved:
            _sync(pin, ready, root)
        _mark(pin, ready)
        prefix = os.path.join(folder, key)
        if os.path.lexists(prefix):  # half-made, or its interpreter is gone
            broken = f"{ready}-broken"
            os.rename(prefix, broken)
            shutil.rmtree(broken, ignore_errors=True)
        os.rename(ready, prefix)
    finally:
        shutil.rmtree(ready, ignore_errors=True)


def _build_conda(pin: EnvironmentPin, prefix: str, root: str | None) -> None:
    """Build in place, since conda writes the name of its place into files. Until it is marked it is not trusted."""
    from pipesmith.environments.conda import this_platform
    from pipesmith.environments.conda_install import activation, install_conda

    broken = f"{os.path.dirname(prefix)}/.tmp-{os.path.basename(prefix)}-broken"
    if os.path.lexists(prefix):  # half-made, or its interpreter is gone
        os.rename(prefix, broken)
        shutil.rmtree(broken, ignore_errors=True)
    try:
        install_conda(pin, prefix, this_platform(), root)
        if pin.resolved:
            add_packages(pin, prefix, root)
        _mark(pin, prefix, variables=activation(prefix))
    except BaseException:
        shutil.rmtree(prefix, ignore_errors=True)
        raise


def add_packages(pin: EnvironmentPin, prefix: str, root: str | None) -> None:
    """Install the pinned packages of an index beside those of conda, which stay."""
    _install(pin, prefix, root, ["pip", "install", "--no-deps"])


def _interpreter(python: str) -> str:
    """Return how uv is told which interpreter: the one that runs pipe where it fits, else the version."""
    running = sys.version_info
    versions = (f"{running.major}.{running.minor}", f"{running.major}.{running.minor}.{running.micro}")
    base: str = getattr(sys, "_base_executable", "") or sys.executable
    if sys.implementation.name == "cpython" and python in versions and os.access(base, os.X_OK):
        return base
    return python


def _venv(pin: EnvironmentPin, ready: str, root: str | None) -> None:
    done = run_uv(
        ["venv", "--quiet", "--no-project", "--relocatable", "--python", _interpreter(pin.python), ready], cwd=root
    )
    if done.returncode != 0:
        what, whole = explain(done.stderr)
        raise EnvironmentFailure(
            f"Python {pin.python} can't be had: {what}", f"install Python {pin.python}; uv says: {whole}"
        )


def _sync(pin: EnvironmentPin, ready: str, root: str | None) -> None:
    _install(pin, ready, root, ["pip", "sync"])


def _install(pin: EnvironmentPin, ready: str, root: str | None, way: list[str]) -> None:
    """Install the pinned set, each file checked against its hash; from uv's cache alone where that has all of it."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt", prefix="pipe-packages-", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in pin.resolved)
        file.flush()
        arguments = [*way, "--quiet", "--require-hashes", "--compile-bytecode"]
        arguments += ["--python", os.path.join(ready, "bin", "python")]
        wanted = ["--requirements", file.name] if "install" in way else [file.name]
        done = run_uv([*arguments, "--offline", *wanted], cwd=root)
        if done.returncode != 0:
            done = run_uv([*arguments, *wanted], cwd=root)
    if done.returncode != 0:
        what, whole = explain(done.stderr)
        raise EnvironmentFailure(f"an environment can't be installed: {what}", f"uv says: {whole}")


def _mark(pin: EnvironmentPin, ready: str, *, variables: Mapping[str, str] | None = None) -> None:
    """Write the marker that makes an environment count, as the last of its files."""
    said = {
        "version": 1,
        "pin": pin_digest(pin),
        "python": pin.python,
        "packages": [line.partition(" --hash=")[0] for line in pin.resolved],
        "created": time.time(),
    }
    if pin.conda:
        said |= {"conda": list(pin.conda), "variables": dict(variables or {})}
    with open(os.path.join(ready, MARKER), "w", encoding="utf-8") as file:
        json.dump(said, file)
