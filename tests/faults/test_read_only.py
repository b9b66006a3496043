"""A repository that can't be written: looking works, a build that has nothing to do works, one that has says what it
needs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import Repo

from .conftest import Bed, nobody_left


@pytest.fixture
def sealed(bed: Bed) -> Iterator[Bed]:
    """A built repository on a read-only mount."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    bed.repo.pipe("build")
    bed.repo.commit()
    bed.repo.ran()
    path = bed.repo.path
    subprocess.run(["mount", "--bind", path, path], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", path], check=True)
    yield bed
    subprocess.run(["umount", "-l", path], check=True)


def check_looking(repo: Repo) -> None:
    states = repo.pipe("status", "--json", "--check").stages(key="state")
    assert set(states.values()) == {"fresh"}
    at_head = repo.pipe("status", "--rev", "HEAD", "--json").stages(key="state")
    assert set(at_head.values()) == {"fresh"}
    for _ in range(2):
        result = repo.pipe("build", "--json")
        assert result.json()["status"] == "up-to-date"
        assert "Traceback" not in result.stderr
    assert repo.ran() == []
    for words in (["runs"], ["why", "file"], ["graph"], ["metrics"], ["verify"], ["doctor"], ["status"]):
        result = repo.pipe(*words, check=False)
        assert "Traceback" not in result.stdout + result.stderr, words
        assert result.returncode in (0, 1), (words, result.stderr)


def test_a_read_only_mount(sealed: Bed) -> None:
    check_looking(sealed.repo)


def test_a_forced_build_on_a_read_only_mount(sealed: Bed) -> None:
    result = sealed.repo.pipe("build", "--force", check=False)
    assert result.returncode == 1
    assert "Traceback" not in result.stdout + result.stderr
    assert "read-only" in (result.stdout + result.stderr).lower()
    assert nobody_left(sealed.repo.home) == {}
    sealed.check_outputs()


def test_without_state_db_on_a_read_only_mount(bed: Bed) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    bed.repo.pipe("build")
    bed.repo.commit()
    bed.repo.ran()
    for path in bed.repo.pipe_dir.glob("state.db*"):
        path.unlink()
    path = bed.repo.path
    subprocess.run(["mount", "--bind", path, path], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", path], check=True)
    try:
        check_looking(bed.repo)
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def test_folders_without_write_permission(bed: Bed) -> None:
    """As an ordinary user; root may write all the same, and then just nothing may go wrong."""
    bed.repo.pipe("build")
    bed.repo.commit()
    bed.repo.ran()
    folders = [Path(where) for where, _folders, _files in os.walk(bed.repo.path)]
    for folder in folders:
        folder.chmod(0o555)
    try:
        check_looking(bed.repo)
    finally:
        for folder in folders:
            folder.chmod(0o755)
