"""`hooks run post-checkout`, `post-merge`, `post-rewrite`: what the cache has for a work tree that became another one.

Nothing is run, nothing that no build made is replaced, and what the cache lacks is left out.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipesmith.errors import PipeError
from pipesmith.git.repository import Repository
from pipesmith.records import field, record

if TYPE_CHECKING:
    from pipesmith.lockfile.model import LockedOut
    from pipesmith.pipeline.model import Stage
    from pipesmith.workspace.session import Session

__all__ = ["Arrival", "arrive"]

_FILES = (":(top,glob)**/pipe.lock", ":(top,glob)**/pipeline.toml")


@record(frozen=False)
class Arrival:
    """placed: paths relative to the top. notes: lines about what could not be done."""

    placed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {"placed": self.placed, "notes": self.notes}


def arrive(folder: str, hook: str, args: Sequence[str], lines: str = "") -> Arrival:
    """Put outputs into the workspaces of the work tree, if what the hook tells can have changed their lockfiles.

    args, lines: what git gives the hook. Source: githooks(5).
    """
    done = Arrival()
    if hook == "post-checkout" and list(args[2:]) == ["0"]:
        return done  # files were checked out, not a branch
    repo = Repository.discover(os.path.realpath(folder))
    if repo.is_bare or (hook != "post-rewrite" and _rebasing(repo)):
        return done
    before = _before(repo, hook, args, lines)
    if before is not None and repo.process("diff", "--quiet", before, "HEAD", "--", *_FILES).returncode == 0:
        return done
    listed = os.fsdecode(repo.run("ls-files", "-z", "--", *_FILES)).split("\0")
    for where in sorted(os.path.dirname(path) for path in listed if os.path.basename(path) == "pipe.lock"):
        root = os.path.normpath(os.path.join(repo.top, where))
        if os.path.isfile(os.path.join(root, "pipeline.toml")) and os.path.isfile(os.path.join(root, "pipe.lock")):
            _fill(repo, root, done)
    return done


def _rebasing(repo: Repository) -> bool:
    """Return whether a rebase goes on that has commits to rewrite: when it ends, post-rewrite tells."""
    if os.path.isdir(os.path.join(repo.git_dir, "rebase-apply")):
        return True
    steps: list[str] = []
    for name in ("done", "git-rebase-todo"):
        try:
            with open(os.path.join(repo.git_dir, "rebase-merge", name), encoding="utf-8", errors="replace") as file:
                steps += [line for line in file.read().splitlines() if line and not line.startswith("#")]
        except FileNotFoundError:
            continue
    return any(step != "noop" for step in steps)


def _before(repo: Repository, hook: str, args: Sequence[str], lines: str) -> str | None:
    """Return the commit that the work tree was at, None where that is not known."""
    if hook == "post-checkout":
        return args[0] if args and args[0].strip("0") else None
    if hook == "post-rewrite" and list(args[:1]) == ["amend"]:
        return lines.split(" ", 1)[0] or None
    return None


def _fill(repo: Repository, root: str, done: Arrival) -> None:
    from pipesmith.build.place import Placer
    from pipesmith.workspace.workspace import Workspace

    workspace = Workspace(repo, root)
    try:
        session = workspace.session()
        filler = _Filler(session)
        placer = Placer(root, session.store, session.output_now, lambda _path, _digest: None)
        for stage in session.pipeline.stages.values():
            locked = session.lockfile.stages.get(stage.name)
            for out in locked.outs if locked else ():
                if not filler.wants(stage, out):
                    continue
                try:
                    with workspace.guard():
                        placer.place(stage.name, [out], locked.outs if locked else ())
                    done.placed.append(os.path.relpath(os.path.join(root, out.path), repo.top))
                except PipeError as error:
                    done.notes.append(error.text)
        session.stat_cache.flush()
    except PipeError as error:
        done.notes += [finding.headline for finding in error.findings()]


class _Filler:
    """Says which locked outputs are to be put into a workspace."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @cached_property
    def _by_hand(self) -> set[str]:
        """Digests of what was put away before: in the cache, but no build's."""
        from pipesmith.store.kept import kept

        return {each.digest.text for each in kept(self._session.store)}

    def wants(self, stage: Stage, out: LockedOut) -> bool:
        session = self._session
        declared = stage.outputs.get(out.name)
        if not out.cache or declared is None or declared.path != out.path:
            return False  # git's own, or another pipeline's
        path = os.path.join(session.workspace.root, out.path)
        if not os.path.lexists(path):
            return not declared.temp and session.store.has(out.digest)
        if os.path.islink(path):
            return False
        now = session.output_now(out.path, out.digest.algorithm)
        if now is None or now.text == out.digest.text:
            return False
        made_here = session.store.has(now) and now.text not in self._by_hand
        return made_here and session.store.has(out.digest)
