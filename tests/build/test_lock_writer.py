"""What the writer of the lockfile still holds when it can't write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipesmith.build.lock_writer import LockWriter
from pipesmith.lockfile.model import Lockfile, StageLock
from pipesmith.lockfile.reader import parse


def test_what_could_not_be_written_is_pending(tmp_path: Path) -> None:
    """A read-only clone: with nothing new there is nothing to complain of; a new entry waits for the next writing."""
    locked_out = [True]

    @contextmanager
    def guard() -> Iterator[None]:
        if locked_out[0]:
            raise PermissionError(13, "Permission denied")
        yield

    path = tmp_path / "pipe.lock"
    writer = LockWriter(str(path), guard, None, Lockfile())
    keep = (["a"], [], [])
    with pytest.raises(PermissionError):
        writer.write(keep=keep)
    assert not writer.pending()
    entry = StageLock(fingerprint="ab" * 32, run="true")
    writer.set_stage("a", entry)
    with pytest.raises(PermissionError):
        writer.write(keep=keep)
    assert writer.pending()
    locked_out[0] = False
    writer.write(keep=keep)
    assert not writer.pending()
    assert parse(path.read_text()).stages == {"a": entry}
