"""A lockfile as people read it, one fact a line, each line whole by itself: what `git diff` compares line by line."""

from __future__ import annotations

import json
from _blake2 import blake2b
from collections.abc import Iterator, Mapping
from typing import Any

from pipesmith.digest import Digest
from pipesmith.lockfile.model import DatasetPin, EnvironmentPin, LockedDep, Lockfile, StageLock

__all__ = ["facts"]

_SHORT = 8


def facts(lockfile: Lockfile) -> str:
    """Return the text: an empty line between entries, hashes by their first eight digits."""
    blocks = [_environment(name, lockfile.environments[name]) for name in sorted(lockfile.environments)]
    blocks += [_dataset(name, lockfile.datasets[name]) for name in sorted(lockfile.datasets)]
    blocks += [_stage(name, lockfile.stages[name]) for name in sorted(lockfile.stages)]
    return "\n".join("".join(f"{line}\n" for line in block) for block in blocks)


def _stage(name: str, entry: StageLock) -> Iterator[str]:
    head = _word(name)
    yield f"{head}: fingerprint: {_short(entry.fingerprint)}"
    run = entry.run
    for line in run.split("\n") if isinstance(run, str) else [] if run is None else [_json(list(run))]:
        yield f"{head}: run: {_word(line)}".rstrip()
    if entry.kind != "command":
        yield f"{head}: kind: {entry.kind}"
    if entry.cwd != ".":
        yield f"{head}: cwd: {_word(entry.cwd)}"
    if entry.environment is not None:
        yield f"{head}: environment: {_short(_word(entry.environment))}"
    for path, identity in sorted(entry.source.items()):
        yield f"{head}: source {_word(path)}: {_short(identity)}"
    for dep in sorted(entry.deps, key=lambda dep: (dep.name, dep.path)):
        yield f"{head}: input {_word(dep.name)}: {_digest(dep.digest)}{_place(dep)}"
    for out in sorted(entry.outs, key=lambda out: (out.name, out.path)):
        left = (", executable" if out.digest.executable else "") + ("" if out.cache else ", cache = false")
        yield f"{head}: output {_word(out.name)}: {_digest(out.digest)}, {_word(out.path)}{left}"
    for key, value in _flat(entry.params):
        yield f"{head}: param {key}: {value}"
    for key, value in sorted(entry.env.items()):
        yield f"{head}: env {_word(key)}: {_word(value)}"
    for path, identity in sorted(entry.hash_paths.items()):
        yield f"{head}: hash-path {_word(path)}: {_short(identity)}"
    for key, number in sorted(entry.metrics.items()):
        yield f"{head}: metric {_word(key)}: {float(number)!r}"
    if entry.accepted is not None:
        accepted = entry.accepted
        yield f"{head}: accepted: {_short(accepted.fingerprint)}, {_word(accepted.reason)}, by {_word(accepted.by)}"


def _environment(name: str, pin: EnvironmentPin) -> Iterator[str]:
    head = f"environment {_word(name)}"
    yield f"{head}: definition: {_short(pin.definition)}"
    yield f"{head}: python: {_word(pin.python)}"
    if pin.image is not None:
        yield f"{head}: image: {_word(pin.image)}"
    for line in (*pin.conda, *pin.resolved):
        package, *hashes = line.split(" --hash=")
        told = f", hashes {blake2b(repr(hashes).encode(), digest_size=4).hexdigest()}" if hashes else ""
        yield f"{head}: package: {_word(package)}{told}"


def _dataset(name: str, pin: DatasetPin) -> Iterator[str]:
    head = f"dataset {_word(name)}"
    yield f"{head}: definition: {_short(_word(pin.definition))}"
    yield f"{head}: content: {_digest(pin.digest)}"
    for each in sorted(pin.objects, key=lambda each: each.name):
        algorithm, _, hex = each.hash.partition(":")
        version = f", {_word(each.version)}" if each.version else ""
        yield f"{head}: object {_word(each.name)}: {_short(_word(hex or algorithm))}, {each.size} B{version}"


def _place(dep: LockedDep) -> str:
    seen = f", seen at {_word(dep.at)}" if dep.at else ""
    return f", {_word(dep.path)}{seen}" if dep.path else seen


def _digest(digest: Digest) -> str:
    files = "" if digest.nfiles is None else f", {digest.nfiles} file{'' if digest.nfiles == 1 else 's'}"
    return f"{_short(digest.hex)}, {digest.size} B{files}"


def _short(text: str) -> str:
    """Return the first digits of a long hex, with its `.dir` or `.link`; other texts as they are."""
    hex, dot, kind = text.partition(".")
    if len(hex) >= 32 and all(char in "0123456789abcdef" for char in hex):
        return f"{hex[:_SHORT]}{dot}{kind}"
    return text


def _word(text: str) -> str:
    """Return a text that takes one line and ends where it seems to."""
    return text if text == text.strip() and text.isprintable() else _json(text)


def _flat(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in sorted(params.items()):
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{_word(name)}.")
        else:
            yield f"{prefix}{_word(name)}", _json(value)


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return text if text.isprintable() else json.dumps(value, sort_keys=True, default=str)
