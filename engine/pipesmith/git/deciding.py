"""The files that decide what git lists and how it filters, besides the listed files themselves."""

from __future__ import annotations

import os
import shlex

from pipesmith.git.repository import Repository

__all__ = ["files_that_decide", "filter_programs", "ignored_folders"]


def files_that_decide(repo: Repository, root: str) -> list[str]:
    """Return absolute paths, of files that are there or that could appear: index, ignore, attributes and configuration
    files, filter programs.

    root: a folder of the work tree; those above it count, those below are found by whoever looks there.
    """
    home = os.path.expanduser("~")
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    found = {
        os.path.join(repo.git_dir, "index"),
        os.path.join(repo.git_dir, "config.worktree"),
        os.path.join(repo.common_dir, "config"),
        os.path.join(repo.common_dir, "info", "exclude"),
        os.path.join(repo.common_dir, "info", "attributes"),
        os.path.join(repo.git_dir, "info", "sparse-checkout"),
        os.path.join(home, ".gitconfig"),
        "/etc/gitconfig",
        "/etc/gitattributes",
        *(os.path.join(config, "git", name) for name in ("config", "ignore", "attributes")),
    }
    for origin, key, value in repo.configuration:
        if origin.startswith("file:"):
            found.add(os.path.join(repo.top, origin.removeprefix("file:")))
        if key in ("core.excludesfile", "core.attributesfile"):
            found.add(os.path.join(repo.top, os.path.expanduser(value)))
        if key.startswith("includeif.") or key == "include.path":
            found.add(os.path.join(repo.git_dir, "HEAD"))
    found.update(filter_programs(repo))
    folder = root
    while True:
        found |= {os.path.join(folder, name) for name in (".gitignore", ".gitattributes")}
        if folder == repo.top or os.path.dirname(folder) == folder:
            break
        folder = os.path.dirname(folder)
    return sorted(found)


def filter_programs(repo: Repository) -> list[str]:
    """Return the files that clean filters' commands name: their programs, and scripts of the repository."""
    found = []
    for key, command in repo.config.items():
        if not (key.startswith("filter.") and key.endswith((".clean", ".process"))):
            continue
        try:
            words = shlex.split(command)
        except ValueError:
            continue
        for index, word in enumerate(words):
            place = os.path.join(repo.top, word)
            if os.path.isfile(place):
                found.append(place)
            elif index == 0:
                places = (os.path.join(folder, word) for folder in os.get_exec_path())
                found += filter(None, [next(filter(os.path.isfile, places), None)])
    return sorted(set(found))


def ignored_folders(repo: Repository, root: str) -> set[str]:
    """Return absolute paths of the folders below `root` that git ignores as a whole."""
    output = repo.run("ls-files", "-z", "-o", "-i", "--exclude-standard", "--directory", cwd=root)
    return {os.path.join(root, path.rstrip("/")) for path in os.fsdecode(output).split("\0") if path.endswith("/")}
