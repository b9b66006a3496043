"""From what an environment asks for to the exact set of packages, for every platform at once; and what stands for that set."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable
from hashlib import blake2b

from pipesmith.environments.definition import Asked, asked_of, definition_digest, normal_name, refuse_unsupported
from pipesmith.environments.markers import simplify
from pipesmith.environments.uv import explain, run_uv
from pipesmith.errors import EnvironmentFailure, UserError
from pipesmith.lockfile.model import EnvironmentPin
from pipesmith.pipeline.model import Environment

__all__ = ["pin_digest", "resolve", "why"]


def resolve(
    environment: Environment,
    read: Callable[[str], bytes | None],
    previous: EnvironmentPin | None,
    *,
    upgrade: bool = False,
    root: str | None = None,
) -> EnvironmentPin:
    """Return the pin of an environment as it is written now.

    previous: the pin that was; what it holds and still fits is kept, unless `upgrade` asks for all anew.
    root: the folder where uv looks for its own configuration; None: the current one.
    Raises UserError for what this version can't build or pin, EnvironmentFailure where uv finds no set of packages or no index.
    """
    refuse_unsupported(environment)
    asked = asked_of(environment, read)
    python = _python_version(environment.python, None if upgrade else previous)
    resolved: tuple[str, ...] = ()
    if asked.requirements:
        kept = previous.resolved if previous is not None and not upgrade else ()
        resolved = _compiled(environment.name, asked, python, kept, root)
    return EnvironmentPin(definition=definition_digest(environment, read), python=python, resolved=resolved)


def pin_digest(pin: EnvironmentPin) -> str:
    """Return the text that stands for an environment in fingerprints: of implementation, Python version and the resolved set.

    The same on every platform, whatever machine asks.
    """
    parts = ["environment", "1", "cpython", pin.python, pin.image or "", *sorted(pin.resolved)]
    pre_image = b"".join(len(data).to_bytes(8, "big") + data for data in (part.encode() for part in parts))
    return f"env:{blake2b(pre_image, digest_size=20).hexdigest()}"


def why(old: EnvironmentPin, new: EnvironmentPin) -> list[tuple[str, str | None, str | None]]:
    """Return (name, old version, new version) of each package that differs, by name; `python` first where it differs.

    A package with several versions, by platform, has them joined by ` | `. None where it is not in the set.
    """
    differing: list[tuple[str, str | None, str | None]] = []
    if old.python != new.python:
        differing.append(("python", old.python, new.python))
    before, after = _versions(old.resolved), _versions(new.resolved)
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            differing.append((name, before.get(name), after.get(name)))
    return differing


def _versions(resolved: Iterable[str]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for line in resolved:
        text = line.partition(" --hash=")[0]
        name, separator, version = text.partition("==")
        if not separator:
            name, _, version = text.partition(" @ ")
        found.setdefault(name.strip(), []).append(version.strip())
    return {name: " | ".join(versions) for name, versions in found.items()}


def _python_version(asked: str | None, previous: EnvironmentPin | None) -> str:
    """Return X.Y, or X.Y.Z where the table asks for it. Where it leaves it open: the pinned one, else the running one's."""
    if asked is not None and asked.count("."):
        return asked
    if previous is not None:
        return previous.python
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _compiled(name: str, asked: Asked, python: str, kept: tuple[str, ...], root: str | None) -> tuple[str, ...]:
    with tempfile.TemporaryDirectory(prefix="pipe-resolve-") as folder:
        wanted, constraints, out = (
            os.path.join(folder, file) for file in ("packages.in", "constraints.in", "resolved.txt")
        )
        _write_lines(wanted, asked.requirements)
        arguments = ["pip", "compile", "--quiet", "--universal", "--generate-hashes", "--python-version", python]
        arguments += [
            "--no-header",
            "--no-annotate",
            "--no-emit-index-url",
            "--no-emit-find-links",
            "--output-file",
            out,
            wanted,
        ]
        if asked.constraints:
            _write_lines(constraints, asked.constraints)
            arguments += ["--constraints", constraints]
        if kept:  # uv prefers what its output file already holds
            _write_lines(out, [line.replace(" --hash=", " \\\n    --hash=") for line in kept])
        done = run_uv(arguments, cwd=root)
        if done.returncode != 0:
            raise _failure(name, done.stderr)
        with open(out, encoding="utf-8") as file:
            text = file.read()
    return canonical_set(text, python, kept)


def _write_lines(path: str, lines: Iterable[str]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def _failure(name: str, stderr: str) -> Exception:
    what, whole = explain(stderr)
    if "parse requirement" in stderr or "parse version" in stderr:
        return UserError(f"environment `{name}`: a requirement can't be read: {what}", f"uv says: {whole}")
    return EnvironmentFailure(f"environment `{name}` can't be resolved: {what}", f"uv says: {whole}")


def canonical_set(text: str, python: str, kept: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the lines of a compiled set, `NAME==VERSION[ ; MARKER] --hash=…`, sorted, without those that `python` never takes.

    A line of `kept` is taken as it is where all its hashes still stand: an index that gained files for a version changes nothing.
    """
    known = {line.partition(" --hash=")[0]: line for line in kept}
    lines: list[str] = []
    for joined in re.sub(r"\\\r?\n", " ", text).splitlines():
        line = joined.strip()
        if not line or line.startswith(("#", "-")):
            continue
        body, *hashes = re.split(r"\s+--hash=", line)
        wanted, _, marker = body.partition(" ; ")
        left = simplify(marker, python) if marker else ""
        if left is None:
            continue
        package, separator, version = wanted.strip().partition("==")
        head = f"{normal_name(package)}=={version}" if separator else wanted.strip()
        head = f"{head} ; {left}" if left else head
        hashes = sorted({each.strip() for each in hashes})
        old = known.get(head)
        if old is not None and hashes and set(old.split(" --hash=")[1:]) <= set(hashes):
            lines.append(old)
        else:
            lines.append(" ".join([head, *(f"--hash={each}" for each in hashes)]))
    return tuple(sorted(set(lines)))
