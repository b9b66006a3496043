"""Notebook stages: what of a notebook counts, and how papermill executes it inside a stage."""

from __future__ import annotations

import json

from pipesmith.digest import new_hasher
from pipesmith.errors import UserError

__all__ = ["notebook_argv", "notebook_source_id"]

# Runs with the stage's own Python. The result holds neither times nor paths, so that equal runs make equal bytes.
_DRIVER = """
import json, os, sys
import papermill
source, target = sys.argv[1:3]
papermill.execute_notebook(source, target, parameters=json.loads(os.environ["PIPE_PARAMS"]), progress_bar=False, log_output=True)
with open(target, encoding="utf-8") as file:
    notebook = json.load(file)
notebook["metadata"].pop("papermill", None)
notebook["metadata"].pop("widgets", None)
for index, cell in enumerate(notebook["cells"]):
    tags = [tag for tag in cell.get("metadata", {}).get("tags", []) if tag != "papermill-error-cell-tag"]
    cell["metadata"] = {"tags": tags} if tags else {}
    if "id" in cell:
        cell["id"] = "cell-%d" % index
    for output in cell.get("outputs", []):
        output.pop("execution_count", None) if output.get("output_type") != "execute_result" else None
with open(target, "w", encoding="utf-8") as file:
    json.dump(notebook, file, indent=1, sort_keys=True, ensure_ascii=False)
    file.write("\\n")
"""


def notebook_argv(source: str, target: str) -> tuple[str, ...]:
    """Return the command that executes a notebook. Its cell tagged `parameters` is overridden by the params that count."""
    return ("python", "-c", _DRIVER, source, target)


def notebook_source_id(data: bytes) -> str:
    """Return the id of a notebook's code and markdown cells: outputs, counts and metadata do not matter, the tag `parameters` does.

    Raises UserError for what is no notebook.
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
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError("the file is no Jupyter notebook of format 4", "save it again in Jupyter") from None
    hasher = new_hasher("blake3")
    hasher.update(json.dumps(["pipesmith-notebook", 1, cells], separators=(",", ":")).encode())
    return f"cells:{hasher.hexdigest()}"
