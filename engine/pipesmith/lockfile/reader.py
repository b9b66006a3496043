"""Reads pipe.lock. One that can't be read is the user's file: an error, and it is not overwritten."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pipesmith.digest import ALGORITHMS, Digest
from pipesmith.errors import ConfigError, Finding, UserError
from pipesmith.lockfile.chunks import Memory, document_of
from pipesmith.lockfile.escapes import ESCAPE, unescape_all
from pipesmith.lockfile.markers import first_marker
from pipesmith.lockfile.model import (
    LOCK_VERSION,
    Accepted,
    DatasetPin,
    EnvironmentPin,
    LockedDep,
    LockedOut,
    Lockfile,
    PinnedObject,
    StageLock,
)
from pipesmith.records import replace

__all__ = ["Memory", "entry_of", "parse"]

_PLACE = re.compile(r"\(at line (\d+)")


def parse(text: str, *, file: str = "pipe.lock", cache: Memory | None = None) -> Lockfile:
    """Return the lockfile of a text.

    Raises UserError where it has conflict markers, is of a later version, or is no lockfile at all.
    """
    document = _document(text, file, cache)
    version = document.get("version")
    if type(version) is int and version > LOCK_VERSION:
        raise UserError(
            f"{file} is of version {version}, this pipesmith reads version {LOCK_VERSION}", "update pipesmith"
        )
    if version != LOCK_VERSION:
        raise _unreadable(text, file, "version", f"no `version = {LOCK_VERSION}`")
    if ESCAPE in text:
        document = unescape_all(document)
    return Lockfile(
        stages=_tables(text, file, document, "stage", _stage),
        environments=_tables(text, file, document, "environment", _environment),
        datasets=_tables(text, file, document, "dataset", _dataset),
    )


def entry_of(document: Mapping[str, Any]) -> tuple[str, str, Any] | None:
    """Return (kind, name, entry) of a document that is one table `[kind.name]`; None where it is anything else."""
    readers: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
        "stage": _stage,
        "environment": _environment,
        "dataset": _dataset,
    }
    if len(document) != 1:
        return None
    (kind, named), *_ = document.items()
    if kind not in readers or not isinstance(named, dict) or len(named) != 1:
        return None
    (name, entry), *_ = named.items()
    try:
        return kind, name, readers[kind](entry)
    except (KeyError, TypeError, AttributeError, ValueError):
        return None


_Entry = TypeVar("_Entry")
_Default = TypeVar("_Default", str, None)


def _tables(
    text: str, file: str, document: Mapping[str, Any], kind: str, read: Callable[[Mapping[str, Any]], _Entry]
) -> dict[str, _Entry]:
    """Return name to entry of all tables of a kind. Raises ConfigError for the first that is none."""
    found: dict[str, _Entry] = {}
    name = ""
    try:
        for name, entry in document.get(kind, {}).items():
            found[name] = read(entry)
    except KeyError as error:
        raise _unreadable(text, file, f"{kind}.{name}", f"{error} is missing") from None
    except (TypeError, AttributeError, ValueError) as error:
        raise _unreadable(text, file, f"{kind}.{name}", str(error)) from None
    return found


def _unreadable(text: str, file: str, key: str, what: str) -> ConfigError:
    kind, _, name = key.partition(".")
    header = re.search(rf'^\[{kind}\.["\']?{re.escape(name)}["\']?\]', text, re.MULTILINE) if name else None
    line = text.count("\n", 0, header.start()) + 1 if header else 1
    return ConfigError(
        [Finding(file=file, line=line, key=key, text=f"not a lockfile's: {what}", help=_restoring(file))]
    )


def _restoring(file: str) -> str:
    """Return how to have a whole lockfile again. file: a path, or `REV:path` of one that was committed as it is."""
    revision, colon, path = file.partition(":")
    where = f"`git checkout {revision}~1 -- {path}`" if colon else f"`git checkout {file}`"
    return f"restore it with {where}, or remove it and build"


def _document(text: str, file: str, cache: Memory | None) -> dict[str, Any]:
    if cache is not None:
        known = document_of(text, cache)
        if known is not None:
            return known
    line = first_marker(text)
    if line is not None:
        raise ConfigError(
            [Finding(file=file, line=line, text="has conflict markers", help="run `pipe lock resolve`, then build")]
        )
    import tomllib

    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of more digits than Python reads
        place = _PLACE.search(str(error))
        raise ConfigError(
            [
                Finding(
                    file=file,
                    line=int(place[1]) if place else None,
                    text=f"can't be read: {str(error)[:1].lower()}{str(error)[1:]}",
                    help=_restoring(file),
                )
            ]
        ) from None
    return document


def _string(entry: Mapping[str, Any], key: str) -> str:
    value = entry[key]
    if type(value) is not str:
        raise TypeError(f"`{key}` is no text")
    return value


def _text(entry: Mapping[str, Any], key: str, default: _Default) -> str | _Default:
    """Return a text that may be left out."""
    value = entry.get(key, default)
    if value is not default and type(value) is not str:
        raise TypeError(f"`{key}` is no text")
    return value


def _texts(entry: Mapping[str, Any], key: str) -> dict[str, str]:
    """Return a table of texts that may be left out."""
    table = dict(entry.get(key, ()))
    for name in table:
        _string(table, name)
    return table


def _list(value: Any, key: str) -> tuple[str, ...]:
    if type(value) is not list or not all(type(each) is str for each in value):
        raise TypeError(f"`{key}` is no list of texts")
    return tuple(value)


def _number(entry: Mapping[str, Any], key: str) -> int:
    value = entry[key]
    if type(value) is not int:
        raise TypeError(f"`{key}` is no whole number")
    return value


def _digest(entry: Mapping[str, Any]) -> Digest:
    algorithm = _string(entry, "hash")
    if algorithm not in ALGORITHMS:
        raise ValueError(f"`{algorithm}` is no hash algorithm known here")
    hex = _string(entry, algorithm)
    if not hex.removesuffix(".dir").removesuffix(".link").isalnum():
        raise ValueError(f"`{hex}` is no hash")
    return Digest(algorithm, hex, _number(entry, "size"), _number(entry, "nfiles") if "nfiles" in entry else None)


def _stage(entry: Mapping[str, Any]) -> StageLock:
    run = entry.get("run")
    accepted = entry.get("accepted")
    return StageLock(
        fingerprint=_string(entry, "fingerprint"),
        run=_list(run, "run") if type(run) is list else _text(entry, "run", None),
        cwd=_text(entry, "cwd", "."),
        kind=_text(entry, "kind", "command"),
        source={_string(each, "path"): _string(each, "git") for each in entry.get("source", ())},
        deps=tuple(_dep(each) for each in entry.get("deps", ())),
        params=dict(entry.get("params", {})),
        env=_texts(entry, "env"),
        environment=_text(entry, "environment", None),
        hash_paths=_texts(entry, "hash-paths"),
        outs=tuple(_out(each) for each in entry.get("outs", ())),
        metrics={name: float(number) for name, number in entry.get("metrics", {}).items()},
        accepted=_accepted(accepted) if accepted is not None else None,
    )


def _dep(entry: Mapping[str, Any]) -> LockedDep:
    return LockedDep(
        name=_string(entry, "name"),
        path=_string(entry, "path"),
        digest=_digest(entry),
        git=_text(entry, "git", None),
        at=_text(entry, "at", ""),
        of=_text(entry, "of", ""),
    )


def _out(entry: Mapping[str, Any]) -> LockedOut:
    digest = _digest(entry)
    if _flag(entry, "executable", False):
        digest = replace(digest, executable=True)
    cache = _flag(entry, "cache", True)
    return LockedOut(name=_string(entry, "name"), path=_string(entry, "path"), digest=digest, cache=cache)


def _flag(entry: Mapping[str, Any], key: str, default: bool) -> bool:
    value = entry.get(key, default)
    if type(value) is not bool:
        raise TypeError(f"`{key}` is neither true nor false")
    return value


def _accepted(entry: Mapping[str, Any]) -> Accepted:
    return Accepted(fingerprint=_string(entry, "fingerprint"), reason=_string(entry, "reason"), by=_string(entry, "by"))


def _environment(entry: Mapping[str, Any]) -> EnvironmentPin:
    return EnvironmentPin(
        definition=_string(entry, "definition"),
        python=_string(entry, "python"),
        resolved=_list(entry.get("resolved", []), "resolved"),
        image=_text(entry, "image", None),
        conda=_list(entry.get("conda", []), "conda"),
    )


def _dataset(entry: Mapping[str, Any]) -> DatasetPin:
    return DatasetPin(
        definition=_string(entry, "definition"),
        digest=_digest(entry),
        objects=tuple(_object(each) for each in entry.get("objects", ())),
    )


def _object(entry: Mapping[str, Any]) -> PinnedObject:
    return PinnedObject(
        name=_string(entry, "name"),
        size=_number(entry, "size"),
        version=_string(entry, "version"),
        hash=_string(entry, "hash"),
    )
