"""Commands as ordinary users, for tests that root runs: two colleagues of one group, and somebody else.

The interpreter may lie where only root gets to (`/root/.pyenv`): each command has a mount namespace of its own, in
which such a folder holds nothing but the interpreter and this checkout, and lets everybody in.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from tests.conftest import ROOT, Repo, Result

__all__ = ["ADA", "BOB", "EVE", "User", "needs_root", "run_as", "start_as"]


@dataclass(frozen=True)
class User:
    """name: of the HOME. uid: one that no account has. gids: groups, the user's own first."""

    name: str
    uid: int
    gids: tuple[int, ...]


GROUP = 61_500
ADA = User("ada", 61_501, (61_501, GROUP))
BOB = User("bob", 61_502, (61_502, GROUP))
EVE = User("eve", 61_503, (61_503,))

# $1: folders to open, $2: what stays in them, both one a line.
_OPEN = """
IFS='
'
aside=$(mktemp -d)
number=0
for kept in $2; do number=$((number + 1)); mkdir "$aside/$number"; mount --rbind "$kept" "$aside/$number" || exit 99; done
for folder in $1; do mount -t tmpfs -o mode=755 none "$folder" || exit 99; done
number=0
for kept in $2; do
    number=$((number + 1))
    mkdir -p "$kept" && mount --rbind "$aside/$number" "$kept" || exit 99
    umount -l "$aside/$number"
done
cd "$3" || exit 99
shift 3
exec "$@"
"""


@cache
def _closed(where: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the folders that let only root in, on the way to what every user needs; and what is needed of them."""
    needed = {os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, ROOT, where)}
    closed: dict[str, list[str]] = {}
    for path in needed:
        for folder in reversed(Path(path).parents):
            if not folder.stat().st_mode & 0o001:
                closed.setdefault(str(folder), []).append(path)
                break
    return tuple(closed), tuple(path for paths in closed.values() for path in sorted(paths))


def _words(user: User, cwd: Path, umask: int, command: tuple[str, ...]) -> list[str]:
    groups = ",".join(map(str, user.gids))
    drop = ["setpriv", f"--reuid={user.uid}", f"--regid={user.gids[0]}", f"--groups={groups}", "--"]
    masked = ["sh", "-c", f'umask {umask:03o}; exec "$@"', "sh"]
    folders, kept = _closed(cwd.parent)
    inside = ["sh", "-c", _OPEN, "sh", "\n".join(folders), "\n".join(kept), str(cwd)]
    return ["unshare", "-m", *inside, *drop, *masked, *command]


@cache
def _why_not() -> str | None:
    if os.geteuid() != 0:
        return "only root can be other users"
    tried = subprocess.run(
        _words(EVE, Path("/"), 0o022, (sys.executable, "-c", "import json, pygit2")), capture_output=True, text=True
    )
    return None if tried.returncode == 0 else f"no other users here: {tried.stderr.strip()}"


needs_root = pytest.mark.skipif(_why_not() is not None, reason=_why_not() or "")


def environment(repo: Repo, user: User) -> dict[str, str]:
    """Return what a command of a user gets: like the repository's own, with a HOME of the user's."""
    home = repo.path.parent / f"home-{user.name}"
    if not home.exists():
        home.mkdir()
        (home / ".gitconfig").write_text("[safe]\n\tdirectory = *\n")
        for path in (home, home / ".gitconfig"):
            os.chown(path, user.uid, user.gids[0])
    own = {"HOME": str(home), "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"), "USER": user.name, "LOGNAME": user.name}
    own |= {f"XDG_{name}_HOME": str(home / f".{name.lower()}") for name in ("CACHE", "CONFIG", "DATA", "STATE")}
    return {**repo.env, **own}


def start_as(
    repo: Repo, user: User, *command: str, umask: int = 0o022, env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start a command of a user in the work tree; the process becomes the command itself."""
    repo.path.parent.chmod(0o711)  # pytest's own are root's alone
    return subprocess.Popen(
        _words(user, repo.path, umask, command),
        cwd=repo.path,
        env={**environment(repo, user), **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run_as(
    repo: Repo,
    user: User,
    *command: str,
    check: bool = True,
    umask: int = 0o022,
    env: Mapping[str, str] | None = None,
) -> Result:
    """Run a command of a user; `pipe` stands for this checkout's."""
    words = (sys.executable, "-m", "pipesmith", *command[1:]) if command[0] == "pipe" else command
    process = start_as(repo, user, *words, umask=umask, env=env)
    out, err = process.communicate()
    if check and process.returncode != 0:
        pytest.fail(f"{user.name}: {' '.join(command)}: exit {process.returncode}\n{out}{err}", pytrace=False)
    return Result(command, process.returncode, out, err)
