"""The folder that is put on PYTHONPATH of every stage, so that `pipesmith.sdk` is there whatever its environment holds."""

from __future__ import annotations

import os
import secrets
from functools import cache

from pipesmith.digest import new_hasher

__all__ = ["sdk_folder"]

_INIT = '''"""The stage side of pipesmith. Where all of pipesmith is installed too, the rest of it is found as well."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
'''


@cache
def sdk_folder() -> str:
    """Return a folder with a package `pipesmith` that holds the module `sdk`; made when it is not there."""
    source = os.path.join(os.path.dirname(os.path.dirname(__file__)), "sdk.py")
    with open(source, "rb") as file:
        data = file.read()
    hasher = new_hasher("blake3")
    hasher.update(_INIT.encode() + data)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = os.path.join(base, "pipesmith", "sdk", hasher.hexdigest()[:16])
    if not os.path.exists(os.path.join(folder, "pipesmith", "sdk.py")):
        ready = f"{folder}.{secrets.token_hex(4)}"
        os.makedirs(os.path.join(ready, "pipesmith"))
        for name, content in (("__init__.py", _INIT.encode()), ("sdk.py", data)):
            with open(os.path.join(ready, "pipesmith", name), "wb") as file:
                file.write(content)
        try:
            os.rename(ready, folder)
        except OSError:
            import shutil

            shutil.rmtree(ready, ignore_errors=True)
    return folder
