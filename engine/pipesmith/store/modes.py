"""Who may read and write what lies under the pipe folder: what git's `core.sharedRepository` says, or the umask.

The pipe folder itself carries the answer in its mode; all below it follows that, so that no other module asks git.
"""

from __future__ import annotations

import os
import stat

__all__ = ["file_mode", "make_folders", "prepare", "shared_bits"]

_GROUP = 0o660
_ALL = 0o664


def shared_bits(value: str | None) -> int | None:
    """Return the permission bits that a value of core.sharedRepository asks for, None for "as the umask says".

    Source: git-config(1): `group`, `true` and `1`; `all`, `world`, `everybody` and `2`; an octal number of at least 0600.
    """
    word = (value or "").strip().lower()
    if word in ("group", "true", "yes", "on", "1"):
        return _GROUP
    if word in ("all", "world", "everybody", "2"):
        return _ALL
    if word.startswith("0") and len(word) > 1 and all(digit in "01234567" for digit in word):
        bits = int(word, 8) & 0o666
        return bits if bits & 0o600 == 0o600 else None
    return None


def prepare(folder: str, value: str | None) -> None:
    """Make the pipe folder with the mode that a value of core.sharedRepository asks for. What can't be done is left."""
    try:
        os.makedirs(folder, exist_ok=True)
        bits = shared_bits(value)
        if bits is None:
            return
        found = stat.S_IMODE(os.stat(folder).st_mode)
        wanted = _folder_bits(bits)
        wanted |= 0 if value and value.strip().startswith("0") else found & 0o777
        if found != wanted:
            os.chmod(folder, wanted)
    except OSError:
        pass


def _folder_bits(bits: int) -> int:
    """A folder that may be read may be searched; its group goes on to what is made in it."""
    searched = bits | (bits & 0o444) >> 2
    return searched | stat.S_ISGID if bits & 0o060 else searched


def make_folders(folder: str) -> None:
    """Make a folder and those above it. New ones have the mode of the first that was there. Raises OSError."""
    made = []
    top = folder
    while not os.path.isdir(top):
        made.append(top)
        top = os.path.dirname(top)
    if not made:
        return
    mode = stat.S_IMODE(os.stat(top).st_mode)
    for each in reversed(made):
        try:
            os.mkdir(each)
            if mode & 0o077 and stat.S_IMODE(os.stat(each).st_mode) != mode:
                os.chmod(each, mode)
        except FileExistsError:
            if not os.path.isdir(each):
                raise


def file_mode(folder: str) -> int | None:
    """Return the mode of files in a folder where it is not what the umask gives: of a folder with the set-group bit."""
    try:
        mode = os.stat(folder).st_mode
    except OSError:
        return None
    return mode & 0o666 if mode & stat.S_ISGID else None
