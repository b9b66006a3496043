"""The folder on PYTHONPATH of every stage, so that `pipesmith.sdk` is there whatever its environment holds."""

from __future__ import annotations

import os
import shutil
import tempfile
from functools import cache

from pipesmith.digest import new_hasher

__all__ = ["sdk_folder"]

_INIT = '''"""The stage side of pipesmith. Where all of pipesmith is installed too, the rest of it is found as well."""

import os
from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
for _folder in __path__[1:]:
    _whole = os.path.join(_folder, "__init__.py")
    if os.path.exists(_whole):
        with open(_whole, "rb") as _file:
            exec(compile(_file.read(), _whole, "exec"))
        break
'''


@cache
def sdk_folder() -> str:
    """Return a folder, named by its content, with a package `pipesmith` that holds `sdk`; made if need be."""
    with open(os.path.join(os.path.dirname(os.path.dirname(__file__)), "sdk.py"), "rb") as file:
        files = {"__init__.py": _INIT.encode(), "sdk.py": file.read()}
    hasher = new_hasher("blake3")
    hasher.update(b"".join(files.values()))
    name = hasher.hexdigest()[:16]
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".cache")
    try:
        return _made(os.path.join(base, "pipesmith", "sdk"), name, files)
    except OSError:  # a HOME that can't be written
        return _made(os.path.join(tempfile.gettempdir(), f"pipesmith-sdk-{os.getuid()}"), name, files)


def _made(parent: str, name: str, files: dict[str, bytes]) -> str:
    folder = os.path.join(parent, name)
    if all(_holds(os.path.join(folder, "pipesmith", file), data) for file, data in files.items()):
        return folder
    ready = f"{folder}.{os.urandom(4).hex()}"
    try:
        os.makedirs(os.path.join(ready, "pipesmith"))
        for file, data in files.items():
            with open(os.path.join(ready, "pipesmith", file), "wb") as out:
                out.write(data)
        if os.path.lexists(folder):  # not what it was made as
            os.rename(folder, f"{ready}.old")
            shutil.rmtree(f"{ready}.old", ignore_errors=True)
        try:
            os.rename(ready, folder)
        except OSError:
            if not os.path.isdir(folder):  # else another process was faster
                raise
    finally:
        shutil.rmtree(ready, ignore_errors=True)
    return folder


def _holds(path: str, data: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read() == data
    except OSError:
        return False
