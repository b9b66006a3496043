"""The exact source of a moment as a git tree, made in an index of its own. The user's index, HEAD and stash are not touched."""

from __future__ import annotations

import fnmatch
import os
import shutil
from collections.abc import Callable, Collection
from hashlib import sha256

from pipesmith.errors import EnvironmentFailure
from pipesmith.git.repository import Repository

__all__ = ["SECRETS", "commit_tree", "looks_secret", "write_snapshot"]

SECRETS = (
    ".env*",
    "*.pem",
    "*.key",
    "id_*",
    ".netrc",
    ".pypirc",
    "kaggle.json",
    "credentials*",
    "*.tfstate",
)


def looks_secret(path: str) -> bool:
    """Return whether a file's name is one that secrets have."""
    name = path.rpartition("/")[2].lower()
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in SECRETS)


def write_snapshot(
    repo: Repository, index: str, *, left_out: Collection[str], max_file_bytes: int, ignores: Callable[[str], bool]
) -> tuple[str, dict[str, str]]:
    """Write the work tree's tree and return (tree id, left-out path to reason).

    index: absolute path of the private index. left_out: paths, relative to the top, that are not taken (data, cached outputs).
    ignores(path): what `.pipeignore` names, of untracked files. Every tracked file is in it as it is now. Of untracked ones those
    that are too big, secret, or nested repositories are left out before anything is written. Raises EnvironmentFailure.
    """
    env = {"GIT_INDEX_FILE": index}
    own = os.path.join(repo.git_dir, "index")
    os.makedirs(os.path.dirname(index), exist_ok=True)
    if os.path.exists(own):
        shutil.copy2(own, index)
    elif os.path.exists(index):
        os.unlink(index)
    untracked = os.fsdecode(repo.run("ls-files", "-o", "-z", "--exclude-standard", env=env)).split("\0")
    missing: dict[str, str] = {}
    add: list[str] = []
    skipped = tuple(f"{path}/" for path in left_out)
    for path in untracked:
        if not path:
            continue
        if path.endswith("/"):
            missing[path.rstrip("/")] = "a nested repository"
            continue
        reason = _reason(repo, path, left_out, skipped, max_file_bytes)
        if reason is None and ignores(path):
            continue
        if reason is None:
            add.append(path)
        elif reason:
            missing[path] = reason
    repo.run("-c", "core.compression=0", "-c", "core.safecrlf=false", "add", "-u", env=env)
    if add:
        names = b"".join(os.fsencode(path) + b"\0" for path in add)
        repo.run(
            "-c", "core.compression=0", "-c", "core.safecrlf=false", "update-index", "--add", "-z", "--stdin", env=env, input=names
        )
    return repo.run("write-tree", env=env).decode().strip(), missing


def _reason(repo: Repository, path: str, left_out: Collection[str], skipped: tuple[str, ...], max_bytes: int) -> str | None:
    """Return why an untracked file is not taken, `` where that is no news, None where it is taken."""
    if path in left_out or path.startswith(skipped):
        return ""
    if looks_secret(path):
        return "looks like a secret"
    there = os.path.join(repo.top, path)
    try:
        info = os.lstat(there)
    except OSError:
        return ""
    if info.st_size > max_bytes and not os.path.islink(there):
        hasher = sha256()
        try:
            with open(there, "rb") as file:
                while chunk := file.read(1 << 20):
                    hasher.update(chunk)
        except OSError as error:
            return f"can't be read: {error.strerror}"
        return f"{info.st_size} bytes, sha256:{hasher.hexdigest()}"
    if not os.access(there, os.R_OK) and not os.path.islink(there):
        return "can't be read"
    return None


def commit_tree(repo: Repository, tree: str, parent: str | None, message: str) -> str:
    """Return the id of a new commit. Who commits is what git knows of the user, else a stand-in."""
    env = {}
    if repo.process("var", "GIT_COMMITTER_IDENT").returncode != 0:
        for role in ("AUTHOR", "COMMITTER"):
            env |= {f"GIT_{role}_NAME": "pipe", f"GIT_{role}_EMAIL": "pipe@localhost"}
    parents = ["-p", parent] if parent else []
    data = message.encode("utf-8", "surrogateescape")
    try:
        return repo.run("commit-tree", tree, *parents, "-F", "-", input=data, env=env).decode().strip()
    except EnvironmentFailure:
        if not parents:
            raise
        return repo.run("commit-tree", tree, "-F", "-", input=data, env=env).decode().strip()
