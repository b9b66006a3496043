"""The calls of the contract's §8: the same objects that `--json` prints, typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ROOT, Repo

from pipesmith import BuildResult, Workspace
from pipesmith.errors import ConfigError, UserError

STAGE = '[params]\nseed = 1\n[stage.a]\nrun = "echo {params.seed} > {outputs.o}"\noutputs = { o = "o.txt" }\n'


def test_build_status_runs_metrics(workspace: Repo) -> None:
    workspace.write("pipeline.toml", STAGE)
    events: list[Any] = []
    result = Workspace.open(workspace.path).build(["a"], params={"seed": 5}, on_event=events.append)
    assert isinstance(result, BuildResult) and result.status == "succeeded" and result["a"].status == "ran"
    assert workspace.read("o.txt") == "5\n"
    assert [type(e).__name__ for e in events if "Stage" in type(e).__name__] == ["StageStarted", "StageFinished"]
    again = Workspace.open(workspace.path)
    assert [s.state for s in again.status().stages] == ["stale"]
    assert again.status().as_json() == workspace.pipe("status", "--json").json()
    assert [run.id for run in again.runs()] == [result.run]
    assert again.metrics() == {"workspace": {}}


def test_the_page_that_tells_of_it_runs(workspace: Repo) -> None:
    """The code block of docs/python.md, as it stands there."""
    block = (ROOT / "docs/python.md").read_text().partition("```python\n")[2].partition("```")[0]
    workspace.write("pipeline.toml", STAGE.replace("seed = 1", "seed = 7"))
    workspace.write("use.py", block)
    printed = workspace.run(sys.executable, "use.py").stdout
    assert "succeeded [('a', 'ran', " in printed and "StageFinished(" in printed
    assert workspace.read("o.txt") == "8\n" and "a stale [{'kind': 'param', " in printed
    assert "{'workspace': {}}" in printed and workspace.pipe("runs", "--json").json()["runs"][0]["id"] in printed


def test_a_failed_build_returns_its_result(workspace: Repo) -> None:
    workspace.write("pipeline.toml", '[stage.a]\nrun = "exit 4"\noutputs = { o = "o.txt" }\n')
    result = Workspace.open(workspace.path).build()
    assert result.status == "failed" and result["a"].exit_code == 4 and result.exit_code == 1


def test_a_bad_pipeline_raises(workspace: Repo) -> None:
    workspace.write("pipeline.toml", "[stage.a]\nrun = 1\n")
    with pytest.raises(ConfigError) as raised:
        Workspace.open(workspace.path).build()
    assert raised.value.findings()[0].line == 2


def test_open_outside_a_repository(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(UserError, match="not in a git repository"):
        Workspace.open(tmp_path)


def test_the_library_prints_nothing(workspace: Repo, capfd: pytest.CaptureFixture[str]) -> None:
    workspace.write("pipeline.toml", STAGE)
    Workspace.open(workspace.path).build()
    assert capfd.readouterr() == ("", "")


def test_a_user_s_type_checker_knows_the_types(tmp_path: Path) -> None:
    """The same objects that `--json` prints, typed."""
    (tmp_path / "use.py").write_text(
        "from pipesmith import BuildResult, Workspace\n"
        "from pipesmith.sdk import Run\n"
        "ws = Workspace.open('.')\n"
        "result: BuildResult = ws.build(['a'], params={'seed': 1}, on_event=print)\n"
        "states: list[str] = [stage.state for stage in ws.status().stages]\n"
        "ids: list[str] = [run.id for run in ws.runs()]\n"
        "loss: float = ws.metrics()['workspace']['train']['report:loss']\n"
        "model: int = Run.get_context().outputs['model'].path\n"
    )
    mypy = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}/cache", "use.py"]
    checked = subprocess.run(mypy, cwd=tmp_path, capture_output=True, text=True)
    assert checked.stdout.splitlines()[:-1] == [
        'use.py:8: error: Incompatible types in assignment (expression has type "Path", variable has type "int")  [assignment]'
    ], checked.stderr


def test_a_text_is_the_name_of_one_stage(workspace: Repo) -> None:
    workspace.write("pipeline.toml", STAGE.replace("stage.a", "stage.train") + '[stage.other]\nrun = "true"\n')
    opened = Workspace.open(workspace.path)
    assert [stage.name for stage in opened.build("train").stages] == ["train"]
    assert [stage.name for stage in opened.status("train").stages] == ["train"]


def test_a_text_is_one_revision(workspace: Repo) -> None:
    workspace.write("pipeline.toml", STAGE)
    workspace.pipe("build")
    workspace.commit()
    assert Workspace.open(workspace.path).metrics("HEAD") == {"HEAD": {}}
