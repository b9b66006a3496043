"""A stand-in for micromamba, mamba or conda: as much of their command lines, their JSON and their explicit files as is
asked of them.

`create --dry-run --json` resolves: the newest versions that fit, by trying; `create --file` installs what an explicit
file names. STANDIN_NAME is the program's name, whose own flags alone it takes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import tarfile
from typing import Any
from urllib.parse import unquote


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=("create", "config"))
    parser.add_argument("specs", nargs="*")
    parser.add_argument("--prefix", "-p")
    parser.add_argument("--file")
    parser.add_argument("--channel", action="append", default=[])
    for flag in ("--dry-run", "--json", "--yes", "--quiet", "--override-channels"):
        parser.add_argument(flag, action="store_true")
    is_conda = os.environ["STANDIN_NAME"] == "conda"
    if is_conda:
        parser.add_argument("--no-default-packages", action="store_true")
        parser.add_argument("--show")
    given = parser.parse_intermixed_args()
    subdir = os.environ["CONDA_SUBDIR"]
    if given.action == "config":
        if (given.show if is_conda else given.specs[-1]) != "channels":
            parser.error("nothing else is asked")
        channels = os.environ.get("CONDA_CHANNELS")
        print(json.dumps({"channels": channels.split(",") if channels else []}))
        return 0
    if given.dry_run:
        return resolve(given.specs, given.channel, subdir, given.prefix)
    return install(given.file, given.prefix)


def resolve(specs: list[str], channels: list[str], subdir: str, prefix: str) -> int:
    known: dict[str, list[dict[str, Any]]] = {}
    for channel in channels:
        for part in (subdir, "noarch"):
            try:
                with open(f"{unquote(channel.removeprefix('file://'))}/{part}/repodata.json") as file:
                    packages = json.load(file)["packages"]
            except OSError as error:
                print(
                    f"error    libmamba Could not read the list of {channel}/{part}: {error.strerror}", file=sys.stderr
                )
                return 1
            for fn, record in packages.items():
                whole = {**record, "fn": fn, "url": f"{channel}/{part}/{fn}", "channel": f"{channel}/{part}"}
                known.setdefault(record["name"], []).append(whole)
    for records in known.values():
        records.sort(key=lambda record: (version_key(record["version"]), record["build_number"]), reverse=True)
    found = chosen([constraint(spec) for spec in specs], {}, known)
    if found is None:
        lacking = [spec for spec in specs if constraint(spec)[0] not in known]
        told = [f"nothing provides requested {spec}" for spec in lacking] or [f"{' and '.join(specs)} conflict"]
        print(json.dumps({"success": False, "solver_problems": told}))
        print("error    libmamba Could not solve for environment specs", file=sys.stderr)
        return 1
    records = [{key: value for key, value in found[name].items() if key != "noarch"} for name in sorted(found)]
    linked = records
    if os.environ["STANDIN_NAME"] == "conda":  # which says where a package is from of those alone that it has to get
        linked = [{"name": record["name"], "version": record["version"], "platform": subdir} for record in records]
    actions = {"FETCH": records, "LINK": linked, "PREFIX": prefix}
    print(json.dumps({"actions": actions, "dry_run": True, "prefix": prefix, "success": True}))
    return 0


Wanted = tuple[str, str, str]  # name, version, build


def constraint(spec: str) -> Wanted:
    match = re.fullmatch(r"([\w.-]+?)\s*(?:=\s*([\w.]+)=(\w+)|([=<>!]=?.*)|)", spec)
    assert match is not None, spec
    if match[2]:
        return match[1], f"=={match[2]}", match[3]
    return match[1], match[4] or "", ""


def version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def fits(record: dict[str, Any], wanted: Wanted) -> bool:
    have = version_key(record["version"])
    for part in wanted[1].split(",") if wanted[1] else ():
        operator, text = re.fullmatch(r"([=<>!]+)\s*(.*)", part.strip()).groups()  # type: ignore[union-attr]
        asked = version_key(text)
        held = {
            "=": have[: len(asked)] == asked,
            "==": have == asked,
            ">=": have >= asked,
            "<=": have <= asked,
            "<": have < asked,
            ">": have > asked,
            "!=": have != asked,
        }
        if not held[operator]:
            return False
    return not wanted[2] or record["build"] == wanted[2]


def chosen(
    waiting: list[Wanted], have: dict[str, Any], known: dict[str, list[dict[str, Any]]]
) -> dict[str, dict[str, Any]] | None:
    if not waiting:
        return have
    wanted, *rest = waiting
    if wanted[0] in have:
        return chosen(rest, have, known) if fits(have[wanted[0]], wanted) else None
    for record in known.get(wanted[0], ()):
        if fits(record, wanted):
            more = [constraint(text) for text in record["depends"]]
            found = chosen([*rest, *more], {**have, wanted[0]: record}, known)
            if found is not None:
                return found
    return None


def install(listed: str, prefix: str) -> int:
    with open(listed) as file:
        first, *lines = file.read().split()
    assert first == "@EXPLICIT"
    os.makedirs(f"{prefix}/conda-meta")
    for line in lines:
        url, _, md5 = line.partition("#")
        path = unquote(url.removeprefix("file://"))
        try:
            with open(path, "rb") as archive:
                data = archive.read()
        except OSError as error:
            print(f"error    libmamba Could not get {url}: {error.strerror}", file=sys.stderr)
            return 1
        if hashlib.md5(data).hexdigest() != md5:
            print(f"error    libmamba {url} has another md5 than {md5}", file=sys.stderr)
            return 1
        with tarfile.open(path) as packed:
            index = json.load(packed.extractfile("info/index.json"))  # type: ignore[arg-type]
            paths = json.load(packed.extractfile("info/paths.json"))["paths"]  # type: ignore[arg-type]
            for entry in paths:
                packed.extract(entry["_path"], prefix, filter="fully_trusted")
                if "prefix_placeholder" in entry:
                    put_prefix(f"{prefix}/{entry['_path']}", entry, prefix)
        record = {**index, "url": url, "md5": md5, "package_tarball_full_path": path}
        name = f"{index['name']}-{index['version']}-{index['build']}.json"
        with open(f"{prefix}/conda-meta/{name}", "w") as meta:
            json.dump(record, meta)
    print(json.dumps({"success": True, "prefix": prefix}))
    return 0


def put_prefix(path: str, entry: dict[str, Any], prefix: str) -> None:
    old, new = entry["prefix_placeholder"].encode(), prefix.encode()
    with open(path, "rb") as file:
        data = file.read()
    if entry["file_mode"] == "binary":
        pattern = re.escape(old) + rb"[^\0]*"
        data = re.sub(pattern, lambda found: found[0].replace(old, new).ljust(len(found[0]), b"\0"), data)
    else:
        data = data.replace(old, new)
    with open(path, "wb") as file:
        file.write(data)


if __name__ == "__main__":
    sys.exit(main())
