"""The exact source of a moment as a git tree, made in an index of its own.

The user's index, HEAD and stash are not touched.
What is left out is left out before git hashes anything, so no big or secret file ever enters the object database.
"""

from __future__ import annotations

import fnmatch
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence

from pipesmith.digest import new_hasher
from pipesmith.git.repository import IN_PLACING, Repository, cause
from pipesmith.records import field, record

__all__ = ["SECRETS", "SECRET_FOLDERS", "commit_tree", "looks_secret", "write_snapshot"]

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
SECRET_FOLDERS = (".env*", "credentials*")  # all that lies in a folder so named
# Uncompressed objects are written several times faster; the next `git gc` packs them. Neither hooks nor a file system
# monitor of the user's see this index.
_SETTINGS = (
    "core.compression=0",
    "core.safecrlf=false",
    "core.splitIndex=false",
    "core.fsmonitor=false",
    f"core.hooksPath={os.devnull}",
)
_WRITING = tuple(word for setting in _SETTINGS for word in ("-c", setting))
_IGNORING = "Ignoring path "  # what `update-index` says of names such as `git~1`
_MOST_TRIES = 300  # of finding out which files git does not take
_GITLINK = "160000"


def looks_secret(path: str) -> bool:
    """Return whether a file, or a folder it lies in, has a name that secrets have. Case does not count."""
    *folders, name = path.lower().split("/")
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in SECRETS) or any(
        fnmatch.fnmatchcase(folder, pattern) for folder in folders for pattern in SECRET_FOLDERS
    )


def write_snapshot(
    repo: Repository,
    index: str,
    *,
    left_out: Mapping[str, str],
    max_file_bytes: int,
    ignores: Callable[[str], bool],
    digest: Callable[[str], str] | None = None,
    data: Callable[[str], str | None] | None = None,
) -> tuple[str, dict[str, str]]:
    """Write the work tree's tree and return (tree id, left-out path to reason).

    index: absolute path of the private index, made anew and removed. left_out: path, relative to the top, of what is
    not taken (data, cached outputs) to the reason that is recorded. ignores(path): what `.pipeignore` names of
    untracked files; not recorded, as what git ignores is not. digest(absolute path): recorded where a file is too big.
    data(path): what a data file is recorded as, None for other files.

    Every tracked file is in the tree as it is now; one that git can't take (its filter fails) as the index has it. Of
    untracked ones those that are too big, secret, not readable, or nested repositories are not. Raises
    EnvironmentFailure or OSError where nothing can be written.
    """
    env = {"GIT_INDEX_FILE": index}
    _seed(repo, index)
    try:
        listing = _list(repo, env)
        choice = _Choice(repo.top, left_out, max_file_bytes, ignores, digest or _blake3, data)
        add = [path for path in listing.untracked if choice.takes(path)]
        _show_hidden(repo, env, listing)
        choice.missing |= _add_tracked(repo, env)
        choice.missing |= _Adding(repo, env).add(add)
        if listing.conflicted:
            _drop_conflicts(repo, env)
        tree = _write_tree(repo, env)
        choice.missing |= {path: _nested(repo, path) for path in listing.repositories if choice.is_news(path)}
        choice.missing |= dict.fromkeys(_changed_inside(repo, env, listing), "a submodule with changes of its own")
        return tree, dict(sorted(choice.missing.items()))
    finally:
        for path in (index, f"{index}.lock"):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass


def _seed(repo: Repository, index: str) -> None:
    """Begin with the user's index: it knows what is tracked though ignored, sparse, or a submodule not checked out.

    Its time comes along: a later one would make git trust entries as young as the index itself.
    """
    os.makedirs(os.path.dirname(index), exist_ok=True)
    try:
        shutil.copy2(repo.index_path, index)
    except FileNotFoundError:
        if os.path.exists(index):
            os.unlink(index)


@record(frozen=False, kw_only=False)
class _Listing:
    """untracked: files. repositories: nested ones that are not tracked. hidden: rows for `update-index --index-info` of
    tracked files that git was told not to look at: assume-unchanged, and skip-worktree where there is a file.
    submodules: tracked as such. conflicted: whether a merge left entries of several sides."""

    untracked: list[str] = field(default_factory=list)
    repositories: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    submodules: list[str] = field(default_factory=list)
    conflicted: bool = False


def _list(repo: Repository, env: dict[str, str]) -> _Listing:
    listing = _Listing()
    folders: dict[str, bool] = {}
    output = repo.run(*_WRITING, "ls-files", "-z", "-v", "-s", "-c", "-o", "--exclude-standard", env=env)
    for row in os.fsdecode(output).split("\0"):
        if row.startswith("? "):
            path = row[2:]
            (listing.repositories if path.endswith("/") else listing.untracked).append(path.rstrip("/"))
            continue
        head, _, path = row.partition("\t")
        if not path:
            continue
        is_hidden = head[0].islower()
        if head[0] in "Ss":
            folder = path.rpartition("/")[0]
            if folder not in folders:
                folders[folder] = os.path.isdir(os.path.join(repo.top, folder))
            is_hidden = folders[folder] and os.path.lexists(os.path.join(repo.top, path))
        if is_hidden:
            listing.hidden.append(row[2:])
        if not head.endswith(" 0"):
            listing.conflicted = True
        if head[2:8] == _GITLINK:
            listing.submodules.append(path)
    return listing


class _Choice:
    """Which untracked files are taken. missing: path to reason of those that are not, where the record is to say so."""

    def __init__(
        self,
        top: str,
        left_out: Mapping[str, str],
        max_file_bytes: int,
        ignores: Callable[[str], bool],
        digest: Callable[[str], str],
        data: Callable[[str], str | None] | None,
    ) -> None:
        self._top = top
        self._left_out = left_out
        self._max_file_bytes = max_file_bytes
        self._ignores = ignores
        self._digest = digest
        self._data = data
        self._folders: dict[str, str | None] = {"": None}
        self.missing: dict[str, str] = {}

    def takes(self, path: str) -> bool:
        """Return whether an untracked file is taken; where it is not, remember why."""
        if not self.is_news(path):
            return False
        there = os.path.join(self._top, path)
        try:
            info = os.lstat(there)
        except OSError:
            return False
        reason = None
        if looks_secret(path):
            reason = "looks like a secret"
        elif not os.path.islink(there) and not os.access(there, os.R_OK):
            reason = "can't be read"
        elif info.st_size > self._max_file_bytes:
            reason = f"{info.st_size} bytes, {self._digest(there)}"
        if reason is not None:
            self.missing[path] = reason
        return reason is None

    def is_news(self, path: str) -> bool:
        """Return whether a path is neither declared data, nor ignored, nor on its way into the workspace."""
        declared = path if path in self._left_out else self._declared(path.rpartition("/")[0])
        if declared is not None:
            self.missing[declared] = self._left_out[declared]
            return False
        if self._data is not None and (name := self._data(path)) is not None:
            self.missing[name] = "a data input"
            return False
        return f"/{IN_PLACING}" not in f"/{path}" and not self._ignores(path)

    def _declared(self, folder: str) -> str | None:
        """Return the path of `left_out` that a folder is or lies in."""
        if folder not in self._folders:
            inside = self._declared(folder.rpartition("/")[0])
            self._folders[folder] = folder if inside is None and folder in self._left_out else inside
        return self._folders[folder]


def _show_hidden(repo: Repository, env: dict[str, str], listing: _Listing) -> None:
    """In our index, take back what the user told git not to look at: the file as it is now is what is built.

    Such an entry is made anew, so that its content is looked at: git does not mark one that was written in the second
    in which it was added, and so would believe its stamp."""
    if listing.hidden:
        args = ("update-index", "-z", "--index-info")
        repo.run(*_WRITING, *args, env=env, input=_joined(listing.hidden))


def _add_tracked(repo: Repository, env: dict[str, str]) -> dict[str, str]:
    """Bring what is tracked up to date; return path to reason of files that git does not take."""
    # git from 2.34 on leaves alone what lies outside the sparse patterns, unless told; earlier ones know no such flag.
    sparse = os.path.exists(os.path.join(repo.git_dir, "info", "sparse-checkout"))
    if sparse and repo.process(*_WRITING, "add", "-u", "--sparse", env=env).returncode == 0:
        return {}
    if repo.process(*_WRITING, "add", "-u", env=env).returncode == 0:
        return {}
    listed = os.fsdecode(repo.run("ls-files", "-z", "-c", env=env)).split("\0")[:-1]
    adding = _Adding(repo, env)
    reasons = {}
    for path, why in adding.add(list(dict.fromkeys(listed))).items():
        if _is_content(os.path.join(repo.top, path)) and adding.is_merged(path):
            reasons[path] = f"as git has it: {why}"
        else:
            repo.run(*_WRITING, "update-index", "--force-remove", "-z", "--stdin", env=env, input=_joined([path]))
            reasons[path] = "can't be read"
    return reasons


def _drop_conflicts(repo: Repository, env: dict[str, str]) -> None:
    """Take away what `git add` leaves unmerged: files whose folder is a file now."""
    rows = os.fsdecode(repo.run("ls-files", "-z", "-u", env=env)).split("\0")[:-1]
    if paths := {row.partition("\t")[2] for row in rows}:
        args = ("update-index", "--force-remove", "-z", "--stdin")
        repo.run(*_WRITING, *args, env=env, input=_joined(sorted(paths)))


def _is_content(path: str) -> bool:
    """Return whether git could take what lies at a path: no pipe, socket or device."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode)


class _Adding:
    """Adds files to the private index; where git refuses the lot, finds out which it does not take."""

    def __init__(self, repo: Repository, env: dict[str, str]) -> None:
        self._repo = repo
        self._env = env
        self._tries = 0

    def add(self, paths: Sequence[str]) -> dict[str, str]:
        """Add files as they are now, those that are gone as gone; return path to git's words of what it does not take.

        Raises EnvironmentFailure where that can't be found out."""
        if not paths:
            return {}
        flags = ("--add", "--remove", "--replace", "--ignore-skip-worktree-entries")
        self._tries += 1
        command = (*_WRITING, "update-index", *flags, "-z", "--stdin")
        done = self._repo.process(*command, env=self._env, input=_joined(paths))
        if done.returncode == 0:
            said = os.fsdecode(done.stderr).splitlines()
            ignored = {line.removeprefix(_IGNORING) for line in said if line.startswith(_IGNORING)}
            return {path: "git takes no file of this name" for path in paths if path in ignored}
        if self._tries > _MOST_TRIES:
            self._repo.run(*command, env=self._env, input=_joined(paths))
        if len(paths) == 1:
            return {paths[0]: cause(os.fsdecode(done.stderr))}
        middle = len(paths) // 2
        return self.add(paths[:middle]) | self.add(paths[middle:])

    def is_merged(self, path: str) -> bool:
        pathspec = f":(top,literal){path}"
        return not self._repo.run("ls-files", "-z", "-u", "--", pathspec, env=self._env)


def _write_tree(repo: Repository, env: dict[str, str]) -> str:
    # A partial clone lacks what was never checked out; looking whether it is there would fetch it.
    partial = any(key.startswith("remote.") and key.endswith(".promisor") for key in repo.config)
    flags = ("--missing-ok",) if partial or "extensions.partialclone" in repo.config else ()
    return repo.run(*_WRITING, "write-tree", *flags, env=env).decode().strip()


def _nested(repo: Repository, path: str) -> str:
    """Return what is recorded of a repository inside this one that is no submodule: its commit."""
    folder = os.path.join(repo.top, path)
    env = {"GIT_DIR": os.path.join(folder, ".git"), "GIT_WORK_TREE": folder}
    done = repo.process("rev-parse", "--verify", "--quiet", "HEAD^{commit}", cwd=folder, env=env)
    commit = done.stdout.decode().strip()
    return f"a nested repository, at {commit}" if commit else "a nested repository without a commit"


def _changed_inside(repo: Repository, env: dict[str, str], listing: _Listing) -> list[str]:
    """Return the submodules whose work tree is not their commit: the tree holds the commit alone."""
    if not listing.submodules:
        return []
    done = repo.process(*_WRITING, "diff-files", "-z", "--name-only", "--ignore-submodules=none", env=env)
    changed = set(os.fsdecode(done.stdout).split("\0"))
    return [path for path in listing.submodules if path in changed]


def _joined(paths: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(path) + b"\0" for path in paths)


def _blake3(path: str) -> str:
    hasher = new_hasher("blake3")
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            hasher.update(chunk)
    return f"blake3:{hasher.hexdigest()}"


def commit_tree(repo: Repository, tree: str, parent: str | None, message: str) -> str:
    """Return the id of a new commit. Who commits is what git knows of the user, else a stand-in.

    Raises EnvironmentFailure where the repository can't be written."""
    parents = ["-p", parent] if parent else []
    args = ["-c", "i18n.commitEncoding=UTF-8", "commit-tree", tree, *parents, "-F", "-"]
    data = message.encode("utf-8", "backslashreplace").replace(b"\0", b"\\0")
    done = repo.process(*args, input=data)
    if done.returncode == 0:
        return done.stdout.decode().strip()
    env: dict[str, str] = {}
    for role in ("AUTHOR", "COMMITTER"):
        env |= {f"GIT_{role}_NAME": "pipe", f"GIT_{role}_EMAIL": "pipe@localhost"}
    return repo.run(*args, input=data, env=env).decode().strip()
