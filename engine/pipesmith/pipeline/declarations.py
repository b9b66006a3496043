"""The tables that stages refer to: datastores, datasets, environments, computes."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from pipesmith.pipeline.curated import CURATED
from pipesmith.pipeline.faults import Faults
from pipesmith.pipeline.keys import COMPUTE_KINDS, TABLES
from pipesmith.pipeline.model import Compute, Dataset, Datastore, Environment
from pipesmith.pipeline.params import lookup
from pipesmith.pipeline.placeholders import fill, names_in, unescape

__all__ = ["NAME", "read_computes", "read_datasets", "read_datastores", "read_environments"]

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+-]*")
_CREDENTIALS = re.compile(r"(env|file|cmd|keyring):.+|ambient")
_PYTHON = re.compile(r"3(\.\d+){0,2}|system")
_KIND_KEYS: Mapping[str, frozenset[str]] = {
    "local": frozenset({"gpus", "max-jobs", "cpus", "memory"}),
    "docker": frozenset({"host", "hosts", "tls", "max-jobs", "gpus", "cpus", "memory"}),
    "slurm": frozenset(
        {
            "partition",
            "account",
            "qos",
            "options",
            "shared",
            "max-jobs",
            "min-nodes",
            "max-nodes",
            "idle",
            "gpus",
            "cpus",
            "memory",
        }
    ),
    "ray": frozenset({"address", "max-jobs", "min-nodes", "max-nodes", "idle", "gpus", "cpus", "memory"}),
}


def _tables(value: Mapping[str, Any], kind: str, faults: Faults) -> dict[str, dict[str, Any]]:
    """Return the checked sub-tables by name."""
    found = {}
    for name, table in value.items():
        if not NAME.fullmatch(name):
            faults.add((kind, name), f"`{name}` can't be a name", "use letters, digits, `_`, `-` and `+`")
        found[name] = faults.table(table, TABLES[kind], (kind, name))
    return found


def read_datastores(value: Mapping[str, Any], faults: Faults) -> dict[str, Datastore]:
    stores = {}
    for name, table in _tables(value, "datastore", faults).items():
        where = ("datastore", name)
        if "url" not in table and isinstance(value[name], dict) and "url" not in value[name]:
            faults.add(where, "has no `url`")
        url = table.get("url", "")
        faults.no_password(url, (*where, "url"))
        credentials = table.get("credentials")
        if credentials is not None and not _CREDENTIALS.fullmatch(credentials):
            faults.add(
                (*where, "credentials"),
                "is neither `env:`, `file:`, `cmd:`, `keyring:` nor `ambient`; a secret itself is refused",
                'put the secret into a variable and write `credentials = "env:NAME"`',
            )
        stores[name] = Datastore(name=name, url=url, credentials=credentials)
    return stores


def read_datasets(
    value: Mapping[str, Any], stores: Mapping[str, Datastore], params: Mapping[str, Any], faults: Faults
) -> dict[str, Dataset]:
    datasets = {}
    for name, table in _tables(value, "dataset", faults).items():
        where = ("dataset", name)
        if "from" not in table and isinstance(value[name], dict) and "from" not in value[name]:
            faults.add(where, "has no `from`")
        given = table.get("from", [])
        sources = (given,) if isinstance(given, str) else tuple(given)
        for index, source in enumerate(sources):
            place = (*where, "from") if isinstance(given, str) else (*where, "from", index)
            faults.no_password(source, place)
            head, colon, _rest = source.partition(":")
            if colon and "//" not in source and NAME.fullmatch(head) and head not in stores and "/" not in head:
                faults.unknown(place, "datastore", head, stores)
        if "query" in table and not (len(sources) == 1 and sources[0] in stores):
            faults.add((*where, "query"), "needs `from` to name one SQL datastore")
        bound = _bound(table.get("params", {}), params, (*where, "params"), faults)
        definition = {**table, "params": bound} if bound else table
        datasets[name] = Dataset(
            name=name,
            sources=sources,
            query=table.get("query"),
            bound=bound,
            format=table.get("format"),
            options=table.get("options", {}),
            definition=json.dumps(definition, sort_keys=True, default=str),
        )
    return datasets


def _bound(
    table: Mapping[str, Any], params: Mapping[str, Any], where: tuple[str, ...], faults: Faults
) -> dict[str, Any]:
    bound = {}
    for name, value in table.items():
        if isinstance(value, str):
            for used in names_in(value):
                space, _, key = used.partition(".")
                if space != "params" or not _has(params, key):
                    faults.unknown((*where, name), "placeholder", used, [f"params.{k}" for k in params])
            names = names_in(value)
            if len(names) == 1 and value == f"{{{names[0]}}}" and _has(params, names[0].partition(".")[2]):
                value = lookup(params, names[0].partition(".")[2])
            else:
                value = unescape(
                    fill(
                        value,
                        lambda n: (
                            str(lookup(params, n[7:])) if n.startswith("params.") and _has(params, n[7:]) else None
                        ),
                    )
                )
        bound[name] = value
    return bound


def _has(params: Mapping[str, Any], key: str) -> bool:
    try:
        lookup(params, key)
    except KeyError:
        return False
    return True


def read_environments(value: Mapping[str, Any], faults: Faults) -> dict[str, Environment]:
    tables = _tables(value, "environment", faults)
    return {name: _environment(name, tables, faults) for name in tables}


def _environment(name: str, tables: Mapping[str, dict[str, Any]], faults: Faults) -> Environment:
    where = ("environment", name)
    table = _extended(name, tables, faults)
    ways = [way for way in ("packages", "requirements", "conda", "image", "dockerfile") if way in table]
    if ("image" in ways and len(ways) > 1) or ("dockerfile" in ways and len(ways) > 1):
        faults.add(
            where, f"has {' and '.join(f'`{way}`' for way in ways)}: an image is whole in itself", "keep one of them"
        )
    python = table.get("python")
    if python is not None and not _PYTHON.fullmatch(python):
        faults.add(
            (*where, "python"), f"`{python}` is not a Python version", 'write `python = "3.11"` or `python = "system"`'
        )
    if python == "system" and ways:
        faults.add(
            (*where, "python"),
            f"`system` goes with nothing else, here `{ways[0]}`",
            'name a version: `python = "3.11"`',
        )
    if not ways and python is None:
        faults.add(where, "says nothing of what it is made of", 'add `packages = ["…"]`')
    requirements = table.get("requirements")
    if requirements is not None:
        requirements = faults.path(requirements, (*where, "requirements"))
    dockerfile = table.get("dockerfile")
    if dockerfile is not None:
        dockerfile = faults.path(dockerfile, (*where, "dockerfile"))
    for key in ("image", "registry", "base"):
        if key in table:
            faults.no_password(table[key], (*where, key))
    return Environment(
        name=name,
        python=python,
        packages=tuple(table.get("packages", ())),
        requirements=requirements,
        conda=tuple(table.get("conda", ())),
        image=table.get("image"),
        dockerfile=dockerfile,
        base=table.get("base"),
        registry=table.get("registry"),
        definition=json.dumps(table, sort_keys=True),
    )


def _extended(name: str, tables: Mapping[str, dict[str, Any]], faults: Faults) -> dict[str, Any]:
    """Return a table with what it extends below it: lists are joined, other keys replaced."""
    chain: list[Mapping[str, Any]] = [tables[name]]
    seen = [name]
    following = tables[name].get("extends")
    while following is not None:
        where = ("environment", seen[-1], "extends")
        if following.startswith("curated:"):
            curated = CURATED.get(following.removeprefix("curated:"))
            if curated is None:
                faults.unknown(where, "curated environment", following, [f"curated:{known}" for known in CURATED])
            else:
                chain.append(curated)
            break
        if following in seen:
            faults.add(where, f"extends itself: {' -> '.join(f'`{n}`' for n in (*seen, following))}")
            break
        if following not in tables:
            faults.unknown(where, "environment", following, tables)
            break
        seen.append(following)
        chain.append(tables[following])
        following = tables[following].get("extends")
    merged: dict[str, Any] = {}
    for table in reversed(chain):
        for key, value in table.items():
            if key != "extends":
                merged[key] = [*merged.get(key, []), *value] if isinstance(value, list) else value
    return merged


def read_computes(value: Mapping[str, Any], kinds: Collection[str], faults: Faults) -> dict[str, Compute]:
    computes = {"local": Compute(name="local")}
    for name, raw in value.items():
        where = ("compute", name)
        if not isinstance(raw, dict):
            faults.add(where, "expected a table")
            continue
        kind = raw.get("kind", "local" if name == "local" else None)
        if kind is None:
            faults.add(where, "has no `kind`", f"write one of {', '.join(f'`{k}`' for k in COMPUTE_KINDS)}")
            continue
        if name == "local" and kind != "local":
            faults.add((*where, "kind"), "the compute `local` is this machine", "give the other one another name")
        if not isinstance(kind, str) or kind not in (*COMPUTE_KINDS, *kinds):
            faults.unknown((*where, "kind"), "kind of compute", str(kind), [*COMPUTE_KINDS, *kinds])
            continue
        allowed = _KIND_KEYS.get(kind)
        if allowed is None:  # a plugin checks its own options
            computes[name] = Compute(name=name, kind=kind, max_jobs=raw.get("max-jobs"), options=raw)
            continue
        keys = {key: TABLES["compute"][key] for key in TABLES["compute"] if key in allowed or key == "kind"}
        table = faults.table(raw, keys, where)
        for key in ("host", "address"):
            if key in table:
                faults.no_password(table[key], (*where, key))
        if "host" in table and "hosts" in table:
            faults.add((*where, "hosts"), "stands beside `host`", "keep one of them")
        options = {key: entry for key, entry in table.items() if key not in ("kind", "gpus", "max-jobs")}
        computes[name] = Compute(
            name=name, kind=kind, gpus=table.get("gpus"), max_jobs=table.get("max-jobs") or None, options=options
        )
    return computes
