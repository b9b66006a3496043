"""The checked content of a pipeline.toml, as values: what the reader returns and everything else works from.

A stage with a `matrix` is one Stage a cell here. All paths are relative to the workspace, `/`-separated, normalised (no
`.` or `..` parts; the workspace itself is `.`).
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from enum import Enum
from typing import Any

from pipesmith.records import field, record

__all__ = [
    "CacheConfig",
    "Compute",
    "Dataset",
    "Datastore",
    "Environment",
    "Expectation",
    "Input",
    "InputMode",
    "Origin",
    "OriginKind",
    "Output",
    "Pipeline",
    "Plot",
    "Resources",
    "Snapshot",
    "Stage",
    "StageKind",
    "Transfer",
]


class StageKind(Enum):
    """What does a stage's work."""

    COMMAND = "command"  # `run`
    NOTEBOOK = "notebook"  # `notebook`, by papermill
    TRANSFER = "transfer"  # `transfer`, between datastores


class OriginKind(Enum):
    """Where an input comes from."""

    STAGE = "stage"  # one output of one stage, written `stage:NAME.OUTPUT` or found by its path
    CELLS = "cells"  # one output of every cell of a matrix: a folder with one entry a cell
    DATASET = "dataset"  # a `[dataset.NAME]`
    PATH = "path"  # a file or folder of the workspace that no stage makes


class InputMode(Enum):
    """How content reaches a stage. No part of the fingerprint."""

    DOWNLOAD = "download"
    MOUNT = "mount"
    STREAM = "stream"


_TABLES = ("csv", "tsv", "txt", "parquet", "pq", "json", "jsonl", "ndjson")  # as the SDK reads them


@record
class Origin:
    """kind STAGE: stage (expanded name) and output. CELLS: cells = {cell's value part of its name: expanded stage name}
    and output. DATASET: dataset. PATH: the path itself is Input.lies."""

    kind: OriginKind
    stage: str = ""
    output: str = ""
    cells: Mapping[str, str] = field(default_factory=dict)
    dataset: str = ""


@record
class Input:
    """path: where it appears in the sandbox. lies: the workspace path that it is, of kinds STAGE and PATH; the same
    unless the input's own `path` says otherwise. A CELLS input's entries are `path/CELL`, each the cell's output. An
    input found by path inside a stage's folder output has origin STAGE with `within`: the rest of the path."""

    name: str
    path: str
    origin: Origin
    mode: InputMode = InputMode.DOWNLOAD
    within: str = ""
    lies: str = ""


@record
class Output:
    """cache False: left to git, never a link. temp: may be absent while locked. to: a URL or `DATASTORE:PREFIX` with
    placeholders (`{run.id}`, `{git.commit}`, `{git.branch}` still unfilled), or None."""

    name: str
    path: str
    cache: bool = True
    temp: bool = False
    to: str | None = None


@record
class Expectation:
    """A bound on a metric. key: `OUTPUT:dotted.name`. vs: a git revision to compare with, drop: how much lower is let
    pass."""

    key: str
    min: float | None = None
    max: float | None = None
    vs: str | None = None
    drop: float = 0.0


@record
class Plot:
    """A drawing of one output. x, y: columns."""

    output: str
    x: str | None = None
    y: tuple[str, ...] = ()
    title: str | None = None


@record
class Resources:
    """cpus: a number or None (counts only as one slot of -j). memory_bytes and gpu_memory_bytes: bytes or None. gpus:
    whole GPUs."""

    cpus: float | None = None
    gpus: int = 0
    memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None
    custom: Mapping[str, float] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict)  # as written, for `{resources.K}`


@record
class Transfer:
    """Data moved between datastores instead of a command: `from` and `to` as written."""

    source: str
    target: str


@record
class Stage:
    """One stage, or one cell of a matrix.

    run: with `{matrix.K}`, `{stage.name}` and `{resources.K}` already filled in and `{inputs.N}`, `{outputs.N}`,
    `{params.K}` left as they are; braces of literal text are still doubled. A str goes to /bin/sh, a tuple is executed.
    None unless kind is COMMAND. params: dotted keys that count: those listed and those named in `run`, sorted.
    after: expanded stage names. environment: a name of Pipeline.environments, or None. compute: a name of
    Pipeline.computes.
    """

    name: str
    base: str  # the name of its table; equals name without a matrix
    kind: StageKind
    cell: Mapping[str, Any] = field(default_factory=dict)  # the matrix values of this cell
    desc: str = ""
    source: tuple[str, ...] = ()
    run: str | tuple[str, ...] | None = None
    notebook: str | None = None
    transfer: Transfer | None = None
    inputs: Mapping[str, Input] = field(default_factory=dict)
    outputs: Mapping[str, Output] = field(default_factory=dict)
    params: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()  # names of outputs
    plots: tuple[Plot, ...] = ()
    after: tuple[str, ...] = ()
    mutex: tuple[str, ...] = ()
    resources: Resources = field(default_factory=Resources)
    compute: str = "local"
    environment: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    pass_env: tuple[str, ...] = ()
    reuse: bool = True
    hash_paths: tuple[str, ...] = ()
    timeout_s: float | None = None
    retries: int = 0
    keep: str | None = None
    sandbox: bool = True
    cwd: str = "."
    frozen: bool = False
    expect: tuple[Expectation, ...] = ()


@record
class Datastore:
    """Where data lives. credentials: a reference, never the secret."""

    name: str
    url: str
    credentials: str | None = None


@record
class Dataset:
    """sources: each `DATASTORE:GLOB`, a URL, a path, or `git+URL@REV:…`. query, bound, format, options: of SQL and
    tables. definition: canonical JSON of the table as written, which a pin holds for."""

    name: str
    sources: tuple[str, ...]
    query: str | None = None
    bound: Mapping[str, Any] = field(default_factory=dict)
    format: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    definition: str = ""

    @property
    def table_format(self) -> str | None:
        """What its tables are read as. Of one file that is what its name says: given to a stage it has another one."""
        if self.format is not None or len(self.sources) != 1:
            return self.format
        name, dot, suffix = self.sources[0].partition("?")[0].rpartition("/")[2].rpartition(".")
        return suffix.lower() if dot and name and suffix.lower() in _TABLES else None


@record
class Environment:
    """python: `3.11`, `system`, or None. requirements: a workspace path. definition: canonical JSON of the table,
    `extends` resolved."""

    name: str
    python: str | None = None
    packages: tuple[str, ...] = ()
    requirements: str | None = None
    conda: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    image: str | None = None
    dockerfile: str | None = None
    base: str | None = None
    registry: str | None = None
    definition: str = ""

    @property
    def context(self) -> str | None:
        """The folder of the Dockerfile, with all of which its image is built; None without one."""
        return (posixpath.dirname(self.dockerfile) or ".") if self.dockerfile else None


@record
class Compute:
    """kind: `local`, `docker`, `slurm`, `ray` or an entry point's name. options: the rest of the table, checked by
    kind."""

    name: str
    kind: str = "local"
    gpus: int | None = None
    max_jobs: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@record
class CacheConfig:
    """The table [cache]."""

    remote: str | None = None
    hash: str = "blake3"
    link: tuple[str, ...] = ("reflink", "hardlink", "copy")
    max_size_bytes: int | None = None
    push: str = "manual"
    read_only: bool = False
    trust: tuple[str, ...] = ()


@record
class Snapshot:
    """The table [snapshot]."""

    max_file_bytes: int = 20_000_000


@record
class Pipeline:
    """A whole, checked pipeline. stages: by expanded name, in the order of the file. groups: table name to its cells'
    names (itself alone without a matrix). params: merged defaults, params files and overrides, nested. targets:
    expanded names."""

    name: str
    stages: Mapping[str, Stage]
    groups: Mapping[str, tuple[str, ...]]
    targets: tuple[str, ...]
    params: Mapping[str, Any]
    params_files: tuple[str, ...] = ()
    requires: str | None = None
    datastores: Mapping[str, Datastore] = field(default_factory=dict)
    datasets: Mapping[str, Dataset] = field(default_factory=dict)
    environments: Mapping[str, Environment] = field(default_factory=dict)
    computes: Mapping[str, Compute] = field(default_factory=dict)
    cache: CacheConfig = field(default_factory=CacheConfig)
    snapshot: Snapshot = field(default_factory=Snapshot)
    history: Mapping[str, str] = field(default_factory=dict)
    file: str = "pipeline.toml"

    @property
    def output_paths(self) -> frozenset[str]:
        """The paths of all outputs of all stages."""
        return frozenset(output.path for stage in self.stages.values() for output in stage.outputs.values())
