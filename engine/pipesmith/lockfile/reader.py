"""Reads pipe.lock. One that can't be read is the user's file: an error, and it is not overwritten."""

from __future__ import annotations

import marshal
import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Protocol

from pipesmith.digest import Digest
from pipesmith.errors import ConfigError, Finding, UserError
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

__all__ = ["Memory", "has_markers", "parse"]

_MARKER = re.compile(r"^(<{7} |={7}$|>{7} |\|{7} )", re.MULTILINE)
_PLACE = re.compile(r"\(at line (\d+)")


class Memory(Protocol):
    """Where parsed texts are remembered: the state database."""

    def query(self, sql: str, args: Any = ()) -> list[Any]: ...
    def write(self, statements: Any) -> None: ...


def has_markers(text: str) -> bool:
    """Return whether a text has git's conflict markers."""
    return "<<<<<<<" in text and _MARKER.search(text) is not None


def parse(text: str, *, file: str = "pipe.lock", cache: Memory | None = None) -> Lockfile:
    """Return the lockfile of a text. Raises UserError where it has conflict markers, is of a later version or no lockfile at all."""
    return _lockfile(_document(text, file, cache), file)


def _document(text: str, file: str, cache: Memory | None) -> dict[str, Any]:
    key = ""
    if cache is not None and len(text) > 20_000:
        key = f"lock-{blake2b(text.encode('utf-8', 'surrogateescape'), digest_size=16).hexdigest()}"
        for (value,) in cache.query("SELECT value FROM parsed WHERE key = ?", (key,)):
            try:
                return marshal.loads(value)  # type: ignore[no-any-return]
            except (ValueError, EOFError, TypeError):
                break
    if has_markers(text):
        line = text.count("\n", 0, text.index("<<<<<<<")) + 1
        raise ConfigError(
            [Finding(file=file, line=line, text="has conflict markers", help="run `pipe lock resolve`, then build")]
        )
    import tomllib

    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        place = _PLACE.search(str(error))
        raise ConfigError(
            [
                Finding(
                    file=file,
                    line=int(place[1]) if place else None,
                    text=f"can't be read: {error}",
                    help=f"restore it with `git checkout {file}`, or remove it and build",
                )
            ]
        ) from None
    if key and cache is not None:
        try:
            value = marshal.dumps(document, 2)
        except ValueError:  # dates in params
            return document
        cache.write(
            [
                ("DELETE FROM parsed WHERE key LIKE 'lock-%' AND key NOT IN (SELECT key FROM parsed LIMIT 20)", ()),
                ("INSERT OR REPLACE INTO parsed VALUES (?, ?)", (key, value)),
            ]
        )
    return document


def _lockfile(document: Mapping[str, Any], file: str) -> Lockfile:
    version = document.get("version")
    if isinstance(version, int) and version > LOCK_VERSION:
        raise UserError(
            f"{file} is of version {version}, this pipesmith reads version {LOCK_VERSION}", "update pipesmith"
        )
    try:
        if version != LOCK_VERSION:
            raise KeyError("version")
        return Lockfile(
            stages={name: _stage(entry) for name, entry in document.get("stage", {}).items()},
            environments={name: _environment(entry) for name, entry in document.get("environment", {}).items()},
            datasets={name: _dataset(entry) for name, entry in document.get("dataset", {}).items()},
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"{file} is not a lockfile that can be read (at {error})",
            f"restore it with `git checkout {file}`, or remove it and build",
        ) from None


def _text(value: str) -> str:
    """Return a text with private code points as the bytes that they stand for."""
    if value.isascii():
        return value
    return "".join(chr(ord(c) - 0xF700 + 0xDC00) if 0xF780 <= ord(c) <= 0xF7FF else c for c in value)


def _digest(entry: Mapping[str, Any]) -> Digest:
    return Digest(entry["hash"], entry[entry["hash"]], entry["size"], entry.get("nfiles"))


def _stage(entry: Mapping[str, Any]) -> StageLock:
    run = entry.get("run")
    accepted = entry.get("accepted")
    return StageLock(
        fingerprint=entry["fingerprint"],
        run=tuple(run) if isinstance(run, list) else run,
        cwd=_text(entry.get("cwd", ".")),
        kind=entry.get("kind", "command"),
        source={_text(each["path"]): each["git"] for each in entry.get("source", ())},
        deps=tuple(
            LockedDep(name=_text(each["name"]), path=_text(each["path"]), digest=_digest(each), git=each.get("git"), at=_text(each.get("at", "")))
            for each in entry.get("deps", ())
        ),
        params=dict(entry.get("params", {})),
        env=dict(entry.get("env", {})),
        environment=entry.get("environment"),
        hash_paths={_text(path): identity for path, identity in entry.get("hash-paths", {}).items()},
        outs=tuple(
            LockedOut(
                name=_text(each["name"]), path=_text(each["path"]), digest=_digest(each), cache=each.get("cache", True)
            )
            for each in entry.get("outs", ())
        ),
        metrics={name: float(number) for name, number in entry.get("metrics", {}).items()},
        accepted=Accepted(fingerprint=accepted["fingerprint"], reason=accepted["reason"], by=accepted["by"])
        if accepted
        else None,
    )


def _environment(entry: Mapping[str, Any]) -> EnvironmentPin:
    return EnvironmentPin(
        definition=entry["definition"],
        python=entry["python"],
        resolved=tuple(entry.get("resolved", ())),
        image=entry.get("image"),
    )


def _dataset(entry: Mapping[str, Any]) -> DatasetPin:
    return DatasetPin(
        definition=entry["definition"],
        digest=_digest(entry),
        objects=tuple(
            PinnedObject(name=_text(each["name"]), size=each["size"], version=each["version"], hash=each["hash"])
            for each in entry.get("objects", ())
        ),
    )
