"""A git repository, asked through the `git` program. Never writes the user's index, stash or HEAD."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Collection, Sequence
from functools import cached_property

from pipesmith.errors import EnvironmentFailure, UserError

__all__ = ["INSIDE", "IN_PLACING", "UNSHALLOW", "Repository", "cause", "cut_credentials"]

IN_PLACING = ".pipe-tmp-"  # how names begin of what is on its way into a work tree, or a kill has left on it
INSIDE = "this is inside of git's own folder"
UNSHALLOW = "this clone is shallow: `git fetch --unshallow` brings the commits that it lacks"
_ENDING = frozenset(("commit-tree", "update-ref"))


def cut_credentials(url: str) -> str:
    """Return a remote's URL without user name and password."""
    return re.sub(r"^([a-z][a-z0-9+.-]*://)[^/]*@", r"\1", url, flags=re.IGNORECASE)


# What `git rev-parse --local-env-vars` lists, but for configuration: set inside git's hooks, true of one repository.
_LOCAL_VARIABLES = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
)
_PATH_LISTS = ("GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES")


def _without_local() -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name not in _LOCAL_VARIABLES}
    return env | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}


class Repository:
    """top: absolute path of the work tree (of the repository itself when bare). git_dir: of this worktree. common_dir:
    shared by all worktrees of the clone. All are real paths. local: variables that hold for this repository alone."""

    def __init__(
        self,
        top: str,
        git_dir: str,
        common_dir: str,
        *,
        is_bare: bool,
        object_format: str,
        local: dict[str, str] | None = None,
    ) -> None:
        self.top = top
        self.git_dir = git_dir
        self.common_dir = common_dir
        self.is_bare = is_bare
        self.object_format = object_format
        self._env = _without_local() | (local or {})

    @staticmethod
    def discover(path: str, *, nested: bool = False) -> Repository:
        """Return the repository that holds `path`.

        Raises UserError where there is none or git refuses to work there, EnvironmentFailure without git.
        nested: a repository inside another one: GIT_DIR and its like speak of the outer one.
        """
        if not nested and "GIT_DIR" in os.environ:
            # Inside a hook the variables are relative to the current folder, which is the top.
            here = os.getcwd()
            env = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
            done = _rev_parse(here, env)
            facts = _facts(here, done)
            real = os.path.realpath(path)
            if facts is not None and (facts[0] == real or real.startswith(facts[0] + os.sep)):
                top, git_dir, common_dir, bare, object_format = facts
                local = {"GIT_DIR": git_dir} if bare else {"GIT_DIR": git_dir, "GIT_WORK_TREE": top}
                for name in _PATH_LISTS:
                    if name in os.environ:
                        places = os.environ[name].split(os.pathsep)
                        local[name] = os.pathsep.join(os.path.join(here, place) for place in places)
                return Repository(top, git_dir, common_dir, is_bare=bare, object_format=object_format, local=local)
        done = _rev_parse(path, _without_local())
        facts = _facts(path, done)
        if facts is None:
            raise _refusal(path, os.fsdecode(done.stderr))
        top, git_dir, common_dir, bare, object_format = facts
        return Repository(top, git_dir, common_dir, is_bare=bare, object_format=object_format)

    @staticmethod
    def at_git_dir(git_dir: str, object_format: str) -> Repository:
        """Return a repository for its objects alone, by its git folder: a submodule's that is not checked out."""
        local = {"GIT_DIR": git_dir, "GIT_WORK_TREE": git_dir}  # its core.worktree may lead nowhere
        return Repository(git_dir, git_dir, git_dir, is_bare=True, object_format=object_format, local=local)

    def without_replacements(self) -> Repository:
        """Return the same repository with its objects as they are, whatever `git replace` puts in their places."""
        return self._with({"GIT_NO_REPLACE_OBJECTS": "1"})

    @property
    def index_path(self) -> str:
        """The index of this work tree; inside a hook the one that git names."""
        return self._env.get("GIT_INDEX_FILE") or os.path.join(self.git_dir, "index")

    @property
    def empty_id(self) -> str:
        """The zero id of this repository's object format."""
        return "0" * (64 if self.object_format == "sha256" else 40)

    def run(
        self,
        *args: str,
        input: bytes | None = None,
        env: dict[str, str] | None = None,
        ok: Collection[int] = (0,),
        cwd: str | None = None,
    ) -> bytes:
        """Return what `git ARGS` prints.

        Raises EnvironmentFailure with git's own words where it exits otherwise than `ok`."""
        done = self.process(*args, input=input, env=env, cwd=cwd)
        if done.returncode not in ok:
            words = cause(os.fsdecode(done.stderr)) or _end(done.returncode)
            raise EnvironmentFailure(f"`git {_verb(args)}` failed: {words}")
        return done.stdout

    def process(
        self, *args: str, input: bytes | None = None, env: dict[str, str] | None = None, cwd: str | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `git ARGS` at the top of the work tree and return how it ended.

        Ctrl-C reaches git as well. What brings a record to its end does not hear it; all else ends, as it is asked to:
        a filter may take its time.
        """
        deaf = not _ENDING.isdisjoint(args)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT] if deaf else [])
        try:
            child = subprocess.Popen(
                ["git", *args],
                cwd=cwd or self.top,
                env=self._env | env if env else self._env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        with child:
            try:
                out, err = child.communicate(input if input is not None else b"")
            except BaseException:
                child.kill()
                raise
        return subprocess.CompletedProcess(child.args, child.returncode, out, err)

    def start(
        self,
        *args: str,
        cwd: str | None = None,
        stdin: bool | int = False,
        env: dict[str, str] | None = None,
        stderr: int | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start `git ARGS` with its output in a pipe. stdin: True for a pipe, or the descriptor of a file. stderr: the
        descriptor of a file, None to drop it."""
        return subprocess.Popen(
            ["git", *args],
            cwd=cwd or self.top,
            env=self._env | env if env else self._env,
            stdin=subprocess.PIPE if stdin is True else subprocess.DEVNULL if stdin is False else stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if stderr is None else stderr,
        )

    def resolve(self, revision: str) -> str:
        """Return the commit id of a revision. Raises UserError where there is none, which says what may be why."""
        done = self.process("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        if done.returncode == 0:
            return done.stdout.decode().strip()
        if revision in ("HEAD", "@") and self.head() is None:
            raise UserError(f"there is no commit yet, so `{revision}` is none", "`git commit` makes the first one")
        help = "`git log --oneline` lists commits"
        if self.shallow:
            help = UNSHALLOW
        raise UserError(f"`{revision}` is not a revision of this repository", help)

    def head(self) -> str | None:
        """Return the commit id of HEAD, None before the first commit."""
        done = self.process("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        return done.stdout.decode().strip() or None

    def branch(self) -> str | None:
        """Return the branch's short name, None for a detached HEAD."""
        done = self.process("symbolic-ref", "--quiet", "--short", "HEAD")
        return os.fsdecode(done.stdout).strip() or None

    def remote_url(self) -> str | None:
        """Return the URL of `origin` (else of the only remote) without credentials, None without a remote."""
        urls = {key: value for key, value in self.config.items() if key.startswith("remote.") and key.endswith(".url")}
        url = urls.get("remote.origin.url") or (next(iter(urls.values())) if len(urls) == 1 else None)
        return cut_credentials(url) if url else None

    def is_dirty(self) -> bool:
        """Return whether anything differs from HEAD, untracked files included; so it is where git can't say."""
        done = self.process("status", "--porcelain", "--no-renames", "-z")
        return bool(done.stdout) or done.returncode != 0

    @cached_property
    def config(self) -> dict[str, str]:
        """All configuration, by lower-case section and key; of many values the last."""
        return {key: value for _origin, key, value in self.configuration}

    @cached_property
    def configuration(self) -> list[tuple[str, str, str]]:
        """All configuration as (origin, lower-case section and key, value); of two values of a key the later counts.

        origin: as git names it, so `file:PATH`, where a relative path is relative to the top."""
        listing = os.fsdecode(self.process("config", "--list", "--show-origin", "-z").stdout).split("\0")
        found = []
        for origin, entry in zip(listing[::2], listing[1::2], strict=False):
            key, given, value = entry.partition("\n")
            found.append((origin, key, value if given else "true"))
        return found

    @cached_property
    def shallow(self) -> frozenset[str]:
        """The commits whose parents this clone does not have, though there are some."""
        path = self._env.get("GIT_SHALLOW_FILE") or os.path.join(self.common_dir, "shallow")
        try:
            with open(path, encoding="ascii") as file:
                return frozenset(file.read().split())
        except (FileNotFoundError, NotADirectoryError):
            return frozenset()

    def config_bool(self, key: str, default: bool) -> bool:
        """Return a boolean of the configuration; what is no boolean counts as `default`."""
        value = self.config.get(key, "").lower()
        if value in ("true", "yes", "on", "1"):
            return True
        return False if value in ("false", "no", "off", "0") else default

    def object_places(self) -> dict[str, str]:
        """Return the variables, set in some of git's hooks, that say where objects lie besides the usual place."""
        names = ("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES")
        return {name: self._env[name] for name in names if name in self._env}

    def scratch_objects(self, folder: str) -> dict[str, str]:
        """Return variables with which git reads this repository's objects and writes new ones to `folder`."""
        own = self._env.get("GIT_OBJECT_DIRECTORY") or os.path.join(self.common_dir, "objects")
        known = [own, *filter(None, [self._env.get("GIT_ALTERNATE_OBJECT_DIRECTORIES")])]
        return {
            "GIT_OBJECT_DIRECTORY": folder,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": os.pathsep.join(known),
        }

    def with_scratch(self, folder: str) -> Repository:
        """Return this repository for a while in which new objects go to `folder`."""
        return self._with(self.scratch_objects(folder))

    def _with(self, variables: dict[str, str]) -> Repository:
        """Return this repository for git processes that are given more variables."""
        return Repository(
            self.top,
            self.git_dir,
            self.common_dir,
            is_bare=self.is_bare,
            object_format=self.object_format,
            local=self._env | variables,
        )


def _verb(args: Sequence[str]) -> str:
    """Return the git command of arguments that may begin with `-c KEY=VALUE`."""
    at = 0
    while at + 2 < len(args) and args[at] == "-c":
        at += 2
    return args[at]


def _end(code: int) -> str:
    if code == -signal.SIGINT:
        return "interrupted"
    return f"exit {code}" if code >= 0 else f"ended by signal {-code}"


def cause(said: str) -> str:
    """Return the first error that git told of, since what follows follows from it; else its last line."""
    lines = said.strip().splitlines()
    first = next((line for line in lines if line.startswith(("error: ", "fatal: "))), lines[-1] if lines else "")
    return first.removeprefix("error: ").removeprefix("fatal: ")


def _rev_parse(path: str, env: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    command = ["git", "rev-parse", "--is-bare-repository", "--git-dir", "--git-common-dir", "--show-object-format"]
    if not os.path.isdir(path):
        raise UserError(f"`{path}` is not a folder")
    try:
        return subprocess.run([*command, "--show-toplevel"], cwd=path, env=env, capture_output=True)
    except FileNotFoundError:
        raise EnvironmentFailure("the program `git` is not on PATH", "install git 2.30 or newer") from None
    except PermissionError as error:
        raise UserError(f"`{path}` can't be entered: {error.strerror}") from None


def _facts(path: str, done: subprocess.CompletedProcess[bytes]) -> tuple[str, str, str, bool, str] | None:
    """Return (top, git folder, common folder, bare, object format), None where git could not say."""
    lines = os.fsdecode(done.stdout).split("\n")
    bare = lines[0] == "true"
    if (done.returncode != 0 and not bare) or len(lines) < 5:
        return None
    git_dir = os.path.realpath(os.path.join(path, lines[1]))
    common_dir = os.path.realpath(os.path.join(path, lines[2]))
    top = git_dir if bare else os.path.realpath("\n".join(lines[4:]).removesuffix("\n"))
    return top, git_dir, common_dir, bare, lines[3]


def _no_repository(path: str) -> UserError:
    folder = path = os.path.abspath(path)
    while not os.path.lexists(there := os.path.join(folder, ".git")):
        if folder == os.path.dirname(folder):
            return UserError(f"`{path}` is not in a git repository", "run `git init`")
        folder = os.path.dirname(folder)
    if not os.access(there, os.R_OK | os.X_OK if os.path.isdir(there) else os.R_OK):
        return UserError(f"`{there}` can't be read: permission denied", f"ask its owner for access: `ls -ld {there}`")
    return UserError(f"git does not take `{there}` for a repository", "look at it: `git fsck`; or run `git init` anew")


def _refusal(path: str, said: str) -> UserError:
    """Return git's refusal to work here, in its own words, and what it says to type as the help line."""
    lines = [line.strip() for line in said.strip().splitlines() if line.strip()]
    if not lines:
        return UserError(f"git can't read the repository of `{path}`", "run `git status` there to see why")
    if "not a git repository" in lines[0]:
        return _no_repository(path)
    if "must be run in a work tree" in lines[0]:
        return UserError(f"{INSIDE}, `{os.path.abspath(path)}`", "go to the work tree that belongs to it")
    advice = next((line for line in lines[1:] if line.startswith("git ")), None)
    return UserError(lines[0].removeprefix("fatal: "), f"run `{advice}`" if advice else None)
