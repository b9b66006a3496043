"""Work trees beside the user's own: a commit, or any tree, checked out by git itself where nobody looks.

No hook runs and no daemon is started there. Source: git-worktree(1), gitrepository-layout(5).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from pipesmith.errors import EnvironmentFailure
from pipesmith.git.repository import Repository

__all__ = ["add_work_tree", "fill", "gitlinks", "make_nested", "work_tree_folders"]

_SETTINGS = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.splitIndex": "false",
    "core.untrackedCache": "false",
    "index.sparse": "false",
    "advice.detachedHead": "false",
}
# What git and uv read of the folders above a workspace.
_ABOVE = (".gitattributes", ".gitignore", ".gitmodules", ".lfsconfig", "uv.toml", "pyproject.toml", ".python-version")
_SPECIAL = str.maketrans({char: f"\\{char}" for char in "*?[]\\!# "})


def add_work_tree(repo: Repository, path: str, commit: str) -> Repository:
    """Register an empty work tree of `repo` at an absolute path that is not there yet, HEAD detached at a commit.

    It is locked, so that git never prunes it. Raises EnvironmentFailure.
    """
    repo.run(*_flags(_SETTINGS), "worktree", "add", "--quiet", "--detach", "--no-checkout", "--lock", path, commit)
    with open(os.path.join(path, ".git"), encoding="utf-8", errors="surrogateescape") as file:
        git_dir = os.path.realpath(os.path.join(path, file.read().removeprefix("gitdir:").strip()))
    with open(os.path.join(git_dir, "locked"), "w", encoding="utf-8") as file:
        file.write("pipe builds here")
    return Repository(
        os.path.realpath(path),
        git_dir,
        repo.common_dir,
        is_bare=False,
        object_format=repo.object_format,
        local=repo.object_places() | _as_variables(_SETTINGS | {"core.sparseCheckout": "false"}),
    )


def fill(repo: Repository, tree: str, prefix: str = ".") -> None:
    """Check a tree (or commit) out: all of it, or what lies below a folder and the settings in those above it.

    Filters run as in any checkout; a partial clone fetches what it lacks. Raises EnvironmentFailure.
    """
    sparse = prefix != "."
    if sparse:
        folder = os.path.join(repo.git_dir, "info")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "sparse-checkout"), "wb") as file:
            file.write(os.fsencode("".join(f"{line}\n" for line in _patterns(prefix))))
    settings = {"core.sparseCheckout": "true" if sparse else "false", "core.sparseCheckoutCone": "false"}
    done = repo.process(
        "read-tree", "--reset", "-u", "--no-recurse-submodules", tree, env=_as_variables(_SETTINGS | settings)
    )
    if done.returncode != 0:
        lines = [line.strip() for line in os.fsdecode(done.stderr).splitlines() if line.strip()]
        said = next((line for line in lines if line.startswith(("fatal: ", "error: "))), lines[-1] if lines else "")
        words = said.removeprefix("fatal: ").removeprefix("error: ") or f"exit {done.returncode}"
        raise EnvironmentFailure(
            f"git can't check out {tree[:10]}: {words}",
            "`git worktree add --detach /tmp/try " + tree[:10] + "` says more",
        )


def _patterns(prefix: str) -> Iterator[str]:
    above = ""
    for part in ("", *prefix.split("/")):
        above = f"{above}{part.translate(_SPECIAL)}/" if part else "/"
        if above != f"/{prefix.translate(_SPECIAL)}/":
            yield from (f"{above}{name}" for name in _ABOVE)
    yield above


def gitlinks(repo: Repository, prefix: str = ".") -> list[tuple[str, str]]:
    """Return (path, commit) of the submodules in the index, below a folder."""
    found = []
    where = [] if prefix == "." else ["--", f":(literal){prefix}"]
    for row in os.fsdecode(repo.run("ls-files", "-s", "-z", *where)).split("\0"):
        head, _, path = row.partition("\t")
        if head.startswith("160000 "):
            found.append((path, head.split(" ")[1]))
    return found


def make_nested(source: Repository, path: str, tree: str, commit: str | None) -> Repository:
    """Make a repository at `path` that borrows all objects and settings of `source`, and check a tree out there.

    commit: HEAD, None for one without. It needs no trace in `source`, and is gone when its folder is. Raises
    EnvironmentFailure.
    """
    os.makedirs(path, exist_ok=True)
    git_dir = os.path.join(path, ".git")
    own = Repository(
        os.path.realpath(path),
        git_dir,
        git_dir,
        is_bare=False,
        object_format=source.object_format,
        local=_as_variables(_SETTINGS | {"core.sparseCheckout": "false"}),
    )
    own.run("init", "--quiet", "--template=", f"--object-format={source.object_format}", ".")
    os.makedirs(os.path.join(git_dir, "objects", "info"), exist_ok=True)
    with open(os.path.join(git_dir, "objects", "info", "alternates"), "wb") as file:
        file.write(os.fsencode(os.path.join(source.common_dir, "objects")) + b"\n")
    quoted = os.path.join(source.common_dir, "config").replace("\\", "\\\\").replace('"', '\\"')
    storage = os.path.join(source.common_dir, "lfs").replace("\\", "\\\\").replace('"', '\\"')
    place = own.top.replace("\\", "\\\\").replace('"', '\\"')
    with open(os.path.join(git_dir, "config"), "a", encoding="utf-8", errors="surrogateescape") as text:
        text.write(f'[include]\n\tpath = "{quoted}"\n[core]\n\tbare = false\n\tworktree = "{place}"\n')
        text.write(f'[lfs]\n\tstorage = "{storage}"\n')
    for name in ("shallow", os.path.join("info", "attributes"), os.path.join("info", "exclude")):
        _copy(os.path.join(source.common_dir, name), os.path.join(git_dir, name))
    if commit is not None:
        own.run("update-ref", "--no-deref", "HEAD", commit)
    fill(own, tree)
    return own


def _copy(origin: str, target: str) -> None:
    try:
        with open(origin, "rb") as file:
            data = file.read()
    except OSError:
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "wb") as file:
        file.write(data)


def work_tree_folders(common_dir: str) -> Iterator[tuple[str, str]]:
    """Yield (git's folder for it, path of the work tree) of all that are registered, whether they are there or not."""
    base = os.path.join(common_dir, "worktrees")
    try:
        names = os.listdir(base)
    except OSError:
        return
    for name in names:
        try:
            with open(os.path.join(base, name, "gitdir"), encoding="utf-8", errors="surrogateescape") as file:
                place = file.read().strip()
        except OSError:
            continue
        yield os.path.join(base, name), os.path.dirname(os.path.normpath(os.path.join(base, name, place)))


def _flags(settings: dict[str, str]) -> list[str]:
    return [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]


def _as_variables(settings: dict[str, str]) -> dict[str, str]:
    """Return variables by which every git command, and what it starts, has these settings besides the user's own."""
    try:
        count = int(os.environ.get("GIT_CONFIG_COUNT") or 0)
    except ValueError:
        count = 0
    found = {"GIT_CONFIG_COUNT": str(count + len(settings))}
    for index, (key, value) in enumerate(settings.items(), count):
        found |= {f"GIT_CONFIG_KEY_{index}": key, f"GIT_CONFIG_VALUE_{index}": value}
    return found
