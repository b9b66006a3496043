"""Stage tables, read one by one: cells, placeholders, inputs as written, outputs. `links` follows references."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod
from typing import Any

from pipesmith.pipeline.faults import Faults
from pipesmith.pipeline.keys import TABLES, Path
from pipesmith.pipeline.matrix import cell_name, cells
from pipesmith.pipeline.model import Expectation, InputMode, Output, Plot, Resources, StageKind, Transfer
from pipesmith.pipeline.params import dotted_keys, lookup
from pipesmith.pipeline.parts import read_env, read_expect, read_metrics, read_pass_env, read_plots, read_resources
from pipesmith.pipeline.texts import Texts
from pipesmith.pipeline.units import parse_duration_s
from pipesmith.records import field, record

__all__ = ["Draft", "DraftInput", "read_stages"]

_STAGE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_PORT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")  # of an input or output: part of an environment variable's name
_MOST_CELLS = 100_000
_NO_OUTPUT = ("pipeline.toml", "pipe.lock", ".git", ".gitignore", ".gitattributes", ".gitmodules", ".pipeignore")


@record(frozen=False)
class DraftInput:
    """An input as written: where it comes from is not looked up yet."""

    source: str
    mode: InputMode
    path: str | None
    where: Path


@record(frozen=False)
class Draft:
    """A stage (or cell) before its references are followed. broken: names of outputs that have a fault of their own."""

    base: str
    name: str
    cell: dict[str, Any]
    kind: StageKind
    table: dict[str, Any]
    run: str | tuple[str, ...] | None
    inputs: dict[str, DraftInput]
    outputs: dict[str, Output]
    broken: frozenset[str]
    params: tuple[str, ...]
    source: tuple[str, ...]
    hash_paths: tuple[str, ...]
    resources: Resources
    compute: str
    environment: str | None
    after: tuple[str, ...]
    mutex: tuple[str, ...]
    notebook: str | None = None
    transfer: Transfer | None = None
    metrics: tuple[str, ...] = ()
    plots: tuple[Plot, ...] = ()
    expect: tuple[Expectation, ...] = ()
    cwd: str = "."
    env: dict[str, str] = field(default_factory=dict)
    pass_env: tuple[str, ...] = ()
    timeout_s: float | None = None
    keep: str | None = None


def read_stages(
    value: Mapping[str, Any], defaults: Mapping[str, str], params: Mapping[str, Any], faults: Faults
) -> tuple[list[Draft], set[str]]:
    """Return drafts of stages and cells in the order of the file and the tables that no stage could be read of."""
    drafts: list[Draft] = []
    lost = set()
    for base, raw in value.items():
        where = ("stage", base)
        if not _STAGE_NAME.fullmatch(base):
            faults.add(where, f"`{base}` can't be a stage's name", "use letters, digits, `_`, `-`, `+` and `.`")
        table = {**defaults, **faults.table(raw, TABLES["stage"], where)}
        found = _cells(base, table, faults) if isinstance(raw, dict) else []
        if not found:
            lost.add(base)
        names: set[str] = set()
        for cell in found:
            name = f"{base}@{cell_name(cell)}" if cell else base
            if name in names:
                faults.add((*where, "matrix"), f"two cells are both named `{name}`", "make their values differ as text")
                continue
            names.add(name)
            drafts.append(_Reader(base, name, cell, table, raw, params, faults).read())
    return drafts, lost


def _cells(base: str, table: Mapping[str, Any], faults: Faults) -> list[dict[str, Any]]:
    """Return the cells of a stage, one without values where it has no matrix, none where the matrix is wrong."""
    matrix = table.get("matrix")
    where: Path = ("stage", base, "matrix")
    if matrix is None:
        return [{}]
    axes = [key for key in matrix if key not in ("include", "exclude")]
    good = True
    for key, values in matrix.items():
        if key in axes:
            if not isinstance(values, list) or not values:
                faults.add((*where, key), "expected a list of values", f'write `{key} = ["…", "…"]`')
                good = False
            continue
        if not isinstance(values, list) or not all(isinstance(entry, dict) and entry for entry in values):
            faults.add((*where, key), "expected a list of tables", f"write `{key} = [{{ … }}]`")
            good = False
        elif key == "exclude":
            for index, entry in enumerate(values):
                for name in entry:
                    if name not in axes:
                        faults.unknown((*where, key, index, name), "key of the matrix", name, axes)
                        good = False
    if not good:
        return []
    many = prod(len(matrix[key]) for key in axes)
    if many > _MOST_CELLS:
        faults.add(where, f"has {many} cells, and {_MOST_CELLS} are the most", "leave values out")
        return []
    found = cells(matrix)
    if not found:
        faults.add(where, "has no cell", "give a key a list of values")
    for cell in found:
        if cell_name(cell) in ("", ".", ".."):
            faults.add(where, f"a cell can't be named `{cell_name(cell)}`", "give it another value")
            return []
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
        self.where: Path = ("stage", base)
        self.broken: set[str] = set()

    def read(self) -> Draft:
        table, where, faults = self.table, self.where, self.faults
        resources = read_resources(table.get("resources", {}), (*where, "resources"), faults)
        self.texts = texts = Texts(self.name, self.cell, resources.raw, self.params, faults)
        kind = self._kind()
        outputs = self._outputs(kind)
        inputs = self._inputs()
        self._check_variable_names(inputs, "INPUT")
        self._check_variable_names(outputs, "OUTPUT")
        run = self._run(inputs, outputs)
        good = tuple(dict.fromkeys((*table.get("outputs", {}), *outputs)))
        environment = table.get("environment")
        return Draft(
            base=self.base,
            name=self.name,
            cell=self.cell,
            kind=kind,
            table=table,
            run=run,
            inputs=inputs,
            outputs=outputs,
            broken=frozenset(self.broken),
            params=self._params(),
            source=self._paths("source"),
            hash_paths=self._paths("hash-paths"),
            resources=resources,
            compute=texts.plain(table.get("compute", "local"), (*where, "compute")),
            environment=texts.plain(environment, (*where, "environment")) if environment is not None else None,
            after=self._words("after"),
            mutex=self._words("mutex"),
            notebook=self._notebook() if kind is StageKind.NOTEBOOK else None,
            transfer=self._transfer() if kind is StageKind.TRANSFER else None,
            metrics=read_metrics(table.get("metrics", ()), outputs, good, where, faults),
            plots=read_plots(table.get("plots", ()), good, where, faults),
            expect=read_expect(table.get("expect", {}), table.get("metrics", ()), good, where, faults),
            cwd=self._path(table.get("cwd", "."), (*where, "cwd")) or ".",
            env=read_env(table.get("env", {}), texts, where, faults),
            pass_env=read_pass_env(table.get("pass-env", ()), table.get("env", {}), where, faults),
            timeout_s=self._timeout(),
            keep=self._path(table["keep"], (*where, "keep")) if "keep" in table else None,
        )

    # -- texts ---------------------------------------------------------------------------------------------------

    def _path(self, value: str, where: Path) -> str | None:
        return self.faults.path(self.texts.plain(value, where), where)

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

    def _words(self, key: str) -> tuple[str, ...]:
        return tuple(
            self.texts.plain(word, (*self.where, key, index)) for index, word in enumerate(self.table.get(key, ()))
        )

    def _params(self) -> tuple[str, ...]:
        """Return the params that count: those listed and those that the command names. Call it after `_run`."""
        found = set(self.texts.named_params)
        for index, key in enumerate(self.table.get("params", ())):
            try:
                lookup(self.params, key)
                found.add(key)
            except KeyError:
                if not self.faults.params_lost:
                    self.faults.unknown((*self.where, "params", index), "param", key, dotted_keys(self.params))
        return tuple(sorted(found))

    # -- parts ---------------------------------------------------------------------------------------------------

    def _kind(self) -> StageKind:
        ways = [way for way in ("run", "notebook", "transfer") if way in self.raw]
        if not ways:
            self.faults.add(self.where, "has no `run`", 'write `run = "…"` (or `notebook`, or `transfer`)')
        elif len(ways) > 1:
            self.faults.add(self.where, f"has {' and '.join(f'`{way}`' for way in ways)}", "keep one of them")
        if "notebook" in ways:
            return StageKind.NOTEBOOK
        if "transfer" not in ways or "run" in ways:
            return StageKind.COMMAND
        if self.raw.get("outputs"):
            self.faults.add(
                (*self.where, "outputs"),
                "a `transfer` makes no outputs: it moves data between datastores",
                "take them out; a stage reads what was moved as a `[dataset.NAME]`",
            )
        return StageKind.TRANSFER

    def _run(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> str | tuple[str, ...] | None:
        run = self.table.get("run")
        if run is None:
            return None
        where = (*self.where, "run")
        if not run or not (run if isinstance(run, str) else run[0]).strip():
            self.faults.add(where, "an empty command", 'write `run = "…"`')
            return None
        if any("\0" in text for text in ([run] if isinstance(run, str) else run)):
            self.faults.add(where, "a NUL character, which no command can hold")
            return None
        given = self.table.get("inputs", {})
        made = {**self.table.get("outputs", {}), **outputs}
        names = [*(f"inputs.{name}" for name in given), *(f"outputs.{name}" for name in made)]
        if isinstance(run, str):
            return self.texts.command(run, where, shell=True, names=names)
        return tuple(
            self.texts.command(argument, (*where, index), shell=False, names=names)
            for index, argument in enumerate(run)
        )

    def _inputs(self) -> dict[str, DraftInput]:
        inputs: dict[str, DraftInput] = {}
        for name, value in self.table.get("inputs", {}).items():
            where = (*self.where, "inputs", name)
            if not _PORT_NAME.fullmatch(name):
                self.faults.add(where, f"`{name}` can't be an input's name", "use letters, digits, `_` and `-`")
                continue
            if isinstance(value, str):
                table: dict[str, Any] = {"from": value}
            elif isinstance(value, dict):
                table = self.faults.table(value, TABLES["input"], where)
                if "from" not in value:
                    self.faults.add(where, "has no `from`", 'write `{ from = "dataset:NAME" }`')
            else:
                self.faults.add(where, "expected a string or a table", f'write `{name} = "PATH"`')
                continue
            if "from" not in table:
                continue
            source = self.texts.plain(table["from"], where)
            path = self._path(table["path"], (*where, "path")) if "path" in table else None
            mode = InputMode(table.get("mode", "download"))
            inputs[name] = DraftInput(source=source, mode=mode, path=path, where=where)
        return inputs

    def _outputs(self, kind: StageKind) -> dict[str, Output]:
        outputs: dict[str, Output] = {}
        for name, value in self.table.get("outputs", {}).items():
            output = self._output(name, value)
            if output is None:
                self.broken.add(name)
            else:
                outputs[name] = output
        if kind is StageKind.NOTEBOOK and "notebook" not in self.table.get("outputs", {}) and "notebook" in self.table:
            stem = self._path(self.table["notebook"], (*self.where, "notebook"))
            if stem is not None:
                cell = f"-{self.name.partition('@')[2]}" if self.cell else ""
                path = f"{stem.removesuffix('.ipynb')}{cell}.out.ipynb"
                outputs["notebook"] = Output(name="notebook", path=path)
        return outputs

    def _output(self, name: str, value: Any) -> Output | None:
        where = (*self.where, "outputs", name)
        if not _PORT_NAME.fullmatch(name):
            self.faults.add(where, f"`{name}` can't be an output's name", "use letters, digits, `_` and `-`")
            return None
        if isinstance(value, str):
            table: dict[str, Any] = {"path": value}
        elif isinstance(value, dict):
            table = self.faults.table(value, TABLES["output"], where)
            if "path" not in value:
                self.faults.add(where, "has no `path`", 'write `{ path = "…" }`')
        else:
            self.faults.add(where, "expected a path or a table", f'write `{name} = "PATH"`')
            return None
        path = self._path(table["path"], where) if "path" in table else None
        to = table.get("to")
        if to is not None:
            self.faults.no_password(to, (*where, "to"))
            to = self.texts.delivery(to, (*where, "to"))
        if path is None:
            return None
        if path == "." or path in _NO_OUTPUT or ".git" in path.split("/"):
            what = "the workspace itself" if path == "." else f"`{path}`"
            self.faults.add(where, f"{what} can't be an output", "write into a file or folder of its own")
            return None
        if table.get("temp") and not table.get("cache", True):
            self.faults.add(where, "has both `temp = true` and `cache = false`", "keep one of them")
        return Output(name=name, path=path, cache=table.get("cache", True), temp=table.get("temp", False), to=to)

    def _notebook(self) -> str | None:
        where = (*self.where, "notebook")
        path = self._path(self.table["notebook"], where) if "notebook" in self.table else None
        if path is not None and not path.endswith(".ipynb"):
            self.faults.add(where, f"`{path}` is not a notebook", 'write `notebook = "NAME.ipynb"`')
        return path

    def _transfer(self) -> Transfer:
        where = (*self.where, "transfer")
        given = self.table.get("transfer")
        table = self.faults.table(given, TABLES["transfer"], where) if given is not None else {}
        texts = {}
        for key in ("from", "to"):
            if key not in table:
                if given is not None and key not in given:
                    self.faults.add(where, f"has no `{key}`", 'write `{ from = "STORE:in/**", to = "STORE:out/" }`')
                texts[key] = ""
            else:
                self.faults.no_password(table[key], (*where, key))
                texts[key] = self.texts.plain(table[key], (*where, key))
        return Transfer(source=texts["from"], target=texts["to"])

    def _timeout(self) -> float | None:
        if "timeout" not in self.table:
            return None
        seconds = parse_duration_s(self.table["timeout"])
        if seconds <= 0:
            self.faults.add((*self.where, "timeout"), "must be more than 0", "leave it out for no limit")
        return seconds

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
