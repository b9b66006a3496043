"""Inputs that git does not hold, for a build in a place of its own: from the user's workspace, or from the cache."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from pipesmith.digest import Digest
from pipesmith.errors import Finding, StageError
from pipesmith.fingerprint.items import input_parts
from pipesmith.fingerprint.stat_cache import StatCache
from pipesmith.fingerprint.tree import Found
from pipesmith.fingerprint.work_tree import WorkTree
from pipesmith.pipeline.model import Stage
from pipesmith.records import record
from pipesmith.verdict.verdict import State, Verdict

if TYPE_CHECKING:
    from pipesmith.workspace.session import Session

__all__ = ["Lender"]


@record
class _Loan:
    """look: what is lent, as it is now. expected: digest texts that it may have, empty for any. place: where it lies;
    raises StageError where it can't be had. lacking: why it can't be had, and what to do; None where it can."""

    look: Callable[[], Found]
    place: Callable[[], str]
    expected: frozenset[str] = frozenset()
    lacking: tuple[str, str] | None = None


class Lender:
    """Lends what the place of a session lacks. A commit's data must be what the lockfile there says."""

    def __init__(self, session: Session) -> None:
        place = session.workspace.place
        assert place is not None
        self._session = session
        self._place = place
        self._own = place.of if not place.of.repo.is_bare and os.path.isdir(place.of.root) else None
        self._stats: StatCache | None = None
        self._loans: dict[str, _Loan] = {}
        self._hash_paths: dict[str, Callable[[], str | None]] = {}
        self._guard = threading.Lock()

    # -- what is lent ---------------------------------------------------------------------------------------------

    def input(self, path: str) -> Found | None:
        """Return what is lent at an input's path, None where nothing is."""
        loan = self._loans.get(path)
        if loan is None:
            return None
        now = loan.look()
        if loan.expected and (now.digest is None or now.digest.text not in loan.expected):
            return Found(digest=None, problem=f"`{path}` changed in the workspace while it was built from there")
        return Found(digest=now.digest, problem=now.problem)

    def hash_path_id(self, path: str) -> str | None:
        """Return the id of a `hash-paths` entry that is lent, None where none is."""
        look = self._hash_paths.get(path)
        return look() if look is not None else None

    def input_at(self, path: str) -> str | None:
        """Return the absolute path of an input that is lent, None where it is not. Raises StageError where its content
        can't be had."""
        loan = self._loans.get(path)
        return loan.place() if loan is not None else None

    def findings(self, verdicts: Mapping[str, Verdict]) -> list[Finding]:
        """Return what is missing of stages that must run."""
        session, found = self._session, {}
        for name, verdict in verdicts.items():
            stage = session.pipeline.stages[name]
            if verdict.state is not State.STALE or stage.frozen:
                continue
            for part in input_parts(stage, session.pipeline.stages):
                loan = self._loans.get(part.place) if part.place and not part.stage else None
                if loan is not None and loan.lacking is not None:
                    key = f"stage.{stage.base}.inputs.{part.item}"
                    text, help = loan.lacking
                    found[key] = Finding(
                        file=session.pipeline.file, line=session.line(key), key=key, text=text, help=help
                    )
        return list(found.values())

    # -- finding it -----------------------------------------------------------------------------------------------

    def lend(self, stages: Iterable[Stage], notice: Callable[[str], None]) -> None:
        """Look for what the stages need and the place lacks, before anything is judged."""
        for stage in stages:
            for part in input_parts(stage, self._session.pipeline.stages):
                if part.place and not part.stage and part.place not in self._loans:
                    self._lend_input(part.place, notice)
            for path in stage.hash_paths:
                if path not in self._hash_paths:
                    self._lend_id(path)

    def _lend_input(self, path: str, notice: Callable[[str], None]) -> None:
        here = self._session.tree.input(path)
        if here.problem is not None:
            return
        if self._place.revision is None:
            now = self._look(path)
            if now.digest is not None and now.digest != here.digest:
                self._loans[path] = _Loan(look=lambda: self._look(path), place=lambda: self._at(path))
            return
        known = {
            dep.digest.text: dep.digest
            for entry in self._session.lockfile.stages.values()
            for dep in entry.deps
            if dep.path == path and not dep.of and dep.git == here.git
        }
        if here.digest is not None and (not known or here.digest.text in known):
            return
        now = self._look(path)
        stored = [digest for digest in known.values() if self._session.store.has(digest)]
        if now.digest is not None and now.digest.text in known:
            self._loans[path] = _Loan(
                look=lambda: self._look(path), place=lambda: self._at(path), expected=frozenset(known)
            )
        elif len(stored) == 1:
            self._loans[path] = _Loan(
                look=lambda: Found(digest=stored[0]), place=lambda: self._from_store(path, stored[0])
            )
        elif here.digest is not None:
            return  # what git holds of it is all there is, as in a new clone
        elif not known and now.digest is not None:
            notice(
                f"`{path}` is not in git, and pipe.lock at {self._place.revision[:10]} does not say what it was: "
                "it is taken as it lies in the workspace"
            )
            self._loans[path] = _Loan(look=lambda: self._look(path), place=lambda: self._at(path))
        else:
            self._promise(path, list(known.values()), now)

    def _promise(self, path: str, known: list[Digest], now: Found) -> None:
        """Remember what an input was, though it can't be had: a stage that need not run needs no more."""
        revision = (self._place.revision or "")[:10]
        if len(known) == 1:
            is_other = f"; the workspace has another one ({now.digest.text})" if now.digest is not None else ""
            lacking = (
                f"`{path}` is not in git, and what it was at {revision} ({known[0].text}) is neither in the workspace "
                f"nor in the cache{is_other}",
                f"put that content back to `{path}` in the workspace, then build again",
            )
        elif known:
            lacking = (
                f"`{path}` is not in git, and the entries of pipe.lock at {revision} disagree on what it was",
                "build a commit whose lockfile says it, or put it into git",
            )
        else:
            lacking = (
                f"`{path}` is neither in git at {revision} nor in the workspace, and no stage makes it",
                "put it there, or declare it as a [dataset]",
            )
        text, help = lacking

        def refuse() -> str:
            raise StageError(text, help)

        found = Found(digest=known[0]) if len(known) == 1 else Found(digest=None, problem=text)
        self._loans[path] = _Loan(look=lambda: found, place=refuse, lacking=lacking)

    def _lend_id(self, path: str) -> None:
        """An id of what git does not hold: no stage is given such a file, so the id is all that is needed."""
        if self._session.tree.hash_path_id(path) is not None:
            return
        if self._place.revision is None:
            self._hash_paths[path] = lambda: self._tree().hash_path_id(path) if self._own is not None else None
            return
        known = {entry.hash_paths[path] for entry in self._session.lockfile.stages.values() if path in entry.hash_paths}
        known = {identity for identity in known if ":" in identity}
        if len(known) == 1:
            (identity,) = known
            self._hash_paths[path] = lambda: identity

    # -- the user's workspace and the cache -----------------------------------------------------------------------

    def _tree(self) -> WorkTree:
        """Return a new look at the user's workspace."""
        assert self._own is not None
        if self._stats is None:
            self._stats = StatCache(self._own.state, self._session.pipeline.cache.hash)
        return WorkTree(self._own.repo, self._own.root, self._stats)

    def _look(self, path: str) -> Found:
        if self._own is None:
            return Found(digest=None)
        tree = self._tree()
        try:
            return tree.input(path)
        finally:
            tree.close()

    def _at(self, path: str) -> str:
        assert self._own is not None
        return os.path.join(self._own.root, path)

    def _from_store(self, path: str, digest: Digest) -> str:
        folder = os.path.join(self._place.folder, "lent", digest.hex)
        target = os.path.join(folder, os.path.basename(path))
        with self._guard:
            if not os.path.lexists(target):
                os.makedirs(folder, exist_ok=True)
                self._session.store.place(digest, f"{target}.part", link=True)
                os.rename(f"{target}.part", target)
        return target

    def flush(self) -> None:
        """Remember for later processes what was read in the user's workspace."""
        if self._stats is not None:
            self._stats.flush()
