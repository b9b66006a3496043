"""Reads pipeline.toml, or remembers what reading the very same came to."""

from __future__ import annotations

import marshal
import os
from _blake2 import blake2b
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pipesmith import __version__, pipeline
from pipesmith.errors import ConfigError, Finding
from pipesmith.pipeline.frozen import SHAPE, freeze, thaw
from pipesmith.records import replace

if TYPE_CHECKING:
    from pipesmith.pipeline.model import Pipeline
    from pipesmith.store.state_db import StateDB

__all__ = ["read", "text_of"]


def text_of(data: bytes, file: str) -> str:
    """Return the text of a pipeline.toml, as one that is opened as text has it. file: what it is called. Raises
    ConfigError for what is no UTF-8."""
    try:
        return data.decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([Finding(file=file, line=line, text=f"is not UTF-8: {error.reason}")]) from None


def read(
    text: str,
    *,
    root: str,
    files: Callable[[str], bytes | None],
    overrides: Mapping[str, str],
    environ: Mapping[str, str],
    state: StateDB,
    file: str | None = None,
) -> Pipeline:
    """Return the checked pipeline of a workspace. Arguments and exceptions are those of `read_pipeline`.

    file: what the text of a commit is called; that is remembered beside the work tree's. What is remembered holds for
    the same text, variables and program, and as long as the files that were asked for (params, requirements) are what
    they were. A fault is never remembered: its line is looked for anew.
    """
    name = os.path.basename(root)
    own = f"pipeline:{root}"
    key = own if file is None else f"{own} at a commit"
    what = (__version__, _program(), SHAPE, name, sorted(environ.items()), text)
    signature = _digest(marshal.dumps(what, 2))
    if not overrides:
        for (value,) in state.query("SELECT value FROM parsed WHERE key IN (?, ?)", (key, own)):
            known = _remembered(value, signature, files)
            if known is not None:
                return known if file is None else replace(known, file=file)
    from pipesmith.pipeline.reader import read_pipeline

    asked: dict[str, bytes | None] = {}
    installed: dict[str, str] = {}

    def noted(path: str) -> bytes | None:
        data = files(path)
        asked[path] = _digest(data) if data is not None else None
        return data

    def kinds() -> Mapping[str, str]:
        from pipesmith.executors.plugins import installed_kinds

        installed.update(installed_kinds())
        return installed

    found = read_pipeline(
        text,
        files=noted,
        default_name=name,
        overrides=overrides,
        environ=environ,
        file=file or "pipeline.toml",
        kinds=kinds,
    )
    frozen = freeze(found) if state.writable and not overrides and not installed else None
    if frozen is not None:
        value = marshal.dumps((signature, asked, frozen), 2)
        state.write([("INSERT OR REPLACE INTO parsed VALUES (?, ?)", (key, value))])
    return found


def _remembered(value: bytes, signature: bytes, files: Callable[[str], bytes | None]) -> Pipeline | None:
    try:
        before, asked, frozen = marshal.loads(value)
    except (ValueError, EOFError, TypeError):
        return None
    if before != signature:
        return None
    for path, digest in asked.items():
        data = files(path)
        if (_digest(data) if data is not None else None) != digest:
            return None
    return thaw(frozen)


def _program() -> list[tuple[str, int, int]]:
    """Return what changes when the code that reads does: a version may stand for many states of a developer's."""
    found = []
    with os.scandir(os.path.dirname(pipeline.__file__)) as entries:
        for entry in entries:
            if entry.name.endswith(".py"):
                info = entry.stat()
                found.append((entry.name, info.st_size, info.st_mtime_ns))
    return sorted(found)


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()
