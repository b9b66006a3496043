"""`.pipeignore`: gitignore's rules, applied to tracked and untracked files alike, in a work tree or at a commit.

Source: gitignore(5), and git's dir.c and wildmatch.c where that is silent. Each file's patterns are relative to its
folder; the last one that matches decides, a deeper file's before a higher one's; what lies in an ignored folder can't
be taken back in. Names are bytes: `?` is one byte.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from pipesmith.fingerprint.wildmatch import literal_length, translate

__all__ = ["NAME", "PipeIgnore"]

NAME = ".pipeignore"


class _Rule:
    """One line of a file."""

    __slots__ = ("_ending", "_expression", "_literal", "_prefix", "_whole", "folders_only", "negated")

    def __init__(self, line: bytes) -> None:
        self.negated = line.startswith(b"!")
        pattern = line[1:] if self.negated else line
        self.folders_only = pattern.endswith(b"/")
        pattern = pattern[:-1] if self.folders_only else pattern
        self._whole = b"/" in pattern
        pattern = pattern[1:] if pattern.startswith(b"/") else pattern
        # Git compares what stands before the first wildcard by itself, and what follows as a pattern of its own.
        length = literal_length(pattern)
        self._literal = pattern if length == len(pattern) else None
        self._ending = pattern[1:] if pattern[:1] == b"*" and literal_length(pattern[1:]) == len(pattern) - 1 else None
        self._prefix = pattern[:length] if self._whole else b""
        self._expression: re.Pattern[bytes] | None = None
        if self._literal is None and (self._whole or self._ending is None):
            self._expression = translate(pattern[len(self._prefix) :], pathname=self._whole)

    def matches(self, path: bytes, name: bytes) -> bool:
        """path: relative to the rule's folder. name: its last part."""
        text = path if self._whole else name
        if self._literal is not None:
            return text == self._literal and text != b""
        if self._ending is not None and not self._whole:
            return text.endswith(self._ending)
        if not text.startswith(self._prefix) or self._expression is None:
            return False
        return self._expression.match(text, len(self._prefix)) is not None


def _rules(data: bytes) -> list[_Rule]:
    rules = []
    for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        line = _without_spaces(line.removesuffix(b"\r").partition(b"\0")[0])
        if line and not line.startswith(b"#"):
            rules.append(_Rule(line))
    return rules


def _without_spaces(line: bytes) -> bytes:
    """Cut spaces at the end, but for one after a backslash."""
    end = len(line)
    while end and line[end - 1 : end] == b" ":
        end -= 1
    if end == len(line):
        return line
    slashes = end - len(line[:end].rstrip(b"\\"))
    return line[: end + 1] if slashes % 2 else line[:end]


class PipeIgnore:
    """The rules of a workspace. files: path of each `.pipeignore`, relative to the workspace, to its text."""

    def __init__(self, files: Mapping[str, str]) -> None:
        found = {
            path.rpartition("/")[0]: _rules(text.encode("utf-8", "surrogateescape")) for path, text in files.items()
        }
        self._rules = {folder: rules for folder, rules in found.items() if rules}
        self._folders: dict[str, bool] = {"": False}

    def __bool__(self) -> bool:
        return bool(self._rules)

    def ignores(self, path: str, is_folder: bool = False) -> bool:
        """Return whether a path of the workspace is left out of sources."""
        return self._folder(path.rpartition("/")[0]) or self._decide(path, is_folder)

    def _folder(self, path: str) -> bool:
        known = self._folders.get(path)
        if known is None:
            known = self._folder(path.rpartition("/")[0]) or self._decide(path, True)
            self._folders[path] = known
        return known

    def _decide(self, path: str, is_folder: bool) -> bool:
        raw = os.fsencode(path)
        folder, _, last = path.rpartition("/")
        name = os.fsencode(last)
        while True:
            rules = self._rules.get(folder)
            if rules:
                inner = raw[len(os.fsencode(folder)) + 1 :] if folder else raw
                for rule in reversed(rules):
                    if (is_folder or not rule.folders_only) and rule.matches(inner, name):
                        return not rule.negated
            if not folder:
                return False
            folder = folder.rpartition("/")[0]
