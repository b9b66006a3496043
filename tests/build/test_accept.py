"""`pipe accept STAGE --reason TEXT`."""

from __future__ import annotations

import pytest


@pytest.fixture
def edited(repo, chain):
    repo.pipe("build")
    repo.ran()
    repo.write("a.txt", "1x # a comment")
    return repo


def test_accepted_counts_as_fresh(edited) -> None:
    """What differs does not matter: the locked result counts for today's fingerprint, by an `accepted` entry in the
    lock."""
    assert "accepted" not in edited.read("pipe.lock")
    edited.pipe("accept", "a", "--reason", "a comment")
    assert "accepted" in edited.read("pipe.lock") and "a comment" in edited.read("pipe.lock")
    assert edited.pipe("status", "--check").returncode == 0
    assert "a comment" in edited.pipe("status").stdout
    assert edited.pipe("build", "--json").json()["status"] == "up-to-date"
    assert edited.ran() == []
    edited.commit()
    assert edited.pipe("status", "--rev", "HEAD", "--check").returncode == 0


def test_never_in_the_action_cache(edited) -> None:
    """Never in the action cache: without the lock the stage runs."""
    edited.pipe("accept", "a", "--reason", "a comment")
    (edited.path / "pipe.lock").unlink()
    assert edited.pipe("build", "--json").stages()["a"] == "ran"
    assert edited.ran() == ["a"]


def test_gone_when_the_stage_runs(edited) -> None:
    """Gone when the stage runs."""
    edited.pipe("accept", "a", "--reason", "a comment")
    edited.write("a.txt", "2x")
    edited.pipe("build")
    assert "accepted" not in edited.read("pipe.lock")


def test_another_edit_is_not_accepted(edited) -> None:
    """It counts for that fingerprint alone."""
    edited.pipe("accept", "a", "--reason", "a comment")
    edited.write("a.txt", "1x # another")
    assert edited.pipe("status", "--check", check=False).returncode == 1


def test_a_lost_output_of_an_accepted_stage_is_restored(edited) -> None:
    """Its locked outputs are restored, and the entry stays."""
    edited.pipe("accept", "a", "--reason", "a comment")
    before = edited.read("pipe.lock")
    (edited.path / "out/a").unlink()
    assert edited.pipe("build", "--json").stages()["a"] == "restored"
    assert edited.read("pipe.lock") == before and edited.ran() == []


def test_without_a_reason(edited) -> None:
    """`accept` without `--reason` is exit 2."""
    before = edited.read("pipe.lock")
    assert edited.pipe("accept", "a", check=False).returncode == 2
    assert edited.pipe("accept", "a", "--reason", " ", check=False).returncode == 2
    assert edited.pipe("accept", "nope", "--reason", "x", check=False).returncode == 2
    assert edited.read("pipe.lock") == before


def test_a_fresh_stage_gets_no_entry(repo, chain) -> None:
    """A lock entry has `accepted` only after it, and a fresh stage needs none."""
    repo.pipe("build")
    before = repo.read("pipe.lock")
    repo.pipe("accept", "a", "--reason", "nothing")
    assert repo.read("pipe.lock") == before


def test_a_stage_never_built(repo, chain) -> None:
    """There is no result to accept: exit 2."""
    done = repo.pipe("accept", "a", "--reason", "x", check=False)
    assert done.returncode == 2 and "never built" in done.stderr
