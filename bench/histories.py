"""Long histories of a pipeline, by `git fast-import`: commits that change a stage's source, most with the lockfile."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, replace
from hashlib import sha1
from pathlib import Path

from pipesmith.digest import Digest, new_hasher
from pipesmith.fingerprint.fingerprint import fingerprint_of
from pipesmith.fingerprint.git_trees import git_hash, tree_id, tree_row
from pipesmith.fingerprint.items import input_parts, stage_items
from pipesmith.lockfile.emitter import render
from pipesmith.lockfile.model import LockedDep, LockedOut, Lockfile, StageLock
from pipesmith.pipeline.model import Pipeline, Stage
from pipesmith.pipeline.reader import read_pipeline

__all__ = ["KINDS", "History", "lay_out_history"]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """commits: after the first. files: of each stage's source. kind: what the commits change, of KINDS."""

    stages: int
    commits: int
    files: int = 5
    kind: str = "all"

    def __str__(self) -> str:
        return f"{self.commits:,} commits of {self.stages:,} stages"


KINDS = {
    "all": "sources and locks, now and then pipeline.toml",
    "sources": "sources alone",
    "many": "sources of twenty stages each",
    "pipeline": "pipeline.toml alone",
    "params": "a params file alone",
    "locks": "pipe.lock alone",
    "docs": "nothing that counts",
    "merges": "sources, on branches that are merged",
}
_PARAMS_EVERY = 50


def lay_out_history(folder: Path, history: History) -> Path:
    """Write the history into a new repository below `folder`, check its last commit out, return the repository."""
    repo = folder / f"history-{history.stages}x{history.commits}-{history.files}-{history.kind}"
    shutil.rmtree(repo, ignore_errors=True)
    repo.mkdir(parents=True)
    git = ["git", "-c", "gc.auto=0", "-c", "init.defaultBranch=main"]
    subprocess.run([*git, "init", "-q"], cwd=repo, check=True)
    stream = b"".join(_Writer(history).commands())
    subprocess.run([*git, "fast-import", "--quiet"], cwd=repo, check=True, input=stream)
    subprocess.run([*git, "repack", "-adq"], cwd=repo, check=True)
    subprocess.run([*git, "reset", "-q", "--hard", "main"], cwd=repo, check=True)
    return repo


class _Writer:
    def __init__(self, history: History) -> None:
        self._history = history
        self._seed = 0
        self._files = {f"s{n}": dict.fromkeys(self._names(), b"first\n") for n in range(history.stages)}
        self._locked: dict[str, StageLock] = {}
        self._pipeline = self._read()

    def _names(self) -> list[str]:
        return [f"f{number}.py" for number in range(self._history.files)]

    def _text(self) -> str:
        tables = [
            f'[stage.s{n}]\nsource = "stages/s{n}"\n'
            f'run = "python stages/s{n}/f0.py --seed {{params.seed}} > {{outputs.o}}"\n'
            + (f'inputs = {{ i = "stage:s{n - 10}.o" }}\n' if n >= 10 else "")
            + f'outputs = {{ o = "out/s{n}" }}\n'
            for n in range(self._history.stages)
        ]
        head = '[pipeline]\nparams-files = ["params.json"]\n\n' if self._history.kind == "params" else ""
        return f"{head}[params]\nseed = 7\nother = {self._seed}\n\n" + "\n".join(tables)

    def _read(self) -> Pipeline:
        return read_pipeline(self._text(), files=lambda path: b'{"more": 0}\n', default_name="bench")

    def _digest(self, name: str) -> Digest:
        hasher = new_hasher("blake3")
        hasher.update(name.encode())
        return Digest("blake3", hasher.hexdigest(), 100)

    def _source_id(self, name: str) -> str:
        rows = [tree_row(file, b"100644", git_hash("sha1", b"blob", data)) for file, data in self._files[name].items()]
        return tree_id(rows, "sha1") or ""

    def _lock(self, stage: Stage) -> StageLock:
        parts = [(part, self._digest(part.stage)) for part in input_parts(stage, self._pipeline.stages)]
        sources = {stage.source[0]: self._source_id(stage.name)}
        items = stage_items(
            stage, params=self._pipeline.params, sources=sources, inputs=parts, hash_paths={}, environment=None
        )
        return StageLock(
            fingerprint=fingerprint_of(items).key,
            run=stage.run,
            source={path: identity or "" for path, identity in sources.items()},
            deps=tuple(LockedDep(name=part.item, path=part.place, digest=digest) for part, digest in parts),
            params={"seed": 7},
            outs=(LockedOut(name="o", path=f"out/{stage.name}", digest=self._digest(stage.name)),),
        )

    def commands(self) -> list[bytes]:
        """Return what fast-import is given."""
        found = []
        self._locked = {name: self._lock(stage) for name, stage in self._pipeline.stages.items()}
        changes = {"pipeline.toml": self._text().encode(), ".gitignore": b"/out/\n", "pipe.lock": self._lock_text()}
        if self._history.kind == "params":
            changes["params.json"] = b'{"more": 0}\n'
        changes |= {
            f"stages/{name}/{file}": data for name, files in self._files.items() for file, data in files.items()
        }
        found.append(_commit("first", changes, mark=1))
        for number in range(1, self._history.commits + 1):
            if self._history.kind == "merges" and number % 2 == 0:
                beside = self._history.commits + 1 + number
                change = self._change(number)
                found.append(_commit(f"beside {number}", change, mark=beside, branch="side", base=max(1, number - 1)))
                found.append(_commit(f"merge {number}", change, mark=number + 1, base=number, merged=beside))
            else:
                found.append(_commit(f"change {number}", self._change(number), mark=number + 1))
        return found

    def _lock_text(self) -> bytes:
        return render(Lockfile(stages=self._locked)).encode()

    def _change(self, number: int) -> dict[str, bytes]:
        kind = self._history.kind
        if kind == "docs":
            return {"README.md": b"change %d\n" % number}
        if kind == "params":
            return {"params.json": b'{"more": %d}\n' % number}
        if kind == "pipeline" or (kind == "all" and number % _PARAMS_EVERY == 0):
            self._seed += 1
            return {"pipeline.toml": self._text().encode()}
        chosen = int(sha1(str(number).encode()).hexdigest(), 16) % self._history.stages
        if kind == "locks":
            name = f"s{chosen}"
            out = LockedOut(name="o", path=f"out/{name}", digest=self._digest(f"{name} {number}"))
            self._locked[name] = replace(self._locked[name], outs=(out,))
            return {"pipe.lock": self._lock_text()}
        changes = {}
        for name in [f"s{(chosen + more) % self._history.stages}" for more in range(20 if kind == "many" else 1)]:
            file = f"f{number % self._history.files}.py"
            data = f"change {number}\n".encode()
            self._files[name][file] = data
            changes[f"stages/{name}/{file}"] = data
            if kind == "all" and number % 10:
                self._locked[name] = self._lock(self._pipeline.stages[name])
                changes["pipe.lock"] = self._lock_text()
        return changes


def _commit(
    subject: str, changes: dict[str, bytes], *, mark: int, branch: str = "main", base: int = 0, merged: int = 0
) -> bytes:
    head = f"commit refs/heads/{branch}\nmark :{mark}\ncommitter bench <bench@example.com> 1700000000 +0000\n"
    parts = [head.encode(), _data(subject.encode())]
    parts += [f"from :{base}\n".encode()] if base else []
    parts += [f"merge :{merged}\n".encode()] if merged else []
    parts += [b"M 100644 inline %s\n%s" % (path.encode(), _data(data)) for path, data in changes.items()]
    return b"".join(parts) + b"\n"


def _data(data: bytes) -> bytes:
    return b"data %d\n%s\n" % (len(data), data)
