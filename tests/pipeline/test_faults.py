"""Every fault of a pipeline.toml: the whole text that people see, with line, key, nearest name and help.

A case is what stands in the file, what is said of it, and where they matter: other files, `--set`, variables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

CASES: dict[str, tuple[str, str] | tuple[str, str, dict[str, Any]]] = {
    "unknown_table": (
        """
[stages.a]
run = "true"
""",
        """
pipeline.toml:1: stages: unknown table `stages`
help: did you mean `[stage]`?
""",
    ),
    "unknown_key_at_the_top": (
        """
name = "pets"
[stage.a]
run = "true"
""",
        """
pipeline.toml:1: name: unknown key `name`
help: did you mean `name` of `[pipeline]`?
""",
    ),
    "array_of_stages": (
        """
[[stage]]
run = "true"
""",
        """
pipeline.toml:1: stage: expected a table, found a list
help: write `[stage.NAME]`
""",
    ),
    "a_stage_that_is_no_table": (
        """
[stage]
a = "true"
""",
        """
pipeline.toml:2: stage.a: expected a table, found "true"
""",
    ),
    "unknown_key_with_the_nearest": (
        """
[stage.a]
run = "true"
input = { x = "x" }
""",
        """
pipeline.toml:3: stage.a.input: unknown key `input`
help: did you mean `inputs`?
""",
    ),
    "unknown_key_far_from_all": (
        """
[stage.a]
run = "true"
zzz = 1
""",
        """
pipeline.toml:3: stage.a.zzz: unknown key `zzz`
help: known: `desc`, `source`, `run`, `notebook`, `transfer`, `inputs`, `outputs`, `params`, …
""",
    ),
    "unknown_names_in_capitals": (
        """
[params]
seed = 7
[stage.prepare]
RUN = "x"
run = "echo {PARAMS.SEED}"
after = ["PREPARE"]
""",
        """
pipeline.toml:4: stage.prepare.RUN: unknown key `RUN`
help: did you mean `run`?
pipeline.toml:5: stage.prepare.run: unknown placeholder `{PARAMS.SEED}`
help: did you mean `{params.seed}`?
pipeline.toml:6: stage.prepare.after: unknown stage `PREPARE`
help: did you mean `prepare`?
""",
    ),
    "unknown_key_inside_an_inline_table": (
        """
[stage.a]
run = "true"
outputs = { x = { path = "x", cahce = false } }
""",
        """
pipeline.toml:3: stage.a.outputs.x.cahce: unknown key `cahce`
help: did you mean `cache`?
""",
    ),
    "wrong_types": (
        """
[pipeline]
name = 5
targets = "a"
[stage.a]
run = 1
inputs = ["x"]
reuse = "no"
retries = -1
env = { N = 2 }
timeout = 30
plots = ["x"]
[stage.b]
run = ["x", 1]
resources = { cpus = nan, gpus = 0.5, memory = true }
""",
        """
pipeline.toml:2: pipeline.name: expected a string, found 5
pipeline.toml:3: pipeline.targets: expected a list of strings, found "a"
pipeline.toml:5: stage.a.run: expected a string or a list of strings, found 1
pipeline.toml:6: stage.a.inputs: expected a table, found a list
pipeline.toml:7: stage.a.reuse: expected true or false, found "no"
pipeline.toml:8: stage.a.retries: expected a whole number, 0 or more, found -1
pipeline.toml:9: stage.a.env: expected a table of strings, found 2 as `N`
pipeline.toml:10: stage.a.timeout: expected a duration such as `30s`, `5m`, `2h`, found 30
pipeline.toml:11: stage.a.plots: expected a list of tables, found "x" in it
pipeline.toml:13: stage.b.run: expected a string or a list of strings, found 1 in it
pipeline.toml:14: stage.b.resources.cpus: expected a number, found nan
pipeline.toml:14: stage.b.resources.gpus: expected a whole number, 0 or more, found 0.5
pipeline.toml:14: stage.b.resources.memory: expected a size such as `64K`, `8M`, `2G`, `20GB`, found true
""",
    ),
    "all_faults_at_once_in_the_order_of_the_file": (
        """
[stage.b]
run = "x {inputs.y}"
[pipeline]
nmae = "x"
[stage.a]
compute = "gpu"
""",
        """
pipeline.toml:2: stage.b.run: unknown placeholder `{inputs.y}`
help: add `y` to the stage's `inputs`
pipeline.toml:4: pipeline.nmae: unknown key `nmae`
help: did you mean `name`?
pipeline.toml:5: stage.a: has no `run`
help: write `run = "…"` (or `notebook`, or `transfer`)
pipeline.toml:6: stage.a.compute: unknown compute `gpu`
help: known: `local`
""",
    ),
    "not_toml": (
        """
[stage.a]
run = "true"
run = "false"
""",
        """
pipeline.toml:3: not TOML: cannot overwrite a value
""",
    ),
    "not_toml_at_the_end": (
        """
[stage.a]
run = "true
""",
        r"""
pipeline.toml:2: not TOML: illegal character '\n'
""",
    ),
    "not_toml_table_twice": (
        """
[stage.a]
run = "true"
[stage.a]
run = "false"
""",
        """
pipeline.toml:3: not TOML: cannot declare `stage.a` twice
""",
    ),
    "bad_choice": (
        """
[cache]
hash = "sha1"
push = "always"
link = ["symlink"]
""",
        """
pipeline.toml:2: cache.hash: `sha1` is not one of `blake3`, `md5`
pipeline.toml:3: cache.push: `always` is not one of `manual`, `build`
pipeline.toml:4: cache.link: unknown way to link `symlink`
help: known: `reflink`, `hardlink`, `copy`
""",
    ),
    "no_link": (
        """
[cache]
link = []
""",
        """
pipeline.toml:2: cache.link: names no way to link
help: write `link = ["copy"]` for plain copies
""",
    ),
    "requires_a_newer": (
        """
[pipeline]
requires = ">=0.9"
""",
        """
pipeline.toml:2: pipeline.requires: this pipeline requires pipesmith >=0.9, this is 0.1.0
help: run `pip install 'pipesmith>=0.9'`
""",
        {"version": "0.1.0"},
    ),
    "requires_nonsense": (
        """
[pipeline]
requires = "new"
""",
        """
pipeline.toml:2: pipeline.requires: `new` is not a version requirement
help: write `">=0.1"`
""",
        {"version": "0.1.0"},
    ),
    "names": (
        """
[stage."a/b"]
run = "true"
[stage.c]
run = "true"
inputs = { "x.y" = "x" }
outputs = { "m.pkl" = "m.pkl" }
[dataset."a b"]
from = "x"
""",
        """
pipeline.toml:1: stage.a/b: `a/b` can't be a stage's name
help: use letters, digits, `_`, `-`, `+` and `.`
pipeline.toml:5: stage.c.inputs.x.y: `x.y` can't be an input's name
help: use letters, digits, `_` and `-`
pipeline.toml:6: stage.c.outputs.m.pkl: `m.pkl` can't be an output's name
help: use letters, digits, `_` and `-`
pipeline.toml:7: dataset.a b: `a b` can't be a name
help: use letters, digits, `_`, `-` and `+`
""",
    ),
    "names_that_collide_in_variables": (
        """
[stage.a]
run = "true"
inputs = { my-x = "x", my_x = "y" }
outputs = { out = "o1", OUT = "o2" }
""",
        """
pipeline.toml:3: stage.a.inputs.my_x: `my_x` and `my-x` are both PIPE_INPUT_MY_X
help: rename one of them
pipeline.toml:4: stage.a.outputs.OUT: `OUT` and `out` are both PIPE_OUTPUT_OUT
help: rename one of them
""",
    ),
    "nothing_to_run": (
        """
[stage.a]
desc = "x"
""",
        """
pipeline.toml:1: stage.a: has no `run`
help: write `run = "…"` (or `notebook`, or `transfer`)
""",
    ),
    "two_things_to_run": (
        """
[stage.a]
run = "true"
notebook = "x.ipynb"
""",
        """
pipeline.toml:1: stage.a: has `run` and `notebook`
help: keep one of them
""",
    ),
    "an_empty_command": (
        """
[stage.a]
run = " "
[stage.b]
run = []
""",
        """
pipeline.toml:2: stage.a.run: an empty command
help: write `run = "…"`
pipeline.toml:4: stage.b.run: an empty command
help: write `run = "…"`
""",
    ),
    "characters_that_no_process_takes": (
        r"""
[params]
x = "a\u0000b"
t = { x = "a\u0000b" }
[stage.a]
run = "echo \u0000"
[stage.b]
run = ["echo", "{params.x}", "{params.t}"]
env = { A = "\u0000", B = "{params.x}", C = "{params.t}" }
[stage.c]
run = "echo {matrix.y}"
matrix = { y = ["a\u0000b", "c"] }
""",
        """
pipeline.toml:5: stage.a.run: a NUL character, which no command can hold
pipeline.toml:7: stage.b.run: `{params.x}` has a NUL character, which no command can hold
pipeline.toml:8: stage.b.env.A: a NUL character, which no variable can hold
pipeline.toml:8: stage.b.env.B: a NUL character, which no variable can hold
pipeline.toml:10: stage.c.run: `{matrix.y}` has a NUL character, which no command can hold
""",
    ),
    "not_a_notebook": (
        """
[stage.a]
notebook = "x.py"
""",
        """
pipeline.toml:2: stage.a.notebook: `x.py` is not a notebook
help: write `notebook = "NAME.ipynb"`
""",
    ),
    "transfer_faults": (
        """
[datastore.blob]
url = "az://pets"
[stage.a]
transfer = { from = "blbo:in/**", too = "x" }
[stage.b]
transfer = { from = "blob:in/**", to = "out" }
""",
        """
pipeline.toml:4: stage.a.transfer.too: unknown key `too`
help: did you mean `to`?
pipeline.toml:4: stage.a.transfer: has no `to`
help: write `{ from = "STORE:in/**", to = "STORE:out/" }`
pipeline.toml:4: stage.a.transfer.from: unknown datastore `blbo`
help: did you mean `blob`?
pipeline.toml:6: stage.b.transfer.to: `out` is neither `DATASTORE:PREFIX` nor a URL
help: write `blob:PREFIX`
""",
    ),
    "paths_that_leave_the_workspace": (
        """
[stage.a]
run = "true"
source = ["../lib", "src"]
inputs = { big = "/mnt/big", up = "../up.csv", home = "~/x" }
outputs = { x = "/tmp/x", y = "a/../../y" }
cwd = ".."
hash-paths = ["/etc/hosts"]
keep = "../ckpt"
""",
        """
pipeline.toml:3: stage.a.source: `../lib` leads out of the workspace
pipeline.toml:4: stage.a.inputs.big: `/mnt/big` is absolute: paths are relative to the workspace
help: write `[dataset.big]` with `from = "/mnt/big"`, and `big = "dataset:big"` here
pipeline.toml:4: stage.a.inputs.up: `../up.csv` leads out of the workspace
help: write `[dataset.up]` with `from = "../up.csv"`, and `up = "dataset:up"` here
pipeline.toml:4: stage.a.inputs.home: `~/x` leads out of the workspace
help: write `[dataset.home]` with `from = "~/x"`, and `home = "dataset:home"` here
pipeline.toml:5: stage.a.outputs.x: `/tmp/x` is absolute: paths are relative to the workspace
pipeline.toml:5: stage.a.outputs.y: `a/../../y` leads out of the workspace
pipeline.toml:6: stage.a.cwd: `..` leads out of the workspace
pipeline.toml:7: stage.a.hash-paths: `/etc/hosts` is absolute: paths are relative to the workspace
pipeline.toml:8: stage.a.keep: `../ckpt` leads out of the workspace
""",
    ),
    "an_empty_path": (
        """
[stage.a]
run = "true"
outputs = { x = "" }
""",
        """
pipeline.toml:3: stage.a.outputs.x: an empty path
help: name a file or folder of the workspace
""",
    ),
    "a_line_break_in_a_path": (
        r"""
[stage.a]
run = "true"
outputs = { x = "a\nb" }
""",
        r"""
pipeline.toml:3: stage.a.outputs.x: 'a\nb' has a character that paths here can't have
""",
    ),
    "outputs_that_cannot_be": (
        """
[stage.a]
run = "true"
[stage.a.outputs]
a = "pipeline.toml"
b = "./pipe.lock"
c = ".git"
d = "sub/.git/hooks/x"
e = "."
f = "x/.."
""",
        """
pipeline.toml:4: stage.a.outputs.a: `pipeline.toml` can't be an output
help: write into a file or folder of its own
pipeline.toml:5: stage.a.outputs.b: `pipe.lock` can't be an output
help: write into a file or folder of its own
pipeline.toml:6: stage.a.outputs.c: `.git` can't be an output
help: write into a file or folder of its own
pipeline.toml:7: stage.a.outputs.d: `sub/.git/hooks/x` can't be an output
help: write into a file or folder of its own
pipeline.toml:8: stage.a.outputs.e: the workspace itself can't be an output
help: write into a file or folder of its own
pipeline.toml:9: stage.a.outputs.f: the workspace itself can't be an output
help: write into a file or folder of its own
""",
    ),
    "two_stages_with_one_output": (
        """
[stage.a]
run = "true"
outputs = { x = "out/x" }
[stage.b]
run = "true"
outputs = { y = "out//x/" }
""",
        """
pipeline.toml:6: stage.b.outputs.y: `out/x` is an output of `a` as well as of `b`
help: give one another path
""",
    ),
    "one_output_inside_another": (
        """
[stage.a]
run = "true"
outputs = { x = "out" }
[stage.b]
run = "true"
outputs = { y = "out/b/y" }
""",
        """
pipeline.toml:6: stage.b.outputs.y: `out/b/y` lies inside `out`, an output of `a`
help: give one another path
""",
    ),
    "one_stage_with_one_path_twice": (
        """
[stage.a]
run = "true"
outputs = { x = "o", y = "o" }
""",
        """
pipeline.toml:3: stage.a.outputs.y: `o` is output `x` as well
help: give one another path
""",
    ),
    "temp_and_uncached": (
        """
[stage.a]
run = "true"
outputs = { x = { path = "o", temp = true, cache = false } }
""",
        """
pipeline.toml:3: stage.a.outputs.x: has both `temp = true` and `cache = false`
help: keep one of them
""",
    ),
    "source_made_by_a_stage": (
        """
[stage.gen]
run = "true"
outputs = { code = "gen" }
[stage.use]
run = "true"
source = ["gen", "src"]
hash-paths = ["gen/version.txt"]
""",
        """
pipeline.toml:6: stage.use.source: `gen` is made by a stage: output `gen` of `gen`
help: name it in inputs, as `code = "stage:gen.code"`
pipeline.toml:7: stage.use.hash-paths: `gen/version.txt` is made by a stage: output `gen` of `gen`
help: name it in inputs, as `code = "stage:gen.code"`
""",
    ),
    "output_over_own_source": (
        """
[stage.a]
run = "true"
source = "src/a"
outputs = { x = "src" }
""",
        """
pipeline.toml:3: stage.a.source: `src/a` is made by a stage: output `src` of `a`
help: give the output another path
""",
    ),
    "output_over_a_params_file": (
        """
[pipeline]
params-files = ["p.json"]
[stage.a]
run = "true"
outputs = { p = "p.json" }
""",
        """
pipeline.toml:2: pipeline.params-files: `p.json` is an output of `a`, and params are read before
help: give one another path
""",
        {"files": {"p.json": b"{}"}},
    ),
    "unknown_names_in_inputs": (
        """
[dataset.images]
from = "x"
[stage.prepare]
run = "true"
outputs = { clean = "clean" }
[stage.train]
run = "true"
matrix = { lr = [1, 2] }
outputs = { model = "{matrix.lr}.pkl" }
[stage.a]
run = "true"
[stage.a.inputs]
a = "stage:prepar.clean"
b = "stage:prepare.claen"
c = "stage:prepare"
d = "dataset:image"
e = "stage:train.model"
f = "stage:train@3.model"
g = "stage:train@*.modell"
h = "stage:prepare@*.clean"
i = "stage:nothing@*.x"
j = "stages:prepare.clean"
k = "s3://bucket/x"
""",
        """
pipeline.toml:13: stage.a.inputs.a: unknown stage `prepar`
help: did you mean `prepare`?
pipeline.toml:14: stage.a.inputs.b: stage `prepare` has no output `claen`
help: did you mean `stage:prepare.clean`?
pipeline.toml:15: stage.a.inputs.c: `stage:prepare` names no output
help: write `stage:NAME.OUTPUT`
pipeline.toml:16: stage.a.inputs.d: unknown dataset `image`
help: did you mean `images`?
pipeline.toml:17: stage.a.inputs.e: `train` has 2 cells
help: write `stage:train@*.model` for all, or `stage:train@1.model` for one
pipeline.toml:18: stage.a.inputs.f: unknown stage `train@3`
help: did you mean `train@2`?
pipeline.toml:19: stage.a.inputs.g: stage `train@1` has no output `modell`
help: did you mean `stage:train@*.model`?
pipeline.toml:20: stage.a.inputs.h: stage `prepare` has no matrix
help: write `stage:prepare.clean`
pipeline.toml:21: stage.a.inputs.i: unknown stage `nothing`
help: known: `train`
pipeline.toml:22: stage.a.inputs.j: `stages:prepare.clean` is no path of the workspace
help: did you mean `stage:`?
pipeline.toml:23: stage.a.inputs.k: `s3://bucket/x` is no path of the workspace
help: write `[dataset.k]` with `from = "s3://bucket/x"`, and `k = "dataset:k"` here
""",
    ),
    "an_input_that_holds_an_output": (
        """
[stage.a]
run = "true"
outputs = { x = "data/a/x" }
[stage.b]
run = "true"
inputs = { all = "data", ws = "." }
""",
        """
pipeline.toml:6: stage.b.inputs.all: `data` holds `data/a/x`, an output of `a`
help: name the outputs themselves, as `all = "stage:a.x"`
pipeline.toml:6: stage.b.inputs.ws: `.` holds `data/a/x`, an output of `a`
help: name the outputs themselves, as `ws = "stage:a.x"`
""",
    ),
    "the_workspace_as_input": (
        """
[stage.b]
run = "true"
inputs = { ws = ".", lock = "pipe.lock", git = ".git/HEAD" }
""",
        """
pipeline.toml:3: stage.b.inputs.ws: the workspace itself can't be an input
help: write `source = "."`
pipeline.toml:3: stage.b.inputs.lock: `pipe.lock` can't be an input
pipeline.toml:3: stage.b.inputs.git: `.git/HEAD` can't be an input
""",
    ),
    "an_input_that_is_its_own_output": (
        """
[stage.a]
run = "true"
inputs = { x = "x" }
outputs = { y = "x" }
""",
        """
pipeline.toml:3: stage.a.inputs.x: a cycle: `a` needs `a`
help: take one of these edges out
""",
    ),
    "inputs_and_outputs_over_one_another": (
        """
[dataset.d]
from = "x"
[stage.a]
run = "true"
inputs = { a = "data", b = { from = "dataset:d", path = "data/b" }, c = { from = "other", path = "out" } }
outputs = { o = "out" }
""",
        """
pipeline.toml:5: stage.a.inputs.b: `data/b` and `data`, where input `a` appears, lie inside one another
help: set another `path` for one of them
pipeline.toml:5: stage.a.inputs.c: input `out` and output `out` lie inside one another
help: give one another path
""",
    ),
    "a_dataset_over_an_output": (
        """
[dataset.d]
from = "x"
[stage.a]
run = "true"
outputs = { x = "inputs/d" }
[stage.b]
run = "true"
inputs = { d = "dataset:d" }
""",
        """
pipeline.toml:8: stage.b.inputs.d: `inputs/d` is the place of an output of `a`
help: set another `path`
""",
    ),
    "input_tables": (
        """
[stage.a]
run = "true"
inputs = { a = { mode = "mount" }, b = { from = "b", mode = "copy" }, c = 1, d = { from = "d", path = "." } }
""",
        """
pipeline.toml:3: stage.a.inputs.a: has no `from`
help: write `{ from = "dataset:NAME" }`
pipeline.toml:3: stage.a.inputs.b.mode: `copy` is not one of `download`, `mount`, `stream`
pipeline.toml:3: stage.a.inputs.c: expected a string or a table
help: write `c = "PATH"`
pipeline.toml:3: stage.a.inputs.d.path: an input can't be at `.`
help: set another `path`
""",
    ),
    "a_moved_input_without_sandbox": (
        """
[stage.a]
run = "true"
sandbox = false
inputs = { a = { from = "x", path = "y" } }
""",
        """
pipeline.toml:4: stage.a.inputs.a.path: `x` can't be at `y` with `sandbox = false`
help: leave `path` out
""",
    ),
    "a_cycle": (
        """
[stage.a]
run = "true"
inputs = { c = "c" }
outputs = { a = "a" }
[stage.b]
run = "true"
inputs = { a = "stage:a.a" }
outputs = { b = "b" }
[stage.c]
run = "true"
after = ["b"]
outputs = { c = "c" }
""",
        """
pipeline.toml:3: stage.a.inputs.c: a cycle: `a` needs `c` needs `b` needs `a`
help: take one of these edges out
""",
    ),
    "two_cycles": (
        """
[stage.a]
run = "true"
after = ["a"]
[stage.b]
run = "true"
after = ["c"]
[stage.c]
run = "true"
after = ["b"]
[stage.d]
run = "true"
after = ["c"]
""",
        """
pipeline.toml:3: stage.a.after: a cycle: `a` needs `a`
help: take one of these edges out
pipeline.toml:6: stage.b.after: a cycle: `b` needs `c` needs `b`
help: take one of these edges out
""",
    ),
    "unknown_references": (
        """
[pipeline]
compute = "lokal"
environment = "proj"
targets = ["trian", "x"]
[environment.project]
python = "3.11"
[stage.train]
run = "true"
compute = "gpubox"
environment = "projekt"
after = ["prepare"]
outputs = { m = { path = "m", to = "blob:x/" } }
""",
        """
pipeline.toml:2: pipeline.compute: unknown compute `lokal`
help: did you mean `local`?
pipeline.toml:3: pipeline.environment: unknown environment `proj`
help: did you mean `project`?
pipeline.toml:4: pipeline.targets: unknown stage `trian`
help: did you mean `train`?
pipeline.toml:4: pipeline.targets: unknown stage `x`
help: known: `train`
pipeline.toml:9: stage.train.compute: unknown compute `gpubox`
help: known: `local`
pipeline.toml:10: stage.train.environment: unknown environment `projekt`
help: did you mean `project`?
pipeline.toml:11: stage.train.after: unknown stage `prepare`
help: known: `train`
pipeline.toml:12: stage.train.outputs.m.to: unknown datastore `blob`
help: there is no datastore yet: declare `[datastore.blob]`
""",
    ),
    "placeholders": (
        """
[params]
train = { lr = 0.1 }
[stage.a]
run = "x {inputs.imges} {outputs.model} {params.train.l} {matrix.lr} {HOME} {run.id} {stage.nam}"
inputs = { images = "images" }
[stage.b]
run = ["awk", "{print $1}", "{", "{{ok}}"]
outputs = { x = { path = "{inputs.images}", to = "s3://x/{runid}/" } }
env = { X = "{params.trian}" }
""",
        """
pipeline.toml:4: stage.a.run: unknown placeholder `{inputs.imges}`
help: did you mean `{inputs.images}`?
pipeline.toml:4: stage.a.run: unknown placeholder `{outputs.model}`
help: add `model` to the stage's `outputs`
pipeline.toml:4: stage.a.run: unknown placeholder `{params.train.l}`
help: did you mean `{params.train.lr}`?
pipeline.toml:4: stage.a.run: unknown placeholder `{matrix.lr}`
help: add `lr` to the stage's `matrix`
pipeline.toml:4: stage.a.run: unknown placeholder `{HOME}`
help: write `{{` and `}}` for braces that are none of pipe's
pipeline.toml:4: stage.a.run: `{run.id}` can stand in an output's `to` only
help: take it out
pipeline.toml:4: stage.a.run: unknown placeholder `{stage.nam}`
help: did you mean `{stage.name}`?
pipeline.toml:7: stage.b.run: unknown placeholder `{print $1}`
help: write `{{` and `}}` for braces that are none of pipe's
pipeline.toml:7: stage.b.run: a single brace
help: write `{{` or `}}` for a brace
pipeline.toml:8: stage.b.outputs.x: `{inputs.images}` can stand in `run` only
help: write the path itself
pipeline.toml:8: stage.b.outputs.x.to: unknown placeholder `{runid}`
help: did you mean `{run.id}`?
pipeline.toml:9: stage.b.env.X: unknown placeholder `{params.trian}`
help: did you mean `{params.train}`?
""",
    ),
    "params": (
        """
[params]
seed = 7
train = { lr = 0.01 }
[stage.a]
run = "true"
params = ["sed", "train.lr", "train.epochs"]
""",
        """
pipeline.toml:6: stage.a.params: unknown param `sed`
help: did you mean `seed`?
pipeline.toml:6: stage.a.params: unknown param `train.epochs`
help: did you mean `train.lr`?
""",
    ),
    "a_param_with_a_dot": (
        """
[params]
"a.b" = 1
""",
        """
pipeline.toml:2: params.a.b: `a.b` can't be a param's name
help: use no dots and no braces
""",
    ),
    "overrides": (
        """
[params]
seed = 7
deep = true
lr = 0.1
since = 2026-01-01
train = { layers = [1, 2] }
""",
        """
PIPE_PARAM_seed: param `seed` is a whole number, `1.5` is not
help: write `seed=7`
PIPE_PARAM_train__layer: no param `train.layer`
help: did you mean `train.layers`?
--set sede: no param `sede`
help: did you mean `seed`?
--set seed: param `seed` is a whole number, `x` is not
help: write `seed=7`
--set deep: param `deep` is true or false, `yes` is not
help: write `deep=true`
--set lr: param `lr` is a number, `fast` is not
help: write `lr=0.1`
--set train.layers: param `train.layers` is a list, `5` is not
help: write `train.layers=[…]`
--set since: param `since` is a date, `today` is not
help: write `since=2026-01-01`
--set train: param `train` is a table, `[1]` is not
help: write `train={ … }`
""",
        {
            "overrides": {
                "sede": "1",
                "seed": "x",
                "deep": "yes",
                "lr": "fast",
                "train.layers": "5",
                "since": "today",
                "train": "[1]",
            },
            "environ": {"PIPE_PARAM_train__layer": "1", "PIPE_PARAM_seed": "1.5", "HOME": "x"},
        },
    ),
    "params_files": (
        """
[pipeline]
params-files = ["a.yaml", "b.json", "c.toml", "d.txt", "e.yaml", "../f.json", "g.yaml", "h.json", "i.json"]
""",
        """
pipeline.toml:2: pipeline.params-files: `e.yaml` does not exist
help: create it, or take it out
pipeline.toml:2: pipeline.params-files: `../f.json` leads out of the workspace
a.yaml:3: is not YAML: expected the node content, but found '<stream end>'
b.json:2: is not JSON: expecting value
c.toml:2: is not TOML: cannot overwrite a value
d.txt: is neither .yaml, .json nor .toml
help: rename it
g.yaml:3: is not YAML: the key `x` stands twice
h.json: does not hold a table of params
help: write `NAME: VALUE` lines
i.json: is not UTF-8
""",
        {
            "files": {
                "a.yaml": b"x: 1\ny: [\n",
                "b.json": b'{\n"x": }\n',
                "c.toml": b"x = 1\nx = 2\n",
                "d.txt": b"",
                "g.yaml": b"x: 1\ny: 2\nx: 3\n",
                "h.json": b"[]",
                "i.json": b"\xff",
            }
        },
    ),
    "what_a_lost_params_file_may_have_held": (
        """
[pipeline]
params-files = ["a.yaml"]
[stage.a]
run = "echo {params.lr} {param.x}"
params = ["train"]
env = { E = "{params.e}" }
""",
        """
pipeline.toml:4: stage.a.run: unknown placeholder `{param.x}`
help: write `{{` and `}}` for braces that are none of pipe's
a.yaml:1: is not YAML: expected the node content, but found '<stream end>'
""",
        {
            "files": {"a.yaml": b"lr: ["},
            "overrides": {"lr": "1"},
            "environ": {"PIPE_PARAM_e": "1"},
        },
    ),
    "params_files_with_wrong_keys": (
        """
[pipeline]
params-files = ["a.yaml", "b.yaml", "c.yaml"]
""",
        """
a.yaml: the key `1` is not a string
help: write `"1"`
b.yaml: `b.c` can't be a param's name in `a`
help: use no dots and no braces
c.yaml: `s` is a set, which can't be a param
""",
        {"files": {"a.yaml": b"1: x\n", "b.yaml": b"a:\n  b.c: 1\n", "c.yaml": b"s: !!set {a, b}\n"}},
    ),
    "matrix_faults": (
        """
[stage.a]
run = "true"
matrix = { lr = 1, depth = [], include = {}, exclude = [1] }
[stage.b]
run = "true"
matrix = {}
[stage.c]
run = "true"
matrix = { lr = [1], exclude = [{ l = 1 }, { lr = 1 }] }
[stage.d]
run = "true"
matrix = { lr = [1], exclude = [{ lr = 1 }] }
[stage.e]
run = "true"
matrix = { x = [".."] }
""",
        """
pipeline.toml:3: stage.a.matrix.lr: expected a list of values
help: write `lr = ["…", "…"]`
pipeline.toml:3: stage.a.matrix.depth: expected a list of values
help: write `depth = ["…", "…"]`
pipeline.toml:3: stage.a.matrix.include: expected a list of tables
help: write `include = [{ … }]`
pipeline.toml:3: stage.a.matrix.exclude: expected a list of tables
help: write `exclude = [{ … }]`
pipeline.toml:6: stage.b.matrix: has no cell
help: give a key a list of values
pipeline.toml:9: stage.c.matrix.exclude.0.l: unknown key of the matrix `l`
help: did you mean `lr`?
pipeline.toml:12: stage.d.matrix: has no cell
help: give a key a list of values
pipeline.toml:15: stage.e.matrix: a cell can't be named `..`
help: give it another value
""",
    ),
    "two_cells_with_one_name": (
        """
[stage.a]
run = "true"
matrix = { x = ["a-b", "a"], y = ["c", "b-c"] }
""",
        """
pipeline.toml:3: stage.a.matrix: two cells are both named `a@a-b-c`
help: make their values differ as text
""",
    ),
    "two_cells_with_one_output": (
        """
[stage.a]
run = "true"
matrix = { x = [1, 2], y = [1, 2] }
outputs = { o = "o-{matrix.x}", p = "p" }
""",
        """
pipeline.toml:4: stage.a.outputs.o: `o-1` is an output of two cells, `a@1-1` and `a@1-2`
help: put their values into the path, as `{matrix.KEY}`
pipeline.toml:4: stage.a.outputs.p: `p` is an output of two cells, `a@1-1` and `a@1-2`
help: put their values into the path, as `{matrix.KEY}`
""",
    ),
    "no_cascade_from_a_broken_matrix": (
        """
[pipeline]
targets = ["a"]
[stage.a]
run = "true"
matrix = { x = [] }
outputs = { o = "{matrix.x}" }
[stage.b]
run = "true"
inputs = { o = "stage:a@*.o", p = "stage:a@1.o" }
after = ["a"]
""",
        """
pipeline.toml:5: stage.a.matrix.x: expected a list of values
help: write `x = ["…", "…"]`
""",
    ),
    "no_cascade_from_a_broken_output": (
        """
[stage.a]
run = "cp {outputs.o} x"
outputs = { o = "/o.json" }
metrics = ["o"]
[stage.b]
run = "true"
inputs = { o = "stage:a.o" }
""",
        """
pipeline.toml:3: stage.a.outputs.o: `/o.json` is absolute: paths are relative to the workspace
""",
    ),
    "metrics_plots_expect": (
        """
[stage.a]
run = "true"
outputs = { report = "r.json", model = "m.pkl", curve = "c.csv" }
metrics = ["reprot", "model"]
plots = [{ output = "curv" }, { x = "step" }]
[stage.a.expect]
"report.auc" = { min = 0.9 }
"report:auc" = { min = 0.9 }
"nothing:auc" = { min = 0.9 }
"model:a" = {}
"model:b" = { drop = 0.1 }
"model:c" = { min = 2, max = 1, vs = "main", drop = -1 }
"model:d" = 5
""",
        """
pipeline.toml:4: stage.a.metrics: unknown output `reprot`
help: did you mean `report`?
pipeline.toml:4: stage.a.metrics: `m.pkl` is neither .json, .yaml, .toml nor .csv
help: write the numbers as JSON
pipeline.toml:5: stage.a.plots.0.output: unknown output `curv`
help: did you mean `curve`?
pipeline.toml:5: stage.a.plots: has no `output`
help: write `{ output = "NAME" }`
pipeline.toml:7: stage.a.expect.report.auc: `report.auc` is not `OUTPUT:METRIC`
help: write `"report:auc" = { min = 0.9 }`
pipeline.toml:8: stage.a.expect.report:auc: `report` is not among the stage's `metrics`
help: add it: `metrics = ["report"]`
pipeline.toml:9: stage.a.expect.nothing:auc: unknown output `nothing`
help: known: `report`, `model`, `curve`
pipeline.toml:10: stage.a.expect.model:a: has neither `min`, `max` nor `vs`
help: write `{ min = 0.9 }`
pipeline.toml:11: stage.a.expect.model:b: has neither `min`, `max` nor `vs`
help: write `{ min = 0.9 }`
pipeline.toml:11: stage.a.expect.model:b: has `drop` without `vs`
help: add `vs = "origin/main"`
pipeline.toml:12: stage.a.expect.model:c.drop: must be 0 or more
help: write how much lower the metric may be
pipeline.toml:12: stage.a.expect.model:c: `min` 2 is more than `max` 1
help: swap them
pipeline.toml:13: stage.a.expect.model:d: expected a table, found 5
""",
    ),
    "resources": (
        """
[stage.a]
run = "true"
resources = { cpus = 0, memory = "8X", gpu-memory = "1G", gpus = 0, custom = { tpu = "1" }, disk = "1G" }
timeout = "2 hours"
[stage.b]
run = "true"
timeout = "0s"
[snapshot]
max-file = "big"
""",
        """
pipeline.toml:3: stage.a.resources.memory: `8X` is not a size: write `64K`, `8M`, `2G` or `20GB`
pipeline.toml:3: stage.a.resources.disk: unknown key `disk`
help: known: `cpus`, `gpus`, `memory`, `gpu-memory`, `custom`
pipeline.toml:3: stage.a.resources.custom.tpu: expected a number
pipeline.toml:3: stage.a.resources.cpus: must be more than 0
pipeline.toml:3: stage.a.resources.gpu-memory: needs a GPU, and `gpus` is 0
help: leave one of them out
pipeline.toml:4: stage.a.timeout: `2 hours` is not a duration: write `30s`, `5m`, `2h` or `7d`
pipeline.toml:7: stage.b.timeout: must be more than 0
help: leave it out for no limit
pipeline.toml:9: snapshot.max-file: `big` is not a size: write `64K`, `8M`, `2G` or `20GB`
""",
    ),
    "variables": (
        """
[stage.a]
run = "true"
env = { "A-B" = "1", PIPE_RUN = "1", TMPDIR = "/x", OK = "1" }
pass-env = ["OK", "1X", "PIPE_STAGE"]
""",
        """
pipeline.toml:3: stage.a.env.A-B: `A-B` can't be a variable's name
help: use letters, digits and `_`
pipeline.toml:3: stage.a.env.PIPE_RUN: `PIPE_RUN` is set by pipe
help: use another name
pipeline.toml:3: stage.a.env.TMPDIR: `TMPDIR` is set by pipe
help: use another name
pipeline.toml:4: stage.a.pass-env: `OK` stands in `env` as well
help: keep one of them
pipeline.toml:4: stage.a.pass-env: `1X` can't be a variable's name
help: use letters, digits and `_`
pipeline.toml:4: stage.a.pass-env: `PIPE_STAGE` is set by pipe
help: use another name
""",
    ),
    "datastores": (
        """
[datastore.a]
credentials = "env:X"
[datastore.b]
url = "postgresql://me:secret@db/pets"
credentials = "hunter2"
[datastore.c]
url = "bucket"
[datastore.d]
url = "https://x.blob.core.windows.net/c?sv=1&sig=abc"
""",
        """
pipeline.toml:1: datastore.a: has no `url`
help: write `url = "s3://bucket/prefix"`
pipeline.toml:4: datastore.b.url: a password inside a URL is refused
help: take it out; a `[datastore.NAME]` names it by `credentials = "env:VARIABLE"`
pipeline.toml:5: datastore.b.credentials: is none of `env:`, `file:`, `cmd:`, `keyring:`, `ambient`: a secret is refused
help: put the secret into a variable and write `credentials = "env:NAME"`
pipeline.toml:7: datastore.c.url: `bucket` is not a URL
help: write `file:///folder`, `s3://bucket/prefix`, …
pipeline.toml:9: datastore.d.url: a password inside a URL is refused
help: take it out; a `[datastore.NAME]` names it by `credentials = "env:VARIABLE"`
""",
    ),
    "datasets": (
        """
[datastore.blob]
url = "az://pets"
[datastore.db]
url = "postgresql://db/pets"
[dataset.a]
format = "csv"
[dataset.b]
from = "blbo:x/**"
format = "xml"
[dataset.c]
from = ["blob:x", "https://me:pw@host/x", "git+https://host/r@main:x", ""]
[dataset.d]
from = "db"
[dataset.e]
from = "blob:x"
query = "select 1"
[dataset.f]
from = "db"
query = "select a::text, ':no' from t where x > :since and y = :b"
params = { sicne = "{params.x}", b = [1], c = "{params.y}" }
[dataset.g]
from = "x.csv"
options = { delimeter = ";", header = 1 }
params = { x = 1 }
[params]
x = 1
""",
        """
pipeline.toml:5: dataset.a: has no `from`
help: write `from = "DATASTORE:GLOB"`, a URL or a path
pipeline.toml:8: dataset.b.from: unknown datastore `blbo`
help: did you mean `blob`?
pipeline.toml:9: dataset.b.format: `xml` is not one of `csv`, `parquet`, `json`
pipeline.toml:11: dataset.c.from: a password inside a URL is refused
help: take it out; a `[datastore.NAME]` names it by `credentials = "env:VARIABLE"`
pipeline.toml:11: dataset.c.from: `git+https://host/r@main:x` names no dataset or output of a repository
help: write `git+URL@REV:dataset/NAME` or `git+URL@REV:stage/NAME.OUTPUT`
pipeline.toml:11: dataset.c.from: is empty
help: write `from = "DATASTORE:GLOB"`, a URL or a path
pipeline.toml:13: dataset.d.from: names the datastore `db` without a `query`
help: add `query = "select …"`, or write `db:GLOB` where it holds files
pipeline.toml:16: dataset.e.query: needs `from` to name one SQL datastore
help: write `from = "DATASTORE"`
pipeline.toml:19: dataset.f.query: unknown parameter `:since`
help: did you mean `:sicne`?
pipeline.toml:20: dataset.f.params.b: must be a single value
help: bind its parts one by one
pipeline.toml:20: dataset.f.params.c: unknown placeholder `{params.y}`
help: did you mean `{params.x}`?
pipeline.toml:20: dataset.f.params.sicne: the query has no `:sicne`
help: take it out
pipeline.toml:20: dataset.f.params.c: the query has no `:c`
help: take it out
pipeline.toml:23: dataset.g.options.delimeter: unknown key `delimeter`
help: did you mean `delimiter`?
pipeline.toml:23: dataset.g.options.header: expected true or false, found 1
pipeline.toml:24: dataset.g.params: are of a `query`, and there is none
help: add `query = "select …"`
""",
    ),
    "environments": (
        """
[environment.a]
[environment.b]
image = "x"
packages = ["y"]
[environment.c]
python = "three"
[environment.d]
python = "system"
packages = ["y"]
[environment.e]
extends = "curated:skleran"
[environment.f]
extends = "g"
[environment.g]
extends = "f"
[environment.h]
extends = "nothing"
[environment.i]
requirements = "requirements.txt"
[environment.j]
dockerfile = "../Dockerfile"
[environment.k]
extends = "i"
""",
        """
pipeline.toml:1: environment.a: says nothing of what it is made of
help: add `packages = ["…"]`
pipeline.toml:2: environment.b: has `packages` and `image`: an image is whole in itself
help: keep one of them
pipeline.toml:6: environment.c.python: `three` is not a Python version
help: write `python = "3.11"` or `python = "system"`
pipeline.toml:8: environment.d.python: `system` goes with nothing else, here `packages`
help: name a version: `python = "3.11"`
pipeline.toml:11: environment.e.extends: unknown curated environment `curated:skleran`
help: did you mean `curated:sklearn`?
pipeline.toml:13: environment.f.extends: extends itself: `f` -> `g` -> `f`
help: take one of these out
pipeline.toml:17: environment.h.extends: unknown environment `nothing`
help: known: `a`, `b`, `c`, `d`, `e`, `f`, `g`, `h`, …
pipeline.toml:19: environment.i.requirements: `requirements.txt` does not exist
help: create it, or take `requirements` out
pipeline.toml:21: environment.j.dockerfile: `../Dockerfile` leads out of the workspace
""",
    ),
    "computes": (
        """
[compute.a]
host = "ssh://x"
[compute.b]
kind = "dokcer"
[compute.c]
kind = "docker"
host = "ssh://me:pw@x"
hosts = ["ssh://a", { url = "http://b", gpu = 1 }, { gpus = 1 }, 5]
partition = "x"
tls = { ca = "x", crt = "y" }
[compute.d]
kind = "slurm"
max-jobs = 0
min-nodes = 3
max-nodes = 2
idle = "soon"
optoins = []
[compute.local]
kind = "docker"
[compute.e]
kind = 5
[compute.f]
kind = "ray"
address = "x:80"
[compute.g]
kind = "docker"
cpus = 0
[compute.h]
kind = "docker"
hosts = []
[stage.s]
run = "true"
compute = "b"
""",
        """
pipeline.toml:1: compute.a: has no `kind`
help: write one of `local`, `docker`, `slurm`, `ray`
pipeline.toml:4: compute.b.kind: unknown kind of compute `dokcer`
help: did you mean `docker`?
pipeline.toml:7: compute.c.host: a password inside a URL is refused
help: take it out; a `[datastore.NAME]` names it by `credentials = "env:VARIABLE"`
pipeline.toml:8: compute.c.hosts: expected a list of URLs or tables with `url`, found 5 in it
pipeline.toml:9: compute.c.partition: `partition` is a key of kind `slurm`, this one is `docker`
help: take it out
pipeline.toml:10: compute.c.tls.crt: unknown key `crt`
help: did you mean `cert`?
pipeline.toml:13: compute.d.max-jobs: must be 1 or more
help: leave it out for no limit
pipeline.toml:14: compute.d.min-nodes: 3 is more than `max-nodes`, 2
help: swap them
pipeline.toml:16: compute.d.idle: `soon` is not a duration: write `30s`, `5m`, `2h` or `7d`
pipeline.toml:17: compute.d.optoins: unknown key `optoins`
help: did you mean `options`?
pipeline.toml:19: compute.local.kind: the compute `local` is this machine
help: give the other one another name
pipeline.toml:21: compute.e.kind: expected a string, found 5
pipeline.toml:24: compute.f.address: `x:80` starts with none of ray://, http://, https://
help: write `https://HOST`
pipeline.toml:27: compute.g.cpus: must be more than 0
help: leave it out for all that there are
pipeline.toml:30: compute.h.hosts: names no host
help: write `["ssh://HOST"]`, or leave it out
""",
    ),
    "cache_and_history": (
        """
[cache]
remote = "blob:cache"
max-size = "many"
trust = ["abc"]
[history]
mlflow = "http://u:p@host"
""",
        """
pipeline.toml:2: cache.remote: unknown datastore `blob`
help: there is no datastore yet: declare `[datastore.blob]`
pipeline.toml:3: cache.max-size: `many` is not a size: write `64K`, `8M`, `2G` or `20GB`
pipeline.toml:4: cache.trust: `abc` is not a key's fingerprint
help: write `"sha256:…"`
pipeline.toml:6: history.mlflow: a password inside a URL is refused
help: take it out; a `[datastore.NAME]` names it by `credentials = "env:VARIABLE"`
""",
    ),
    "a_host_twice": (
        """
[compute.pool]
kind = "docker"
hosts = ["ssh://a", { url = "ssh://b", gpus = 2 }, { url = "ssh://a" }]
""",
        """
pipeline.toml:3: compute.pool.hosts: `ssh://a` stands twice
help: a host runs as many stages as fit it: name it once
""",
    ),
    "computes_of_nothing": (
        """
[compute.local]
cpus = 0
memory = 0
[compute.pool]
kind = "docker"
hosts = [{ url = "ssh://a", cpus = -1, memory = "0G" }]
""",
        """
pipeline.toml:2: compute.local.cpus: must be more than 0
help: leave it out for all that there are
pipeline.toml:3: compute.local.memory: must be more than 0
help: leave it out for all that there is
pipeline.toml:6: compute.pool.hosts.0.cpus: must be more than 0
help: leave it out for all that there are
pipeline.toml:6: compute.pool.hosts.0.memory: must be more than 0
help: leave it out for all that there is
""",
    ),
    "more_gpus_than_a_machine_has": (
        """
[compute.local]
gpus = 1000000
[stage.a]
run = "true"
resources = { gpus = 1 }
""",
        """
pipeline.toml:2: compute.local.gpus: no machine has 1000000 GPUs
help: write 1024 or less
""",
    ),
    "numbers_that_are_none": (
        f"""
[params]
x = 1
[stage.a]
run = "true"
resources = {{ memory = {"9" * 40}, custom = {{ x = {"9" * 400} }} }}
""",
        """
pipeline.toml:5: stage.a.resources.custom.x: a number of too many digits
""",
    ),
    "a_number_of_more_digits_than_are_read": (
        f"""
[params]
x = 1
y = {"9" * 5000}
""",
        """
pipeline.toml:3: not TOML that can be read: a number of too many digits
""",
    ),
    "sizes_that_nothing_has": (
        f"""
[snapshot]
max-file = {"9" * 40}
[cache]
max-size = "{"9" * 400}T"
""",
        f"""
pipeline.toml:2: snapshot.max-file: `{"9" * 40}` is more than any machine has
pipeline.toml:4: cache.max-size: `{"9" * 60}…` is more than any machine has
""",
    ),
    "nested_too_deeply": (
        f"""
[params]
x = 1
y = {"[" * 200}{"]" * 200}
""",
        """
pipeline.toml:3: params.y.0.0.0: nested too deeply
""",
    ),
    "set_to_what_is_no_value": (
        """
[params]
x = []
y = 1
""",
        """
PIPE_PARAM_y: what is given for param `y` is a number of too many digits
--set x: what is given for param `x` is nested too deeply
""",
        {"overrides": {"x": "[" * 200 + "]" * 200}, "environ": {"PIPE_PARAM_y": "9" * 400}},
    ),
    "keep_over_what_is_given_or_made": (
        """
[stage.a]
run = "true"
source = "src"
keep = "src"
[stage.b]
run = "true"
inputs = { i = "data/raw/x" }
keep = "data/raw"
[stage.c]
run = "true"
outputs = { o = "made" }
keep = "made/ckpt"
[stage.d]
run = "true"
keep = "."
[stage.e]
run = "true"
source = ["lib", "src-2", "."]
outputs = { o = "runs/made" }
keep = "runs"
""",
        """
pipeline.toml:4: stage.a.keep: `src` would lie over `src`, which the stage is given
help: name a folder of its own
pipeline.toml:8: stage.b.keep: `data/raw` would lie over `data/raw/x`, which the stage is given
help: name a folder of its own
pipeline.toml:12: stage.c.keep: `made/ckpt` lies in `made`, an output of the stage
help: name a folder of its own
pipeline.toml:15: stage.d.keep: the workspace itself can't be kept
help: name a folder of its own
""",
    ),
    "passwords_in_packages": (
        """
[environment.a]
packages = [
  "one @ https://user:secret@example.com/one-1.0-py3-none-any.whl",
  "two[x, y]@git+https://token:x@example.com/two.git@v1",
  "https://example.com/three-1.0-py3-none-any.whl?token=secret",
  "four @ git+ssh://git@example.com/four.git@v1",
]
""",
        """
pipeline.toml:3: environment.a.packages: a password inside a URL is refused
help: take it out; uv reads `~/.netrc`, and git its credential helper
pipeline.toml:4: environment.a.packages: a password inside a URL is refused
help: take it out; uv reads `~/.netrc`, and git its credential helper
pipeline.toml:5: environment.a.packages: a password inside a URL is refused
help: take it out; uv reads `~/.netrc`, and git its credential helper
""",
    ),
    "more_cells_than_anybody_wants": (
        f"""
[stage.a]
run = "true"
matrix = {{ {", ".join(f"k{n} = {list(range(20))}" for n in range(9))} }}
[stage.b]
run = "true"
after = ["a"]
""",
        """
pipeline.toml:3: stage.a.matrix: has 512000000000 cells, and 100000 are the most
help: leave values out
""",
    ),
    "a_remote_that_is_a_path": (
        """
[cache]
remote = "/mnt/cache"
""",
        """
pipeline.toml:2: cache.remote: `/mnt/cache` is neither `DATASTORE:PREFIX` nor a URL
help: declare one: `[datastore.NAME]` with `url`
""",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_fault(name: str, faults: Callable[..., str]) -> None:
    """What is wrong is told in full, and nothing else is."""
    text, expected, *more = CASES[name]
    assert faults(text[1:], **(more[0] if more else {})) == expected.strip("\n")
