"""`.pipeignore`: gitignore's rules, applied to tracked and untracked files alike, in a work tree or at a commit.

Source: gitignore(5). Each file's patterns are relative to its folder; the last one that matches decides; what lies in
an ignored folder can't be taken back in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["NAME", "PipeIgnore"]

NAME = ".pipeignore"


def _translate(pattern: str) -> str:
    """Return a regular expression for one pattern without slashes at its ends."""
    out = []
    index = 0
    while index < len(pattern):
        char = pattern[index]
        if pattern.startswith("**/", index) and (index == 0 or pattern[index - 1] == "/"):
            out.append("(?:.*/)?")
            index += 3
        elif pattern.startswith("/**", index) and index + 3 == len(pattern):
            out.append("/.+")
            index += 3
        elif char == "*":
            out.append("[^/]*")
            index += 1
            while index < len(pattern) and pattern[index] == "*":
                index += 1
        elif char == "?":
            out.append("[^/]")
            index += 1
        elif char == "[":
            end = index + 1
            if end < len(pattern) and pattern[end] in "!^":
                end += 1
            if end < len(pattern) and pattern[end] == "]":
                end += 1
            while end < len(pattern) and pattern[end] != "]":
                end += 2 if pattern[end] == "\\" else 1
            if end >= len(pattern):
                return r"(?!)"
            body = pattern[index + 1 : end]
            negated = body[:1] in ("!", "^")
            body = body[1:] if negated else body
            body = body.replace("[", r"\[")
            out.append(f"(?!/)[{'^' if negated else ''}{body}]")
            index = end + 1
        elif char == "\\" and index + 1 < len(pattern):
            out.append(re.escape(pattern[index + 1]))
            index += 2
        else:
            out.append(re.escape(char))
            index += 1
    return "".join(out)


class _Rule:
    __slots__ = ("expression", "folders_only", "negated", "whole")

    def __init__(self, line: str) -> None:
        self.negated = line.startswith("!")
        pattern = line[1:] if self.negated else line
        self.folders_only = pattern.endswith("/")
        pattern = pattern.rstrip("/") if self.folders_only else pattern
        self.whole = "/" in pattern
        pattern = pattern.removeprefix("/")
        try:
            self.expression = re.compile(_translate(pattern) + r"\Z", re.DOTALL)
        except re.error:
            self.expression = re.compile(r"(?!)")

    def matches(self, path: str, is_folder: bool) -> bool:
        """path: relative to the file's folder."""
        if self.folders_only and not is_folder:
            return False
        return self.expression.match(path if self.whole else path.rpartition("/")[2]) is not None


def _rules(text: str) -> list[_Rule]:
    rules = []
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        line = line.rstrip("\r")
        while line.endswith(" ") and not line.endswith("\\ "):
            line = line[:-1]
        if line.strip("/") or line == "/":
            rules.append(_Rule(line))
    return [rule for rule in rules if rule.expression.pattern != r"\Z"]


class PipeIgnore:
    """The rules of a workspace. files: path of each `.pipeignore`, relative to the workspace, to its text."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._rules = {path.rpartition("/")[0]: _rules(text) for path, text in files.items()}
        self._folders: dict[str, bool] = {"": False}

    def __bool__(self) -> bool:
        return any(self._rules.values())

    def ignores(self, path: str, is_folder: bool = False) -> bool:
        """Return whether a path of the workspace is left out of sources."""
        parent = path.rpartition("/")[0]
        if self._folder(parent):
            return True
        return self._decide(path, is_folder)

    def _folder(self, path: str) -> bool:
        known = self._folders.get(path)
        if known is None:
            known = self._folder(path.rpartition("/")[0]) or self._decide(path, True)
            self._folders[path] = known
        return known

    def _decide(self, path: str, is_folder: bool) -> bool:
        folder = path.rpartition("/")[0]
        while True:
            rules = self._rules.get(folder)
            if rules:
                inner = path[len(folder) + 1 :] if folder else path
                for rule in reversed(rules):
                    if rule.matches(inner, is_folder):
                        return not rule.negated
            if not folder:
                return False
            folder = folder.rpartition("/")[0]
