"""`init`: pipeline.toml, stages/ and hooks/ in a git repository. Never over somebody's file."""

from __future__ import annotations

import json
import os

from pipesmith.errors import UserError
from pipesmith.git.repository import INSIDE, Repository

__all__ = ["in_repository", "scaffold"]

_PIPELINE = """# A stage graph, built by `pipe build`. `pipe schema` prints what may stand here.

[pipeline]
name = {name}

[params]
seed = 7

[stage.prepare]
source = "stages/prepare"
run = "python3 stages/prepare/prepare.py --out {{outputs.numbers}} --seed {{params.seed}}"
outputs = {{ numbers = "data/numbers.csv" }}

[stage.report]
source = "stages/report"
run = ["python3", "stages/report/report.py", "{{inputs.numbers}}", "{{outputs.metrics}}"]
inputs = {{ numbers = "stage:prepare.numbers" }}
metrics = ["metrics"]
[stage.report.outputs]
metrics = {{ path = "metrics.json", cache = false }}
"""

_PREPARE = '''"""Writes numbers to a file."""

import argparse
import random

parser = argparse.ArgumentParser()
parser.add_argument("--out", required=True)
parser.add_argument("--seed", type=int, required=True)
arguments = parser.parse_args()
random.seed(arguments.seed)
with open(arguments.out, "w") as file:
    file.write("number\\n")
    for _ in range(100):
        file.write(f"{random.random():.6f}\\n")
'''

_REPORT = '''"""Sums up a file of numbers."""

import json
import sys

with open(sys.argv[1]) as file:
    numbers = [float(line) for line in file.readlines()[1:]]
with open(sys.argv[2], "w") as file:
    json.dump({"count": len(numbers), "mean": round(sum(numbers) / len(numbers), 6)}, file, indent=1)
    file.write("\\n")
'''

_EMPTY = """# A stage graph, built by `pipe build`. `pipe schema` prints what may stand here;
# `pipe init --example` shows one.

[pipeline]
name = {name}

# [stage.prepare]
# source = "stages/prepare"
# run = "python3 stages/prepare/prepare.py {{inputs.raw}} {{outputs.clean}}"
# inputs = {{ raw = "data/raw.csv" }}
# outputs = {{ clean = "data/clean.csv" }}
"""

_IGNORE = """# What source fingerprints leave out, beyond .gitignore; the same syntax.
__pycache__/
*.pyc
"""

_HOOKS = """# hooks

Scripts of this repository's git hooks, versioned here. Git runs none of them until you ask it to, once a clone:

    git config core.hooksPath hooks

`pre-push` refuses a push of a commit whose `pipe.lock` does not belong to its `pipeline.toml` and sources. It judges
by git alone: it needs no data and checks nothing out. `git push --no-verify` passes it by. Without a `pipe` in
`.venv` or on PATH it checks nothing, and says so.
"""

_PRE_PUSH = """#!/bin/sh
# Refuses a push of a commit whose pipe.lock is stale: `git config core.hooksPath hooks` has git run this.
# Git runs it at the top of the work tree, and tells on standard input what is pushed.
for pipe in .venv/bin/pipe pipe; do
    if command -v "$pipe" >/dev/null 2>&1; then exec "$pipe" hooks run pre-push "$@"; fi
done
echo "pre-push: no \\`pipe\\` in .venv or on PATH: nothing was checked" >&2
"""


def in_repository(folder: str) -> bool:
    """Return whether a folder lies in the work tree of a git repository."""
    try:
        return not Repository.discover(folder).is_bare
    except UserError:
        return False


def _is_gits_own(folder: str) -> bool:
    try:
        repo = Repository.discover(folder)
    except UserError as error:
        return error.text.startswith(INSIDE)
    real = os.path.realpath(folder)
    return repo.is_bare or f"{real}/".startswith(f"{repo.git_dir}/")


def scaffold(folder: str, *, example: bool = False) -> tuple[list[str], list[str]]:
    """Write what is missing below `folder` and return (written, left alone), both as relative paths.

    Raises UserError for what is no folder, or is git's own."""
    if not os.path.isdir(folder):
        raise UserError(f"`{folder}` is not a folder")
    if _is_gits_own(folder):
        raise UserError(f"`{folder}` belongs to git: there is no work tree", "go to a clone, or to the work tree")
    name = _toml_text(os.path.basename(os.path.realpath(folder)))
    files = {
        "pipeline.toml": (_PIPELINE if example else _EMPTY).format(name=name),
        ".pipeignore": _IGNORE,
        "stages/README.md": "# stages\n\nOne folder a stage, with its code.\n",
        "hooks/README.md": _HOOKS,
        "hooks/pre-push": _PRE_PUSH,
    }
    if example:
        files["stages/prepare/prepare.py"] = _PREPARE
        files["stages/report/report.py"] = _REPORT
    written, left = [], []
    for path, text in files.items():
        there = os.path.join(folder, path)
        if os.path.lexists(there):
            left.append(path)
            continue
        try:
            os.makedirs(os.path.dirname(there), exist_ok=True)
        except (FileExistsError, NotADirectoryError):  # a file of somebody's where the folder would be
            left.append(os.path.dirname(path))
            continue
        with open(there, "x", encoding="utf-8") as file:
            file.write(text)
        if path == "hooks/pre-push":
            os.chmod(there, 0o755)
        written.append(path)
    return written, list(dict.fromkeys(left))


def _toml_text(name: str) -> str:
    """Return a folder's name as a string of TOML; bytes that are no UTF-8 are replaced."""
    text = os.fsencode(name).decode("utf-8", "replace")
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
