"""`checkout`, `cat` and `verify`: outputs and objects against the lockfile."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipesmith.build.place import Placer
from pipesmith.digest import Digest
from pipesmith.errors import StageError, UserError
from pipesmith.lockfile.model import LockedOut
from pipesmith.records import field, record, replace
from pipesmith.workspace.session import Session, select_stages

if TYPE_CHECKING:
    from pipesmith.workspace.workspace import Workspace

__all__ = ["Checkout", "VerifyResult", "checkout", "find_object", "verify"]


@record(frozen=False)
class Checkout:
    """What `checkout` did. placed: paths. kept: path to what was put away there. missing: path to what is wrong.

    looked_at: how many outputs were asked for.
    """

    looked_at: int = 0
    placed: list[str] = field(default_factory=list)
    kept: dict[str, Digest] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def checkout(
    workspace: Workspace,
    names: Sequence[str] = (),
    *,
    to: str | None = None,
    run: str | None = None,
    allow_missing: bool = False,
) -> Checkout:
    """Put outputs as they are locked (or as a run made them) into the workspace, or below the folder `to`.

    Of a run, `to` gets those of all its stages, the workspace those of stages that pipeline.toml still has, unless
    others are named. What only exists in the workspace is put away first. Raises UserError; what is not in the cache is
    in `missing`.
    """
    for flag, text in (("--to", to), ("--run", run)):
        if text is not None and not text.strip():
            raise UserError(
                f"`{flag}` needs a {'folder' if flag == '--to' else 'run'}", "`pipe checkout --help` says how"
            )
    session = workspace.session()
    stages = session.pipeline.stages
    outs = _outs_of_run(session, run) if run is not None else {n: e.outs for n, e in session.lockfile.stages.items()}
    gone = [name for name in outs if name not in stages] if run is not None else []
    if names:
        wanted = select_stages(session.pipeline, [name for name in names if name not in gone])
        wanted += tuple(name for name in gone if name in names)
    else:
        wanted = (*stages, *(gone if to is not None else ()))
    for name in names and wanted:
        if name not in outs:
            raise UserError(
                f"stage `{name}` is not in {'that run' if run is not None else 'pipe.lock'}", f"run `pipe build {name}`"
            )
    done = Checkout()
    root = os.path.abspath(to) if to is not None else workspace.root

    def digest(path: str, algorithm: str | None = None) -> Digest | None:
        return session.stat_cache.output(os.path.join(root, path), algorithm)

    placer = Placer(root, session.store, digest, done.kept.__setitem__)
    if to is not None:
        os.makedirs(root, exist_ok=True)
    for name in wanted:
        locked = session.lockfile.stages.get(name)
        for out in outs.get(name, ()):
            done.looked_at += 1
            declared = stages[name].outputs.get(out.name) if name in stages else None
            if declared is not None:
                out = replace(out, cache=declared.cache)
            if (
                to is None
                and declared is not None
                and declared.temp
                and not os.path.lexists(os.path.join(root, out.path))
            ):
                continue
            before = digest(out.path, out.digest.algorithm)
            if before is not None and before.text == out.digest.text:
                continue
            if not session.store.has(out.digest):
                if not allow_missing:
                    done.missing[out.path] = f"{out.digest.hex[:12]} is not in the cache"
                continue
            try:
                with workspace.guard():
                    placer.place(name, [out], locked.outs if locked else ())
                done.placed.append(out.path)
            except StageError as error:
                done.missing[out.path] = error.text
    session.stat_cache.flush()
    return done


def _outs_of_run(session: Session, run: str) -> Mapping[str, tuple[LockedOut, ...]]:
    """Return what each stage of a run made, in the cache or not."""
    found: dict[str, tuple[LockedOut, ...]] = {}
    for stage in session.workspace.run_store.get(run).stages:
        for known in session.actions.lookup(stage.fingerprint or ""):
            if {out.path: out.digest.text for out in known.outs} == stage.outputs:
                found[stage.name] = known.outs
                break
        else:
            if stage.outputs:  # the result is known no longer, or to another clone
                found[stage.name] = tuple(_recorded(session, stage.name, *each) for each in stage.outputs.items())
    return found


def _recorded(session: Session, stage: str, path: str, text: str) -> LockedOut:
    """Return an output of which only its path and the text of its digest were kept."""
    algorithm, _, hex = text.partition(":")
    now = session.pipeline.stages.get(stage)
    declared = {out.path: out for out in now.outputs.values()}.get(path) if now is not None else None
    return LockedOut(name=declared.name if declared is not None else path, path=path, digest=Digest(algorithm, hex, 0))


def find_object(workspace: Workspace, hash: str) -> tuple[Session, Digest]:
    """Return the object that a hash, or its beginning, names. Raises UserError."""
    session = workspace.session()
    if len(hash.rpartition(":")[2]) < 4:
        raise UserError(f"`{hash}` is too short", "give at least four digits")
    found = session.store.find(hash)
    if not found:
        raise UserError(f"no object `{hash}` in the cache", "`pipe status --json` shows the hashes of outputs")
    if len(found) > 1:
        raise UserError(f"`{hash}` is the beginning of {len(found)} objects", "give more digits")
    return session, found[0]


@record(frozen=False)
class VerifyResult:
    """objects: how many were read. damaged, missing, changed: one line each."""

    objects: int = 0
    damaged: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not (self.damaged or self.missing or self.changed)


def verify(workspace: Workspace, *, full: bool = False) -> VerifyResult:
    """Read every object of the cache, and compare the workspace's outputs with the lockfile.

    full: outputs and inputs are read too, whatever their stamps say. Damaged objects go to the trash.
    """
    session = workspace.session()
    result = VerifyResult()
    for algorithm, hex, _info in session.store.objects():
        result.objects += 1
        if not session.store.check(algorithm, hex):
            result.damaged.append(f"object {algorithm}:{hex} is damaged; it lies in the trash now")
    reader = session.stat_cache
    if full:
        from pipesmith.fingerprint.stat_cache import StatCache
        from pipesmith.store.state_db import StateDB

        reader = StatCache(StateDB(os.devnull + "/none"), session.pipeline.cache.hash)
    for name, entry in session.lockfile.stages.items():
        stage = session.pipeline.stages.get(name)
        for out in entry.outs:
            temp = stage is not None and out.name in stage.outputs and stage.outputs[out.name].temp
            lost = session.store.missing(out.digest)
            now = reader.output(os.path.join(workspace.root, out.path), out.digest.algorithm)
            if lost and (now is None or now.text != out.digest.text) and not temp:
                result.missing.append(f"`{out.path}` of `{name}`: object {lost[0][:12]} is not in the cache")
            if now is not None and now.text != out.digest.text:
                result.changed.append(f"`{out.path}` of `{name}` is not what pipe.lock says")
            elif now is None and not temp and not lost:
                result.missing.append(
                    f"`{out.path}` of `{name}` is not in the workspace (`pipe checkout` puts it there)"
                )
    return result
