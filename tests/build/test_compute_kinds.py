"""Kinds of compute that installed packages bring (`pipesmith.compute`): known by name, asked for only where needed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.conftest import Repo

PIPELINE = """
    [compute.far]
    kind = "%s"
    queue = "gpu"
    [stage.a]
    run = "echo 1 > {outputs.o}"
    outputs = { o = "o.txt" }
    [stage.b]
    run = "echo 1 > {outputs.o}"
    outputs = { o = "p.txt" }
    %s
"""


@pytest.fixture
def plugin(repo: Repo) -> dict[str, str]:
    """The environment in which a package `pipesmith-nomad` is installed that brings the kind `nomad`."""
    folder = repo.home / "packages"
    info = folder / "pipesmith_nomad-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pipesmith-nomad\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pipesmith.compute]\nnomad = pipesmith_nomad:Executor\n")
    (folder / "pipesmith_nomad.py").write_text("raise RuntimeError('nothing needs it')\n")
    before = repo.env.get("PYTHONPATH")
    return {"PYTHONPATH": f"{folder}:{before}" if before else str(folder)}


def test_a_kind_that_a_package_brings_is_no_fault(repo: Repo, plugin: dict[str, str]) -> None:
    """Its keys are its own; a stage that runs here does not mind."""
    repo.write("pipeline.toml", PIPELINE % ("nomad", ""))
    assert repo.pipe("build", "--json", env=plugin).stages() == {"a": "ran", "b": "ran"}
    assert repo.pipe("status", "--check", env=plugin).returncode == 0
    repo.write("pipeline.toml", repo.read("pipeline.toml") + "\n")
    gone = repo.pipe("status", check=False)
    assert gone.returncode == 2
    assert gone.stderr == (
        "pipeline.toml:2: compute.far.kind: unknown kind of compute `nomad`\n"
        "help: known: `local`, `docker`, `slurm`, `ray`\n"
    )


def test_gone_with_its_package(repo: Repo, plugin: dict[str, str]) -> None:
    """That it was known once is not remembered."""
    repo.write("pipeline.toml", PIPELINE % ("nomad", ""))
    assert repo.pipe("status", env=plugin).returncode == 0
    assert repo.pipe("status", check=False).returncode == 2
    assert repo.pipe("status", env=plugin).returncode == 0


def test_a_kind_of_a_package_in_a_range_of_commits(repo: Repo, plugin: dict[str, str]) -> None:
    """Every text of the range knows it, and where the package is gone none does, whatever was told before."""
    start = repo.commit()
    for number in range(2):
        repo.write("pipeline.toml", PIPELINE % ("nomad", f'desc = "{number}"'))
        repo.commit(f"text {number}")
    for _time in range(2):
        told = repo.pipe("status", "--rev", f"{start}..HEAD", env=plugin).stdout.splitlines()
        assert [line.partition(" ")[2] for line in told] == [
            f"stale: a (never built), b (never built)  text {number}" for number in range(2)
        ]
    gone = repo.pipe("status", "--rev", f"{start}..HEAD").stdout.splitlines()
    assert len(gone) == 2 and all("unknown kind of compute `nomad`" in line for line in gone)


def test_a_kind_of_a_package_at_a_commit_that_is_not_checked_out(repo: Repo, plugin: dict[str, str]) -> None:
    repo.write("pipeline.toml", PIPELINE % ("nomad", ""))
    repo.commit()
    told = repo.pipe("what-if", "--json", "--rev", "HEAD", env=plugin)
    assert told.stages(key="would") == {"a": "run", "b": "run"}


def test_an_unknown_kind_is_told_with_those_installed(repo: Repo, plugin: dict[str, str]) -> None:
    repo.write("pipeline.toml", PIPELINE % ("nomda", ""))
    result = repo.pipe("status", check=False, env=plugin)
    assert (result.returncode, result.stderr) == (
        2,
        "pipeline.toml:2: compute.far.kind: unknown kind of compute `nomda`\nhelp: did you mean `nomad`?\n",
    )
    repo.write("pipeline.toml", PIPELINE % ("k8s", ""))
    assert (
        "help: known: `local`, `docker`, `slurm`, `ray`, `nomad`" in repo.pipe("status", check=False, env=plugin).stderr
    )


def test_a_stage_on_it_is_refused_before_anything_runs(repo: Repo, plugin: dict[str, str]) -> None:
    repo.write("pipeline.toml", PIPELINE % ("nomad", 'compute = "far"'))
    result = repo.pipe("build", check=False, env=plugin)
    assert (result.returncode, result.stdout, result.stderr) == (
        2,
        "",
        "pipeline.toml:2: compute.far.kind: this version does not run stages on `nomad` of the package "
        "`pipesmith-nomad` (needed by `b`)\n"
        'help: run it here: `compute = "local"`\n',
    )
    assert not repo.exists("o.txt")


def test_packages_are_not_looked_through_for_kinds_that_are_built_in(repo: Repo, tmp_path: Path) -> None:
    repo.write("pipeline.toml", PIPELINE.replace('queue = "gpu"', "") % ("docker", ""))
    repo.pipe("build")
    loaded = repo.run(
        sys.executable,
        "-c",
        "import sys; from pipesmith import Workspace; Workspace.open('.').status(); print('importlib.metadata' in sys.modules)",
    )
    assert loaded.stdout == "False\n"


@pytest.mark.parametrize("action", ["up", "down", "wait"])
def test_nothing_can_be_done_with_a_kind_that_stages_cant_run_on(repo: Repo, action: str) -> None:
    """It is told, with exit code 2; `status` tells of it among the others."""
    repo.write("pipeline.toml", '[compute.far]\nkind = "slurm"\n')
    done = repo.pipe("compute", action, "far", "--json", check=False)
    assert (done.returncode, done.json()["error"]["kind"]) == (2, "user")
    assert "does not run stages on `slurm` (`far`)" in done.stderr
    assert repo.pipe("compute", action).returncode == 0
    states = {each["name"]: each["state"] for each in repo.pipe("compute", "status", "--json").json()["computes"]}
    assert states == {"local": "up", "far": "unsupported"}


def test_a_fresh_stage_asks_no_compute_whatever_has_become_of_it(repo: Repo) -> None:
    """Nor one of a kind that this version does not have; once it is stale, it is refused."""
    here = '[compute.far]\nkind = "slurm"\n[stage.a]\nsource = "a.sh"\nrun = "sh a.sh > {outputs.o}"\noutputs = { o = "o" }\n'
    repo.write("a.sh", "echo 1\n")
    repo.write("pipeline.toml", here)
    repo.pipe("build")
    repo.write("pipeline.toml", f'{here}compute = "far"\n')
    assert repo.pipe("what-if", "--json").json()["stages"][0]["would"] == "fresh"
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"
    assert "slurm" in repo.pipe("build", "--force", check=False).stderr
    repo.write("a.sh", "echo 2\n")
    for command in ("build", "what-if"):
        refused = repo.pipe(command, check=False)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "does not run stages on `slurm` (needed by `a`)" in refused.stderr
