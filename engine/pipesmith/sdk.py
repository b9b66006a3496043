"""The stage side of pipesmith: inputs, params, outputs and live metrics inside a stage.

One module without dependencies, for Python 3.8 and newer: it is put on the path of every stage, whatever its environment holds.
In a build it reads the file that PIPE_CONTEXT names (docs/formats/context.md); outside one, pipeline.toml, so that scripts and
notebooks still start.
"""

import json
import os
import sys
import time
from pathlib import Path

__all__ = ["Input", "Output", "Params", "Run", "SdkError"]


class SdkError(Exception):
    """Something that the stage asked for is not there; the text says what to add to pipeline.toml."""


class Params(dict):
    """The params that count for this stage, nested as in pipeline.toml. Asking for one that does not count raises SdkError."""

    def __init__(self, values, prefix="", others=(), stage=""):
        super().__init__()
        self._prefix, self._others, self._stage = prefix, others, stage
        for name, value in values.items():
            key = prefix + name
            dict.__setitem__(self, name, Params(value, key + ".", others, stage) if isinstance(value, dict) else value)

    def __missing__(self, name):
        key = "%s%s" % (self._prefix, name)
        if key in self._others or any(other.startswith(key + ".") for other in self._others):
            table = self._stage.partition("@")[0]
            raise SdkError('param `%s` does not count for stage `%s`: add params = ["%s"] to [stage.%s]' % (key, self._stage, key, table))
        raise SdkError("there is no param `%s`: add it to [params] and to the stage's `params`" % key)

    def get(self, name, default=None):
        """Return a param that counts, else `default`."""
        return self[name] if name in self else default


class Input:
    """One input. path: pathlib.Path of a file or folder."""

    def __init__(self, name, entry):
        self.name = name
        self.path = Path(entry["path"])
        self._format = entry.get("format")
        self._options = entry.get("options") or {}

    def paths(self):
        """Return the paths of all files, sorted."""
        if self.path.is_dir():
            return sorted(path for path in self.path.rglob("*") if path.is_file())
        return [self.path]

    def open(self, mode="rb", **more):
        """Open the input, which must be one file."""
        files = self.paths()
        if len(files) != 1:
            raise SdkError("input `%s` is %d files: take them from .paths()" % (self.name, len(files)))
        return open(files[0], mode, **more)

    def to_pandas(self):
        """Return a pandas DataFrame of csv, parquet or json files, with the dataset's options."""
        try:
            import pandas
        except ImportError:
            raise SdkError("`pandas` is not in this stage's environment: add it to its packages") from None
        frames = [self._frame(pandas, path) for path in self.paths()]
        if not frames:
            raise SdkError("input `%s` holds no file" % self.name)
        return frames[0] if len(frames) == 1 else pandas.concat(frames, ignore_index=True)

    def _frame(self, pandas, path):
        kind = self._format or path.suffix.lstrip(".").lower()
        options = self._options
        if kind == "parquet":
            return pandas.read_parquet(path)
        if kind in ("json", "jsonl"):
            return pandas.read_json(path, lines=kind == "jsonl")
        if kind in ("csv", "tsv", "txt"):
            return pandas.read_csv(
                path,
                sep=options.get("delimiter", "\t" if kind == "tsv" else ","),
                header=0 if options.get("header", True) else None,
                encoding=options.get("encoding", "utf-8"),
                dtype=options.get("types"),
            )
        raise SdkError("`%s` is no table that can be read: csv, parquet and json are" % path)

    def to_arrow(self):
        """Return a pyarrow Table."""
        try:
            import pyarrow
        except ImportError:
            raise SdkError("`pyarrow` is not in this stage's environment: add it to its packages") from None
        files = self.paths()
        if files and all((self._format or path.suffix.lstrip(".")) == "parquet" for path in files):
            import pyarrow.parquet

            return pyarrow.concat_tables([pyarrow.parquet.read_table(path) for path in files])
        return pyarrow.Table.from_pandas(self.to_pandas())

    def __fspath__(self):
        return os.fspath(self.path)


class Output:
    """One output. path: pathlib.Path to write to; its folder exists."""

    def __init__(self, name, entry):
        self.name = name
        self.path = Path(entry["path"])

    def __fspath__(self):
        return os.fspath(self.path)


class _Named(dict):
    def __init__(self, what, stage, values):
        super().__init__(values)
        self._what, self._stage = what, stage

    def __missing__(self, name):
        table = self._stage.partition("@")[0]
        raise SdkError("stage `%s` has no %s `%s`: add it to [stage.%s.%ss]" % (self._stage, self._what, name, table, self._what))


class Git:
    """The commit that is built, its branch, and whether the work tree differs from it."""

    def __init__(self, entry):
        self.commit = entry.get("commit")
        self.branch = entry.get("branch")
        self.dirty = entry.get("dirty")


class Run:
    """What a stage knows of itself. id: the run's id, None outside a build."""

    def __init__(self, context):
        self.id = context.get("run")
        self.stage = context["stage"]
        self.inputs = _Named("input", self.stage, {n: Input(n, e) for n, e in context["inputs"].items()})
        self.outputs = _Named("output", self.stage, {n: Output(n, e) for n, e in context["outputs"].items()})
        self.params = Params(context["params"], "", tuple(context.get("all_params", ())), self.stage)
        self.git = Git(context.get("git") or {})
        self._log = context.get("log")
        self._artifacts = context.get("artifacts")

    @classmethod
    def get_context(cls):
        """Return the run of this stage. Raises SdkError outside a build where it can't be told which stage this is."""
        path = os.environ.get("PIPE_CONTEXT")
        if path:
            with open(path, encoding="utf-8") as file:
                context = json.load(file)
            if context["version"] > 1:
                raise SdkError("PIPE_CONTEXT is of version %d, this module reads version 1" % context["version"])
            return cls(context)
        return cls(_outside())

    def log(self, name, value, step=None):
        """Log a number: seen live in `pipe logs -f`, kept with the run, never fingerprinted."""
        self._append({"t": time.time(), "name": name, "value": float(value), "step": step})

    def log_image(self, path, name=None):
        """Keep an image file with the run."""
        self._keep(path, name or os.path.basename(os.fspath(path)), "image")

    def log_table(self, name, rows):
        """Keep a table (a list of mappings) with the run."""
        self._append({"t": time.time(), "name": name, "table": [dict(row) for row in rows]})

    def _keep(self, path, name, kind):
        if self._artifacts is None:
            return
        with open(path, "rb") as file:
            data = file.read()
        import base64

        self._append({"t": time.time(), "name": name, kind: base64.b64encode(data).decode("ascii")})

    def _append(self, entry):
        if self._log is None:
            print("pipe: %s" % json.dumps(entry, default=str)[:200], file=sys.stderr)
            return
        line = json.dumps(entry, default=str).encode("utf-8") + b"\n"
        fd = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(fd, line)
        finally:
            os.close(fd)


def _outside():
    """Return a context made from the nearest pipeline.toml, for scripts that are started by hand."""
    try:
        from pipesmith.workspace.sdk_context import outside_context
    except ImportError:
        raise SdkError("this is not a build, and pipesmith is not installed here: run it with `pipe build`") from None
    return outside_context(os.environ.get("PIPE_STAGE"), sys.argv[0])


