"""What an `[environment.NAME]` asks for, in canonical form: the same asked for in another way has the same digest."""

from __future__ import annotations

import json
import posixpath
import re
from _blake2 import blake2b
from collections.abc import Callable

from pipesmith.digest import new_hasher
from pipesmith.environments.markers import canonical_marker
from pipesmith.errors import UserError
from pipesmith.lockfile.model import EnvironmentPin
from pipesmith.pipeline.model import Environment
from pipesmith.records import record

__all__ = [
    "DEFAULT_PYTHON",
    "Asked",
    "asked_of",
    "definition_digest",
    "dockerfile_digest",
    "normal_name",
    "pin_digest",
    "python_of",
]

DEFAULT_PYTHON = "3.11"

Read = Callable[[str], "bytes | None"]

_NAMED = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[([^\]]*)\])?\s*(.*)", re.DOTALL)
_HASH = re.compile(r"\s--hash[=\s]\s*(\S+)")
_COMMENT = re.compile(r"(^|\s)#.*$")
_INCLUDED = re.compile(r"(?:(-r|--requirement)|(-c|--constraint))(?:\s*=\s*|\s+|(?<=-[rc]))(\S.*)")
_LOCAL = re.compile(r"(?:\.{0,2}/|file:|~)|\.(?:whl|zip|tar\.gz)$")


@record
class Asked:
    """What uv is asked to resolve: requirements and constraints, each canonical, sorted, once."""

    requirements: tuple[str, ...]
    constraints: tuple[str, ...] = ()


def normal_name(name: str) -> str:
    """Return a package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def python_of(environment: Environment) -> str:
    """Return the Python version that an environment asks for, X.Y or X.Y.Z; a plain `3` is as open as none."""
    return environment.python if environment.python and environment.python != "3" else DEFAULT_PYTHON


def dockerfile_digest(environment: Environment, source_id: Callable[[str], str | None]) -> str | None:
    """Return what stands for an environment of a Dockerfile in fingerprints: the file's name, and the tree id of its
    folder, which is its context. None where that is not there.

    source_id(folder): git's id of a source folder, in the work tree or at a commit."""
    assert environment.dockerfile is not None and environment.context is not None
    name, identity = posixpath.basename(environment.dockerfile), source_id(environment.context)
    if identity is None:
        return None
    hasher = new_hasher("blake3")
    hasher.update(f"pipesmith-dockerfile 1\0{name}\0{identity}".encode("utf-8", "surrogateescape"))
    return f"blake3:{hasher.hexdigest()}"


def definition_digest(environment: Environment, read: Read) -> str:
    """Return the digest of what an environment's table says and of the requirements files that it names.

    Order, spelling, comments, and whether a package stands in the table or in a file don't matter.
    read(path): bytes of a workspace file, None where there is none.
    Raises UserError where a requirements file is missing or asks for what can't be pinned.
    """
    asked = asked_of(environment, read)
    said = {
        "python": python_of(environment),
        "requirements": asked.requirements,
        "constraints": asked.constraints,
        "conda": sorted(" ".join(spec.split()) for spec in environment.conda),
        "image": environment.image,
        "dockerfile": environment.dockerfile,
        "base": environment.base,
    }
    if environment.channels:
        said["channels"] = environment.channels
    text = json.dumps(["environment-definition", 1, said], sort_keys=True)
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=20).hexdigest()


def pin_digest(pin: EnvironmentPin) -> str:
    """Return what stands for a resolved set in fingerprints: Python's version and the packages, however written."""
    hasher = new_hasher("blake3")
    lines = list(pin.resolved)
    if pin.conda:
        from pipesmith.environments.conda_pins import canonical_line

        lines += sorted(canonical_line(line) for line in pin.conda)
    hasher.update("\n".join(("pipesmith-environment 1", pin.python, pin.image or "", *lines)).encode())
    return f"blake3:{hasher.hexdigest()}"


def asked_of(environment: Environment, read: Read) -> Asked:
    """Return what an environment asks for. Raises as `definition_digest`."""
    collected = _Collected(environment.name, read)
    for package in environment.packages:
        collected.line(package.strip(), "packages")
    if environment.requirements is not None:
        collected.file(environment.requirements, constraints=False)
    return Asked(
        requirements=tuple(sorted(collected.requirements)),
        constraints=tuple(sorted(collected.constraints - collected.requirements)),
    )


class _Collected:
    """The requirements of one environment, gathered through the files that include one another."""

    def __init__(self, environment: str, read: Read) -> None:
        self.requirements: set[str] = set()
        self.constraints: set[str] = set()
        self._environment = environment
        self._read = read
        self._seen: set[tuple[str, bool]] = set()

    def file(self, path: str, *, constraints: bool) -> None:
        if (path, constraints) in self._seen:
            return
        self._seen.add((path, constraints))
        data = self._read(path)
        if data is None:
            raise self._error(f"`{path}` does not exist", "write it, or name another file as `requirements`")
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise self._error(f"`{path}` is not UTF-8", "save it as UTF-8") from None
        for line in _lines(text):
            self.line(line, path, constraints=constraints)

    def line(self, line: str, path: str, *, constraints: bool = False) -> None:
        """Take one line: of `path`, or, where that is `packages`, of the table itself."""
        included = _INCLUDED.fullmatch(line)
        if included is not None:
            inner = posixpath.normpath(posixpath.join(posixpath.dirname(path), included[3].strip("'\" ")))
            if inner.startswith(("../", "/")) or "://" in included[3]:
                raise self._error(
                    f"`{path}` includes `{included[3]}`, which is outside the workspace", "copy it into the workspace"
                )
            self.file(inner, constraints=constraints or bool(included[2]))
        elif line.startswith("-"):
            option = re.split(r"[\s=]", line, maxsplit=1)[0]
            if option in ("-e", "--editable"):
                raise self._error(
                    f"`{path}` asks for an editable install (`{line}`), which can't be pinned",
                    "give the code to the stages that use it as `source`",
                )
            raise self._error(
                f"`{path}` has the option `{option}`, which would not be known where the environment is built",
                "set it for uv: UV_INDEX, UV_DEFAULT_INDEX, UV_FIND_LINKS …, or in uv.toml",
            )
        else:
            self.requirement(line, path, constraints=constraints)

    def requirement(self, text: str, where: str, *, constraints: bool = False) -> None:
        canonical = canonical_requirement(text)
        if canonical is None:
            raise self._error(
                f"`{text.strip()}` in `{where}` is a local path, which can't be pinned",
                "name a package and its version, or give the code to the stages that use it as `source`",
            )
        (self.constraints if constraints else self.requirements).add(canonical)

    def _error(self, text: str, help: str) -> UserError:
        return UserError(f"environment `{self._environment}`: {text}", help)


def _lines(text: str) -> list[str]:
    """Return the logical lines of a requirements file, without comments and empty ones."""
    joined = re.sub(r"\\\r?\n", " ", text)
    stripped = (_COMMENT.sub("", line).strip() for line in joined.splitlines())
    return [line for line in stripped if line]


def canonical_requirement(text: str) -> str | None:
    """Return one requirement in one spelling, hashes last; None for a local path. What can't be read is left to uv."""
    hashes = sorted(set(_HASH.findall(f" {text}")))
    body = _HASH.sub("", f" {text}").strip()
    match = _NAMED.fullmatch(body)
    if _LOCAL.match(body) or (match is not None and "@" not in match[3] and _LOCAL.search(body.split(";")[0].strip())):
        return None
    if match is None:
        return " ".join([*body.split(), *(f"--hash={each}" for each in hashes)])
    extras = ",".join(sorted({normal_name(extra.strip()) for extra in (match[2] or "").split(",") if extra.strip()}))
    head = f"{normal_name(match[1])}[{extras}]" if extras else normal_name(match[1])
    rest = match[3].strip()
    if rest.startswith("@"):
        url, _, marker = rest[1:].strip().partition(" ;")
        if _LOCAL.match(url.strip()):
            return None
        wanted = f"{head} @ {url.strip()} ;" if marker else f"{head} @ {url.strip()}"
    else:
        versions, _, marker = rest.partition(";")
        parts = (re.sub(r"\s+", "", part) for part in versions.strip().removeprefix("(").removesuffix(")").split(","))
        wanted = head + ",".join(sorted({part for part in parts if part}))
        wanted = f"{wanted} ;" if marker else wanted
    if marker:
        wanted = f"{wanted} {canonical_marker(marker)}"
    return " ".join([wanted, *(f"--hash={each}" for each in hashes)])
