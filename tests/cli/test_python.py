"""The calls of the contract's §8: the same objects that `--json` prints, typed."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conftest import Repo

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


def test_a_text_is_the_name_of_one_stage(workspace: Repo) -> None:
    workspace.write("pipeline.toml", STAGE.replace("stage.a", "stage.train") + '[stage.other]\nrun = "true"\n')
    opened = Workspace.open(workspace.path)
    assert [stage.name for stage in opened.build("train").stages] == ["train"]
    assert [stage.name for stage in opened.status("train").stages] == ["train"]
