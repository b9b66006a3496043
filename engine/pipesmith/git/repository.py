"""A git repository, asked through the `git` program. Never writes the user's index, stash or HEAD."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Collection, Sequence
from functools import cached_property

from pipesmith.errors import EnvironmentFailure, UserError

__all__ = ["CoProcess", "Repository", "cut_credentials"]


def cut_credentials(url: str) -> str:
    """Return a remote's URL without user name and password."""
    return re.sub(r"^([a-z][a-z0-9+.-]*://)[^/@]*@", r"\1", url)


def _environment(extra: dict[str, str] | None) -> dict[str, str]:
    env = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    return env | extra if extra else env


class Repository:
    """top: absolute path of the work tree (of the repository itself when bare). git_dir: of this worktree. common_dir: shared by
    all worktrees of the clone. All are real paths."""

    def __init__(self, top: str, git_dir: str, common_dir: str, *, is_bare: bool, object_format: str) -> None:
        self.top = top
        self.git_dir = git_dir
        self.common_dir = common_dir
        self.is_bare = is_bare
        self.object_format = object_format

    @staticmethod
    def discover(path: str) -> Repository:
        """Return the repository that holds `path`. Raises UserError where there is none, EnvironmentFailure without git."""
        command = ["git", "rev-parse", "--is-bare-repository", "--git-dir", "--git-common-dir", "--show-object-format"]
        try:
            done = subprocess.run([*command, "--show-toplevel"], cwd=path, env=_environment(None), capture_output=True)
        except FileNotFoundError:
            raise EnvironmentFailure("the program `git` is not on PATH", "install git 2.30 or newer") from None
        lines = os.fsdecode(done.stdout).splitlines()
        if done.returncode != 0 and not (len(lines) >= 4 and lines[0] == "true"):
            message = os.fsdecode(done.stderr).strip().splitlines()
            if message and "not a git repository" in message[0]:
                raise UserError(f"`{path}` is not in a git repository", "run `git init`")
            raise UserError(message[0].removeprefix("fatal: ") if message else "git can't read this repository")
        bare = lines[0] == "true"
        git_dir = os.path.realpath(os.path.join(path, lines[1]))
        common_dir = os.path.realpath(os.path.join(path, lines[2]))
        top = git_dir if bare else os.path.realpath(lines[4])
        return Repository(top, git_dir, common_dir, is_bare=bare, object_format=lines[3])

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
        """Return what `git ARGS` prints. Raises EnvironmentFailure with git's own words where it exits otherwise than `ok`."""
        done = self.process(*args, input=input, env=env, cwd=cwd)
        if done.returncode not in ok:
            said = os.fsdecode(done.stderr).strip().splitlines()
            words = said[-1] if said else f"exit {done.returncode}"
            raise EnvironmentFailure(f"`git {args[0]}` failed: {words.removeprefix('fatal: ')}")
        return done.stdout

    def process(
        self, *args: str, input: bytes | None = None, env: dict[str, str] | None = None, cwd: str | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `git ARGS` at the top of the work tree and return how it ended."""
        return subprocess.run(
            ["git", *args],
            cwd=cwd or self.top,
            env=_environment(env),
            input=input if input is not None else b"",
            capture_output=True,
        )

    def start(self, *args: str, cwd: str | None = None, stdin: bool = False, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start `git ARGS` with its output in a pipe."""
        return subprocess.Popen(
            ["git", *args],
            cwd=cwd or self.top,
            env=_environment(env),
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def resolve(self, revision: str) -> str:
        """Return the commit id of a revision. Raises UserError where there is none."""
        done = self.process("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        if done.returncode != 0:
            raise UserError(f"`{revision}` is not a revision of this repository", "`git log --oneline` lists commits")
        return done.stdout.decode().strip()

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
        done = self.process("config", "--get", "remote.origin.url")
        url = os.fsdecode(done.stdout).strip()
        return cut_credentials(url) if url else None

    def is_dirty(self) -> bool:
        """Return whether anything differs from HEAD, untracked files included."""
        return bool(self.process("status", "--porcelain", "-z").stdout)

    @cached_property
    def config(self) -> dict[str, str]:
        """All configuration, by lower-case section and key; of many values the last."""
        found = {}
        for entry in os.fsdecode(self.process("config", "--list", "-z").stdout).split("\0"):
            key, _, value = entry.partition("\n")
            if key:
                found[key] = value
        return found


class CoProcess:
    """A git program that answers on its standard output as long as one asks: `cat-file --batch`, `hash-object --stdin-paths`."""

    def __init__(self, repo: Repository, args: Sequence[str], cwd: str | None = None) -> None:
        self._process = repo.start(*args, cwd=cwd, stdin=True)

    def ask(self, line: bytes) -> bytes:
        """Write a line, return the line that is the answer, without its newline. Raises EnvironmentFailure when it has gone."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise EnvironmentFailure("git ended in the middle of an answer") from None
        answer = self._process.stdout.readline()
        if not answer:
            raise EnvironmentFailure("git ended in the middle of an answer")
        return answer[:-1]

    def read(self, size: int) -> bytes:
        """Return exactly `size` more bytes of the answer."""
        assert self._process.stdout is not None
        return self._process.stdout.read(size)

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        self._process.stdout.close()
        self._process.wait()
