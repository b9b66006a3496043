"""Notebook stages: what of a notebook counts, what it needs, and how papermill executes it inside a stage."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping

from pipesmith.digest import new_hasher
from pipesmith.errors import UserError
from pipesmith.lockfile.model import EnvironmentPin

__all__ = ["missing_kernel", "missing_packages", "notebook_argv", "notebook_source_id", "path_python"]


def path_python() -> str | None:
    """Return the Python that a stage without an environment finds on PATH, None without one."""
    from shutil import which  # dear, and whoever judges stages comes by here

    return which("python") or which("python3")


def notebook_argv(source: str, target: str) -> tuple[str, ...]:
    """Return the command that executes a notebook; params that count come after its cell tagged `parameters`."""
    driver = os.path.join(os.path.dirname(__file__), "notebook_driver.py")
    with open(driver, encoding="utf-8") as file:
        text = file.read()
    name = os.path.basename(path_python() or "python")
    return (name, "-c", text, source, target)


def missing_packages(notebook: bytes, *, pin: EnvironmentPin | None = None, python: str | None = None) -> list[str]:
    """Return which packages are missing to execute a notebook: papermill, and ipykernel where its kernel is Python.

    pin: of the stage's environment; else python: the interpreter, which is asked.
    """
    from pipesmith.build.notebook_driver import language_of

    needed = ["papermill"]
    try:
        if language_of(json.loads(notebook)) == "python":
            needed.append("ipykernel")
    except (ValueError, AttributeError, RecursionError):
        return []  # no notebook: that is told when its cells are read
    if pin is not None:
        have = {line.partition("==")[0] for line in pin.resolved}
        if pin.conda:
            from pipesmith.environments.conda_pins import versions_of

            have |= versions_of(pin.conda).keys()
        return [name for name in needed if name not in have]
    if python is None:
        return needed
    ask = "import sys; from importlib.util import find_spec; print(*(m for m in sys.argv[1:] if find_spec(m) is None))"
    done = subprocess.run([python, "-c", ask, *needed], capture_output=True, text=True, check=False)
    return done.stdout.split() if done.returncode == 0 else needed


def missing_kernel(notebook: bytes, python: str, env: Mapping[str, str]) -> str | None:
    """Return the name of a notebook's kernel where it is of another language than Python, and Jupyter knows none of
    the name; None as well where that can't be told.

    python: the interpreter that papermill runs in. env: the variables that say where kernels are.
    """
    from pipesmith.build.notebook_driver import language_of

    try:
        document = json.loads(notebook)
        name = document.get("metadata", {}).get("kernelspec", {}).get("name")
        if not isinstance(name, str) or not name or "\0" in name or language_of(document) == "python":
            return None
    except (ValueError, AttributeError, RecursionError):
        return None
    ask = (
        "import sys; from jupyter_client.kernelspec import find_kernel_specs; print(sys.argv[1] in find_kernel_specs())"
    )
    done = subprocess.run([python, "-c", ask, name.lower()], env=dict(env), capture_output=True, text=True, check=False)
    return name if done.stdout.strip() == "False" else None


def notebook_source_id(data: bytes) -> str:
    """Return the id of a notebook's code and markdown cells.

    Outputs, counts and metadata do not matter; the tag `parameters` does. Raises UserError for what is no notebook.
    """
    try:
        notebook = json.loads(data)
        cells = [
            [
                cell["cell_type"],
                "".join(cell["source"]),
                "parameters" in cell.get("metadata", {}).get("tags", []),
            ]
            for cell in notebook["cells"]
            if cell["cell_type"] in ("code", "markdown")
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError("the file is no Jupyter notebook of format 4", "save it again in Jupyter") from None
    hasher = new_hasher("blake3")
    hasher.update(json.dumps(["pipesmith-notebook", 1, cells], separators=(",", ":")).encode())
    return f"cells:{hasher.hexdigest()}"
