"""Reads and checks a pipeline.toml: all faults at once, each with its line, before anything runs."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pipesmith.errors import ConfigError, Finding, nearest
from pipesmith.pipeline.declarations import read_computes, read_datasets, read_datastores, read_environments
from pipesmith.pipeline.faults import Faults
from pipesmith.pipeline.keys import TABLES
from pipesmith.pipeline.links import link
from pipesmith.pipeline.model import CacheConfig, Pipeline, Snapshot
from pipesmith.pipeline.params import ParamError, override, parse_params_file, variable_key
from pipesmith.pipeline.params import merge as merge_params
from pipesmith.pipeline.stages import read_stages
from pipesmith.pipeline.units import parse_size_bytes

__all__ = ["line_of", "read_pipeline"]

_TOP = ("pipeline", "params", "datastore", "dataset", "environment", "compute", "cache", "snapshot", "history", "stage")
_TOML_PLACE = re.compile(r" \(at line (\d+), column (\d+)\)$")


def read_pipeline(
    text: str,
    *,
    files: Callable[[str], bytes | None],
    default_name: str,
    overrides: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    file: str = "pipeline.toml",
    kinds: Collection[str] = (),
    version: str | None = None,
) -> Pipeline:
    """Return the checked pipeline.

    files(path): bytes of a params or requirements file of the workspace, None where there is none.
    overrides: `--set` texts by dotted key. environ: where PIPE_PARAM_* are looked up. kinds: computes of entry points.
    version: this pipesmith's, for `requires`. Raises ConfigError with all findings.
    """
    document = _parse(text, file)
    faults = Faults(text, file)
    for name in document:
        if name not in _TOP:
            near = nearest(name, _TOP)
            faults.add((name,), f"unknown table `{name}`", f"did you mean `[{near}]`?" if near else None)
        elif not isinstance(document[name], dict):
            faults.add((name,), f"expected a table, found {document[name]!r}")
            document[name] = {}
    head = faults.table(document.get("pipeline", {}), TABLES["pipeline"], ("pipeline",))
    _check_requires(head.get("requires"), version, faults)
    params = _params(document.get("params", {}), head, files, overrides or {}, environ or {}, faults)
    datastores = read_datastores(document.get("datastore", {}), faults)
    environments = read_environments(document.get("environment", {}), faults)
    computes = read_computes(document.get("compute", {}), kinds, faults)
    datasets = read_datasets(document.get("dataset", {}), datastores, params, faults)
    cache = _cache(faults.table(document.get("cache", {}), TABLES["cache"], ("cache",)), faults)
    snapshot = faults.table(document.get("snapshot", {}), TABLES["snapshot"], ("snapshot",))
    history = faults.table(document.get("history", {}), TABLES["history"], ("history",))
    defaults = {key: head[key] for key in ("compute", "environment") if key in head}
    for key, known in (("compute", computes), ("environment", environments)):
        if key in defaults and defaults[key] not in known:
            faults.unknown(("pipeline", key), key, defaults.pop(key), known)
    drafts = read_stages(document.get("stage", {}), defaults, params, faults)
    stages, groups = link(
        drafts,
        params=params,
        datasets=datasets,
        datastores=datastores,
        environments=environments,
        computes=computes,
        faults=faults,
    )
    targets = _targets(head.get("targets"), groups, stages, faults)
    faults.raise_if_any()
    return Pipeline(
        name=head.get("name", default_name),
        stages=stages,
        groups=groups,
        targets=targets,
        params=params,
        params_files=tuple(head.get("params-files", ())),
        requires=head.get("requires"),
        datastores=datastores,
        datasets=datasets,
        environments=environments,
        computes=computes,
        cache=cache,
        snapshot=Snapshot(max_file_bytes=parse_size_bytes(str(snapshot.get("max-file", "20MB")))),
        history=history,
        file=file,
    )


def line_of(text: str, key: str) -> int | None:
    """Return the line, from 1, of a dotted key such as `stage.train.inputs`, or of the nearest key above it."""
    return Faults(text, "").line(tuple(key.split(".")))


def _parse(text: str, file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        place = _TOML_PLACE.search(message)
        line = int(place[1]) if place else text.count("\n") + 1
        said = _TOML_PLACE.sub("", message).removesuffix(" (at end of document)")
        raise ConfigError([Finding(file=file, line=line, text=f"not TOML: {said[:1].lower()}{said[1:]}")]) from None
    except RecursionError:
        raise ConfigError([Finding(file=file, line=1, text="not TOML that can be read: nested too deeply")]) from None


def _check_requires(requires: Any, version: str | None, faults: Faults) -> None:
    if not isinstance(requires, str):
        return
    if version is None:
        from pipesmith import __version__ as version
    for part in requires.split(","):
        match = re.fullmatch(r"\s*(>=|>|==|<=|<|~=|!=)\s*(\d+(?:\.\d+)*)\s*", part)
        if match is None:
            faults.add(("pipeline", "requires"), f"`{requires}` is not a version requirement", 'write `">=0.1"`')
            return
        wanted, have = _version(match[2]), _version(version)
        size = max(len(wanted), len(have))
        mine = (have + (0,) * size)[:size]
        other = (wanted + (0,) * size)[:size]
        holds = {
            ">=": mine >= other,
            ">": mine > other,
            "==": mine == other,
            "<=": mine <= other,
            "<": mine < other,
            "!=": mine != other,
            "~=": mine >= other and mine[: len(wanted) - 1] == other[: len(wanted) - 1],
        }[match[1]]
        if not holds:
            faults.add(
                ("pipeline", "requires"),
                f"this pipeline requires pipesmith {requires}, this is {version}",
                f"run `pip install 'pipesmith{requires}'`",
            )
            return


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text.split("+")[0].split("rc")[0].split(".dev")[0]))


def _params(
    defaults: Any,
    head: Mapping[str, Any],
    files: Callable[[str], bytes | None],
    overrides: Mapping[str, str],
    environ: Mapping[str, str],
    faults: Faults,
) -> dict[str, Any]:
    params: dict[str, Any] = dict(defaults)
    for index, path in enumerate(head.get("params-files", ())):
        clean = faults.path(path, ("pipeline", "params-files", index))
        if clean is None:
            continue
        data = files(clean)
        if data is None:
            faults.add(("pipeline", "params-files", index), f"`{path}` does not exist")
            continue
        try:
            params = merge_params(params, parse_params_file(clean, data))
        except ParamError as error:
            faults.other(clean, None, str(error), error.help)
    for name in sorted(environ):
        key = variable_key(name)
        if key is not None:
            params = _override(params, key, environ[name], name, faults)
    for key, text in overrides.items():
        params = _override(params, key, text, f"--set {key}", faults)
    return params


def _override(params: dict[str, Any], key: str, text: str, where: str, faults: Faults) -> dict[str, Any]:
    try:
        return override(params, key, text)
    except ParamError as error:
        faults.other(where, None, str(error), error.help)
        return params


def _cache(table: Mapping[str, Any], faults: Faults) -> CacheConfig:
    links = table.get("link", ["reflink", "hardlink", "copy"])
    for index, way in enumerate(links):
        if way not in ("reflink", "hardlink", "copy"):
            faults.unknown(("cache", "link", index), "way to link", way, ("reflink", "hardlink", "copy"))
    if not links:
        faults.add(("cache", "link"), "names no way to link", 'write `link = ["copy"]` for plain copies')
    if isinstance(table.get("remote"), str):
        faults.no_password(table["remote"], ("cache", "remote"))
    size = table.get("max-size")
    return CacheConfig(
        remote=table.get("remote"),
        hash=table.get("hash", "blake3"),
        link=tuple(links),
        max_size_bytes=parse_size_bytes(str(size)) if size is not None else None,
        push=table.get("push", "manual"),
        read_only=table.get("read-only", False),
        trust=tuple(table.get("trust", ())),
    )


def _targets(
    wanted: Any, groups: Mapping[str, tuple[str, ...]], stages: Mapping[str, Any], faults: Faults
) -> tuple[str, ...]:
    if wanted is None:
        return tuple(stages)
    by_path = {output.path: name for name, stage in stages.items() for output in stage.outputs.values()}
    chosen: dict[str, None] = {}
    for index, name in enumerate(wanted):
        if name in groups:
            chosen.update(dict.fromkeys(groups[name]))
        elif name in stages:
            chosen[name] = None
        elif name in by_path:
            chosen[by_path[name]] = None
        else:
            faults.unknown(("pipeline", "targets", index), "stage", name, [*groups, *stages])
    return tuple(chosen)
