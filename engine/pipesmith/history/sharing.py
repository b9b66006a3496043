"""Run history by a plain git remote: what a push would share, and what a fetch brings.

A run is sent as the commit that it is, its logs as a commit of their own below refs/pipe/logs/.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from pipesmith.errors import EnvironmentFailure, UserError
from pipesmith.git.objects import ObjectReader
from pipesmith.git.refs import commit_message, list_refs, set_refs
from pipesmith.git.remotes import Delivery, fetch_objects, push_refs, remote_refs
from pipesmith.git.repository import Repository
from pipesmith.history.record import RunRecord, record_of
from pipesmith.history.run_id import is_run_id
from pipesmith.history.run_store import LOGS, PREFIX, RunStore
from pipesmith.history.shared_logs import has_logs, pack_logs, unpack_logs
from pipesmith.records import field, record

__all__ = ["Brought", "Offer", "bring", "offer", "send"]

_FOLDER = "40000"
_GITLINK = "160000"


@record(frozen=False)
class Offer:
    """What a push would share. runs, logs: ids of runs. untracked: files that only the snapshots hold, neither a commit
    below them nor the remote. changed: files that differ from the commit below. commits: how many others the remote
    does not have. notes: lines for people."""

    remote: str
    runs: list[str] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    untracked: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    commits: int = 0
    notes: list[str] = field(default_factory=list)
    new: dict[str, str] = field(default_factory=dict)
    replaced: dict[str, tuple[str, str]] = field(default_factory=dict)


@record(frozen=False)
class Brought:
    """What a fetch brought. runs: ids of new ones. updated: of those that had gone on. logs: those whose logs came."""

    remote: str
    runs: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def offer(repo: Repository, store: RunStore, remote: str, *, max_file_bytes: int) -> Offer:
    """Return what a push to a remote would share: runs that have ended and that it does not have, with their logs.

    max_file_bytes: logs over it stay. Raises EnvironmentFailure where the remote can't be reached."""
    theirs = remote_refs(repo, remote, pushing=True)
    store.end_cut_off()
    ended = {record.id: record for record in store.all() if record.status != "running"}
    commits = store.commits()
    found = Offer(remote=remote)
    reader = ObjectReader(repo)
    try:
        contested = {
            name: theirs[f"{PREFIX}{name}"]
            for name in sorted(ended.keys() & commits.keys())
            if theirs.get(f"{PREFIX}{name}", commits[name]) != commits[name]
        }
        fetch_objects(repo, remote, [f"{PREFIX}{name}" for name in contested])
        for name in sorted(ended):
            ref = f"{PREFIX}{name}"
            if name not in commits:
                found.notes.append(f"run {name} has no snapshot: it stays here")
                continue
            if name in contested:
                if not _goes_on_from(_record(reader, contested[name]), ended[name]):
                    found.notes.append(f"run {name} is another one at `{remote}`: left as it is there")
                    continue
                found.replaced[ref] = (commits[name], contested[name])
            elif ref not in theirs:
                found.new[ref] = commits[name]
            else:
                continue
            found.runs.append(name)
        _add_logs(repo, store, found, ended, theirs, max_file_bytes)
        sent = {name: commits[name] for name in found.runs}
        if sent:
            _describe(repo, reader, found, sent, theirs)
    finally:
        reader.close()
    return found


def _add_logs(
    repo: Repository,
    store: RunStore,
    found: Offer,
    ended: Mapping[str, RunRecord],
    theirs: Mapping[str, str],
    max_file_bytes: int,
) -> None:
    """Add the logs of runs that are sent, and those that an earlier push could not send."""
    with_run = {name for name in ended if f"{PREFIX}{name}" in theirs} | set(found.runs)
    for name in sorted(with_run):
        ref = f"{LOGS}{name}"
        again = f"{PREFIX}{name}" in found.replaced and ref in theirs
        if (ref in theirs and not again) or not has_logs(store.logs, name):
            continue
        at = ended[name].end or ended[name].time
        commit, too_big = pack_logs(repo, store.logs, name, at=at, max_file_bytes=max_file_bytes)
        for path, size in too_big.items():
            found.notes.append(f"logs/{name}/{path} stays here: {size} bytes, over `[snapshot] max-file`")
        if commit is None or commit == theirs.get(ref):
            continue
        found.logs.append(name)
        if again:
            found.replaced[ref] = (commit, theirs[ref])
        else:
            found.new[ref] = commit


def _describe(
    repo: Repository, reader: ObjectReader, found: Offer, sent: Mapping[str, str], theirs: Mapping[str, str]
) -> None:
    """Find out which files a push would make known to the remote."""
    known = set(theirs.values())
    known.update(list_refs(repo, f"refs/remotes/{found.remote}/").values())
    lines = [*sent.values(), *(f"^{identity}" for identity in sorted(known))]
    command = ("rev-list", "--ignore-missing", "--stdin")
    text = "".join(f"{line}\n" for line in lines).encode()
    found.commits = len(set(repo.run(*command, input=text).decode().split()) - set(sent.values()))
    # "Aggressive" takes away what the remote's tips hold, not only what the commits below the runs do.
    walk = ("--objects-edge-aggressive", "--no-object-names", "--missing=allow-promisor")
    news = set(repo.run(*command, *walk, input=text).decode().split())
    untracked: set[str] = set()
    changed: set[str] = set()
    for commit in sent.values():
        for path, identity, added in _differing(reader, commit):
            if identity in news:
                (untracked if added else changed).add(path)
    found.untracked, found.changed = sorted(untracked), sorted(changed - untracked)


def _differing(reader: ObjectReader, commit: str) -> Iterator[tuple[str, str, bool]]:
    """Yield (path, blob, whether it is not there below) of the files in which a commit differs from its parent."""
    found = reader.read(commit)
    if found is None:
        return
    head = found[1].partition(b"\n\n")[0].decode("utf-8", "replace").split("\n")
    parent = next((line.removeprefix("parent ") for line in head if line.startswith("parent ")), None)
    below = {} if parent is None else reader.tree(reader.tree_of(parent))
    stack = [("", reader.tree(reader.tree_of(commit)), below)]
    while stack:
        folder, new, old = stack.pop()
        for name, (mode, identity) in new.items():
            was = old.get(name)
            if was == (mode, identity):
                continue
            if mode == _FOLDER:
                inner = reader.tree(was[1]) if was is not None and was[0] == _FOLDER else {}
                stack.append((f"{folder}{name}/", reader.tree(identity), inner))
            elif mode != _GITLINK:
                yield f"{folder}{name}", identity, was is None or was[0] in (_FOLDER, _GITLINK)


def send(repo: Repository, wanted: Offer) -> Delivery:
    """Do what an offer says; return what came of it. Raises EnvironmentFailure where the remote can't be reached."""
    return push_refs(repo, wanted.remote, wanted.new, wanted.replaced)


def bring(repo: Repository, store: RunStore, remote: str) -> Brought:
    """Fetch the runs of a remote that are not here, and their logs. Ours stay as they are, unless they went on.

    Raises EnvironmentFailure where the remote can't be reached or nothing can be written."""
    theirs = remote_refs(repo, remote, f"{PREFIX}*", f"{LOGS}*")
    ours = store.commits()
    asked = {
        name: commit
        for ref, commit in sorted(theirs.items())
        if ref.startswith(PREFIX) and is_run_id(name := ref.removeprefix(PREFIX)) and ours.get(name) != commit
    }
    with_logs = {
        name: commit
        for ref, commit in sorted(theirs.items())
        if ref.startswith(LOGS)
        and is_run_id(name := ref.removeprefix(LOGS))
        and (name in asked or name in ours)
        and not has_logs(store.logs, name)
    }
    fetch_objects(repo, remote, [*(f"{PREFIX}{name}" for name in asked), *(f"{LOGS}{name}" for name in with_logs)])
    found = Brought(remote=remote)
    reader = ObjectReader(repo)
    try:
        refs = {}
        for name, commit in asked.items():
            here = ours.get(name)
            if _is_wanted(reader, found, name, commit, here):
                refs[f"{PREFIX}{name}"] = (commit, here or repo.empty_id)
                (found.updated if here else found.runs).append(name)
        set_refs(repo, refs)
        known = ours.keys() | found.runs
        for name, commit in with_logs.items():
            if name in known and reader.read(commit) is not None and unpack_logs(reader, commit, store.logs, name):
                found.logs.append(name)
    except OSError as error:
        raise EnvironmentFailure(
            f"logs can't be written: `{os.fsdecode(error.filename or '')}`: {error.strerror}"
        ) from None
    finally:
        reader.close()
    return found


def _is_wanted(reader: ObjectReader, found: Brought, name: str, commit: str, here: str | None) -> bool:
    """Return whether a run is taken from the remote; where it is not, `found` says why."""
    try:
        record = _record(reader, commit)
    except UserError as error:  # of a later version: a newer pipesmith will read it
        found.notes.append(f"run {name}: {error.text}")
        return here is None
    if record is None or record.id != name:
        found.notes.append(f"`{PREFIX}{name}` at `{found.remote}` is no run: passed over")
        return False
    if here is None:
        return True
    mine = _record(reader, here)
    if _goes_on_from(mine, record):
        return True
    if mine is None or not _goes_on_from(record, mine):
        found.notes.append(f"run {name} is another one at `{found.remote}`: left as it is here")
    return False


def _record(reader: ObjectReader, commit: str) -> RunRecord | None:
    message = commit_message(reader, commit)
    return record_of(message) if message is not None else None


def _goes_on_from(earlier: RunRecord | None, later: RunRecord) -> bool:
    """Return whether a record is what became of an earlier one that says `running`."""
    if earlier is None or earlier.status != "running" or later.status == "running":
        return False
    return all(
        getattr(earlier, key) == getattr(later, key) for key in ("id", "time", "user", "host", "pid", "snapshot")
    )
