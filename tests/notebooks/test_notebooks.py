"""Notebook stages: what of a notebook counts, and what executing one makes."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from tests.conftest import Repo

from pipesmith.build.notebook import missing_packages, notebook_source_id
from pipesmith.build.notebook_driver import settle, settled_outputs
from pipesmith.environments.definition import definition_digest
from pipesmith.errors import UserError
from pipesmith.lockfile.emitter import render
from pipesmith.lockfile.model import EnvironmentPin, Lockfile
from pipesmith.pipeline.model import Environment


def cell(text: str, kind: str = "code", **more: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"cell_type": kind, "id": "x", "metadata": {}, "source": text}
    if kind == "code":
        base |= {"outputs": [], "execution_count": None}
    return {**base, **more}


def notebook(*cells: dict[str, Any], **metadata: Any) -> bytes:
    return json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}).encode()


PARAMETERS = {"tags": ["parameters"]}


# -- what counts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        notebook(cell("a = 1", execution_count=7, outputs=[{"output_type": "stream", "name": "stdout", "text": "x"}])),
        notebook(cell("a = 1", id="y", metadata={"collapsed": True, "tags": ["other"]})),
        notebook(cell("a = 1"), kernelspec={"name": "mine"}, language_info={"version": "3.9"}),
        notebook(cell("a = 1"), cell("raw text", "raw")),
        json.dumps(json.loads(notebook(cell(["a", " = 1"]))), indent=4).encode(),  # type: ignore[arg-type]
    ],
)
def test_outputs_counts_and_metadata_do_not_matter(other: bytes) -> None:
    assert notebook_source_id(other) == notebook_source_id(notebook(cell("a = 1")))


@pytest.mark.parametrize(
    "other",
    [
        notebook(cell("a = 2")),
        notebook(cell("a = 1"), cell("# a", "markdown")),
        notebook(cell("a = 1", "markdown")),
        notebook(cell("a = 1", metadata=PARAMETERS)),
        notebook(cell("a = 1"), cell("")),
    ],
)
def test_cells_and_the_parameters_tag_matter(other: bytes) -> None:
    assert notebook_source_id(other) != notebook_source_id(notebook(cell("a = 1")))


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"print(1)", b'{"cells": [{}]}', b'{"worksheets": []}', b"\xff", b'{"cells": ' + b"[" * 100_000],
)
def test_what_is_no_notebook_is_said(data: bytes) -> None:
    with pytest.raises(UserError, match="is no Jupyter notebook of format 4"):
        notebook_source_id(data)


# -- what it needs ------------------------------------------------------------------------------------------------


def test_packages_of_a_pinned_environment() -> None:
    pin = EnvironmentPin(definition="", python="3.11", resolved=("ipykernel==7.0 --hash=sha256:aa", "numpy==2.0"))
    assert missing_packages(notebook(), pin=pin) == ["papermill"]
    assert missing_packages(notebook(kernelspec={"language": "R"}), pin=EnvironmentPin(definition="", python="3")) == [
        "papermill"
    ]


def test_packages_of_an_interpreter_are_asked_for(tmp_path: Any) -> None:
    assert missing_packages(notebook(), python=sys.executable) == []
    assert missing_packages(notebook(), python=None) == ["papermill", "ipykernel"]
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')
    bare.chmod(0o755)
    assert missing_packages(notebook(), python=str(bare)) == ["papermill", "ipykernel"]


# -- what is written ----------------------------------------------------------------------------------------------


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": text}


def test_printed_text_is_the_same_however_it_came() -> None:
    figure = {"output_type": "display_data", "data": {"text/plain": "fig"}, "metadata": {}}
    once = [stream("a\nb\n"), stream("warn\n", "stderr"), dict(figure), stream("c\n")]
    pieces = [stream("a\n"), stream("warn\n", "stderr"), stream("b\n"), dict(figure), stream("c"), stream("\n")]
    assert settled_outputs(pieces) == settled_outputs(once)
    assert [output.get("name", output["output_type"]) for output in settled_outputs(once)] == [
        "stdout",
        "stderr",
        "display_data",
        "stdout",
    ]


def test_widgets_are_left_out() -> None:
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "random"}}
    outputs = [
        {"output_type": "display_data", "data": dict(widget), "metadata": {}},
        {"output_type": "display_data", "data": {**widget, "text/plain": "bar"}, "metadata": {}},
    ]
    assert [output["data"] for output in settled_outputs(outputs)] == [{"text/plain": "bar"}]


def test_times_paths_and_ids_are_taken_out() -> None:
    made = {
        "metadata": {
            "papermill": {"start_time": "now", "input_path": "/home/me/x"},
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python", "version": "3.11.7"},
            "widgets": {"state": {}},
        },
        "cells": [cell("a", id="f00", metadata={"papermill": {"duration": 1}, "tags": ["parameters"]})],
    }
    settle(made)
    assert made["metadata"] == {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    assert made["cells"][0]["metadata"] == {"tags": ["parameters"]}
    assert made["cells"][0]["id"] == "cell-0"


# -- in a build ---------------------------------------------------------------------------------------------------

STAGE = """
[params]
n = 3
train = { lr = 0.1 }
[stage.eda]
notebook = "eda.ipynb"
params = ["n", "train.lr"]
outputs = { made = "made.txt" }
"""
CELLS = (
    cell("n = 1\ntrain = {}", metadata=PARAMETERS),
    cell(
        "from pipesmith.sdk import Run\nrun = Run.get_context()\n"
        "print(n, train['lr'], run.stage)\nopen(run.outputs['made'].path, 'w').write(str(n))"
    ),
)


def test_a_notebook_is_a_stage(repo: Repo) -> None:
    """Params are injected, outputs made, and two runs make the same bytes."""
    pytest.importorskip("papermill")
    repo.write("pipeline.toml", STAGE)
    repo.write("eda.ipynb", notebook(*CELLS, kernelspec={"name": "a-kernel-from-elsewhere", "language": "python"}))
    result = repo.pipe("build")
    assert "3 0.1 eda" in result.stdout + result.stderr
    assert repo.read("made.txt") == "3"
    first = repo.read("eda.out.ipynb")
    assert str(repo.path) not in first and str(repo.home) not in first and "papermill" not in first
    assert "".join(json.loads(first)["cells"][2]["outputs"][0]["text"]) == "3 0.1 eda\n"
    repo.pipe("build", "--force")
    assert repo.read("eda.out.ipynb") == first

    saved = json.loads(notebook(*CELLS))
    saved["cells"][1]["outputs"] = [stream("what it printed")]
    repo.write("eda.ipynb", json.dumps(saved))
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"


@pytest.mark.parametrize("metadata", [{}, {"kernelspec": {"name": "mine"}}, {"language_info": {"name": "python"}}])
def test_params_of_a_notebook_that_says_little(repo: Repo, metadata: dict[str, Any]) -> None:
    """One that names no language, as nbformat makes them, is Python."""
    pytest.importorskip("papermill")
    repo.write("pipeline.toml", '[params]\nn = 3\n[stage.eda]\nnotebook = "eda.ipynb"\nparams = ["n"]\n')
    repo.write("eda.ipynb", notebook(cell("print('n is', n)"), **metadata))
    repo.pipe("build")
    assert "n is 3" in repo.read("eda.out.ipynb")


def test_a_cell_that_fails_is_named(repo: Repo) -> None:
    pytest.importorskip("papermill")
    repo.write("pipeline.toml", '[stage.eda]\nnotebook = "eda.ipynb"\n')
    repo.write("eda.ipynb", notebook(cell("x = 1"), cell("1 / 0")))
    result = repo.pipe("build", check=False)
    assert result.returncode == 1
    assert "cell 2: ZeroDivisionError: division by zero" in result.stdout + result.stderr
    assert not repo.exists("eda.out.ipynb")


def test_a_missing_papermill_is_told_before_anything_runs(repo: Repo) -> None:
    repo.write("bin/python", f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n', executable=True)
    repo.write("pipeline.toml", f'[stage.first]\nrun = "{repo.note("first")}"\n[stage.eda]\nnotebook = "eda.ipynb"\n')
    repo.write("eda.ipynb", notebook(cell("x = 1")))
    path = f"{repo.path / 'bin'}:{repo.env['PATH']}"
    result = repo.pipe("build", check=False, env={"PATH": path})
    assert result.returncode == 2
    assert "stage.eda.notebook: its environment lacks `papermill` and `ipykernel`" in result.stderr
    assert repo.ran() == []


def test_what_is_not_run_needs_no_papermill(repo: Repo) -> None:
    """A notebook that is fresh, or whose result is known, is no reason to refuse a build."""
    pytest.importorskip("papermill")
    repo.write("bin/python", f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n', executable=True)
    first = f'[stage.first]\nrun = "{repo.note("first")}"\n'
    repo.write("pipeline.toml", f'{first}[stage.eda]\nnotebook = "eda.ipynb"\n')
    repo.write("eda.ipynb", notebook(cell("x = 1")))
    repo.pipe("build")
    without = {"PATH": f"{repo.path / 'bin'}:{repo.env['PATH']}"}
    repo.write("pipeline.toml", f'{first}env = {{ A = "1" }}\n[stage.eda]\nnotebook = "eda.ipynb"\n')
    assert repo.pipe("build", "--json", env=without).stages() == {"first": "ran", "eda": "fresh"}
    (repo.path / "eda.out.ipynb").unlink()
    assert repo.pipe("build", "--json", env=without).stages()["eda"] == "restored"
    refused = repo.pipe("build", "--force", "eda", check=False, env=without)
    assert refused.returncode == 2 and "stage.eda.notebook: its environment lacks `papermill`" in refused.stderr


def test_a_missing_kernel_is_told_before_anything_runs(repo: Repo) -> None:
    """Of another language than Python, whose kernel is that of the stage's own interpreter."""
    pytest.importorskip("papermill")
    repo.write("pipeline.toml", f'[stage.first]\nrun = "{repo.note("first")}"\n[stage.eda]\nnotebook = "eda.ipynb"\n')
    repo.write("eda.ipynb", notebook(cell("1 + 1"), kernelspec={"name": "IR", "display_name": "R", "language": "R"}))
    refused = repo.pipe("build", check=False)
    assert refused.returncode == 2 and repo.ran() == []
    assert "pipeline.toml:4: stage.eda.notebook: its kernel `IR` is not installed" in refused.stderr

    kernel = repo.home / ".local/share/jupyter/kernels/ir/kernel.json"
    kernel.parent.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": argv, "display_name": "R", "language": "R"}))
    repo.pipe("build")
    assert repo.ran() == ["first"] and "2" in repo.read("eda.out.ipynb")


@pytest.mark.parametrize("name", [5, ["ir"], "i\0r"])
def test_a_kernel_that_no_name_stands_for(repo: Repo, name: object) -> None:
    """It is the notebook's failure, no crash of pipe."""
    pytest.importorskip("papermill")
    repo.write("pipeline.toml", '[stage.eda]\nnotebook = "eda.ipynb"\n')
    repo.write("eda.ipynb", notebook(cell("1"), kernelspec={"name": name, "display_name": "R", "language": "R"}))
    assert repo.pipe("build", "--json", check=False).stages() == {"eda": "failed"}


def test_what_an_image_holds_is_not_guessed(repo: Repo) -> None:
    """A notebook in an image is not refused for what its pin does not tell."""
    repo.write("eda.ipynb", notebook(cell("x = 1")))
    repo.write(
        "pipeline.toml",
        '[compute.box]\nkind = "docker"\nhost = "unix:///nowhere/docker.sock"\n'
        '[environment.image]\nimage = "team/notebooks:1"\n'
        '[stage.eda]\nnotebook = "eda.ipynb"\nenvironment = "image"\ncompute = "box"\n',
    )
    definition = definition_digest(Environment(name="image", image="team/notebooks:1"), lambda _path: None)
    pin = EnvironmentPin(definition=definition, python="3.11", image="team/notebooks:1@sha256:" + "a" * 64)
    repo.write("pipe.lock", render(Lockfile(environments={"image": pin})))
    done = repo.pipe("build", check=False)
    assert done.returncode == 1 and "daemon of `box`" in done.stdout + done.stderr
    assert "papermill" not in done.stdout + done.stderr
