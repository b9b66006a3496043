"""From requirements to exact versions, by uv, for every platform at once."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping

from pipesmith.environments.conda import need_conda
from pipesmith.environments.definition import (
    Asked,
    asked_of,
    definition_digest,
    normal_name,
    python_of,
)
from pipesmith.environments.markers import simplify
from pipesmith.environments.uv import explain, run_uv
from pipesmith.errors import EnvironmentFailure, UserError
from pipesmith.lockfile.model import EnvironmentPin
from pipesmith.pipeline.model import Environment
from pipesmith.records import replace

__all__ = ["changes", "resolve", "told_between"]

Change = tuple[str, str | None, str | None]
_ASKED = re.compile(r"([a-z0-9._-]+)(?:\[[^\]]*\])?([^;]*?)(?: ;.*)?(?: --hash=.*)?$")


def resolve(
    environment: Environment,
    read: Callable[[str], bytes | None],
    previous: EnvironmentPin | None,
    *,
    upgrade: bool = False,
    root: str | None = None,
    image: Callable[[Environment], str] | None = None,
    notice: Callable[[str], None] = lambda _text: None,
) -> EnvironmentPin:
    """Return the exact set that an environment's requirements resolve to now.

    previous: what still fits of it is kept, unless `upgrade`. root: where uv looks for its configuration. image:
    resolves an `image` to one with a digest, None where there is no Docker daemon to ask. notice: told that it is being
    resolved, once nothing stands in the way, and what is left out.
    Raises UserError for what can't be built or pinned, EnvironmentFailure where uv finds no set or no index.
    """
    started = f"resolving environment `{environment.name}`"
    if environment.image is not None:
        if image is None:
            raise UserError(
                f"environment `{environment.name}` is an image, and no compute of kind `docker` is used with it",
                "give a stage that uses it such a `compute`",
            )
        definition = definition_digest(environment, read)
        notice(started)
        return EnvironmentPin(definition=definition, python=python_of(environment), image=image(environment))
    python = python_of(environment)
    asked = asked_of(environment, read)
    kept = previous if previous is not None and not upgrade else EnvironmentPin(definition="", python=python)
    conda: tuple[str, ...] = ()
    given: Mapping[str, str] = {}
    program = need_conda(f"environment `{environment.name}`") if environment.conda else None
    notice(started)
    if program is not None:
        from pipesmith.environments.conda_resolve import resolve_conda

        found = resolve_conda(program, environment, python, kept.conda, root, notice)
        conda, python, given = found.lines, found.python, found.versions
    resolved = _beside(environment.name, asked, python, kept.resolved, root, given) if asked.requirements else ()
    return EnvironmentPin(
        definition=definition_digest(environment, read), python=python, resolved=resolved, conda=conda
    )


def _beside(
    name: str, asked: Asked, python: str, kept: tuple[str, ...], root: str | None, given: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the set of packages beside those that conda gives, in the versions that those have."""
    resolved = _compiled(name, asked, python, kept, root)
    versions = {normal_name(package): version for package, version in given.items()}
    both = sorted({_package(line) for line in resolved} & versions.keys())
    if both:
        fixed = tuple(f"{package}=={versions[package]}" for package in both)
        constrained = replace(asked, constraints=tuple(sorted({*asked.constraints, *fixed})))
        resolved = _compiled(name, constrained, python, kept, root)
    return tuple(line for line in resolved if _package(line) not in versions)


def _package(line: str) -> str:
    return re.split(r"==| @ | ;", line, maxsplit=1)[0].strip()


def _compiled(name: str, asked: Asked, python: str, kept: tuple[str, ...], root: str | None) -> tuple[str, ...]:
    with tempfile.TemporaryDirectory(prefix="pipe-resolve-") as folder:
        wanted, constraints, out = (
            os.path.join(folder, file) for file in ("packages.in", "constraints.in", "resolved.txt")
        )
        _write_lines(wanted, asked.requirements)
        arguments = ["pip", "compile", "--quiet", "--universal", "--generate-hashes", "--python-version", python]
        arguments += ["--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
        arguments += ["--output-file", out, wanted]
        if asked.constraints:
            _write_lines(constraints, asked.constraints)
            arguments += ["--constraints", constraints]
        if kept:  # uv prefers what its output file already holds, hashes included
            _write_lines(out, [line.replace(" --hash=", " \\\n    --hash=") for line in kept])
        done = run_uv(arguments, cwd=root)
        if done.returncode != 0:
            raise _failure(name, done.stderr)
        with open(out, encoding="utf-8") as file:
            text = file.read()
    resolved = canonical_set(text, python)
    for line in resolved:
        if " --hash=" not in line:
            raise UserError(
                f"environment `{name}`: `{line}` has no hash, so it can't be pinned",
                "name a package and its version, or give the code to the stages that use it as `source`",
            )
    return resolved


def _write_lines(path: str, lines: Iterable[str]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def _failure(name: str, stderr: str) -> Exception:
    what, whole = explain(stderr)
    if "parse requirement" in stderr or "parse version" in stderr:
        return UserError(f"environment `{name}`: a requirement can't be read: {what}", f"uv says: {whole}")
    return EnvironmentFailure(f"environment `{name}` can't be resolved: {what}", f"uv says: {whole}")


def canonical_set(text: str, python: str) -> tuple[str, ...]:
    """Return the lines of a set, `NAME==VERSION[ ; MARKER] --hash=…`, sorted; none that `python` never takes."""
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
        lines.append(" ".join([head, *(f"--hash={each}" for each in hashes)]))
    return tuple(sorted(set(lines)))


def _requirement(line: str) -> str:
    return line.split(" --hash=", 1)[0]


def changes(old: EnvironmentPin, new: EnvironmentPin) -> list[Change]:
    """Return (package, old version, new version) of what differs between two pins."""
    found: list[Change] = []
    plain, whole = ((_versions(old, builds), _versions(new, builds)) for builds in (False, True))
    for name in sorted(plain[0].keys() | plain[1].keys()):
        before, after = plain[0].get(name), plain[1].get(name)
        if before == after:  # another build of conda's, if anything
            before, after = whole[0].get(name), whole[1].get(name)
        found.append((name, before, after))
    if old.python != new.python:
        found.insert(0, ("python", old.python, new.python))
    if old.image != new.image:
        found.insert(0, ("image", old.image, new.image))
    return [change for change in found if change[1] != change[2]]


def foreseen(old: EnvironmentPin, environment: Environment, read: Callable[[str], bytes | None]) -> list[Change]:
    """Return (package, old version, what is asked for) of what will differ for certain once it is resolved anew.

    Raises UserError as `definition_digest`."""
    before = _versions(old)
    found: list[Change] = []
    specs = [spec.rpartition("::")[2] for spec in environment.conda]
    for line in [*asked_of(environment, read).requirements, *specs]:
        match = _ASKED.match(line)
        if match is None or " @ " in line:
            continue
        name, asked = match[1], match[2].strip()
        if name == "python":
            continue
        exact = asked.removeprefix("==") if re.fullmatch(r"==[\w.!+-]+", asked) else None
        if name not in before:
            found.append((name, None, asked.removeprefix("==") or "any"))
        elif exact is not None and exact != before[name]:
            found.append((name, before[name], exact))
    if old.python != python_of(environment):
        found.insert(0, ("python", old.python, python_of(environment)))
    return found


def told_between(
    environment: Environment,
    old: str,
    new: str | None,
    pin_of: Callable[[str], EnvironmentPin | None],
    read: Callable[[str], bytes | None],
) -> tuple[str, str] | None:
    """Return which packages differ between what two pin digests stand for, as `packages_texts` has them; None where
    that can't be told. new None: what the table asks for counts, which is not resolved yet."""
    if environment.python == "system" or environment.dockerfile:
        return None
    before = pin_of(old)
    if before is None:
        return None
    if new is None:
        try:
            return packages_texts(foreseen(before, environment, read))
        except UserError:
            return None
    after = pin_of(new)
    return packages_texts(changes(before, after)) if after is not None else None


def packages_texts(found: Iterable[Change]) -> tuple[str, str] | None:
    """Return changes as two texts, `name==version, …`, package by package; None where there is none."""
    listed = list(found)
    if not listed:
        return None
    return ", ".join(_told(name, old) for name, old, _new in listed), ", ".join(
        _told(name, new) for name, _old, new in listed
    )


def _told(name: str, version: str | None) -> str:
    if version is None or version == "any":
        return f"{name} ({version or 'none'})"
    return f"{name}{version}" if version[0] in "<>=!~" else f"{name}=={version}"


def _versions(pin: EnvironmentPin, builds: bool = False) -> dict[str, str]:
    """Return name to version; one that hangs on the platform has all its versions with their markers."""
    versions: dict[str, list[str]] = {}
    for line in pin.resolved:
        text = _requirement(line)
        name, _, rest = text.partition("==") if "==" in text.partition(" ;")[0] else text.partition(" @ ")
        versions.setdefault(name.strip(), []).append(rest.strip())
    told = {name: " | ".join(found) for name, found in versions.items()}
    if pin.conda:
        from pipesmith.environments.conda_pins import versions_of

        told = {**versions_of(pin.conda, builds=builds), **told}
    return told
