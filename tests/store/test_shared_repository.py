"""`core.sharedRepository`, from outside: a colleague of the group can use what a build left."""

from __future__ import annotations

import os
import stat

PIPELINE = """
    [stage.a]
    run = "echo 1 > {outputs.o}"
    outputs = { o = "o.txt" }
"""


def test_all_that_a_build_leaves_is_the_groups(repo) -> None:  # type: ignore[no-untyped-def]
    repo.write("pipeline.toml", PIPELINE)
    repo.git("config", "core.sharedRepository", "group")
    old = os.umask(0o077)
    try:
        repo.pipe("build")
    finally:
        os.umask(old)
    for name in ("", "cache", "cache/files/blake3", "cache/actions", "locks", "tmp", "logs"):
        assert stat.S_IMODE((repo.pipe_dir / name).stat().st_mode) == 0o2770, name
    assert stat.S_IMODE((repo.pipe_dir / "state.db").stat().st_mode) == 0o660
    assert stat.S_IMODE((repo.pipe_dir / "locks/table").stat().st_mode) == 0o660
    for where, _folders, files in os.walk(repo.pipe_dir / "cache"):
        for name in files:
            assert os.stat(os.path.join(where, name)).st_mode & 0o040, name


def test_without_it_the_umask_says(repo) -> None:  # type: ignore[no-untyped-def]
    repo.write("pipeline.toml", PIPELINE)
    old = os.umask(0o077)
    try:
        repo.pipe("build")
    finally:
        os.umask(old)
    for where, folders, files in os.walk(repo.pipe_dir):
        for name in [*folders, *files]:
            assert not os.lstat(os.path.join(where, name)).st_mode & 0o077, f"{where}/{name}"
