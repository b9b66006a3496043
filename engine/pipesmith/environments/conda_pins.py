"""Pinned conda packages: a line each, `URL --hash=md5:… --hash=sha256:…`; one of `noarch` names its platforms."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pipesmith.records import record

__all__ = ["PinnedPackage", "canonical_line", "line_of", "packages_for", "parse_line", "platforms_of", "versions_of"]

_FILE = re.compile(r"(?P<name>.+)-(?P<version>[^-]+)-(?P<build>[^-]+?)(?:\.tar\.bz2|\.conda)")


@record
class PinnedPackage:
    """platforms: those that take it."""

    url: str
    platforms: tuple[str, ...]
    md5: str = ""
    sha256: str = ""

    @property
    def file(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def subdir(self) -> str:
        return self.url.split("/")[-2]

    @property
    def parts(self) -> tuple[str, str, str]:
        """Name, version and build."""
        match = _FILE.fullmatch(self.file)
        return (match["name"], match["version"], match["build"]) if match is not None else (self.file, "", "")


def line_of(package: PinnedPackage) -> str:
    marker = f" ; {' '.join(package.platforms)}" if package.subdir == "noarch" else ""
    hashes = [f"{kind}:{value}" for kind, value in (("md5", package.md5), ("sha256", package.sha256)) if value]
    return " ".join([package.url + marker, *(f"--hash={each}" for each in hashes)])


def parse_line(line: str) -> PinnedPackage:
    head, *hashes = line.split(" --hash=")
    url, _, platforms = head.partition(" ; ")
    known = dict(each.split(":", 1) for each in hashes)
    return PinnedPackage(
        url=url,
        platforms=tuple(platforms.split()) or (url.split("/")[-2],),
        md5=known.get("md5", ""),
        sha256=known.get("sha256", ""),
    )


def canonical_line(line: str) -> str:
    """Return what counts of a line: not where its channel is served."""
    package = parse_line(line)
    content = f"sha256:{package.sha256}" if package.sha256 else f"md5:{package.md5}"
    return f"conda {package.subdir}/{package.file} {' '.join(package.platforms)} {content}"


def packages_for(lines: Iterable[str], platform: str) -> list[PinnedPackage]:
    """Return the packages of one platform."""
    return [package for package in map(parse_line, lines) if platform in package.platforms]


def platforms_of(lines: Iterable[str]) -> list[str]:
    return sorted({platform for line in lines for platform in parse_line(line).platforms})


def versions_of(lines: Iterable[str], *, builds: bool = False) -> dict[str, str]:
    """Return name to version, or `version=build`; one that hangs on the platform has all of them."""
    found: dict[str, set[str]] = {}
    for package in map(parse_line, lines):
        name, version, build = package.parts
        found.setdefault(name, set()).add(f"{version}={build}" if builds else version)
    return {name: " | ".join(sorted(versions)) for name, versions in found.items()}
