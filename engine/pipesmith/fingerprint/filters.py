"""What decides how git changes a file's bytes on their way in: attributes files, configuration, filter programs."""

from __future__ import annotations

import os
from _blake2 import blake2b
from collections.abc import Iterable

from pipesmith.git.deciding import filter_programs
from pipesmith.git.repository import Repository

__all__ = ["filter_state"]

_CONFIG = ("core.autocrlf", "core.eol", "core.attributesfile")
_CHANGING = (b"text", b"eol", b"crlf", b"ident", b"filter", b"working-tree-encoding")


def filter_state(repo: Repository, root: str, folders: Iterable[str], *, sparse: bool) -> tuple[bytes, bool, bool]:
    """Return a digest of all that decides how git filters files below `root`, whether none of it can change a byte, and
    whether git-lfs may keep any of them.

    folders: those of listed files, relative to `root`; git reads their attributes files whether it ignores them or not.
    sparse: attributes may be read from the index, where a file is not checked out.
    Source: gitattributes(5).
    """
    config = repo.config
    hasher = blake2b(digest_size=16)
    lfs = sparse
    plain = config.get("core.autocrlf", "false").lower() in ("false", "no", "off", "0") and not sparse
    for key in sorted(config):
        if key in _CONFIG or key.startswith("filter."):
            hasher.update(_raw(f"{key}={config[key]}\n"))
    for place in (*_outer_places(repo, root), *(os.path.join(root, folder, ".gitattributes") for folder in folders)):
        try:
            with open(place, "rb") as file:
                data = file.read()
        except OSError:
            continue
        plain = plain and not _may_change(data)
        lfs = lfs or b"filter=lfs" in data
        hasher.update(os.fsencode(place) + b"\0" + data)
    if not plain:
        for program in filter_programs(repo):
            info = os.stat(program)
            hasher.update(_raw(f"{program} {info.st_size} {info.st_mtime_ns} {info.st_ctime_ns} {info.st_ino}\n"))
    return hasher.digest(), plain, lfs


def _outer_places(repo: Repository, root: str) -> list[str]:
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    own = os.path.expanduser(repo.config.get("core.attributesfile", os.path.join(home, "git", "attributes")))
    places = [os.path.join(repo.common_dir, "info", "attributes"), os.path.join(repo.top, own), "/etc/gitattributes"]
    folder = root
    while folder != repo.top and folder.startswith(repo.top + os.sep):
        folder = os.path.dirname(folder)
        places.append(os.path.join(folder, ".gitattributes"))
    return places


def _may_change(attributes: bytes) -> bool:
    """Return whether an attributes file names anything that changes bytes on their way into git."""
    for line in attributes.split(b"\n"):
        words = line.split()
        if not words or words[0].startswith(b"#"):
            continue
        if line.startswith(b"[attr]"):
            return True
        for word in words[1:]:
            if word.lstrip(b"-!").partition(b"=")[0] in _CHANGING and not word.startswith((b"-", b"!")):
                return True
    return False


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
