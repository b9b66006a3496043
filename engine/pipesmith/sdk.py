"""The stage side of pipesmith: inputs, params, outputs and live metrics inside a stage.

One module without dependencies, for Python 3.8 and newer: it is on the path of every stage, whatever its environment.
In a build it reads the file that PIPE_CONTEXT names (docs/formats/context.md); outside one, pipeline.toml, so that
scripts and notebooks still start.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Dict, TypeVar  # noqa: UP035 (in Python 3.8 `dict[…]` is no base class)

__all__ = ["Git", "Input", "Output", "Params", "Run", "SdkError"]

CONTEXT_VERSION = 1
_STARTED_IN = os.getcwd()
_T = TypeVar("_T")


class SdkError(Exception):
    """Something that the stage asked for is not there; the text says what to add to pipeline.toml."""


def _table_of(stage: str) -> str:
    """Return the table of a stage: `stage.train` of the cell `train@0.1`."""
    return "stage." + stage.partition("@")[0]


def _path(text: str) -> Path:
    """Return a path as the stage was given it, relative to where it was started; absolute if it has moved on since."""
    if os.path.isabs(text) or os.getcwd() == _STARTED_IN:
        return Path(text)
    return Path(_STARTED_IN, text)


class Params(Dict[str, Any]):  # noqa: UP006
    """The params that count for this stage, nested as in pipeline.toml; a dotted name reaches into tables. One that
    does not count raises SdkError."""

    def __init__(
        self, values: Mapping[str, Any], prefix: str = "", others: Iterable[str] = (), stage: str = ""
    ) -> None:
        super().__init__()
        self._prefix, self._others, self._stage = prefix, tuple(others), stage
        for name, value in values.items():
            inner = Params(value, prefix + name + ".", self._others, stage) if isinstance(value, dict) else value
            super().__setitem__(name, inner)

    def _refuse(self, name: object) -> None:
        """Raise SdkError for a param that exists but does not count."""
        key = f"{self._prefix}{name}"
        if any(other == key or other.startswith(key + ".") for other in self._others):
            raise SdkError(
                f"param `{key}` does not count for stage `{self._stage}`: "
                f'add params = ["{key}"] to [{_table_of(self._stage)}]'
            )

    def __missing__(self, name: str) -> Any:
        first, dot, rest = str(name).partition(".")
        if dot and isinstance(table := dict.get(self, first), Params):
            return table[rest]
        self._refuse(name)
        raise SdkError(
            f"there is no param `{self._prefix}{name}`: "
            f"add it to [params], and to `params` of [{_table_of(self._stage)}]"
        )

    def __contains__(self, name: object) -> bool:
        if super().__contains__(name):
            return True
        first, dot, rest = str(name).partition(".")
        if dot and isinstance(table := dict.get(self, first), Params):
            return rest in table
        self._refuse(name)
        return False

    def get(self, name: str, default: Any = None) -> Any:
        """Return a param, or `default` where there is none. Raises SdkError for one that does not count."""
        return self[name] if name in self else default  # noqa: SIM401


class Input:
    """One input. path: pathlib.Path of a file or folder."""

    def __init__(self, name: str, entry: Mapping[str, Any]) -> None:
        self.name = name
        self._path = str(entry["path"])
        self._format: str | None = entry.get("format")
        self._options: Mapping[str, Any] = entry.get("options") or {}

    @property
    def path(self) -> Path:
        return _path(self._path)

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __repr__(self) -> str:
        return f"Input({self.name!r}, {self._path!r})"

    def paths(self) -> list[Path]:
        """Return the paths of all files, sorted by their names inside the input; its own where it is a file."""
        top = self.path
        if not top.is_dir():
            return [top]
        found = []
        for where, _folders, files in os.walk(str(top), followlinks=True):
            found += [Path(where, file) for file in files]
        return sorted(found, key=lambda path: path.relative_to(top).as_posix())

    def open(self, mode: str = "r", encoding: str | None = None, **more: Any) -> IO[Any]:
        """Open the input, which must be one file (or a folder that holds one), as `open` does. Text is UTF-8."""
        files = self.paths()
        if len(files) != 1:
            raise SdkError(f"input `{self.name}` is {len(files)} files: take them from .paths()")
        if "b" not in mode and encoding is None:
            encoding = self._options.get("encoding", "utf-8")
        return open(str(files[0]), mode, encoding=encoding, **more)

    # -- tables ---------------------------------------------------------------------------------------------------

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame of csv, parquet or json files, read with the dataset's `options`."""
        pandas = _imported("pandas")
        frames = [self._frame(pandas, path, kind) for path, kind in self._tables()]
        return frames[0] if len(frames) == 1 else pandas.concat(frames, ignore_index=True)

    def to_arrow(self) -> Any:
        """Return a pyarrow Table of csv, parquet or json files, read with the dataset's `options`."""
        arrow = _imported("pyarrow")
        tables = [self._arrow(arrow, path, kind) for path, kind in self._tables()]
        return tables[0] if len(tables) == 1 else arrow.concat_tables(tables)

    def _tables(self) -> list[tuple[Path, str]]:
        files = self.paths()
        if not files:
            raise SdkError(f"input `{self.name}` holds no file")
        kinds = []
        for path in files:
            suffixes = [suffix.lower().lstrip(".") for suffix in path.suffixes]
            if suffixes and suffixes[-1] in ("gz", "bz2", "xz", "zst"):
                suffixes.pop()
            kind = self._format or (suffixes[-1] if suffixes else "")
            kind = {"txt": "csv", "pq": "parquet", "ndjson": "jsonl"}.get(kind, kind)
            if kind not in ("csv", "tsv", "parquet", "json", "jsonl"):
                raise SdkError(
                    f"`{path}` of input `{self.name}` is no table that can be read: csv, parquet and json are"
                )
            kinds.append((path, kind))
        return kinds

    def _frame(self, pandas: Any, path: Path, kind: str) -> Any:
        options = self._options
        if kind == "parquet":
            return pandas.read_parquet(path)
        if kind in ("json", "jsonl"):
            return pandas.read_json(path, lines=kind == "jsonl", encoding=options.get("encoding", "utf-8"))
        types = dict(options.get("types") or {})
        dates = [name for name, kind_ in types.items() if kind_ in ("date", "datetime", "timestamp")]
        header = options.get("header", True)
        frame = pandas.read_csv(
            path,
            sep=options.get("delimiter", "\t" if kind == "tsv" else ","),
            header=0 if header else None,
            encoding=options.get("encoding", "utf-8"),
            dtype={name: type_ for name, type_ in types.items() if name not in dates} if header else None,
            parse_dates=dates if header else False,
        )
        if not header:
            frame.columns = [f"f{index}" for index in range(len(frame.columns))]
            frame = frame.astype({name: type_ for name, type_ in types.items() if name not in dates})
            for name in dates:
                frame[name] = pandas.to_datetime(frame[name])
        return frame

    def _arrow(self, arrow: Any, path: Path, kind: str) -> Any:
        options = self._options
        if kind == "parquet":
            import pyarrow.parquet

            return pyarrow.parquet.read_table(path)
        if kind == "jsonl":
            import pyarrow.json

            return pyarrow.json.read_json(path)
        if kind == "json":
            with open(str(path), encoding=options.get("encoding", "utf-8")) as file:
                return arrow.Table.from_pylist(json.load(file))
        import pyarrow.csv

        own = {"date": "date32", "datetime": "timestamp[us]", "timestamp": "timestamp[us]"}
        types = {
            name: arrow.type_for_alias(own.get(type_, type_.lower()))
            for name, type_ in (options.get("types") or {}).items()
        }
        return pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(
                encoding=options.get("encoding", "utf-8"), autogenerate_column_names=not options.get("header", True)
            ),
            parse_options=pyarrow.csv.ParseOptions(delimiter=options.get("delimiter", "\t" if kind == "tsv" else ",")),
            convert_options=pyarrow.csv.ConvertOptions(column_types=types),
        )


def _imported(module: str) -> Any:
    try:
        return __import__(module)
    except ImportError:
        raise SdkError(f"`{module}` is not in this stage's environment: add it to its packages") from None


class Output:
    """One output. path: pathlib.Path to write to; its folder exists."""

    def __init__(self, name: str, entry: Mapping[str, Any]) -> None:
        self.name = name
        self._path = str(entry["path"])

    @property
    def path(self) -> Path:
        return _path(self._path)

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __repr__(self) -> str:
        return f"Output({self.name!r}, {self._path!r})"


class _Named(Dict[str, _T]):  # noqa: UP006
    """The inputs or outputs of a stage; asking for another raises SdkError with the key to add."""

    def __init__(self, what: str, stage: str, values: Mapping[str, _T]) -> None:
        super().__init__(values)
        self._what, self._stage = what, stage

    def __missing__(self, name: str) -> _T:
        have = ", ".join(f"`{each}`" for each in self) or "none"
        raise SdkError(
            f"stage `{self._stage}` has no {self._what} `{name}` (it has {have}): "
            f"add it to [{_table_of(self._stage)}.{self._what}s]"
        )


class Git:
    """The commit that is built, its branch, and whether the work tree differs from it. None where that is not known."""

    def __init__(self, entry: Mapping[str, Any]) -> None:
        self.commit: str | None = entry.get("commit")
        self.branch: str | None = entry.get("branch")
        self.dirty: bool | None = entry.get("dirty")


class Run:
    """What a stage knows of itself. id: the run's id, None outside a build."""

    _current: tuple[tuple[str | None, str | None, int], Run] | None = None

    def __init__(self, context: Mapping[str, Any]) -> None:
        self.id: str | None = context.get("run")
        self.stage: str = context["stage"]
        self.inputs: dict[str, Input] = _Named(
            "input", self.stage, {n: Input(n, e) for n, e in context["inputs"].items()}
        )
        self.outputs: dict[str, Output] = _Named(
            "output", self.stage, {n: Output(n, e) for n, e in context["outputs"].items()}
        )
        self.params = Params(context["params"], "", context.get("all_params", ()), self.stage)
        self.git = Git(context.get("git") or {})
        self._log: str | None = context.get("log")
        self._artifacts: str | None = context.get("artifacts")
        self._warned = False

    @classmethod
    def get_context(cls) -> Run:
        """Return the run of this stage, the same one at each call.

        Raises SdkError outside a build where it can't be told which stage this is, or pipeline.toml can't be read.
        """
        where = (os.environ.get("PIPE_CONTEXT"), os.environ.get("PIPE_STAGE"), os.getpid())
        if Run._current is None or Run._current[0] != where:
            Run._current = (where, cls(_context(where[0]) if where[0] else _outside(where[1])))
        return Run._current[1]

    # -- what is logged -------------------------------------------------------------------------------------------

    def log(self, name: str, value: Any, step: int | None = None) -> None:
        """Log a number: seen live in `pipe logs -f`, kept with the run, never fingerprinted."""
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise SdkError(f"`log` takes a number, `{name}` is {value!r}: `log_table` takes rows") from None
        whole = isinstance(value, int) and not isinstance(value, bool)
        self._append(name, step, {"value": value if whole else number if math.isfinite(number) else str(number)})

    def log_image(self, image: Any, name: str | None = None, step: int | None = None) -> None:
        """Keep an image with the run: the path of a file, or what has `savefig` (matplotlib) or `save` (Pillow)."""
        if hasattr(image, "savefig") or (hasattr(image, "save") and not hasattr(image, "__fspath__")):
            data = io.BytesIO()
            image.savefig(data, format="png") if hasattr(image, "savefig") else image.save(data, format="PNG")
            self._keep(name or "image", step, "image", ".png", data.getvalue())
        else:
            path = Path(os.fspath(image))
            self._keep(name or path.name, step, "image", path.suffix, path.read_bytes())

    def log_table(self, name: str, rows: Any, step: int | None = None) -> None:
        """Keep a table with the run: a list of mappings, a list of lists with the names first, or a DataFrame."""
        columns: list[str] = []
        if hasattr(rows, "to_dict") and hasattr(rows, "columns"):
            columns = [str(column) for column in rows.columns]
            body = [[row[column] for column in rows.columns] for row in rows.to_dict("records")]
        else:
            listed = list(rows)
            if listed and not isinstance(listed[0], Mapping):
                columns, body = [str(column) for column in listed[0]], [list(row) for row in listed[1:]]
            else:
                columns = list(dict.fromkeys(key for row in listed for key in row))
                body = [[row.get(column) for column in columns] for row in listed]
        text = json.dumps({"columns": columns, "rows": body}, default=_plain, allow_nan=True)
        self._keep(name, step, "table", ".json", text.encode("utf-8"))

    def _keep(self, name: str, step: int | None, kind: str, suffix: str, data: bytes) -> None:
        """Write a file beside the log, whole or not at all, and a line that names it."""
        if self._artifacts is None:
            return self._append(name, step, {kind: f"{len(data)} bytes"})
        stem = name[: -len(suffix)] if suffix and name.endswith(suffix) else name
        stem = "".join(char if char.isalnum() or char in "-_" else "-" for char in stem)
        file = f"{stem[:80]}-{os.urandom(4).hex()}{suffix}"
        try:
            os.makedirs(self._artifacts, exist_ok=True)
            part = os.path.join(self._artifacts, ".part-" + file)
            with open(part, "wb") as out:
                out.write(data)
            os.rename(part, os.path.join(self._artifacts, file))
        except OSError as error:
            return self._lost(error)
        self._append(name, step, {kind: file})
        return None

    def _append(self, name: str, step: int | None, what: dict[str, Any]) -> None:
        """Add one line in one write, so that lines of processes that log at once stay whole."""
        if self._log is None:
            at = "" if step is None else f" (step {step})"
            print(f"pipe: {name} = {next(iter(what.values()))}{at}", file=sys.stderr)
            return
        entry = {"t": round(time.time(), 3), "name": str(name), **what}
        if step is not None:
            entry["step"] = int(step)
        try:
            fd = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
            try:
                os.write(fd, (json.dumps(entry) + "\n").encode("utf-8"))
            finally:
                os.close(fd)
        except OSError as error:
            self._lost(error)

    def _lost(self, error: OSError) -> None:
        """Say once that something could not be logged: no reason to lose the stage's work."""
        if not self._warned:
            self._warned = True
            print(f"pipe: what this stage logs is lost: {error}", file=sys.stderr)


def _plain(value: Any) -> Any:
    """Return a number of numpy or the like as Python's own, anything else as text."""
    return value.item() if hasattr(value, "item") and not getattr(value, "shape", ()) else str(value)


def _context(path: str) -> Mapping[str, Any]:
    """Return what PIPE_CONTEXT names. Raises SdkError where it can't be read, or is of a later version."""
    try:
        with open(path, encoding="utf-8") as file:
            context: Mapping[str, Any] = json.load(file)
        version = context["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SdkError(f"`{path}`, which PIPE_CONTEXT names, can't be read: {error}") from None
    if version > CONTEXT_VERSION:
        raise SdkError(f"PIPE_CONTEXT is of version {version}, this module reads version {CONTEXT_VERSION}")
    return context


def _script() -> str:
    """Return the script or notebook that runs here, empty where there is none."""
    main = sys.modules.get("__main__")
    notebook = getattr(main, "__vsc_ipynb_file__", None) or os.environ.get("JPY_SESSION_NAME")
    return (
        os.path.abspath(notebook or getattr(main, "__file__", None) or "")
        if notebook or hasattr(main, "__file__")
        else ""
    )


def _outside(stage: str | None) -> Mapping[str, Any]:
    """Return a context made from the nearest pipeline.toml, for scripts and notebooks that are started by hand."""
    from importlib import import_module

    try:
        module = import_module("pipesmith.workspace.sdk_context")
    except ImportError:
        raise SdkError("this is not a build, and pipesmith is not installed here: run it with `pipe build`") from None
    context: Mapping[str, Any] = module.outside_context(stage, _script())
    return context
