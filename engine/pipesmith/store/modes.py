"""Who may read and write what lies under the pipe folder: what git's `core.sharedRepository` says, else the umask.

The pipe folder carries the answer in its own mode: the set-group bit says that all below it follows its permissions.
So no other module asks git.
"""

from __future__ import annotations

import os
import stat

__all__ = ["make_folders", "prepare", "share", "share_all", "shared_bits"]


def shared_bits(value: str | None) -> int | None:
    """Return the permission bits that a value of core.sharedRepository asks for, None for "as the umask says".

    Source: git-config(1): `group`, `true` and `1`; `all`, `world`, `everybody` and `2`; an octal number that lets the
    owner in.
    """
    word = (value or "").strip().lower()
    if word in ("group", "true", "yes", "on", "1"):
        return 0o660
    if word in ("all", "world", "everybody", "2"):
        return 0o664
    if len(word) > 1 and word.startswith("0") and set(word) <= set("01234567"):
        bits = int(word, 8) & 0o666
        return bits if bits & 0o600 == 0o600 else None
    return None


def prepare(folder: str, value: str | None) -> None:
    """Make the pipe folder as a value of core.sharedRepository says. What can't be done is left as it is."""
    try:
        os.makedirs(folder, exist_ok=True)
        bits = shared_bits(value)
        if bits is None:
            return
        found = stat.S_IMODE(os.stat(folder).st_mode)
        asked = bits | (bits & 0o444) >> 2  # a folder that may be read may be searched
        if bits & 0o060:
            asked |= stat.S_ISGID
        wanted = asked if value and value.strip().startswith("0") else asked | found & 0o777
        if found != wanted:
            os.chmod(folder, wanted)
    except OSError:
        pass


def make_folders(folder: str) -> None:
    """Make a folder and those above it; in a shared folder with its permissions. Raises OSError."""
    made = []
    top = folder
    while not os.path.isdir(top):
        made.append(top)
        above = os.path.dirname(top)
        if above == top:
            break
        top = above
    if not made:
        return
    mode = stat.S_IMODE(os.stat(top).st_mode)
    for each in reversed(made):
        try:
            os.mkdir(each)
        except FileExistsError:
            if not os.path.isdir(each):
                raise
            continue
        if mode & stat.S_ISGID:
            os.chmod(each, mode)


def share_all(path: str) -> None:
    """Give a file, or a folder with all in it, the permissions of the folder where it lies, as `share` does."""
    if not os.path.isdir(path) or os.path.islink(path):
        share(path)
        return
    try:
        mode = stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode)
        if mode & stat.S_ISGID:
            os.chmod(path, mode)
            for name in os.listdir(path):
                share_all(os.path.join(path, name))
    except OSError:
        pass


def share(path: str, *, read_only: bool = False) -> None:
    """Give a new file the permissions of its folder where that is a shared one. What can't be done is left."""
    try:
        mode = os.stat(os.path.dirname(path)).st_mode
        if mode & stat.S_ISGID:
            os.chmod(path, mode & (0o444 if read_only else 0o666))
    except OSError:
        pass
