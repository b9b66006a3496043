"""Writes pipe.lock: sorted, one entry a line, the same bytes for the same content.

Format: docs/formats/pipe-lock.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pipesmith.digest import Digest
from pipesmith.lockfile.escapes import NULL, escape
from pipesmith.lockfile.model import LOCK_VERSION, DatasetPin, EnvironmentPin, LockedDep, LockedOut, Lockfile, StageLock

__all__ = ["HEADER", "render"]

HEADER = "# Written by pipe; kept in git. A conflict in it: `pipe lock resolve`.\n"
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
_SPECIAL = re.compile(r"""[\x00-\x1f\x7f"\\]""")
_PLAIN_KEY = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def _string(text: str) -> str:
    if text.isalnum() and text.isascii():
        return f'"{text}"'
    if not text.isascii():
        text = escape(text)
    return f'"{_SPECIAL.sub(_escaped, text)}"'


def _escaped(match: re.Match[str]) -> str:
    char = match[0]
    return _ESCAPES.get(char) or f"\\u{ord(char):04x}"


def _key(text: str) -> str:
    return text if text and _PLAIN_KEY.issuperset(text) else _string(text)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(name)} = {_value(value[name])}" for name in sorted(value))
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(entry) for entry in value)}]"
    if value is None:
        return f'"{NULL}"'
    return value.isoformat() if hasattr(value, "isoformat") else _string(str(value))


def _number(value: float) -> str:
    if value != value:
        return "nan"
    if value in (float("inf"), float("-inf")):
        return "inf" if value > 0 else "-inf"
    return repr(float(value))


def _digest(digest: Digest) -> list[str]:
    parts = [f'hash = "{digest.algorithm}"', f'{digest.algorithm} = "{digest.hex}"', f"size = {digest.size}"]
    if digest.nfiles is not None:
        parts.append(f"nfiles = {digest.nfiles}")
    return parts


def _dep(dep: LockedDep) -> str:
    parts = [f"name = {_string(dep.name)}", f"path = {_string(dep.path)}", *_digest(dep.digest)]
    if dep.git is not None:
        parts.append(f'git = "{dep.git}"')
    if dep.at:
        parts.append(f"at = {_string(dep.at)}")
    if dep.of:
        parts.append(f'of = "{dep.of}"')
    return f"  {{ {', '.join(parts)} }},\n"


def _out(out: LockedOut) -> str:
    parts = [f"name = {_string(out.name)}", f"path = {_string(out.path)}", *_digest(out.digest)]
    if out.digest.executable:
        parts.append("executable = true")
    if not out.cache:
        parts.append("cache = false")
    return f"  {{ {', '.join(parts)} }},\n"


def _lines(key: str, lines: list[str]) -> str:
    return f"{key} = [\n{''.join(lines)}]\n" if lines else ""


def _table(key: str, value: Mapping[str, Any]) -> str:
    """Dotted keys, one a line."""
    return "".join(f"{key}.{_key(name)} = {_value(value[name])}\n" for name in sorted(value))


def _stage(name: str, entry: StageLock) -> str:
    out = [f"\n[stage.{_key(name)}]\n", f'fingerprint = "{entry.fingerprint}"\n']
    if entry.run is not None:
        out.append(f"run = {_value(entry.run)}\n")
    if entry.kind != "command":
        out.append(f'kind = "{entry.kind}"\n')
    if entry.cwd != ".":
        out.append(f"cwd = {_string(entry.cwd)}\n")
    if entry.environment is not None:
        out.append(f"environment = {_string(entry.environment)}\n")
    source = [f'  {{ path = {_string(path)}, git = "{entry.source[path]}" }},\n' for path in sorted(entry.source)]
    out.append(_lines("source", source))
    out.append(_lines("deps", [_dep(dep) for dep in sorted(entry.deps, key=lambda dep: (dep.name, dep.path))]))
    out.append(_lines("outs", [_out(o) for o in sorted(entry.outs, key=lambda o: (o.name, o.path))]))
    for key, values in (("params", entry.params), ("env", entry.env), ("hash-paths", entry.hash_paths)):
        if values:
            out.append(_table(key, values))
    if entry.metrics:
        out.append(_table("metrics", {key: float(number) for key, number in entry.metrics.items()}))
    if entry.accepted is not None:
        a = entry.accepted
        out.append(
            f'accepted = {{ fingerprint = "{a.fingerprint}", reason = {_string(a.reason)}, by = {_string(a.by)} }}\n'
        )
    return "".join(out)


def _environment(name: str, pin: EnvironmentPin) -> str:
    out = [f"\n[environment.{_key(name)}]\n", f'definition = "{pin.definition}"\n', f"python = {_string(pin.python)}\n"]
    if pin.image is not None:
        out.append(f"image = {_string(pin.image)}\n")
    for key, lines in (("conda", pin.conda), ("resolved", pin.resolved)):
        out.append(_lines(key, [f"  {_string(line)},\n" for line in lines]))
    return "".join(out)


def _dataset(name: str, pin: DatasetPin) -> str:
    out = [f"\n[dataset.{_key(name)}]\n", f"definition = {_string(pin.definition)}\n"]
    out += [f"{part}\n" for part in _digest(pin.digest)]
    lines = []
    for each in sorted(pin.objects, key=lambda each: each.name):
        head = f"name = {_string(each.name)}, size = {each.size}"
        lines.append(f"  {{ {head}, version = {_string(each.version)}, hash = {_string(each.hash)} }},\n")
    out.append(_lines("objects", lines))
    return "".join(out)


def render(lockfile: Lockfile) -> str:
    """Return the text of a lockfile."""
    out = [HEADER, f"version = {LOCK_VERSION}\n"]
    out += [_environment(name, lockfile.environments[name]) for name in sorted(lockfile.environments)]
    out += [_dataset(name, lockfile.datasets[name]) for name in sorted(lockfile.datasets)]
    out += [_stage(name, lockfile.stages[name]) for name in sorted(lockfile.stages)]
    return "".join(out)
