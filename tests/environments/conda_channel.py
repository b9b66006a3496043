"""A conda channel of hand-made packages in a folder, and a stand-in for micromamba that resolves and installs from it.

A machine that has micromamba, mamba or conda tests those as well: PIPESMITH_TEST_CONDA names the program.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import tarfile
from pathlib import Path
from typing import Any

PLATFORMS = ("linux-64", "linux-aarch64", "osx-64", "osx-arm64")
PLACEHOLDER = "/opt/" + "placehold_" * 24
STANDIN = Path(__file__).with_name("micromamba_standin.py")
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
LIBRARY = f"lib/python{PYTHON}/site-packages"


class Channel:
    """A folder that conda reads packages from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._records: dict[str, dict[str, Any]] = {subdir: {} for subdir in (*PLATFORMS, "noarch")}
        for subdir in self._records:
            (folder / subdir).mkdir(parents=True)

    @property
    def url(self) -> str:
        return f"file://{self.folder}"

    def add(
        self,
        name: str,
        version: str,
        depends: tuple[str, ...] = (),
        *,
        subdirs: tuple[str, ...] = ("linux-64",),
        build: int = 0,
        files: dict[str, str] | None = None,
        links: dict[str, str] | None = None,
    ) -> None:
        """Add a package to platforms. `@PREFIX@` in a file becomes the place where it is installed."""
        for subdir in subdirs:
            self._add(name, version, depends, subdir, build, files or {}, links or {})
        for subdir, records in self._records.items():
            listed = {"info": {"subdir": subdir}, "packages": records, "packages.conda": {}, "repodata_version": 1}
            (self.folder / subdir / "repodata.json").write_text(json.dumps(listed))

    def _add(
        self,
        name: str,
        version: str,
        depends: tuple[str, ...],
        subdir: str,
        build: int,
        files: dict[str, str],
        links: dict[str, str],
    ) -> None:
        file = f"{name}-{version}-{build}.tar.bz2"
        index: dict[str, Any] = {"name": name, "version": version, "build": str(build), "build_number": build}
        index |= {"depends": list(depends), "subdir": subdir}
        paths: list[dict[str, Any]] = []
        if subdir == "noarch":
            index["noarch"] = "generic"
        for path, text in files.items():
            held = text.replace("@PREFIX@", PLACEHOLDER)
            entry = {"_path": path, "path_type": "hardlink", "size_in_bytes": len(held)}
            entry["sha256"] = hashlib.sha256(held.encode()).hexdigest()
            if held != text:
                binary = "\0" in text
                entry |= {"prefix_placeholder": PLACEHOLDER, "file_mode": "binary" if binary else "text"}
            paths.append(entry)
        empty = hashlib.sha256(b"").hexdigest()
        paths += [{"_path": path, "path_type": "softlink", "sha256": empty, "size_in_bytes": 0} for path in links]
        inside = {
            "info/index.json": json.dumps(index),
            "info/files": "".join(f"{path}\n" for path in [*files, *links]),
            "info/paths.json": json.dumps({"paths": paths, "paths_version": 1}),
            **{path: text.replace("@PREFIX@", PLACEHOLDER) for path, text in files.items()},
        }
        with tarfile.open(self.folder / subdir / file, "w:bz2") as archive:
            for path, text in inside.items():
                member = tarfile.TarInfo(path)
                member.size, member.mode = len(text.encode()), 0o755 if path.startswith("bin/") else 0o644
                archive.addfile(member, io.BytesIO(text.encode()))
            for path, target in links.items():
                member = tarfile.TarInfo(path)
                member.type, member.linkname = tarfile.SYMTYPE, target
                archive.addfile(member)
        data = (self.folder / subdir / file).read_bytes()
        hashes = {"md5": hashlib.md5(data).hexdigest(), "sha256": hashlib.sha256(data).hexdigest()}
        self._records[subdir][file] = {**index, **hashes, "size": len(data)}

    def add_python(self) -> None:
        """Add the interpreter that runs the tests, as far as a link and a virtual environment's settings are one."""
        base = os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)
        version = ".".join(map(str, sys.version_info[:3]))
        config = f"home = {os.path.dirname(base)}\ninclude-system-site-packages = false\nversion = {version}\n"
        links = {f"bin/{name}": base for name in ("python", "python3", f"python{PYTHON}")}
        self.add("python", version, subdirs=PLATFORMS, files={"pyvenv.cfg": config}, links=links)

    def add_module(self, name: str, version: str, depends: tuple[str, ...] = ("python",), **more: Any) -> None:
        """Add a module with VERSION in it, and a program of its name that prints it."""
        program = f"#!@PREFIX@/bin/python\nimport {name}\nprint({name}.VERSION, *__import__('sys').argv[1:])\n"
        data = f"\0{name}\0@PREFIX@/share/{name}\0end"
        files = {f"{LIBRARY}/{name}.py": f"VERSION = {version!r}\n", f"bin/{name}": program, f"share/{name}.bin": data}
        self.add(name, version, depends, files=files, **more)


def program_in(folder: Path, name: str = "micromamba") -> Path:
    """Put a program that understands a command line of conda's into a folder, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    real = os.environ.get("PIPESMITH_TEST_CONDA")
    target = folder / (os.path.basename(real) if real else name)
    if real:
        target.symlink_to(real)
    else:
        target.write_text(f'#!/bin/sh\nSTANDIN_NAME={name} exec "{sys.executable}" -S "{STANDIN}" "$@"\n')
        target.chmod(0o755)
    return target
