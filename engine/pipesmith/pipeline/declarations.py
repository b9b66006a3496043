"""The tables that stages refer to: datastores, datasets, environments."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Mapping
from typing import Any

from pipesmith.pipeline.curated import curated
from pipesmith.pipeline.faults import Faults
from pipesmith.pipeline.keys import TABLES, Path
from pipesmith.pipeline.model import Dataset, Datastore, Environment
from pipesmith.pipeline.params import lookup
from pipesmith.pipeline.texts import Texts

__all__ = ["NAME", "known_datastore", "read_datasets", "read_datastores", "read_environments"]

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+-]*")
_CREDENTIALS = re.compile(r"(env|file|cmd|keyring):\S.*|ambient")
_PYTHON = re.compile(r"3(\.\d+){0,2}|system")
_REPOSITORY = re.compile(r"git\+.+@[^@:]+:(dataset/[^/]+|stage/.+\.[^./]+)")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_REQUIRED_NAME = re.compile(r"^[\w.\s-]+(?:\[[^\]]*\]\s*)?@\s*")  # of a requirement, before its URL
_PARAM = re.compile(r"\{params\.([^{}]+)\}")
_BOUND = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/|::|(?<![\w:]):([A-Za-z_]\w*)", re.DOTALL)


def known_datastore(text: str, where: Path, stores: Mapping[str, Datastore], faults: Faults) -> None:
    """Check `DATASTORE:REST` or a URL: a fault where the datastore is unknown."""
    head, colon, _rest = text.partition(":")
    if "://" in text and colon:
        return
    if not colon and text not in stores:
        faults.add(where, f"`{text}` is neither `DATASTORE:PREFIX` nor a URL", _store_help(stores))
    elif head not in stores:
        faults.unknown(where, "datastore", head, stores)


def _store_help(stores: Mapping[str, Datastore]) -> str:
    return f"write `{next(iter(stores))}:PREFIX`" if stores else "declare one: `[datastore.NAME]` with `url`"


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
        if _lacks(value[name], "url"):
            faults.add(where, "has no `url`", 'write `url = "s3://bucket/prefix"`')
        url = table.get("url", "")
        if "url" in table and not _URL.match(url):
            faults.add((*where, "url"), f"`{url}` is not a URL", "write `file:///folder`, `s3://bucket/prefix`, …")
        faults.no_password(url, (*where, "url"))
        credentials = table.get("credentials")
        if credentials is not None and not _CREDENTIALS.fullmatch(credentials):
            faults.add(
                (*where, "credentials"),
                "is none of `env:`, `file:`, `cmd:`, `keyring:`, `ambient`: a secret is refused",
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
        given = table.get("from", [])
        sources = (given,) if isinstance(given, str) else tuple(given)
        if ("from" in table and not sources) or ("from" not in table and _lacks(value[name], "from")):
            faults.add(where, "has no `from`", 'write `from = "DATASTORE:GLOB"`, a URL or a path')
        for index, source in enumerate(sources):
            place = (*where, "from") if isinstance(given, str) else (*where, "from", index)
            _check_source(source, place, stores, faults)
        faults.table(table.get("options", {}), TABLES["options"], (*where, "options"))
        bound = _bound(table.get("params", {}), params, (*where, "params"), faults)
        _check_query(table, sources, bound, stores, where, faults)
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


def _lacks(table: Any, key: str) -> bool:
    return isinstance(table, dict) and key not in table


def _check_source(source: str, where: Path, stores: Mapping[str, Datastore], faults: Faults) -> None:
    faults.no_password(source, where)
    if not source:
        faults.add(where, "is empty", 'write `from = "DATASTORE:GLOB"`, a URL or a path')
    elif source.startswith("git+"):
        if not _REPOSITORY.fullmatch(source):
            faults.add(
                where,
                f"`{source}` names no dataset or output of a repository",
                "write `git+URL@REV:dataset/NAME` or `git+URL@REV:stage/NAME.OUTPUT`",
            )
    elif "://" not in source:
        head, colon, _rest = source.partition(":")
        if colon and NAME.fullmatch(head) and head not in stores:
            faults.unknown(where, "datastore", head, stores)


def _check_query(
    table: Mapping[str, Any],
    sources: tuple[str, ...],
    bound: Mapping[str, Any],
    stores: Mapping[str, Datastore],
    where: Path,
    faults: Faults,
) -> None:
    """Check that a SQL datastore and a query come together, and the query's `:name` and `params` likewise."""
    query = table.get("query")
    whole = [source for source in sources if source in stores]
    if query is None:
        if whole:
            help = f'add `query = "select …"`, or write `{whole[0]}:GLOB` where it holds files'
            faults.add((*where, "from"), f"names the datastore `{whole[0]}` without a `query`", help)
        if "params" in table:
            faults.add((*where, "params"), "are of a `query`, and there is none", 'add `query = "select …"`')
        return
    if len(sources) != 1 or not whole:
        faults.add((*where, "query"), "needs `from` to name one SQL datastore", 'write `from = "DATASTORE"`')
    used = [match[1] for match in _BOUND.finditer(query) if match[1] is not None]
    for name in used:
        if name not in bound:
            faults.unknown((*where, "query"), "parameter", f":{name}", [f":{known}" for known in bound])
    for name in bound:
        if name not in used:
            faults.add((*where, "params", name), f"the query has no `:{name}`", "take it out")


def _bound(table: Mapping[str, Any], params: Mapping[str, Any], where: Path, faults: Faults) -> dict[str, Any]:
    """Return bound parameters; `{params.K}` alone keeps the param's type, inside a text it is text."""
    texts = Texts("", {}, {}, params, faults)
    bound: dict[str, Any] = {}
    for name, value in table.items():
        match = _PARAM.fullmatch(value) if isinstance(value, str) else None
        if match is not None and texts.has_param(f"params.{match[1]}"):
            bound[name] = lookup(params, match[1])
        elif isinstance(value, str):
            bound[name] = texts.plain(value, (*where, name))
        else:
            bound[name] = value
        if isinstance(bound[name], (dict, list)):
            faults.add((*where, name), "must be a single value", "bind its parts one by one")
    return bound


def read_environments(
    value: Mapping[str, Any], files: Callable[[str], bytes | None], faults: Faults
) -> dict[str, Environment]:
    """files(path): bytes of a requirements file or Dockerfile, None where there is none."""
    tables = _tables(value, "environment", faults)
    return {name: _environment(name, tables, value[name], files, faults) for name in tables}


def _environment(
    name: str,
    tables: Mapping[str, dict[str, Any]],
    raw: Any,
    files: Callable[[str], bytes | None],
    faults: Faults,
) -> Environment:
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
    if not ways and python is None and isinstance(raw, dict) and raw.keys() <= {"base", "registry"}:
        faults.add(where, "says nothing of what it is made of", 'add `packages = ["…"]`')
    paths = {key: _file(table, key, where, raw, files, faults) for key in ("requirements", "dockerfile")}
    if "channels" in table and "conda" not in ways:
        faults.add((*where, "channels"), "`channels` are where `conda` packages come from, and it has none", "add some")
    for index, text in enumerate(table.get("channels", ())):
        faults.no_password(text, (*where, "channels", index))
    for index, text in enumerate(tables[name].get("packages", ())):
        url = _REQUIRED_NAME.sub("", text)
        faults.no_password(
            url, (*where, "packages", index), instead="uv reads `~/.netrc`, and git its credential helper"
        )
    for key in ("image", "registry", "base"):
        if key in table:
            faults.no_password(table[key], (*where, key))
    return Environment(
        name=name,
        python=python,
        packages=tuple(table.get("packages", ())),
        requirements=paths["requirements"],
        conda=tuple(table.get("conda", ())),
        channels=tuple(dict.fromkeys(table.get("channels", ()))),
        image=table.get("image"),
        dockerfile=paths["dockerfile"],
        base=table.get("base"),
        registry=table.get("registry"),
        definition=json.dumps(table, sort_keys=True),
    )


def _file(
    table: Mapping[str, Any],
    key: str,
    where: Path,
    raw: Any,
    files: Callable[[str], bytes | None],
    faults: Faults,
) -> str | None:
    """Return the path of a file that an environment names. That it is missing is a fault of the table naming it."""
    if key not in table:
        return None
    if not isinstance(raw, dict) or key not in raw:  # from the table that it extends, which has the fault
        return posixpath.normpath(str(table[key]))
    path = faults.path(table[key], (*where, key))
    if path is not None and files(path) is None:
        faults.add((*where, key), f"`{path}` does not exist", f"create it, or take `{key}` out")
    return path


def _extended(name: str, tables: Mapping[str, dict[str, Any]], faults: Faults) -> dict[str, Any]:
    """Return a table with what it extends below it: lists are joined, other keys replaced."""
    chain: list[Mapping[str, Any]] = [tables[name]]
    seen = [name]
    following = tables[name].get("extends")
    while following is not None:
        where = ("environment", seen[-1], "extends")
        if following.startswith("curated:"):
            found = curated().get(following.removeprefix("curated:"))
            if found is None:
                faults.unknown(where, "curated environment", following, [f"curated:{known}" for known in curated()])
            else:
                chain.append(found)
            break
        if following in seen:
            if following == name == min(seen, key=list(tables).index):  # each circle is told once
                text = " -> ".join(f"`{n}`" for n in (*seen, following))
                faults.add(("environment", name, "extends"), f"extends itself: {text}", "take one of these out")
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
