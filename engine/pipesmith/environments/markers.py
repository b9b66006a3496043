"""Environment markers (PEP 508): their canonical text, and what is left of one when the Python version is fixed."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import inf

__all__ = ["canonical_marker", "simplify"]

_TOKEN = re.compile(r"\s*(?:(\(|\))|('[^']*'|\"[^\"]*\")|(===|==|!=|<=|>=|~=|<|>)|([A-Za-z_][A-Za-z_0-9.]*))")
_MIRRORED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_IMPLEMENTATION = {"implementation_name": "cpython", "platform_python_implementation": "CPython"}

# A parsed marker: True, False, ("atom", variable, operator, value), or ("and" | "or", [parts]).
Node = bool | tuple[str, str, str, str] | tuple[str, "list[Node]"]


class _Unreadable(Exception):
    """The text is no marker that this module knows."""


def canonical_marker(text: str) -> str:
    """Return a marker in one spelling of spaces, quotes and brackets; what can't be read, with single spaces."""
    try:
        return _render(_Parser(text).whole())
    except _Unreadable:
        return " ".join(text.split())


def simplify(text: str, python: str) -> str | None:
    """Return what is left of a marker for CPython `python` (X.Y or X.Y.Z): `` where it always holds, None where never.

    `python_full_version < '3.12'` always holds for 3.11; `python_full_version >= '3.11.4'` is left as it is, since X.Y
    alone does not decide it.
    """
    version = tuple(int(part) for part in python.split("."))
    try:
        node = _reduce(_Parser(text).whole(), lambda name, operator, value: _decide(name, operator, value, version))
    except _Unreadable:
        return " ".join(text.split())
    if isinstance(node, bool):
        return "" if node else None
    return _render(node)


def _decide(name: str, operator: str, value: str, version: tuple[int, ...]) -> bool | None:
    """Return whether an atom holds for a Python version, None where that is not decided by it."""
    if name in _IMPLEMENTATION and operator in ("==", "!="):
        return (value == _IMPLEMENTATION[name]) is (operator == "==")
    digits = value.removesuffix(".*").split(".")
    if name not in ("python_version", "python_full_version") or not all(digit.isdecimal() for digit in digits):
        return None
    asked: tuple[float, ...] = tuple(int(digit) for digit in digits)
    # The running version is somewhere from `least` to `most`: the third number of X.Y is not known.
    least: tuple[float, ...] = (*version[:2], 0) if name == "python_version" else (*version, 0, 0)[:3]
    most = least if name == "python_version" or len(version) > 2 else (*version[:2], inf)
    if value.endswith(".*"):
        if operator not in ("==", "!=") or most[: len(asked)] != least[: len(asked)]:
            return None
        return (least[: len(asked)] == asked) is (operator == "==")
    asked = (*asked, 0, 0)[: max(3, len(asked))]
    if operator in ("<", ">="):
        below = False if least >= asked else True if most < asked else None
        return below if operator == "<" or below is None else not below
    if operator in (">", "<="):
        above = True if least > asked else False if most <= asked else None
        return above if operator == ">" or above is None else not above
    if operator in ("==", "!="):
        equal = False if not least <= asked <= most else True if least == most else None
        return equal if operator == "==" or equal is None else not equal
    return None


def _reduce(node: Node, decide: Callable[[str, str, str], bool | None]) -> Node:
    if isinstance(node, bool):
        return node
    if len(node) == 4:
        decided = decide(node[1], node[2], node[3])
        return node if decided is None else decided
    kind, parts = node
    absorbing = kind == "or"
    left: list[Node] = []
    for part in parts:
        reduced = _reduce(part, decide)
        if reduced is absorbing:
            return absorbing
        if not isinstance(reduced, bool) and reduced not in left:
            left.append(reduced)
    if not left:
        return not absorbing
    return left[0] if len(left) == 1 else (kind, left)


def _render(node: Node, inside: str = "") -> str:
    assert not isinstance(node, bool)
    if len(node) == 4:
        _kind, name, operator, value = node
        quote = '"' if "'" in value else "'"
        if operator in ("in-reversed", "not in-reversed"):
            return f"{quote}{value}{quote} {operator.removesuffix('-reversed')} {name}"
        return f"{name} {operator} {quote}{value}{quote}"
    kind, parts = node
    text = f" {kind} ".join(_render(part, kind) for part in parts)
    return f"({text})" if inside == "and" and kind == "or" else text


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens: list[str] = []
        position = 0
        stripped = text.strip()
        while position < len(stripped):
            match = _TOKEN.match(stripped, position)
            if match is None:
                raise _Unreadable
            self._tokens.append(match[0].strip())
            position = match.end()

    def whole(self) -> Node:
        node = self._either()
        if self._tokens:
            raise _Unreadable
        return node

    def _next(self) -> str:
        if not self._tokens:
            raise _Unreadable
        return self._tokens.pop(0)

    def _either(self) -> Node:
        return self._joined("or", lambda: self._joined("and", self._one))

    def _joined(self, kind: str, part: Callable[[], Node]) -> Node:
        parts: list[Node] = [part()]
        while self._tokens and self._tokens[0] == kind:
            self._next()
            parts.append(part())
        flat: list[Node] = []
        for each in parts:
            if not isinstance(each, bool) and len(each) == 2 and each[0] == kind:
                flat += each[1]
            else:
                flat.append(each)
        return flat[0] if len(flat) == 1 else (kind, flat)

    def _one(self) -> Node:
        first = self._next()
        if first == "(":
            node = self._either()
            if self._next() != ")":
                raise _Unreadable
            return node
        operator = self._next()
        if operator == "not":
            operator = f"not {self._next()}"
        second = self._next()
        if operator not in ("in", "not in") and operator[0] not in "<>=!~":
            raise _Unreadable
        if first[0] in "'\"":
            if second[0] in "'\"":
                raise _Unreadable
            mirrored = f"{operator}-reversed" if "in" in operator else _MIRRORED.get(operator, operator)
            return ("atom", second, mirrored, first[1:-1])
        if second[0] not in "'\"":
            raise _Unreadable
        return ("atom", first, operator, second[1:-1])
