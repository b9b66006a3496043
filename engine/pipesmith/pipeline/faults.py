"""Collects what is wrong with a pipeline.toml, and finds the lines only when there is something to report."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pipesmith.errors import ConfigError, Finding, nearest
from pipesmith.pipeline.keys import Key, Path, found, type_error

__all__ = ["Faults"]

_PASSWORD = (
    r"(?i)[a-z][a-z0-9+.-]*://(?:[^/@:?#]*:[^/@]+@"
    r"|[^?#]*\?(?:[^#]*&)?(?:password|passwd|pwd|secret|token|sig|api_?key|access_key|secret_key)=[^&#])"
)
_DATASTORE = 'a `[datastore.NAME]` names it by `credentials = "env:VARIABLE"`'
_CONTROL = r"[\x00-\x1f\x7f]"


class Faults:
    """The faults of one file. Paths are key paths as tomllib nests them; indexes of lists are ints.

    params_lost: some params could not be read, so that a param which seems unknown is no fault of its own.
    """

    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file
        self._found: dict[tuple[Path, str, str | None], None] = {}
        self._others: list[Finding] = []
        self._positions: dict[Path, int] | None = None
        self.params_lost = False

    @property
    def any(self) -> bool:
        return bool(self._found or self._others)

    def add(self, path: Path, text: str, help: str | None = None) -> None:
        """Add a fault of the key at `path`, once."""
        self._found[path, text, help] = None

    def other(self, file: str, line: int | None, text: str, help: str | None = None) -> None:
        """Add a fault of another file, or of the command line."""
        self._others.append(Finding(file=file, line=line, text=text, help=help))

    def unknown(self, path: Path, what: str, name: str, known: Iterable[str]) -> None:
        """Add that `name` names nothing, with the nearest name."""
        names = list(dict.fromkeys(known))
        near = nearest(name, names)
        if near:
            help = f"did you mean `{near}`?"
        elif names:
            help = f"known: {', '.join(f'`{n}`' for n in names[:8])}{', …' if len(names) > 8 else ''}"
        else:
            table = f": declare `[{what}.{name}]`" if what in ("datastore", "dataset", "environment", "stage") else ""
            help = f"there is no {what} yet{table}"
        self.add(path, f"unknown {what} `{name}`", help)

    def table(self, value: Any, keys: Mapping[str, Key], path: Path) -> dict[str, Any]:
        """Return what is right of a table; unknown keys and wrong types become faults."""
        if not isinstance(value, dict):
            self.add(path, f"expected a table, found {found(value)}")
            return {}
        good = {}
        for name, entry in value.items():
            key = keys.get(name)
            if key is None:
                self.unknown((*path, name), "key", name, keys)
                continue
            wrong = type_error(entry, key)
            if wrong is not None:
                self.add((*path, name), wrong)
            else:
                good[name] = entry
        return good

    def path(self, value: str, where: Path, *, what: str | None = None) -> str | None:
        """Return a workspace path normalised, None where it leaves the workspace (a fault then)."""
        hint = None
        if what is not None:
            hint = f'write `[dataset.{what}]` with `from = "{value}"`, and `{what} = "dataset:{what}"` here'
        if not value:
            self.add(where, "an empty path", "name a file or folder of the workspace")
            return None
        if re.search(_CONTROL, value):
            self.add(where, f"{value!r} has a character that paths here can't have")
            return None
        if value.startswith("/"):
            self.add(where, f"`{value}` is absolute: paths are relative to the workspace", hint)
            return None
        if value.startswith("~"):
            self.add(where, f"`{value}` leads out of the workspace", hint)
            return None
        clean = posixpath.normpath(value)
        if clean == ".." or clean.startswith("../"):
            self.add(where, f"`{value}` leads out of the workspace", hint)
            return None
        return clean

    def no_password(self, url: str, where: Path, *, instead: str = _DATASTORE) -> None:
        """Refuse a password inside a URL. instead: where it may stand instead."""
        if re.match(_PASSWORD, url):
            self.add(where, "a password inside a URL is refused", f"take it out; {instead}")

    def line(self, path: Path) -> int | None:
        """Return the line of a key, or of the nearest key above it."""
        if self._positions is None:
            from pipesmith.pipeline.positions import positions

            self._positions = positions(self._text)
        for length in range(len(path), 0, -1):
            offset = self._positions.get(path[:length])
            if offset is not None:
                return self._text.count("\n", 0, offset) + 1
        return None

    def raise_if_any(self) -> None:
        """Raise ConfigError with all faults in the order of the file."""
        if not self._found and not self._others:
            return
        findings = []
        for path, text, help in self._found:
            key = ".".join(part if isinstance(part, str) else str(part) for part in _trimmed(path))
            findings.append(Finding(file=self._file, line=self.line(path), key=key or None, text=text, help=help))
        findings.sort(key=lambda finding: finding.line or 0)
        raise ConfigError([*findings, *self._others])


def _trimmed(path: Path) -> Path:
    """Return a path without the index of a list at its end."""
    return path[:-1] if path and isinstance(path[-1], int) else path
