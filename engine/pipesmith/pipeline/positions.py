"""Where each key of a TOML text stands: tomllib gives values without positions. Made only to report errors.

Works on text that tomllib has accepted, so it need not check anything. Source: TOML 1.0.
"""

from __future__ import annotations

import re

from pipesmith.pipeline.keys import Path

__all__ = ["positions"]

_SKIP = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BASIC = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_LITERAL = re.compile(r"'[^'\n]*'")
_LONG_BASIC = re.compile(r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}', re.DOTALL)
_LONG_LITERAL = re.compile(r"'''(?:[^']|'{1,2}(?!'))*'{3,5}", re.DOTALL)
_SCALAR = re.compile(r"[^,\]}\n#]+")


def positions(text: str) -> dict[Path, int]:
    """Return the offset of each key, by its path; entries of arrays have their index in the path."""
    return _Scan(text).run()


class _Scan:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[Path, int] = {}
        self.counts: dict[Path, int] = {}

    def run(self) -> dict[Path, int]:
        table: Path = ()
        while True:
            self.skip()
            if self.at >= len(self.text):
                return self.found
            start = self.at
            if self.text.startswith("[[", self.at):
                self.at += 2
                base = self.canonical(self.key())
                index = self.counts.get(base, -1) + 1
                self.counts[base] = index
                self.found.setdefault(base, start)
                table = (*base, index)
                self.found[table] = start
                self.at += 2
            elif self.text[self.at] == "[":
                self.at += 1
                table = self.canonical(self.key())
                self.note(table, start)
                self.at += 1
            else:
                self.pair(table)

    def canonical(self, key: Path) -> Path:
        """Return a header's path with the index of the newest entry after each array of tables on the way."""
        path: Path = ()
        for number, part in enumerate(key):
            path = (*path, part)
            if path in self.counts and number < len(key) - 1:
                path = (*path, self.counts[path])
        return path

    def note(self, path: Path, offset: int) -> None:
        for length in range(1, len(path) + 1):
            self.found.setdefault(path[:length], offset)

    def skip(self) -> None:
        match = _SKIP.match(self.text, self.at)
        assert match is not None
        self.at = match.end()

    def key(self) -> Path:
        parts: list[str | int] = []
        while True:
            self.skip()
            parts.append(self.key_part())
            self.skip()
            if self.at < len(self.text) and self.text[self.at] == ".":
                self.at += 1
                continue
            return tuple(parts)

    def key_part(self) -> str:
        quote = self.text[self.at]
        if quote == '"':
            match = _BASIC.match(self.text, self.at)
            assert match is not None
            self.at = match.end()
            import tomllib

            return str(tomllib.loads(f"k = {match[0]}")["k"])
        if quote == "'":
            match = _LITERAL.match(self.text, self.at)
            assert match is not None
            self.at = match.end()
            return match[0][1:-1]
        match = _BARE.match(self.text, self.at)
        assert match is not None
        self.at = match.end()
        return match[0]

    def pair(self, table: Path) -> None:
        start = self.at
        path = (*table, *self.key())
        self.note(path, start)
        self.found[path] = start
        self.at += 1  # the equals sign
        self.skip()
        self.value(path)

    def value(self, path: Path) -> None:
        first = self.text[self.at]
        if first == "[":
            self.array(path)
        elif first == "{":
            self.inline_table(path)
        else:
            for pattern in (_LONG_BASIC, _LONG_LITERAL, _BASIC, _LITERAL, _SCALAR):
                match = pattern.match(self.text, self.at)
                if match is not None:
                    self.at = match.end()
                    return
            raise AssertionError("tomllib accepted a value that the scan can't read")

    def array(self, path: Path) -> None:
        self.at += 1
        index = 0
        while True:
            self.skip()
            if self.text[self.at] == "]":
                self.at += 1
                return
            self.found[(*path, index)] = self.at
            self.value((*path, index))
            index += 1
            self.skip()
            if self.text[self.at] == ",":
                self.at += 1

    def inline_table(self, path: Path) -> None:
        self.at += 1
        while True:
            self.skip()
            if self.text[self.at] == "}":
                self.at += 1
                return
            self.pair(path)
            self.skip()
            if self.text[self.at] == ",":
                self.at += 1
