"""Reads and checks a pipeline.toml: all faults at once, each with its line, before anything runs."""

from __future__ import annotations

import posixpath
import re
import sys
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from pipesmith.errors import ConfigError, Finding, nearest
from pipesmith.pipeline.computes import read_computes
from pipesmith.pipeline.declarations import known_datastore, read_datasets, read_datastores, read_environments
from pipesmith.pipeline.faults import Faults
from pipesmith.pipeline.keys import TABLES, found
from pipesmith.pipeline.limits import beyond
from pipesmith.pipeline.links import Tables, link
from pipesmith.pipeline.makers import Makers
from pipesmith.pipeline.model import CacheConfig, Datastore, Pipeline, Snapshot, Stage
from pipesmith.pipeline.params_reader import read_params
from pipesmith.pipeline.stages import read_stages
from pipesmith.pipeline.units import parse_size_bytes

__all__ = ["line_of", "read_pipeline"]

_TOP = ("pipeline", "params", "datastore", "dataset", "environment", "compute", "cache", "snapshot", "history", "stage")
_TOML_KEY = r"(?<=')[^',]+(?=')"
_TOML_KEYS = r"\('[^()]*'(?:,|, '[^()]*')*\)"  # tomllib names a table by a tuple
_MARKERS = ("<<<<<<<", "|||||||", "=======", ">>>>>>>")
_MANY_DIGITS = r"[0-9][0-9_]{4000}"
_SHOWN_LEVELS = 6  # of the key of a value that is nested too deeply
_TOML_PLACE = r" \(at line (\d+), column (\d+)\)$"


def read_pipeline(
    text: str,
    *,
    files: Callable[[str], bytes | None],
    default_name: str,
    overrides: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    file: str = "pipeline.toml",
    kinds: Callable[[], Collection[str]] = tuple,
    version: str | None = None,
) -> Pipeline:
    """Return the checked pipeline.

    files(path): bytes of a params or requirements file of the workspace, None where there is none.
    overrides: `--set` texts by dotted key. environ: where PIPE_PARAM_* are looked up. kinds: returns the kinds of
    compute that entry points bring. version: this pipesmith's, for `requires`. Raises ConfigError with all findings.
    """
    text = text.removeprefix("\ufeff")
    document = _parse(text, file)
    faults = Faults(text, file)
    _check_top(document, faults)
    head = faults.table(document.get("pipeline", {}), TABLES["pipeline"], ("pipeline",))
    _check_requires(head.get("requires"), version, faults)
    params = read_params(
        document.get("params", {}), head.get("params-files", ()), files, overrides or {}, environ or {}, faults
    )
    datastores = read_datastores(document.get("datastore", {}), faults)
    environments = read_environments(document.get("environment", {}), files, faults)
    computes = read_computes(document.get("compute", {}), kinds, faults)
    datasets = read_datasets(document.get("dataset", {}), datastores, params, faults)
    cache = _cache(faults.table(document.get("cache", {}), TABLES["cache"], ("cache",)), datastores, faults)
    snapshot = faults.table(document.get("snapshot", {}), TABLES["snapshot"], ("snapshot",))
    history = faults.table(document.get("history", {}), TABLES["history"], ("history",))
    for key, text_of in history.items():
        faults.no_password(text_of, ("history", key))
    defaults: dict[str, str] = {key: head[key] for key in ("compute", "environment") if key in head}
    known: dict[str, Mapping[str, Any]] = {"compute": computes, "environment": environments}
    for key in [key for key in defaults if defaults[key] not in known[key]]:
        faults.unknown(("pipeline", key), key, defaults.pop(key), known[key])
    drafts, lost = read_stages(document.get("stage", {}), defaults, params, faults)
    tables = Tables(
        datasets=datasets,
        datastores=datastores,
        environments=environments,
        computes=computes,
        lost=frozenset(lost),
    )
    stages, groups, makers = link(drafts, tables, faults)
    _check_own_files(head.get("params-files", ()), document.get("environment", {}), makers, faults)
    targets = _targets(head.get("targets"), groups, stages, lost, faults)
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
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        place = re.search(_TOML_PLACE, message)
        line = int(place[1]) if place else text.count("\n") + 1
        if text.split("\n")[line - 1].startswith(_MARKERS):
            help = "settle what is to stand there, then `git add` it"
            raise ConfigError([Finding(file=file, line=line, text="has conflict markers", help=help)]) from None
        said = re.sub(_TOML_PLACE, "", message).removesuffix(" (at end of document)")
        said = re.sub(_TOML_KEYS, lambda match: f"`{'.'.join(re.findall(_TOML_KEY, match[0]))}`", said)
        raise ConfigError([Finding(file=file, line=line, text=f"not TOML: {said[:1].lower()}{said[1:]}")]) from None
    except RecursionError:
        raise ConfigError([Finding(file=file, line=1, text="not TOML that can be read: nested too deeply")]) from None
    except ValueError:  # Python reads no number of so many digits
        digits = re.search(_MANY_DIGITS, text)
        line = text.count("\n", 0, digits.start() if digits else len(text)) + 1
        said = "not TOML that can be read: a number of too many digits"
        raise ConfigError([Finding(file=file, line=line, text=said)]) from None
    odd = beyond(document)
    if odd is not None:
        faults = Faults(text, file)
        faults.add(odd[0][:_SHOWN_LEVELS], odd[1])
        faults.raise_if_any()
    return document


def _check_top(document: dict[str, Any], faults: Faults) -> None:
    """Check the tables at the top; what is no table is taken out."""
    for name in list(document):
        value = document[name]
        if name not in _TOP:
            if isinstance(value, (dict, list)):
                near = nearest(name, _TOP)
                help = f"did you mean `[{near}]`?" if near else f"known: {', '.join(f'`[{n}]`' for n in _TOP)}"
                faults.add((name,), f"unknown table `{name}`", help)
            else:
                near = nearest(name, TABLES["pipeline"])
                help = f"did you mean `{near}` of `[pipeline]`?" if near else "every key stands in a table"
                faults.add((name,), f"unknown key `{name}`", help)
        elif not isinstance(value, dict):
            named = f"[{name}]" if name in ("pipeline", "params", "cache", "snapshot", "history") else f"[{name}.NAME]"
            faults.add((name,), f"expected a table, found {found(value)}", f"write `{named}`")
            document[name] = {}


def _check_own_files(
    params_files: Sequence[str], environments: Mapping[str, Any], makers: Makers, faults: Faults
) -> None:
    """Refuse outputs that lie where pipe reads something before any stage runs."""
    for index, path in enumerate(params_files):
        makers.check_file(posixpath.normpath(path), ("pipeline", "params-files", index), "params are read before")
    for name, table in environments.items():
        for key in ("requirements", "dockerfile"):
            given = table.get(key) if isinstance(table, dict) else None
            if isinstance(given, str):
                makers.check_file(posixpath.normpath(given), ("environment", name, key), "environments are made before")


def _check_requires(requires: object, version: str | None, faults: Faults) -> None:
    if not isinstance(requires, str):
        return
    if version is None:  # the package is not imported from here: it knows the floors above
        version = str(sys.modules["pipesmith"].__version__)
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


def _cache(table: Mapping[str, Any], stores: Mapping[str, Datastore], faults: Faults) -> CacheConfig:
    links = table.get("link", ["reflink", "hardlink", "copy"])
    for index, way in enumerate(links):
        if way not in ("reflink", "hardlink", "copy"):
            faults.unknown(("cache", "link", index), "way to link", way, ("reflink", "hardlink", "copy"))
    if not links:
        faults.add(("cache", "link"), "names no way to link", 'write `link = ["copy"]` for plain copies')
    if "remote" in table:
        faults.no_password(table["remote"], ("cache", "remote"))
        known_datastore(table["remote"], ("cache", "remote"), stores, faults)
    for index, key in enumerate(table.get("trust", ())):
        if not key.startswith("sha256:") or key == "sha256:":
            faults.add(("cache", "trust", index), f"`{key}` is not a key's fingerprint", 'write `"sha256:…"`')
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
    wanted: Any,
    groups: Mapping[str, tuple[str, ...]],
    stages: Mapping[str, Stage],
    lost: Collection[str],
    faults: Faults,
) -> tuple[str, ...]:
    """Return what `targets` names: stages, all cells of a matrix, makers of output paths; without it, every stage."""
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
        elif name.partition("@")[0] not in lost:
            faults.unknown(("pipeline", "targets", index), "stage", name, [*groups, *stages])
    return tuple(chosen)
