"""`hooks run pre-push`: whether the lockfiles of what is pushed belong to their pipelines, by git's objects alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipesmith.errors import PipeError, UserError
from pipesmith.git.objects import ObjectReader
from pipesmith.git.repository import Repository
from pipesmith.workspace.at_commit import state_of, verdicts_at
from pipesmith.workspace.workspace import Workspace

if TYPE_CHECKING:
    from pipesmith.workspace.results import StageState

__all__ = ["Judged", "Tip", "judge_push", "tips_of_push"]

_RUNS = "refs/pipe/runs/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tip:
    """One thing that is pushed. ref: what it will be called there. object: its id."""

    ref: str
    object: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One workspace at one commit that is pushed. refs: what the commit will be called there. folder: relative to the
    top, `.` for the top. error: why it can't be judged."""

    commit: str
    refs: tuple[str, ...]
    folder: str
    stages: tuple[StageState, ...] = ()
    error: PipeError | None = None

    @property
    def lock(self) -> str:
        return "pipe.lock" if self.folder == "." else f"{self.folder}/pipe.lock"

    @property
    def passes(self) -> bool:
        return self.error is None and all(stage.state == "fresh" and not stage.broken for stage in self.stages)

    def as_json(self) -> dict[str, Any]:
        return {
            "commit": self.commit,
            "refs": list(self.refs),
            "workspace": self.folder,
            "passes": self.passes,
            "stages": [stage.as_json() for stage in self.stages],
            "errors": [finding.as_json() for finding in self.error.findings()] if self.error else [],
        }


def tips_of_push(lines: str, environ: Mapping[str, str]) -> list[Tip]:
    """Return what is pushed, by what git tells its hook on standard input, else by what pre-commit tells in variables.

    lines: `LOCAL-REF LOCAL-ID REMOTE-REF REMOTE-ID` each. Raises UserError for anything else.
    Source: githooks(5); pre-commit's `commands/run.py`, which tells of one ref a push, and of a first push without ids.
    """
    found = []
    for line in lines.splitlines():
        parts = line.rsplit(" ", 3)  # a local ref may be `HEAD@{2 days ago}`
        if len(parts) != 4 or not parts[1]:
            raise UserError(
                f"`{line}` is no line of git's: LOCAL-REF LOCAL-ID REMOTE-REF REMOTE-ID",
                "`pipe hooks install` installs a hook that is given such lines",
            )
        found.append(Tip(ref=parts[2], object=parts[1]))
    told = environ.get("PRE_COMMIT_TO_REF") or environ.get("PRE_COMMIT_LOCAL_BRANCH")
    if not lines.strip() and told and environ.get("PRE_COMMIT", "1"):
        found.append(Tip(ref=environ.get("PRE_COMMIT_REMOTE_BRANCH", told), object=told))
    return found


def judge_push(folder: str, tips: Sequence[Tip]) -> list[Judged]:
    """Return a judgement of each pushed commit, once, in each folder of it that holds a pipeline.toml and a pipe.lock.

    folder: in the repository. Deletions, runs of pipe's history, and tags of what is no commit have none.
    """
    repo = _repository(os.path.realpath(folder))
    reader = ObjectReader(repo)
    try:
        commits: dict[str, list[str]] = {}
        for tip in tips:
            if not tip.object.strip("0") or tip.ref.startswith(_RUNS):
                continue
            commit = _peeled(reader, repo, tip.object)
            if commit is not None and tip.ref not in commits.setdefault(commit, []):
                commits[commit].append(tip.ref)
        return [
            _judged(repo, reader, commit, tuple(refs), where)
            for commit, refs in commits.items()
            for where in _workspaces(reader, commit)
        ]
    finally:
        reader.close()


def _repository(folder: str) -> Repository:
    """Return the repository that a hook runs for: by its variables where it runs outside of the work tree."""
    try:
        return Repository.discover(folder)
    except UserError:
        place = os.environ.get("GIT_WORK_TREE") or os.environ.get("GIT_DIR")
        if place is None:
            raise
        return Repository.discover(os.path.realpath(place))


def _peeled(reader: ObjectReader, repo: Repository, name: str) -> str | None:
    """Return the commit that an object is or a tag leads to, None where that is another thing."""
    if len(name) != len(repo.empty_id) or name.strip("0123456789abcdef"):
        name = repo.resolve(name)
    while True:
        found = reader.read(name)
        if found is None or found[0] == "commit":
            return name if found is not None else None
        if found[0] != "tag":
            return None
        name = found[1].split(b"\n", 1)[0].removeprefix(b"object ").decode()


def _workspaces(reader: ObjectReader, commit: str) -> list[str]:
    """Return the folders of a commit that hold both files, the top as `.`; submodules are their own repositories'."""
    found = []
    waiting = [("", reader.tree_of(commit))]
    while waiting:
        prefix, tree = waiting.pop()
        entries = reader.tree(tree)
        if "pipeline.toml" in entries and "pipe.lock" in entries:
            found.append(prefix.rstrip("/") or ".")
        waiting += [(f"{prefix}{name}/", oid) for name, (mode, oid) in entries.items() if mode == "40000"]
    return sorted(found)


def _judged(repo: Repository, reader: ObjectReader, commit: str, refs: tuple[str, ...], where: str) -> Judged:
    workspace = Workspace(repo, repo.top if where == "." else os.path.join(repo.top, where))
    try:
        _pipeline, verdicts = verdicts_at(workspace, commit, reader)
    except PipeError as error:
        return Judged(commit=commit, refs=refs, folder=where, error=error)
    return Judged(commit=commit, refs=refs, folder=where, stages=tuple(map(state_of, verdicts.values())))
