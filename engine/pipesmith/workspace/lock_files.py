"""`lock merge`, `lock show`: what git's merge and diff drivers ask for, of files alone. No workspace is needed."""

from __future__ import annotations

import os

from pipesmith.errors import PipeError, UserError
from pipesmith.lockfile.emitter import render
from pipesmith.lockfile.merge import Merged, merge_texts

__all__ = ["merge_files", "show_file"]


def merge_files(base: str, ours: str, theirs: str, name: str) -> Merged:
    """Merge three files into that of `ours`. name: what people know it by. Raises OSError.

    An empty base counts as none. Raises UserError where a side is no lockfile: then `ours` stays as it is.
    """
    before = _text(ours)
    try:
        merged = merge_texts(before, _text(theirs), _text(base), file=name)
    except PipeError as error:
        where = "".join(f"{f.file}{f':{f.line}' if f.line else ''}: " for f in error.findings()[:1] if f.file)
        help = "ours is kept; mend the other side's (or update pipesmith), then `pipe lock resolve`"
        raise UserError(f"{where}{error.text}", help) from None
    text = render(merged.lockfile)
    if text != before:
        _replace(ours, text.encode())
    return merged


def _replace(path: str, data: bytes) -> None:
    """Put another content into the place of a file, whole or not at all."""
    ready = f"{path}.{os.getpid()}.tmp"
    try:
        with open(ready, "xb") as file:
            file.write(data)
        os.replace(ready, path)
    except OSError:
        if os.path.exists(ready):
            os.unlink(ready)
        raise


def show_file(path: str) -> str | bytes:
    """Return the facts of a lockfile, a line each; its bytes where it can't be read, or has conflict markers. Raises
    OSError."""
    from pipesmith.lockfile.facts import facts
    from pipesmith.lockfile.reader import parse

    with open(path, "rb") as file:
        data = file.read()
    try:
        return facts(parse(data.decode())) if data else ""
    except (PipeError, UnicodeDecodeError):
        return data


def _text(path: str) -> str:
    with open(path, "rb") as file:
        return file.read().decode("utf-8", "surrogateescape")
