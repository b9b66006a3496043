"""What git would store for files of the work tree where attributes, line ends or filters decide: ids, and bytes.

Nothing is written to the repository: new objects go to a folder that is thrown away.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from pipesmith.errors import EnvironmentFailure
from pipesmith.git.co_process import CoProcess, quoted
from pipesmith.git.repository import Repository

__all__ = ["Cleaner"]


class Cleaner:
    """root: paths are relative to it. Close it when done."""

    def __init__(self, repo: Repository, root: str) -> None:
        self._repo = repo
        self._root = root
        self._prefix = "" if root == repo.top else os.path.relpath(root, repo.top) + "/"
        self._hash: CoProcess | None = None
        self._write: CoProcess | None = None
        self._cat: CoProcess | None = None
        self._scratch: str | None = None

    def ids(self, paths: Sequence[str]) -> list[str]:
        """Return the blob ids of regular files as `git hash-object` gives them: all filters, no look at the index.

        Raises EnvironmentFailure with git's words where a required filter fails or a file can't be read."""
        if self._hash is None:
            self._hash = CoProcess(self._repo, ["hash-object", "--stdin-paths"])
        try:
            return [answer.decode() for answer in self._hash.ask_all([self._line(path) for path in paths])]
        except EnvironmentFailure:
            self._hash.close()
            self._hash = None
            for path in paths:
                self._repo.run("hash-object", "--", path, cwd=self._root)
            raise

    def ids_beside_index(self, indexed: Mapping[str, tuple[str, str]]) -> dict[str, str]:
        """Return the blob ids that `git add` would give to tracked files. indexed: path to (mode, id) in the index.

        It differs from `ids` where the index holds a file with CRLF and its line ends are converted only by guess
        (`text=auto`, core.autocrlf): git leaves such a file as it is."""
        top = {self._prefix + path: path for path in indexed}
        env = self._scratch_env() | {"GIT_INDEX_FILE": os.path.join(self._folder(), "index")}
        rows = (f"{mode} {oid} 0\t{self._prefix}{path}" for path, (mode, oid) in indexed.items())
        self._repo.run(
            "update-index", "-z", "--index-info", input=b"".join(os.fsencode(row) + b"\0" for row in rows), env=env
        )
        self._repo.run(
            *("-c", "core.safecrlf=false", "-c", "core.compression=0"),
            *("update-index", "-z", "--stdin"),
            input=b"".join(os.fsencode(path) + b"\0" for path in top),
            env=env,
        )
        found = {}
        for row in os.fsdecode(self._repo.run("ls-files", "-s", "-z", env=env)).split("\0"):
            head, _, path = row.partition("\t")
            if path in top:
                found[top[path]] = head.split(" ")[1]
        os.unlink(env["GIT_INDEX_FILE"])
        return found

    def content(self, path: str, oid: str, indexed: tuple[str, str] | None) -> bytes:
        """Return the content of blob `oid`, which the file at `path` would become. indexed: its (mode, id) in the
        index."""
        data = self._read(oid)
        if data is None:
            if self._write is None:
                args = ["-c", "core.compression=0", "-c", "core.safecrlf=false", "hash-object", "-w", "--stdin-paths"]
                self._write = CoProcess(self._repo, args, env=self._scratch_env())
            self._write.ask(self._line(path))
            data = self._read(oid)
        if data is None and indexed is not None:
            self.ids_beside_index({path: indexed})
            data = self._read(oid)
        if data is None:
            raise EnvironmentFailure(f"`{path}` changed while it was read", "try again")
        return data

    def _line(self, path: str) -> bytes:
        return quoted(self._prefix + path)  # `--stdin-paths` takes paths from the top, wherever it is called

    def _read(self, oid: str) -> bytes | None:
        if self._cat is None:
            self._cat = CoProcess(self._repo, ["cat-file", "--batch"], env=self._scratch_env())
        head = self._cat.ask(oid.encode()).split(b" ")
        if len(head) != 3:
            return None
        return self._cat.read(int(head[2]) + 1)[:-1]

    def _folder(self) -> str:
        if self._scratch is None:
            import tempfile

            self._scratch = tempfile.mkdtemp(prefix="pipe-objects-")
            os.mkdir(os.path.join(self._scratch, "objects"))
        return self._scratch

    def _scratch_env(self) -> dict[str, str]:
        return self._repo.scratch_objects(os.path.join(self._folder(), "objects"))

    def close(self) -> None:
        for process in (self._hash, self._write, self._cat):
            if process is not None:
                process.close()
        self._hash = self._write = self._cat = None
        if self._scratch is not None:
            import shutil

            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None
