"""Executes a notebook by papermill: `python -c THIS SOURCE TARGET`, with the stage's own Python (3.8 or newer).

Its text is handed over, not its path, so that it needs nothing of pipesmith where it runs. Params come from
PIPE_PARAMS. What it writes holds neither times nor paths nor random ids, so that equal runs make equal bytes.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from typing import Any


def execute(source: str, target: str) -> int:
    """Execute a notebook and write it with its outputs; 1 where a cell failed, which is printed."""
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    with open(source, encoding="utf-8") as file:
        language = language_of(json.load(file))
    with tempfile.TemporaryDirectory(prefix="notebook-") as scratch:
        # Neither the user's IPython profile nor a kernel of that name from elsewhere has a say.
        os.environ["IPYTHONDIR"] = os.path.join(scratch, "ipython")
        os.environ["JUPYTER_RUNTIME_DIR"] = os.path.join(scratch, "runtime")
        kernel = None
        if language == "python":
            kernel = "python3"
            own_kernel(os.path.join(scratch, "kernels", kernel))
            os.environ["JUPYTER_PATH"] = os.pathsep.join(p for p in (scratch, os.environ.get("JUPYTER_PATH")) if p)
        import papermill
        from jupyter_client.kernelspec import NoSuchKernel

        made = os.path.join(scratch, "made.ipynb")
        try:
            papermill.execute_notebook(
                source,
                made,
                parameters=json.loads(os.environ["PIPE_PARAMS"]),
                kernel_name=kernel,
                language=language if kernel else None,  # papermill wants it said, for params
                progress_bar=False,
                stdout_file=sys.stdout,
                stderr_file=sys.stderr,
            )
        except papermill.PapermillExecutionError as error:
            print(f"cell {error.cell_index + 1}: {error.ename}: {error.evalue}", file=sys.stderr)
            print("\n".join(error.traceback), file=sys.stderr)
            return 1
        except NoSuchKernel as error:
            print(f"the kernel `{error.name}` of the notebook is not installed in its environment", file=sys.stderr)
            return 1
        with open(made, encoding="utf-8") as file:
            notebook = json.load(file)
    settle(notebook)
    with open(target, "w", encoding="utf-8") as file:
        json.dump(notebook, file, indent=1, sort_keys=True, ensure_ascii=False)
        file.write("\n")
    return 0


def language_of(notebook: Any) -> str:
    """Return the language of a notebook's kernel, python where it says none."""
    metadata = notebook.get("metadata", {})
    kernel, language = metadata.get("kernelspec", {}), metadata.get("language_info", {})
    return str(kernel.get("language") or language.get("name") or "python").lower()


def own_kernel(folder: str) -> None:
    """Write the description of a kernel that is this very Python."""
    os.makedirs(folder)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    with open(os.path.join(folder, "kernel.json"), "w", encoding="utf-8") as file:
        json.dump({"argv": argv, "display_name": "Python 3", "language": "python"}, file)


def settle(notebook: Any) -> None:
    """Take out of an executed notebook what hangs on time, machine or chance."""
    metadata = notebook["metadata"]
    language = metadata.get("language_info", {}).get("name")
    kernel = {key: metadata.get("kernelspec", {}).get(key) for key in ("display_name", "language", "name")}
    notebook["metadata"] = {"kernelspec": {key: text for key, text in kernel.items() if text}}
    if language:
        notebook["metadata"]["language_info"] = {"name": language}
    for index, cell in enumerate(notebook["cells"]):
        tags = cell.get("metadata", {}).get("tags", [])
        cell["metadata"] = {"tags": tags} if tags else {}
        if "id" in cell:
            cell["id"] = "cell-%d" % index  # noqa: UP031
        if "outputs" in cell:
            cell["outputs"] = settled_outputs(cell["outputs"])


def settled_outputs(outputs: Any) -> list[Any]:
    """Return a cell's outputs in one form, however they came.

    What is printed between two other outputs is one text of stdout and one of stderr. Widgets go: their ids are random.
    """
    settled: list[Any] = []
    streams: dict[str, list[str]] = {}

    def printed() -> None:
        for name in sorted(streams, reverse=True):  # stdout, then stderr
            settled.append({"name": name, "output_type": "stream", "text": "".join(streams[name]).splitlines(True)})
        streams.clear()

    for output in outputs:
        if output["output_type"] == "stream":
            text = output["text"]
            streams.setdefault(output["name"], []).extend([text] if isinstance(text, str) else text)
            continue
        printed()
        if "data" in output:
            data = output["data"]
            kept = [kind for kind in data if not kind.startswith("application/vnd.jupyter.widget")]
            output["data"] = {kind: data[kind] for kind in kept}
            if not kept:
                continue
        settled.append(output)
    printed()
    return settled


if __name__ == "__main__":
    sys.exit(execute(*sys.argv[1:3]))
