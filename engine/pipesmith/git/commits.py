"""Commits: the range between good and bad ones, what people know them by."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from pipesmith.git.repository import Repository
from pipesmith.records import record

__all__ = ["CommitFacts", "commit_facts", "commits_between", "merge_bases", "parents_of"]


@record
class CommitFacts:
    """author: `NAME <EMAIL>`. date: of the author, ISO 8601 with its own offset."""

    id: str
    author: str
    date: str
    subject: str

    def as_json(self) -> dict[str, Any]:
        return {"id": self.id, "author": self.author, "date": self.date, "subject": self.subject}


def commit_facts(repo: Repository, commit: str) -> CommitFacts:
    """Return what people know a commit by."""
    text = repo.run("show", "-s", "--no-show-signature", "--format=%H%x00%an <%ae>%x00%aI%x00%s", commit)
    identity, author, date, subject = text.decode("utf-8", "replace").rstrip("\n").split("\0")
    return CommitFacts(id=identity, author=author, date=date, subject=subject)


def commits_between(
    repo: Repository, bad: str, goods: Sequence[str], *, first_parent: bool = False
) -> list[tuple[str, tuple[str, ...]]]:
    """Return (commit, its parents) of all that `bad` has and no good one has, children before parents.

    first_parent: of merges only the first parent is followed."""
    flags = ["--first-parent"] if first_parent else []
    listed = repo.run("rev-list", "--topo-order", "--parents", *flags, bad, "--not", *goods).decode()
    found = []
    for line in listed.splitlines():
        commit, *parents = line.split(" ")
        found.append((commit, tuple(parents[:1] if first_parent else parents)))
    return found


def merge_bases(repo: Repository, one: str, other: str) -> list[str]:
    """Return the best common ancestors of two commits, none where they have no common history."""
    return repo.process("merge-base", "--all", one, other).stdout.decode().split()


def parents_of(repo: Repository, commit: str) -> list[str]:
    return os.fsdecode(repo.run("rev-list", "--parents", "-n1", commit)).split()[1:]
