"""Stage tables, read one by one: cells of a matrix, placeholders, outputs, resources. What refers to other stages comes in `links`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipesmith.pipeline.declarations import NAME
from pipesmith.pipeline.faults import Faults
from pipesmith.pipeline.keys import TABLES
from pipesmith.pipeline.matrix import cell_name, cells, value_text
from pipesmith.pipeline.model import Expectation, InputMode, Output, Plot, Resources, StageKind, Transfer
from pipesmith.pipeline.params import dotted_keys, lookup
from pipesmith.pipeline.placeholders import escape, fill, unescape
from pipesmith.pipeline.units import parse_duration_s, parse_size_bytes

__all__ = ["Draft", "DraftInput", "read_stages"]

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TO_NAMES = ("run.id", "git.commit", "git.branch")


@dataclass(slots=True, kw_only=True)
class DraftInput:
    """An input as written: where it comes from is not looked up yet."""

    source: str
    mode: InputMode
    path: str | None
    where: tuple[str | int, ...]


@dataclass(slots=True, kw_only=True)
class Draft:
    """A stage (or cell) before its references are followed."""

    base: str
    name: str
    cell: dict[str, Any]
    kind: StageKind
    table: dict[str, Any]
    run: str | tuple[str, ...] | None
    inputs: dict[str, DraftInput]
    outputs: dict[str, Output]
    params: tuple[str, ...]
    source: tuple[str, ...]
    hash_paths: tuple[str, ...]
    resources: Resources
    notebook: str | None = None
    transfer: Transfer | None = None
    plots: tuple[Plot, ...] = ()
    expect: tuple[Expectation, ...] = ()
    cwd: str = "."
    env: dict[str, str] = field(default_factory=dict)
    timeout_s: float | None = None


def read_stages(
    value: Mapping[str, Any], defaults: Mapping[str, str], params: Mapping[str, Any], faults: Faults
) -> list[Draft]:
    """Return a draft for each stage and each cell, in the order of the file."""
    drafts = []
    for base, raw in value.items():
        where = ("stage", base)
        if not NAME.fullmatch(base):
            faults.add(where, f"`{base}` can't be a stage's name", "use letters, digits, `_`, `-` and `+`")
        table = {**defaults, **faults.table(raw, TABLES["stage"], where)}
        if not isinstance(raw, dict):
            continue
        names: dict[str, Any] = {}
        for cell in _cells(base, table, faults):
            name = f"{base}@{cell_name(cell)}" if cell else base
            if name in names:
                faults.add((*where, "matrix"), f"two cells are both named `{name}`", "make their values differ as text")
                continue
            names[name] = cell
            drafts.append(_Reader(base, name, cell, table, raw, params, faults).read())
    return drafts


def _cells(base: str, table: Mapping[str, Any], faults: Faults) -> list[dict[str, Any]]:
    matrix = table.get("matrix")
    where = ("stage", base, "matrix")
    if matrix is None:
        return [{}]
    good = True
    for key, values in matrix.items():
        if key in ("include", "exclude"):
            if not isinstance(values, list) or not all(isinstance(entry, dict) and entry for entry in values):
                faults.add((*where, key), "expected a list of tables")
                good = False
        elif not isinstance(values, list) or not values:
            faults.add((*where, key), "expected a list of values")
            good = False
    if not good:
        return []
    found = cells(matrix)
    if not found:
        faults.add(where, "has no cell", "give a key a list of values")
    return found


class _Reader:
    """Reads one stage or cell."""

    def __init__(
        self,
        base: str,
        name: str,
        cell: dict[str, Any],
        table: dict[str, Any],
        raw: Mapping[str, Any],
        params: Mapping[str, Any],
        faults: Faults,
    ) -> None:
        self.base, self.name, self.cell, self.table, self.raw = base, name, cell, table, raw
        self.params, self.faults = params, faults
        self.where: tuple[str, ...] = ("stage", base)
        self.named_params: set[str] = set()

    def read(self) -> Draft:
        table, where = self.table, self.where
        self.resources = self._resources()
        kind = self._kind()
        outputs = self._outputs(kind)
        inputs = self._inputs()
        self._check_variable_names(inputs, "INPUT")
        self._check_variable_names(outputs, "OUTPUT")
        run = self._run(inputs, outputs)
        listed = [
            key
            for index, key in enumerate(table.get("params", ()))
            if self._known_param(key, (*where, "params", index))
        ]
        notebook = table.get("notebook") if kind is StageKind.NOTEBOOK else None
        return Draft(
            base=self.base,
            name=self.name,
            cell=self.cell,
            kind=kind,
            table=table,
            run=run,
            inputs=inputs,
            outputs=outputs,
            params=tuple(sorted({*listed, *self.named_params})),
            source=self._paths("source"),
            hash_paths=self._paths("hash-paths"),
            resources=self.resources,
            notebook=self._path(notebook, (*where, "notebook")) if notebook else None,
            transfer=self._transfer() if kind is StageKind.TRANSFER else None,
            plots=self._plots(outputs),
            expect=self._expect(outputs),
            cwd=self._path(table.get("cwd", "."), (*where, "cwd")) or ".",
            env=self._env(),
            timeout_s=parse_duration_s(table["timeout"]) if "timeout" in table else None,
        )

    # -- texts ----------------------------------------------------------------------------------------------------

    def _early(
        self, text: str, where: tuple[str | int, ...], later: Callable[[str], bool], quote: Callable[[str], str]
    ) -> str:
        """Return `text` with matrix, stage and resources filled in; other names must be good `later`."""

        def value(name: str) -> str | None:
            space, _, key = name.partition(".")
            if space == "matrix" and key in self.cell:
                return escape(quote(value_text(self.cell[key])))
            if name == "stage.name":
                return escape(quote(self.name))
            if space == "resources" and key in self.resources.raw:
                return escape(quote(str(self.resources.raw[key])))
            if not later(name):
                known = (
                    [f"matrix.{k}" for k in self.cell] + ["stage.name"] + [f"resources.{k}" for k in self.resources.raw]
                )
                self.faults.unknown(
                    where, "placeholder", f"{{{name}}}", [f"{{{n}}}" for n in [*known, *self._later_names]]
                )
            return None

        self._check_braces(text, where)
        return fill(text, value)

    _later_names: tuple[str, ...] = ()

    def _check_braces(self, text: str, where: tuple[str | int, ...]) -> None:
        rest = re.sub(r"\{\{|\}\}|\{[^{}]*\}", "", text)
        if "{" in rest or "}" in rest:
            self.faults.add(where, "a single brace", "write `{{` or `}}` for a brace")

    def _path(self, value: str, where: tuple[str | int, ...]) -> str | None:
        filled = self._early(value, where, lambda name: False, lambda text: text)
        return self.faults.path(unescape(filled), where)

    def _paths(self, key: str) -> tuple[str, ...]:
        value = self.table.get(key, [])
        listed = [value] if isinstance(value, str) else value
        found: dict[str, None] = {}
        for index, path in enumerate(listed):
            place = (*self.where, key) if isinstance(value, str) else (*self.where, key, index)
            clean = self._path(path, place)
            if clean is not None:
                found[clean] = None
        return tuple(found)

    def _known_param(self, key: str, where: tuple[str | int, ...]) -> bool:
        try:
            lookup(self.params, key)
        except KeyError:
            self.faults.unknown(where, "param", key, dotted_keys(self.params))
            return False
        return True

    # -- parts ----------------------------------------------------------------------------------------------------

    def _kind(self) -> StageKind:
        ways = [way for way in ("run", "notebook", "transfer") if way in self.raw]
        if not ways:
            self.faults.add(self.where, "has no `run`", 'write `run = "…"` (or `notebook`, or `transfer`)')
        elif len(ways) > 1:
            self.faults.add(self.where, f"has {' and '.join(f'`{way}`' for way in ways)}", "keep one of them")
        if "notebook" in ways:
            return StageKind.NOTEBOOK
        return StageKind.TRANSFER if "transfer" in ways and "run" not in ways else StageKind.COMMAND

    def _run(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> str | tuple[str, ...] | None:
        run = self.table.get("run")
        if run is None:
            return None
        where = (*self.where, "run")
        if not run or not (run if isinstance(run, str) else run[0]).strip():
            self.faults.add(where, "an empty command")
            return None
        self._later_names = (
            *(f"inputs.{name}" for name in inputs),
            *(f"outputs.{name}" for name in outputs),
            *(f"params.{key}" for key in dotted_keys(self.params)),
        )

        def later(name: str) -> bool:
            if name in self._later_names:
                if name.startswith("params."):
                    self.named_params.add(name.removeprefix("params."))
                return True
            return False

        if isinstance(run, str):
            return self._early(run, where, later, shlex.quote)
        return tuple(self._early(argument, (*where, i), later, lambda text: text) for i, argument in enumerate(run))

    def _inputs(self) -> dict[str, DraftInput]:
        inputs: dict[str, DraftInput] = {}
        for name, value in self.table.get("inputs", {}).items():
            where = (*self.where, "inputs", name)
            if not NAME.fullmatch(name):
                self.faults.add(where, f"`{name}` can't be an input's name", "use letters, digits, `_` and `-`")
                continue
            if isinstance(value, str):
                table: dict[str, Any] = {"from": value}
            elif isinstance(value, dict):
                table = self.faults.table(value, TABLES["input"], where)
                if "from" not in value:
                    self.faults.add(where, "has no `from`", 'write `{ from = "dataset:NAME" }`')
            else:
                self.faults.add(where, "expected a string or a table")
                continue
            if "from" not in table:
                continue
            source = unescape(self._early(table["from"], where, lambda n: False, lambda text: text))
            path = self._path(table["path"], (*where, "path")) if "path" in table else None
            inputs[name] = DraftInput(
                source=source, mode=InputMode(table.get("mode", "download")), path=path, where=where
            )
        return inputs

    def _outputs(self, kind: StageKind) -> dict[str, Output]:
        outputs: dict[str, Output] = {}
        for name, value in self.table.get("outputs", {}).items():
            where = (*self.where, "outputs", name)
            if not NAME.fullmatch(name):
                self.faults.add(where, f"`{name}` can't be an output's name", "use letters, digits, `_` and `-`")
                continue
            if isinstance(value, str):
                table: dict[str, Any] = {"path": value}
            elif isinstance(value, dict):
                table = self.faults.table(value, TABLES["output"], where)
                if "path" not in value:
                    self.faults.add(where, "has no `path`")
            else:
                self.faults.add(where, "expected a path or a table")
                continue
            if "path" not in table:
                continue
            path = self._path(table["path"], where)
            if path is None:
                continue
            if path in (".", "pipeline.toml", "pipe.lock", ".git", ".gitignore", ".pipeignore") or path.startswith(
                ".git/"
            ):
                self.faults.add(where, f"`{path}` can't be an output", "write into a file or folder of its own")
                continue
            if table.get("temp") and not table.get("cache", True):
                self.faults.add(where, "is `temp` and `cache = false`", "keep one of them")
            outputs[name] = Output(
                name=name,
                path=path,
                cache=table.get("cache", True),
                temp=table.get("temp", False),
                to=self._to(table.get("to"), (*where, "to")),
            )
        if kind is StageKind.NOTEBOOK and "notebook" not in outputs and "notebook" in self.table:
            stem = self.table["notebook"].removesuffix(".ipynb")
            suffix = f"-{self.name.partition('@')[2]}" if self.cell else ""
            outputs["notebook"] = Output(name="notebook", path=f"{stem}{suffix}.out.ipynb")
        return outputs

    def _to(self, value: str | None, where: tuple[str, ...]) -> str | None:
        if value is None:
            return None
        self.faults.no_password(value, where)

        def later(name: str) -> bool:
            return name in _TO_NAMES or (name.startswith("params.") and name[7:] in dotted_keys(self.params))

        self._later_names = _TO_NAMES
        return self._early(value, where, later, lambda text: text)

    def _check_variable_names(self, names: Mapping[str, Any], what: str) -> None:
        seen: dict[str, str] = {}
        for name in names:
            variable = name.upper().replace("-", "_")
            if variable in seen:
                self.faults.add(
                    (*self.where, f"{what.lower()}s", name),
                    f"`{name}` and `{seen[variable]}` are both PIPE_{what}_{variable}",
                    "rename one of them",
                )
            seen[variable] = name

    def _resources(self) -> Resources:
        where = (*self.where, "resources")
        table = self.faults.table(self.table.get("resources", {}), TABLES["resources"], where)
        custom = {}
        for name, value in table.get("custom", {}).items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                self.faults.add((*where, "custom", name), "expected a number")
            else:
                custom[name] = float(value)
        if table.get("cpus", 1) <= 0:
            self.faults.add((*where, "cpus"), "must be more than 0")
        return Resources(
            cpus=table.get("cpus"),
            gpus=table.get("gpus", 1 if "gpu-memory" in table else 0),
            memory_bytes=parse_size_bytes(str(table["memory"])) if "memory" in table else None,
            gpu_memory_bytes=parse_size_bytes(str(table["gpu-memory"])) if "gpu-memory" in table else None,
            custom=custom,
            raw={key: value for key, value in table.items() if key != "custom"},
        )

    def _transfer(self) -> Transfer | None:
        table, where = self.table.get("transfer", {}), (*self.where, "transfer")
        for key in table:
            if key not in ("from", "to"):
                self.faults.unknown((*where, key), "key", key, ("from", "to"))
        for key in ("from", "to"):
            if key not in table:
                self.faults.add(where, f"has no `{key}`")
            else:
                self.faults.no_password(table[key], (*where, key))
        return Transfer(source=table.get("from", ""), target=table.get("to", ""))

    def _plots(self, outputs: Mapping[str, Output]) -> tuple[Plot, ...]:
        plots = []
        for index, entry in enumerate(self.table.get("plots", ())):
            where = (*self.where, "plots", index)
            table = self.faults.table(entry, TABLES["plot"], where)
            if table.get("output") not in outputs:
                self.faults.unknown((*where, "output"), "output", table.get("output", ""), outputs)
            y = table.get("y", ())
            plots.append(
                Plot(
                    output=table.get("output", ""),
                    x=table.get("x"),
                    y=(y,) if isinstance(y, str) else tuple(y),
                    title=table.get("title"),
                )
            )
        return tuple(plots)

    def _expect(self, outputs: Mapping[str, Output]) -> tuple[Expectation, ...]:
        found = []
        for key, value in self.table.get("expect", {}).items():
            where = (*self.where, "expect", key)
            table = self.faults.table(value, TABLES["expectation"], where)
            output, colon, metric = key.partition(":")
            if not colon or not metric:
                self.faults.add(where, f"`{key}` is not `OUTPUT:METRIC`", 'write `"report:auc" = { min = 0.9 }`')
            elif output not in self.table.get("metrics", ()):
                self.faults.add(
                    where, f"`{output}` is not among the stage's `metrics`", f'add it: `metrics = ["{output}"]`'
                )
            found.append(
                Expectation(
                    key=key,
                    min=table.get("min"),
                    max=table.get("max"),
                    vs=table.get("vs"),
                    drop=float(table.get("drop", 0.0)),
                )
            )
        for index, name in enumerate(self.table.get("metrics", ())):
            if name not in outputs:
                self.faults.unknown((*self.where, "metrics", index), "output", name, outputs)
        return tuple(found)

    def _env(self) -> dict[str, str]:
        env = {}
        for name, value in self.table.get("env", {}).items():
            where = (*self.where, "env", name)
            if not _VARIABLE.fullmatch(name):
                self.faults.add(where, f"`{name}` can't be a variable's name")
            elif name.startswith("PIPE_") or name in ("TMPDIR", "CUDA_VISIBLE_DEVICES"):
                self.faults.add(where, f"`{name}` is set by pipe", "use another name")
            env[name] = unescape(self._early(value, where, lambda n: False, lambda text: text))
        for index, name in enumerate(self.table.get("pass-env", ())):
            if not _VARIABLE.fullmatch(name):
                self.faults.add((*self.where, "pass-env", index), f"`{name}` can't be a variable's name")
        return env
