"""Logs of a run as a commit, so that git carries them from clone to clone. Format: docs/formats/run-record.md."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Mapping

from pipesmith.errors import EnvironmentFailure
from pipesmith.git.co_process import quoted
from pipesmith.git.objects import ObjectReader
from pipesmith.git.refs import list_refs
from pipesmith.git.repository import Repository
from pipesmith.history.run_id import is_run_id
from pipesmith.history.run_store import LOGS
from pipesmith.store.modes import make_folders, share

__all__ = ["bring_logs", "has_logs", "pack_logs", "unpack_logs"]

_FILES = ".files"  # ends the name of a folder of what a stage logged
_FILE, _FOLDER = "100644", "040000"


def has_logs(logs: str, run: str) -> bool:
    """Return whether the logs of a run lie here. logs: the folder of all runs' logs."""
    return os.path.isdir(os.path.join(logs, run))


def pack_logs(
    repo: Repository, logs: str, run: str, *, at: float, max_file_bytes: int
) -> tuple[str | None, dict[str, int]]:
    """Write a run's logs as a commit without a parent; return its id, and the size of what was too big by name.

    at: seconds since the epoch; the same logs are the same commit. None where there are none.
    Raises EnvironmentFailure where git can't write."""
    folder = os.path.join(logs, run)
    found: dict[str, list[str]] = {"": []}
    too_big: dict[str, int] = {}
    for name, size in _files(folder):
        if name.endswith(_FILES) and size is None:
            found[name] = []
            for inner, inner_size in _files(os.path.join(folder, name)):
                if inner_size is not None and not inner.startswith(".part-"):
                    _take(found[name], too_big, f"{name}/{inner}", inner_size, max_file_bytes)
        elif size is not None:
            _take(found[""], too_big, name, size, max_file_bytes)
    paths = [path for listed in found.values() for path in listed]
    if not paths:
        return None, too_big
    env = {"GIT_DIR": repo.common_dir, "GIT_WORK_TREE": folder}
    written = repo.run(
        *("hash-object", "-w", "--no-filters", "--stdin-paths"),
        input=b"".join(quoted(path) + b"\n" for path in paths), cwd=folder, env=env,
    )  # fmt: skip
    ids = dict(zip(paths, written.decode().split(), strict=True))
    rows = {path: f"{_FILE} blob {ids[path]}" for path in found[""]}
    for name, listed in found.items():
        if name and listed:
            inner_rows = {path.partition("/")[2]: f"{_FILE} blob {ids[path]}" for path in listed}
            rows[name] = f"{_FOLDER} tree {_tree(repo, inner_rows)}"
    who = f"pipe <pipe@localhost> {int(at)} +0000"
    text = f"tree {_tree(repo, rows)}\nauthor {who}\ncommitter {who}\n\nlogs of run {run}\n"
    return repo.run("hash-object", "-t", "commit", "-w", "--stdin", input=text.encode()).decode().strip(), too_big


def _files(folder: str) -> Iterable[tuple[str, int | None]]:
    """Return (name, size) of files and (name, None) of folders, sorted; links (to what a stage still writes) are
    neither."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    found: list[tuple[str, int | None]] = []
    for name in names:
        info = os.lstat(os.path.join(folder, name))
        if stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode):
            found.append((name, info.st_size if stat.S_ISREG(info.st_mode) else None))
    return found


def _take(listed: list[str], too_big: dict[str, int], path: str, size: int, most: int) -> None:
    if size > most:
        too_big[path] = size
    else:
        listed.append(path)


def _tree(repo: Repository, rows: Mapping[str, str]) -> str:
    """Return the id of a new tree. rows: name to mode, type and id."""
    text = b"".join(head.encode() + b"\t" + os.fsencode(name) + b"\0" for name, head in rows.items())
    return repo.run("mktree", "-z", input=text).decode().strip()


def unpack_logs(reader: ObjectReader, commit: str, logs: str, run: str) -> bool:
    """Put the logs that a commit holds where those of a run lie; return whether that was done: what lies there stays.

    Raises EnvironmentFailure where the commit is not here, OSError where nothing can be written."""
    if has_logs(logs, run):
        return False
    making = os.path.join(os.path.dirname(logs), "tmp", f"logs-{os.urandom(8).hex()}")
    make_folders(logs)
    try:
        make_folders(making)
        for name, (mode, identity) in reader.tree(reader.tree_of(commit)).items():
            if mode == _FILE and _plain(name):
                _write(reader, identity, os.path.join(making, name))
            elif mode == _FOLDER.lstrip("0") and _plain(name) and name.endswith(_FILES):
                make_folders(os.path.join(making, name))
                for inner, (inner_mode, inner_identity) in reader.tree(identity).items():
                    if inner_mode == _FILE and _plain(inner):
                        _write(reader, inner_identity, os.path.join(making, name, inner))
        os.rename(making, os.path.join(logs, run))
        return True
    except OSError:
        if has_logs(logs, run):  # brought by another process meanwhile
            return False
        raise
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _plain(name: str) -> bool:
    """Return whether a name from elsewhere is no way out of its folder."""
    return name not in ("", ".", "..") and "/" not in name


def _write(reader: ObjectReader, identity: str, path: str) -> None:
    with open(path, "wb") as file:
        file.write(reader.blob(identity))
    share(path)


def bring_logs(repo: Repository, logs: str, run: str) -> None:
    """Unpack the logs of a run that came by plain `git fetch`, as a ref below refs/pipe/logs/."""
    if has_logs(logs, run) or not is_run_id(run):
        return
    commit = list_refs(repo, f"{LOGS}{run}").get(f"{LOGS}{run}")
    if commit is None:
        return
    reader = ObjectReader(repo)
    try:
        unpack_logs(reader, commit, logs, run)
    except OSError as error:
        raise EnvironmentFailure(f"the logs of run {run} can't be unpacked: {error.strerror}") from None
    finally:
        reader.close()
