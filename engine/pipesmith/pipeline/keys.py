"""All keys of pipeline.toml, each with its type and a line about it: the reader checks by them, the schema has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

from pipesmith.pipeline.units import MOST_BYTES, parse_duration_s, parse_size_bytes
from pipesmith.records import record

__all__ = ["COMPUTE_KINDS", "KIND_KEYS", "TABLES", "TYPES", "Key", "Path", "found", "type_error"]

_COMMON = ("gpus", "max-jobs", "cpus", "memory")
_GROWING = ("min-nodes", "max-nodes", "idle")
KIND_KEYS: Mapping[str, tuple[str, ...]] = {  # kind of compute: its keys
    "local": _COMMON,
    "docker": ("host", "hosts", "tls", *_COMMON),
    "slurm": ("partition", "account", "qos", "options", "shared", *_GROWING, *_COMMON),
    "ray": ("address", *_GROWING, *_COMMON),
}
COMPUTE_KINDS = tuple(KIND_KEYS)

Path = tuple[str | int, ...]  # where a key stands: names of tables, indexes of lists


@record(kw_only=False)
class Key:
    """type: a key of TYPES. choices: the only values, where there are just a few."""

    type: str
    doc: str
    choices: tuple[str, ...] = ()


# name: (what people call it, JSON schema)
TYPES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "string": ("a string", {"type": "string"}),
    "bool": ("true or false", {"type": "boolean"}),
    "int": ("a whole number, 0 or more", {"type": "integer", "minimum": 0}),
    "number": ("a number", {"type": "number"}),
    "strings": (
        "a string or a list of strings",
        {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    ),
    "list": ("a list of strings", {"type": "array", "items": {"type": "string"}}),
    "duration": (
        "a duration such as `30s`, `5m`, `2h`",
        {"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*[smhd]\s*$"},
    ),
    "size": (
        "a size such as `64K`, `8M`, `2G`, `20GB`",
        {
            "type": ["string", "integer"],
            "minimum": 0,
            "maximum": MOST_BYTES,
            "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*[KMGTkmgt]?[Bb]?\s*$",
        },
    ),
    "table": ("a table", {"type": "object"}),
    "texts": ("a table of strings", {"type": "object", "additionalProperties": {"type": "string"}}),
    "tables": ("a list of tables", {"type": "array", "items": {"type": "object"}}),
    "hosts": (
        "a list of URLs or tables with `url`",
        {"type": "array", "items": {"oneOf": [{"type": "string"}, {"type": "object"}]}},
    ),
}

TABLES: Mapping[str, Mapping[str, Key]] = {
    "pipeline": {
        "name": Key("string", "the pipeline's name; default: the folder's"),
        "requires": Key("string", "the oldest pipesmith that will do, such as `>=0.1`"),
        "targets": Key("list", "what `pipe build` builds without names; default: every stage"),
        "compute": Key("string", "default compute of the stages"),
        "environment": Key("string", "default environment of the stages"),
        "params-files": Key("list", "YAML, JSON or TOML files whose keys join [params]"),
    },
    "datastore": {
        "url": Key("string", "where data lives"),
        "credentials": Key(
            "string", "`env:NAME`, `file:PATH`, `cmd:COMMAND`, `keyring:NAME` or `ambient`; never the secret"
        ),
    },
    "dataset": {
        "from": Key("strings", "`DATASTORE:GLOB`, a URL, a path, `git+URL@REV:…`, or a list of these"),
        "query": Key("string", "SQL, where `from` is a SQL datastore"),
        "params": Key("table", "bound parameters of the query"),
        "format": Key("string", "of tables", ("csv", "parquet", "json")),
        "options": Key("table", "of delimited files: delimiter, header, encoding, types"),
    },
    "environment": {
        "python": Key("string", "Python version such as `3.11`, or `system`"),
        "packages": Key("list", "requirements, resolved and pinned in pipe.lock"),
        "requirements": Key("string", "a requirements file"),
        "conda": Key("list", "conda packages, resolved and pinned in pipe.lock"),
        "channels": Key(
            "list", "where conda packages come from; default: what conda's own settings say, else conda-forge"
        ),
        "image": Key("string", "a container image"),
        "dockerfile": Key("string", "a Dockerfile"),
        "extends": Key("string", "another environment, or `curated:NAME`"),
        "base": Key("string", "what an image of packages stands on"),
        "registry": Key("string", "where built images go"),
    },
    "compute": {
        "kind": Key("string", "local, docker, slurm, ray, or an entry point's name; default: local"),
        "gpus": Key("int", "GPUs, where no driver counts them"),
        "max-jobs": Key("int", "most stages at once"),
        "host": Key("string", "unix://, tcp:// or ssh:// of a Docker daemon"),
        "hosts": Key("hosts", "a pool of Docker daemons"),
        "tls": Key("texts", "files of a tcp:// daemon: ca, cert, key"),
        "partition": Key("string", "Slurm's partition"),
        "account": Key("string", "Slurm's account"),
        "qos": Key("string", "Slurm's quality of service"),
        "options": Key("list", "more options of sbatch"),
        "shared": Key("string", "a path that both sides see"),
        "address": Key("string", "ray:// or http:// of a Ray cluster"),
        "min-nodes": Key("int", "nodes that are kept"),
        "max-nodes": Key("int", "nodes at most"),
        "idle": Key("duration", "after which a node is given back"),
        "cpus": Key("number", "CPUs that stages may have of it together; default: all"),
        "memory": Key("size", "memory that stages may have of it together; default: all"),
    },
    "options": {
        "delimiter": Key("string", "what stands between columns"),
        "header": Key("bool", "whether the first line names the columns"),
        "encoding": Key("string", "of the text, such as `utf-8`"),
        "types": Key("texts", 'column to type, such as `{ id = "int64" }`'),
    },
    "tls": {
        "ca": Key("string", "the authority's certificate"),
        "cert": Key("string", "the client's certificate"),
        "key": Key("string", "the client's key"),
    },
    "host": {
        "url": Key("string", "unix://, tcp:// or ssh:// of a Docker daemon"),
        "gpus": Key("int", "GPUs, where they can't be counted"),
        "cpus": Key("number", "CPUs that stages may have of it together; default: all"),
        "memory": Key("size", "memory that stages may have of it together; default: all"),
    },
    "cache": {
        "remote": Key("string", "datastore and prefix, or a URL, of the shared cache"),
        "hash": Key("string", "hash of data", ("blake3", "md5")),
        "link": Key("list", "how a cached file enters the workspace: reflink, hardlink, copy; the first that works"),
        "max-size": Key("size", "`pipe gc --auto` keeps the cache under it"),
        "push": Key("string", "when results are sent", ("manual", "build")),
        "read-only": Key("bool", "nothing is ever sent"),
        "trust": Key("list", "signing keys whose results may be restored"),
    },
    "snapshot": {"max-file": Key("size", "a larger untracked file is recorded by hash; default 20MB")},
    "history": {
        "mlflow": Key("string", "mirror of runs: `env:NAME` or a URL"),
        "openlineage": Key("string", "`file:…` or a URL"),
    },
    "stage": {
        "desc": Key("string", "what it does, for people"),
        "source": Key("strings", "code: folders or files, fingerprinted as git tree and blob ids"),
        "run": Key("strings", "a string for /bin/sh, or a list executed as it is"),
        "notebook": Key("string", "a notebook, executed instead of `run`"),
        "transfer": Key("texts", "`{ from, to }`: data moved between datastores instead of `run`"),
        "inputs": Key("table", "name to `stage:NAME.OUTPUT`, `dataset:NAME`, a path, or `{ from, mode, path }`"),
        "outputs": Key("table", "name to a path, or `{ path, cache, temp, to }`"),
        "params": Key("list", "params that count; a table counts whole"),
        "matrix": Key("table", "key to list of values: one stage a cell; `include`, `exclude`"),
        "metrics": Key("list", "outputs with numbers: json, yaml, toml, csv"),
        "plots": Key("tables", "`{ output, x, y, title }`"),
        "after": Key("list", "stages that must end before, without data"),
        "mutex": Key("list", "stages that share a word never run at the same time"),
        "resources": Key("table", "cpus, gpus, memory, gpu-memory, custom"),
        "compute": Key("string", "where it runs"),
        "environment": Key("string", "what its interpreter is made of"),
        "env": Key("texts", "environment variables; fingerprinted"),
        "pass-env": Key("list", "variables handed through; not fingerprinted, masked in logs"),
        "reuse": Key("bool", "false: runs at every build"),
        "hash-paths": Key("list", "extra files that count, though the stage is not given them"),
        "timeout": Key("duration", "ended after that"),
        "retries": Key("int", "how often it is tried again"),
        "keep": Key("string", "a folder that the next try of the same fingerprint finds again"),
        "sandbox": Key("bool", "false: runs in the workspace itself"),
        "cwd": Key("string", "where it runs, relative to the workspace"),
        "frozen": Key("bool", "true: never runs; its locked outputs are used"),
        "expect": Key("table", "`OUTPUT:METRIC` to `{ min, max, vs, drop }`"),
    },
    "transfer": {
        "from": Key("string", "`DATASTORE:GLOB` or a URL"),
        "to": Key("string", "`DATASTORE:PREFIX` or a URL"),
    },
    "input": {
        "from": Key("string", "`stage:NAME.OUTPUT`, `dataset:NAME` or a path"),
        "mode": Key("string", "how content gets to the stage", ("download", "mount", "stream")),
        "path": Key("string", "where it appears"),
    },
    "output": {
        "path": Key("string", "where it lies"),
        "cache": Key("bool", "false: left to git"),
        "temp": Key("bool", "true: gone once its consumers are fresh"),
        "to": Key("string", "also delivered to a datastore"),
    },
    "plot": {
        "output": Key("string", "which output"),
        "x": Key("string", "column of the x axis"),
        "y": Key("strings", "columns of the lines"),
        "title": Key("string", "above it"),
    },
    "resources": {
        "cpus": Key("number", "CPUs"),
        "gpus": Key("int", "whole GPUs"),
        "memory": Key("size", "memory"),
        "gpu-memory": Key("size", "GPU memory: shares a GPU"),
        "custom": Key("table", "of Ray"),
    },
    "expectation": {
        "min": Key("number", "least"),
        "max": Key("number", "most"),
        "vs": Key("string", "a git revision to compare with"),
        "drop": Key("number", "how much lower than there is let pass"),
    },
}


def type_error(value: Any, key: Key) -> str | None:
    """Return what is wrong with a value for people, None where it fits."""
    wanted = TYPES[key.type][0]
    if not _FITS[key.type](value):
        return f"expected {wanted}, found {_odd(value, key.type)}"
    if key.type in ("duration", "size"):
        try:
            parse_duration_s(value) if key.type == "duration" else parse_size_bytes(str(value))
        except ValueError as error:
            return str(error)
    if key.choices and value not in key.choices:
        return f"`{value}` is not one of {', '.join(f'`{choice}`' for choice in key.choices)}"
    return None


def _all(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(entry, kind) for entry in value)


_FITS: Mapping[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value),
    "strings": lambda value: isinstance(value, str) or _all(value, str),
    "list": lambda value: _all(value, str),
    "duration": lambda value: isinstance(value, str),
    "size": lambda value: isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)),
    "table": lambda value: isinstance(value, dict),
    "texts": lambda value: isinstance(value, dict) and all(isinstance(entry, str) for entry in value.values()),
    "tables": lambda value: _all(value, dict),
    "hosts": lambda value: isinstance(value, list) and all(isinstance(entry, (str, dict)) for entry in value),
}


def _odd(value: Any, type: str) -> str:
    """Return what is odd about a value: the one entry that is, where it is a list or table of the right kind."""
    if isinstance(value, dict) and type == "texts":
        name = next(name for name, entry in value.items() if not isinstance(entry, str))
        return f"{found(value[name])} as `{name}`"
    if isinstance(value, list) and type in ("strings", "list", "tables", "hosts"):
        good = {"tables": (dict,), "hosts": (str, dict)}.get(type, (str,))
        return f"{found(next(entry for entry in value if not isinstance(entry, good)))} in it"
    return found(value)


def found(value: Any) -> str:
    """Return a value for people: lists and tables by what they are."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"' if len(value) <= 60 else "a long string"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, dict):
        return "a table"
    return str(value)
