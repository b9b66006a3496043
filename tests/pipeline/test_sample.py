"""A pipeline.toml that uses nearly every key, and what is read of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipesmith.pipeline.graph import downstream, edges, order, upstream
from pipesmith.pipeline.model import (
    CacheConfig,
    Compute,
    Datastore,
    Expectation,
    Input,
    InputMode,
    Origin,
    OriginKind,
    Output,
    Pipeline,
    Plot,
    StageKind,
)

SAMPLE = (Path(__file__).parent / "sample.toml").read_text(encoding="utf-8")


@pytest.fixture
def sample(read: Callable[..., Pipeline]) -> Pipeline:
    return read(SAMPLE, files={"params.yaml": b"batch: 32\n"})


def test_the_head(sample: Pipeline) -> None:
    assert (sample.name, sample.requires, sample.params_files) == ("pets", ">=0.1", ("params.yaml",))
    assert sample.params == {
        "seed": 7,
        "since": "2026-01-01",
        "train": {"lr": 0.01, "epochs": 5},
        "batch": 32,
    }


def test_cells_are_stages_in_the_order_of_the_file(sample: Pipeline) -> None:
    cells = ("train@0.01-3", "train@0.01-5", "train@0.1-3", "train@0.1-5")
    assert tuple(sample.stages) == ("prepare", *cells)
    assert sample.groups == {"prepare": ("prepare",), "train": cells}
    assert sample.targets == cells


def test_a_stage(sample: Pipeline) -> None:
    stage = sample.stages["prepare"]
    assert stage.kind is StageKind.COMMAND
    assert stage.source == ("stages/prepare",)
    assert stage.run == (
        "python stages/prepare/prepare.py --in {inputs.images} --out {outputs.clean} --seed {params.seed}"
    )
    assert stage.params == ("seed",)
    assert (stage.compute, stage.environment) == ("local", "project")
    origin = Origin(kind=OriginKind.DATASET, dataset="images")
    assert stage.inputs == {"images": Input(name="images", path="inputs/images", origin=origin)}
    assert stage.outputs == {"clean": Output(name="clean", path="data/clean")}


def test_a_cell(sample: Pipeline) -> None:
    stage = sample.stages["train@0.1-3"]
    assert (stage.base, stage.cell, stage.desc) == ("train", {"lr": 0.1, "depth": 3}, "one model a cell")
    assert stage.run is not None
    assert stage.run[2:] == ("{inputs.clean}", "{outputs.model}", "--lr", "0.1", "--depth", "3")
    origin = Origin(kind=OriginKind.STAGE, stage="prepare", output="clean")
    assert stage.inputs == {"clean": Input(name="clean", path="data/clean", origin=origin, lies="data/clean")}
    assert stage.outputs == {
        "model": Output(name="model", path="models/0.1-3.pkl", to="blob:models/{run.id}/"),
        "report": Output(name="report", path="metrics/0.1-3.json", cache=False),
        "curve": Output(name="curve", path="curves/0.1-3.csv"),
        "scratch": Output(name="scratch", path="tmp/0.1-3", temp=True),
    }
    assert stage.params == ("train",)
    assert stage.metrics == ("report",)
    assert stage.plots == (Plot(output="curve", x="step", y=("loss",)),)
    assert (stage.after, stage.mutex) == (("prepare",), ("db",))
    assert (stage.resources.cpus, stage.resources.gpus) == (2, 1)
    assert (stage.resources.memory_bytes, stage.resources.gpu_memory_bytes) == (8 << 30, 20 << 30)
    assert (stage.compute, stage.env, stage.pass_env) == ("gpubox", {"OMP_NUM_THREADS": "2"}, ("HF_TOKEN",))
    assert (stage.reuse, stage.sandbox, stage.frozen, stage.cwd) == (True, True, False, ".")
    assert stage.hash_paths == ("notebooks/eda.ipynb",)
    assert (stage.timeout_s, stage.retries, stage.keep) == (7200, 1, "ckpt")
    assert stage.expect == (Expectation(key="report:auc", min=0.9, max=1.0, vs="origin/main", drop=0.005),)


def test_what_stages_refer_to(sample: Pipeline) -> None:
    assert sample.datastores["warehouse"] == Datastore(
        name="warehouse", url="postgresql://db.example.com/pets", credentials="env:PGPASSWORD"
    )
    assert sample.datasets["images"].sources == ("blob:train-images/**",)
    labels = sample.datasets["labels"]
    assert (labels.sources, labels.bound, labels.format) == (("warehouse",), {"since": "2026-01-01"}, "parquet")
    assert sample.environments["project"].packages == ("scikit-learn==1.7.2",)
    assert sample.computes["local"] == Compute(name="local", gpus=2)
    assert sample.computes["gpubox"] == Compute(
        name="gpubox", kind="docker", max_jobs=4, options={"host": "ssh://gpubox"}
    )
    assert sample.cache == CacheConfig(remote="blob:cache", max_size_bytes=200_000_000_000, trust=("sha256:…",))
    assert sample.snapshot.max_file_bytes == 20_000_000
    assert sample.history == {"mlflow": "env:MLFLOW_TRACKING_URI"}


def test_the_graph(sample: Pipeline) -> None:
    cells = {"train@0.01-3", "train@0.01-5", "train@0.1-3", "train@0.1-5"}
    assert edges(sample) == {"prepare": (), **dict.fromkeys(cells, ("prepare",))}
    assert order(sample) == ("prepare", "train@0.01-3", "train@0.01-5", "train@0.1-3", "train@0.1-5")
    assert upstream(sample, ["train@0.1-3"]) == {"prepare", "train@0.1-3"}
    assert downstream(sample, ["prepare"]) == {"prepare", *cells}


def test_a_file_that_says_little(read: Callable[..., Pipeline]) -> None:
    """Everything has a default; the folder names the pipeline; an empty file is a pipeline without stages."""
    empty = read("")
    assert (empty.name, empty.stages, empty.targets) == ("folder", {}, ())
    assert empty.computes == {"local": Compute(name="local")}
    stage = read('[stage.a]\nrun = "true"\n').stages["a"]
    assert (stage.compute, stage.environment, stage.source, stage.cwd) == ("local", None, (), ".")


def test_a_byte_order_mark(read: Callable[..., Pipeline]) -> None:
    assert list(read('\ufeff[stage.a]\nrun = "true"\n').stages) == ["a"]


HOW_AN_INPUT_IS_WRITTEN = {
    "by stage": ('"stage:a.out"', {"path": "data/out", "lies": "data/out"}, ("a", "out", "")),
    "by path": ('"data/out"', {"path": "data/out", "lies": "data/out"}, ("a", "out", "")),
    "by an untidy path": ('"./data//out/"', {"path": "data/out", "lies": "data/out"}, ("a", "out", "")),
    "inside": ('"data/out/x/y"', {"path": "data/out/x/y", "lies": "data/out/x/y"}, ("a", "out", "x/y")),
    "elsewhere": ('{ from = "stage:a.out", path = "in" }', {"path": "in", "lies": "data/out"}, ("a", "out", "")),
    "inside, elsewhere": (
        '{ from = "data/out/x", path = "in" }',
        {"path": "in", "lies": "data/out/x"},
        ("a", "out", "x"),
    ),
    "a file": ('"raw.csv"', {"path": "raw.csv", "lies": "raw.csv"}, ("", "", "")),
    "a file elsewhere": (
        '{ from = "raw.csv", path = "in/r.csv" }',
        {"path": "in/r.csv", "lies": "raw.csv"},
        ("", "", ""),
    ),
}


@pytest.mark.parametrize("how", HOW_AN_INPUT_IS_WRITTEN)
def test_inputs(how: str, read: Callable[..., Pipeline]) -> None:
    """An edge is found by name and by path; `path` says where the content appears."""
    written, places, (stage, output, within) = HOW_AN_INPUT_IS_WRITTEN[how]
    maker = '[stage.a]\nrun = "true"\noutputs = { out = "data/out" }\n'
    given = read(f'{maker}[stage.b]\nrun = "true"\ninputs = {{ x = {written} }}\n').stages["b"].inputs["x"]
    kind = OriginKind.STAGE if stage else OriginKind.PATH
    assert given == Input(name="x", origin=Origin(kind=kind, stage=stage, output=output), within=within, **places)


def test_every_cell_as_one_input(read: Callable[..., Pipeline]) -> None:
    text = """
[stage.train]
run = "true"
matrix = { lr = [0.01, "a b"] }
outputs = { model = "m/{matrix.lr}.pkl" }
[stage.report]
run = "true"
after = ["train"]
inputs = { models = "stage:train@*.model", one = { from = "stage:train@0.01.model", mode = "mount" } }
"""
    pipeline = read(text)
    report = pipeline.stages["report"]
    cells = {"0.01": "train@0.01", "a%20b": "train@a%20b"}
    assert report.inputs["models"] == Input(
        name="models", path="inputs/models", origin=Origin(kind=OriginKind.CELLS, cells=cells, output="model")
    )
    assert report.inputs["one"].origin == Origin(kind=OriginKind.STAGE, stage="train@0.01", output="model")
    assert report.inputs["one"].mode is InputMode.MOUNT
    assert report.after == ("train@0.01", "train@a%20b")
    assert pipeline.stages["train@a%20b"].outputs["model"].path == "m/a b.pkl"


def test_inputs_may_hold_one_another(read: Callable[..., Pipeline]) -> None:
    """A folder, and one file of it by a name of its own: their content agrees."""
    inputs = (
        read('[stage.a]\nrun = "true"\ninputs = { all = "data", one = "data/x.csv", again = "data" }\n')
        .stages["a"]
        .inputs
    )
    assert {name: given.path for name, given in inputs.items()} == {"all": "data", "one": "data/x.csv", "again": "data"}


def test_an_output_inside_its_own_source(read: Callable[..., Pipeline]) -> None:
    assert read('[stage.a]\nrun = "true"\nsource = "."\noutputs = { o = "out/o" }\n').stages["a"].source == (".",)


NOTEBOOKS = {
    'notebook = "nb/eda.ipynb"': {"notebook": "nb/eda.out.ipynb"},
    'notebook = "eda.ipynb"\noutputs = { notebook = "o.ipynb", x = "x" }': {"notebook": "o.ipynb", "x": "x"},
    'notebook = "{params.name}.ipynb"': {"notebook": "eda.out.ipynb"},
}


@pytest.mark.parametrize("written", NOTEBOOKS)
def test_a_notebook_has_an_output_of_its_own(written: str, read: Callable[..., Pipeline]) -> None:
    stage = read(f'[params]\nname = "eda"\n[stage.a]\n{written}\n').stages["a"]
    assert stage.kind is StageKind.NOTEBOOK
    assert {name: output.path for name, output in stage.outputs.items()} == NOTEBOOKS[written]


def test_cells_of_a_notebook_have_outputs_apart(read: Callable[..., Pipeline]) -> None:
    stages = read('[stage.a]\nnotebook = "eda.ipynb"\nmatrix = { x = [1, 2] }\n').stages
    assert [stage.outputs["notebook"].path for stage in stages.values()] == ["eda-1.out.ipynb", "eda-2.out.ipynb"]


def test_a_transfer(read: Callable[..., Pipeline]) -> None:
    text = """
[datastore.blob]
url = "az://pets"
[stage.send]
matrix = { year = [2025, 2026] }
transfer = { from = "blob:in/{matrix.year}/**", to = "s3://bucket/out/" }
"""
    stage = read(text).stages["send@2026"]
    assert stage.kind is StageKind.TRANSFER
    assert stage.transfer is not None
    assert (stage.transfer.source, stage.transfer.target) == ("blob:in/2026/**", "s3://bucket/out/")


def test_environments_extend_one_another(read: Callable[..., Pipeline]) -> None:
    """Lists are joined, other keys replaced; what it extends is part of a table's definition."""
    text = """
[environment.base]
python = "3.11"
packages = ["numpy"]
[environment.more]
extends = "base"
python = "3.12"
packages = ["pandas"]
[environment.sk]
extends = "curated:sklearn"
"""
    found = read(text).environments
    assert (found["more"].python, found["more"].packages) == ("3.12", ("numpy", "pandas"))
    assert found["more"].definition == '{"packages": ["numpy", "pandas"], "python": "3.12"}'
    assert any(package.startswith("scikit-learn") for package in found["sk"].packages)


def test_kinds_of_compute(read: Callable[..., Pipeline]) -> None:
    text = """
[compute.pool]
kind = "docker"
hosts = ["ssh://a", { url = "ssh://b", gpus = 2 }]
[compute.cluster]
kind = "slurm"
partition = "gpu"
options = ["--constraint=a100"]
shared = "/shared"
max-nodes = 4
idle = "10m"
[compute.mine]
kind = "nomad"
max-jobs = 2
region = "eu"
"""
    computes = read(text, kinds=lambda: ("nomad",)).computes
    assert computes["pool"].options == {"hosts": ["ssh://a", {"url": "ssh://b", "gpus": 2}]}
    assert computes["cluster"].options["idle"] == "10m"
    assert computes["mine"] == Compute(name="mine", kind="nomad", max_jobs=2, options={"region": "eu"})


def test_targets_name_stages_cells_and_outputs(read: Callable[..., Pipeline]) -> None:
    text = """
[pipeline]
targets = ["data/b", "c", "d@2"]
[stage.a]
run = "true"
[stage.b]
run = "true"
outputs = { x = "data/b" }
[stage.c]
run = "true"
matrix = { x = [1, 2] }
[stage.d]
run = "true"
matrix = { x = [1, 2] }
"""
    assert read(text).targets == ("b", "c@1", "c@2", "d@2")


def test_versions_that_are_old_enough(read: Callable[..., Pipeline]) -> None:
    for requires in (">=0.1", ">=0.1.0", "==0.1", "<1", "~=0.1", ">=0.1,<0.2", "!=0.3"):
        assert read(f'[pipeline]\nrequires = "{requires}"\n', version="0.1.0").requires == requires


def test_the_reader_asks_only_for_files_that_are_named(read: Callable[..., Pipeline]) -> None:
    asked: list[str] = []
    files = SimpleNamespace(get=lambda path: asked.append(path) or b"")
    read('[pipeline]\nparams-files = ["./p.toml"]\n[environment.e]\nrequirements = "r.txt"\n', files=files)
    assert asked == ["p.toml", "r.txt"]


def test_requires_is_held_against_this_version(faults: Callable[..., str]) -> None:
    from pipesmith import __version__

    said = faults('[pipeline]\nrequires = ">=99"\n')
    assert f"requires pipesmith >=99, this is {__version__}" in said
