"""The folder that git looks for hooks in, and ours in it beside those of others, which stay whole.

A hook of the clone alone is moved beside ours, under its name and `.before-pipe`. One that git tracks, or that husky
makes, stays where it is: git is led to a folder of our own, whose hooks run those of the folder before (`HooksApart`).
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from pipesmith.errors import EnvironmentFailure, UserError
from pipesmith.git.hook_scripts import (
    HOOKS,
    calls_pipe,
    is_ours,
    is_pre_commits,
    passing_on,
    programs,
    script,
    wants_own_name,
)
from pipesmith.git.repository import IN_PLACING, Repository

__all__ = ["HookFolder", "HooksApart", "hook_folder"]

_BEFORE = ".before-pipe"
# All that git runs, but those whose mere presence changes what it does or which it runs all the time.
_PASSED_ON = (
    *("applypatch-msg", "commit-msg", "post-applypatch", "post-commit", "post-receive", "post-update"),
    *("pre-applypatch", "pre-auto-gc", "pre-commit", "pre-merge-commit", "pre-rebase", "pre-receive"),
    *("prepare-commit-msg", "sendemail-validate", "update"),
)
_WHERE_ASKED = ("fsmonitor-watchman", "post-index-change", "proc-receive", "push-to-checkout", "reference-transaction")


def hook_folder(repo: Repository) -> HookFolder:
    """Return the folder that git looks in now: that of core.hooksPath, else the clone's own."""
    asked = os.fsdecode(repo.run("rev-parse", "--git-path", "hooks"))[:-1]
    return HookFolder(repo, os.path.normpath(os.path.join(repo.top, asked)))


class HookFolder:
    """path: absolute."""

    def __init__(self, repo: Repository, path: str) -> None:
        self.repo = repo
        self.path = path

    def file(self, name: str) -> str:
        return os.path.join(self.path, name)

    def before(self, name: str) -> str:
        """Return where the hook that was there before lies, whether there is one or not."""
        return self.file(name) + _BEFORE

    def check(self) -> None:
        """Raise UserError where hooks are turned off, by a path that can be no folder."""
        if os.path.lexists(self.path) and not os.path.isdir(self.path):
            raise UserError(
                f"git runs no hooks here: core.hooksPath leads to `{self.path}`, which is no folder",
                "`git config --show-origin core.hooksPath` shows where that is said",
            )

    def legacy(self, name: str) -> str:
        """Return where pre-commit's hook looks for the one that it runs first."""
        return f"{self.file(name)}.legacy"

    def ours(self, name: str) -> str | None:
        """Return the path of our hook, None without one that git runs, by itself or by way of pre-commit's."""
        if is_pre_commits(self.file(name)):
            return self.legacy(name) if is_ours(self.legacy(name)) else None
        return self.file(name) if is_ours(self.file(name)) else None

    def caller(self, name: str) -> str | None:
        """Return the path of somebody's own hook that runs pipe's by itself, None without one."""
        paths = [self.file(name)]
        if self._is_huskys():
            paths.append(os.path.join(os.path.dirname(self.path), name))
        return next((path for path in paths if calls_pipe(path, name)), None)

    def stands_apart(self, name: str) -> bool:
        """Return whether the hook that is there must not be touched: git tracks it, or husky makes it."""
        if self._is_huskys():
            return True
        if self.repo.is_bare or not os.path.lexists(self.file(name)):
            return False
        real = os.path.realpath(self.path)
        if real != self.repo.top and not real.startswith(self.repo.top + os.sep):
            return False
        return bool(self.repo.process("ls-files", "-z", "--", os.path.join(real, name)).stdout)

    def _is_huskys(self) -> bool:
        """Return whether this is the folder that husky (9 and later) makes anew whenever it is installed."""
        above, name = os.path.split(self.path)
        return name == "_" and os.path.basename(above) == ".husky" and os.path.isfile(os.path.join(self.path, "h"))

    def put(self, name: str) -> bool:
        """Have our hook there, and the one that was there before beside it; return whether that is a change.

        Raises EnvironmentFailure where the folder can't be written, UserError where two hooks would need one place.
        """
        found, before = self.ours(name), self.before(name)
        path = found or (self.legacy(name) if is_pre_commits(self.file(name)) else self.file(name))
        moving = found is None and os.path.lexists(path)
        if moving and os.path.lexists(before):
            raise UserError(
                f"`{path}` is not pipe's, and the hook that was there before, `{before}`, is there as well",
                "make one of the two, or remove one, then run `pipe hooks install` again",
            )
        if os.path.isdir(path):
            raise UserError(f"`{path}` is a folder, where git looks for a hook", "move it, then install again")
        theirs = path if moving else before
        chained = os.path.lexists(theirs)
        text = script(
            name,
            programs(),
            theirs=f'$(dirname "$0")/{name}{_BEFORE}' if chained else None,
            as_itself=chained and wants_own_name(theirs),
        )
        if _has(path, text):
            return False
        with _writing(self.path):
            os.makedirs(self.path, exist_ok=True)
            ready = _written(self.path, text)
            try:
                if moving:
                    os.rename(path, before)
                os.rename(ready, path)
            except BaseException:
                os.unlink(ready)
                if moving and not os.path.lexists(path) and os.path.lexists(before):
                    os.rename(before, path)
                raise
        return True

    def take(self, name: str) -> bool:
        """Remove our hook, put back the one that was there before, and return whether there was ours."""
        found = [path for path in (self.file(name), self.legacy(name)) if is_ours(path)]
        with _writing(self.path):
            for path in found:
                if os.path.lexists(self.before(name)):
                    os.rename(self.before(name), path)
                else:
                    os.unlink(path)
        return bool(found)


class HooksApart(HookFolder):
    """Our own folder, in the clone's `hooks`: core.hooksPath leads to it while it is in use, and the configuration of
    the clone remembers where that led before."""

    def __init__(self, repo: Repository) -> None:
        super().__init__(repo, os.path.join(repo.common_dir, "hooks", "pipe"))

    @property
    def in_use(self) -> bool:
        return hook_folder(self.repo).path == self.path

    def behind(self) -> HookFolder:
        """Return the folder that git would look in without ours."""
        if not self.in_use:
            return hook_folder(self.repo)
        return HookFolder(self.repo, os.path.normpath(os.path.join(self.repo.top, self._theirs())))

    def _theirs(self) -> str:
        """Return that folder as hooks see it: relative to where git runs them, or absolute."""
        key = "pipesmith.hooksPath" if self.in_use else "core.hooksPath"
        said = self.repo.process("config", "--type=path", "--get", key).stdout
        return os.fsdecode(said).removesuffix("\n") or os.path.join(self.repo.common_dir, "hooks")

    def names(self) -> list[str]:
        """Return which of our hooks are in it."""
        return [name for name in HOOKS if is_ours(self.file(name))] if self.in_use else []

    def fill(self, names: Collection[str]) -> bool:
        """Have just these hooks of ours there; all others are passed on. Return whether that is a change."""
        theirs = self._theirs()
        rare = [name for name in _WHERE_ASKED if os.path.lexists(os.path.join(self.behind().path, name))]
        texts = {}
        for name in (*HOOKS, *_PASSED_ON, *rare):
            word = shlex.quote(os.path.join(theirs, name))
            texts[name] = script(name, programs(), theirs=word) if name in names else passing_on(name, word)
        differing = [name for name, text in texts.items() if not _has(self.file(name), text)]
        if self.in_use and not differing:
            return False
        with _writing(self.path):
            os.makedirs(self.path, exist_ok=True)
            for name in differing:
                os.rename(_written(self.path, texts[name]), self.file(name))
        if not self.in_use:
            self._lead_here()
        return True

    def _lead_here(self) -> None:
        said = os.fsdecode(self.repo.process("config", "--show-scope", "--get", "core.hooksPath").stdout)
        scope, _, value = said.removesuffix("\n").partition("\t")
        own = scope if scope in ("local", "worktree") else ""
        self.repo.run("config", "--local", "pipesmith.hooksPath", value)
        self.repo.run("config", "--local", "pipesmith.hooksPathScope", own)
        self.repo.run("config", f"--{own or 'local'}", "core.hooksPath", self.path)

    def end(self) -> None:
        """Let git look where it looked before, and remove the folder."""
        if self.in_use:
            value = self.repo.config.get("pipesmith.hookspath", "")
            scope = self.repo.config.get("pipesmith.hookspathscope", "")
            if scope:
                self.repo.run("config", f"--{scope}", "core.hooksPath", value)
            else:
                self.repo.run("config", "--local", "--unset", "core.hooksPath", ok=(0, 5))
        for key in ("pipesmith.hooksPath", "pipesmith.hooksPathScope"):
            self.repo.run("config", "--local", "--unset", key, ok=(0, 5))
        with _writing(self.path):
            shutil.rmtree(self.path)


def _has(path: str, text: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read() == text.encode() and os.access(path, os.X_OK)
    except OSError:
        return False


def _written(folder: str, text: str) -> str:
    """Return the path of a new executable file with this text."""
    ready = os.path.join(folder, f"{IN_PLACING}{os.urandom(6).hex()}")
    with open(os.open(ready, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o777), "w", encoding="utf-8") as file:
        file.write(text)
    return ready


@contextmanager
def _writing(folder: str) -> Iterator[None]:
    """Turn what the system says into an error that names the folder."""
    try:
        yield
    except OSError as error:
        raise EnvironmentFailure(
            f"hooks can't be written to `{folder}`: {(error.strerror or 'failed').lower()}",
            "`git config --show-origin core.hooksPath` shows why git looks there, if it is not the clone's own",
        ) from None
