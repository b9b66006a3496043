"""The same graph written for each tool: stages that each read a folder of small files and write one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["WRITERS", "Shape", "lay_out"]


@dataclass(frozen=True, slots=True)
class Shape:
    """stages: how many. files: how many each reads."""

    stages: int
    files: int

    def __str__(self) -> str:
        return f"{self.stages:,} × {self.files:,}"

    def names(self) -> list[str]:
        return [f"s{number}" for number in range(self.stages)]

    def inputs(self, name: str) -> list[str]:
        return [f"src/{name}/f{number}" for number in range(self.files)]


# A stage's command: one file of its folder, so that the command's own time stays the same whatever the folder holds.
def _command(name: str, output: str) -> str:
    return f"cat src/{name}/f0 > {output}"


def _pipe(shape: Shape) -> dict[str, str]:
    stages = [
        f'[stage.{name}]\nsource = "src/{name}"\nrun = "{_command(name, "{outputs.o}")}"\n'
        f'outputs = {{ o = "out/{name}" }}\n'
        for name in shape.names()
    ]
    return {"pipeline.toml": '[pipeline]\nname = "bench"\n\n' + "\n".join(stages)}


def _make(shape: Shape) -> dict[str, str]:
    outputs = " ".join(f"out/{name}" for name in shape.names())
    rules = [f"out/{name}: {' '.join(shape.inputs(name))}\n\t{_command(name, '$@')}\n" for name in shape.names()]
    return {"Makefile": f"all: {outputs}\n" + "\n".join(rules), "out/.keep": ""}


def _ninja(shape: Shape) -> dict[str, str]:
    rules = [
        f"build out/{name}: cat {' '.join(shape.inputs(name))}\n  first = src/{name}/f0\n" for name in shape.names()
    ]
    return {"build.ninja": "rule cat\n  command = cat $first > $out\n" + "".join(rules)}


def _dvc(shape: Shape) -> dict[str, str]:
    stages = [
        f"  {name}:\n    cmd: mkdir -p out && {_command(name, f'out/{name}')}\n"
        f"    deps: [src/{name}]\n    outs: [out/{name}]\n"
        for name in shape.names()
    ]
    return {"dvc.yaml": "stages:\n" + "".join(stages)}


def _snakemake(shape: Shape) -> dict[str, str]:
    rules = [
        f'rule {name}:\n    input: expand("src/{name}/f{{n}}", n=range({shape.files}))\n'
        f'    output: "out/{name}"\n    shell: "{_command(name, "{output}")}"\n'
        for name in shape.names()
    ]
    outputs = ", ".join(f'"out/{name}"' for name in shape.names())
    return {"Snakefile": f"rule all:\n    input: [{outputs}]\n" + "".join(rules)}


WRITERS: dict[str, Callable[[Shape], dict[str, str]]] = {
    "git": lambda shape: {},
    "pipe": _pipe,
    "make": _make,
    "ninja": _ninja,
    "dvc": _dvc,
    "snakemake": _snakemake,
}


def lay_out(folder: Path, tool: str, shape: Shape) -> Path:
    """Write the graph for a tool into a git repository of its own below `folder`, commit it, return the repository."""
    repo = folder / f"{tool}-{shape.stages}x{shape.files}"
    shutil.rmtree(repo, ignore_errors=True)
    for name in shape.names():
        (repo / "src" / name).mkdir(parents=True)
        for path in shape.inputs(name):
            (repo / path).write_text(f"{path}\n")
    for path, text in WRITERS[tool](shape).items():
        (repo / path).parent.mkdir(exist_ok=True)
        (repo / path).write_text(text)
    (repo / ".gitignore").write_text("/out/\n/.snakemake/\n")
    commit(repo)
    return repo


def commit(repo: Path) -> None:
    """Make `repo` a git repository with everything in it committed."""
    identity = ("-c", "user.name=bench", "-c", "user.email=bench@example.com", "-c", "gc.auto=0")
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "graph")):
        subprocess.run(["git", *identity, *words], cwd=repo, check=True)
