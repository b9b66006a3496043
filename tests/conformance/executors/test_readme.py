"""What the README says of a GPU box, as it stands there, against a daemon behind ssh."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .conftest import IMAGE, place_of, prepared

_README = (Path(__file__).resolve().parents[3] / "README.md").read_text()
_SECTION = _README.partition("## Run it on a GPU box\n")[2].partition("\n## ")[0]


def _block(kind: str) -> str:
    found = re.search(rf"```{kind}\n(.*?)```", _SECTION, re.DOTALL)
    assert found
    return found[1]


def test_the_three_lines_run_a_pipeline_on_the_box(repo: Any) -> None:
    lines, commands = _block("toml"), _block("sh")
    assert len(lines.splitlines()) == 3
    prepared(place_of("docker-ssh"), repo)
    repo.write(
        "stages/train.py",
        """
import os
open(os.environ["PIPE_OUTPUT_MODEL"], "w").write(open("data").read() + os.getcwd())
""",
    )
    repo.write("data", "one\n")
    repo.write(
        "pipeline.toml",
        f"""[environment.project]
python = "3.11"
base = "{IMAGE}"
[stage.train]
source = "stages"
run = "python stages/train.py"
inputs = {{ data = "data" }}
outputs = {{ model = "model" }}
environment = "project"
{lines}""",
    )
    repo.commit()
    for number, line in enumerate(commands.splitlines()):
        program, command, *args = line.partition("#")[0].split()
        assert program == "pipe"
        repo.write("data", f"{number}\n")
        if "--detach" in args:
            repo.pipe("wait", repo.pipe(command, *args, "--json").json()["run"])
        else:
            repo.pipe(command, *args)
        if command == "build":
            assert repo.read("model") == f"{number}\n/workspace"
    assert [stage["status"] for stage in repo.pipe("build", "--json").json()["stages"]] == ["fresh"]
