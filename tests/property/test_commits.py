"""Laws of judging commits, over random histories: a commit has the fingerprints and states of its checkout in a fresh
clone, and a range says of each commit what the commit says alone.

PIPESMITH_SEEDS="7 8 9" runs these seeds only; a failure prints its seed and all that was done.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Repo

_SEEDS = [int(word) for word in os.environ.get("PIPESMITH_SEEDS", "").split()]
_ALLOW = ("-c", "protocol.file.allow=always")
_CONTENTS = [b"", b"a\n", b"b\r\nc\r\n", b"$Id$\n", b"\0bin\r\n", b"long\n" * 30]
_ATTRIBUTES = [b"", b"* text=auto\n", b"*.txt text eol=crlf\n", b"* ident\n", b"*.up filter=up\n", b"* -text\n"]
_IGNORES = [b"", b"*.up\n", b"deep/\n", b"sub\n", b"*\n!*/\n!main\n", b"/src/a/main\n"]
_FILES = ["main", "b.txt", "c.up", "deep/er", "deep/x.txt", "é"]
_FOLDERS = ["src/a", "src/b", "src", "data"]


class Past:
    """A repository that lives through random commits."""

    def __init__(self, repo: Repo, sub: Repo, seed: int) -> None:
        self.repo = repo
        self.sub = sub
        self.rng = random.Random(seed)
        self.told = [f"seed {seed}"]
        for key, value in {"clean": "tr a-z A-Z", "smudge": "tr A-Z a-z"}.items():
            self._configure(repo, key, value)
        self.sub.write("inner", "inner\n")
        self.sub.commit()
        for folder in ("src/a", "src/b", "data"):
            repo.write(f"{folder}/main", "main\n")
        repo.write("params.json", '{"p": 1}')
        repo.git(*_ALLOW, "submodule", "add", "-q", str(sub.path), "src/sub")
        self.shape = {"name": "b", "cells": "1, 2", "lr": "1", "source": "src/b", "extra": ""}
        self.write_pipeline()
        self.commit()

    def _configure(self, repo: Repo, key: str, value: str) -> None:
        repo.git("config", f"filter.up.{key}", value)

    def pick(self, choices: list[Any]) -> Any:
        return self.rng.choice(choices)

    def write_pipeline(self) -> None:
        shape = self.shape
        self.repo.write(
            "pipeline.toml",
            f"""
            [pipeline]
            params-files = ["params.json"]
            [params]
            lr = {shape["lr"]}
            [stage.a]
            source = "src/a"
            run = "cat src/a/* > {{outputs.o}} 2>/dev/null; echo {{params.p}} >> {{outputs.o}}"
            inputs = {{ d = "data" }}
            outputs = {{ o = "out/a" }}
            [stage.{shape["name"]}]
            source = ["{shape["source"]}"]
            run = "echo {{matrix.n}} {{params.lr}} > {{outputs.o}}"
            matrix = {{ n = [{shape["cells"]}] }}
            inputs = {{ i = "stage:a.o" }}
            outputs = {{ o = "out/m/{{matrix.n}}" }}
            [stage.c]
            run = "ls {{inputs.all}} > {{outputs.o}}"
            inputs = {{ all = "stage:{shape["name"]}@*.o", e = "src/sub/inner" }}
            hash-paths = ["data/b.txt"]
            outputs = {{ o = {{ path = "kept/c", cache = false }} }}
            {shape["extra"]}
            """,
        )

    # -- edits --------------------------------------------------------------------------------------------------------

    def edit(self) -> None:
        name = self.pick(
            ["write"] * 5
            + ["link", "drop", "mode", "attributes", "pipeignore", "bump", "param", "lr", "cells", "rename"]
            + ["source", "extra", "spoil", "note", "kept", "lock"]
        )
        self.told.append(f"{name} {getattr(self, name)() or ''}")

    def _place(self) -> Path:
        path = self.repo.path / self.pick(_FOLDERS) / self.pick(_FILES)
        for parent in path.parents:
            if parent.is_symlink() or parent.is_file():
                parent.unlink()
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self) -> str:
        path = self._place()
        path.write_bytes(self.pick(_CONTENTS))
        if self.rng.random() < 0.2:
            path.chmod(0o755)
        return str(path)

    def link(self) -> str:
        path = self._place()
        path.symlink_to(self.pick([os.path.relpath(self.repo.path / "params.json", path.parent), "main"]))
        if not path.exists():
            path.unlink()
        return str(path)

    def drop(self) -> str:
        return str(self._place())

    def mode(self) -> None:
        path = self.repo.path / "src/a/main"
        if path.is_file() and not path.is_symlink():
            path.chmod(path.stat().st_mode ^ 0o111)

    def attributes(self) -> None:
        self.repo.write(self.pick(["", "src/", "data/"]) + ".gitattributes", self.pick(_ATTRIBUTES))

    def pipeignore(self) -> None:
        self.repo.write(self.pick(["", "src/", "src/a/"]) + ".pipeignore", self.pick(_IGNORES))

    def bump(self) -> None:
        inner = Repo(self.repo.path / "src/sub", self.repo.home)
        inner.write(self.pick(["inner", "more", ".pipeignore"]), self.pick(["inner\n", "1\n", "more\n"]))
        inner.commit()
        inner.git("push", "-qf", "origin", "HEAD:refs/heads/kept" + str(self.rng.random())[2:])

    def param(self) -> None:
        self.repo.write("params.json", json.dumps({"p": self.pick([1, 1.0, True, "1", 2])}))

    def lr(self) -> None:
        self.shape["lr"] = self.pick(["1", "1.0", "true", '"1"'])
        self.write_pipeline()

    def cells(self) -> None:
        self.shape["cells"] = self.pick(["1", "1, 2", "2, 1", "2, 3"])
        self.write_pipeline()

    def rename(self) -> None:
        self.shape["name"] = self.pick(["b", "z"])
        self.write_pipeline()

    def source(self) -> None:
        self.shape["source"] = self.pick(["src/b", "src", ".", "src/sub", "src/b/main"])
        self.write_pipeline()

    def extra(self) -> None:
        self.shape["extra"] = self.pick(["", '[stage.d]\nrun = "true"\nsource = "data"\n', "# a remark"])
        self.write_pipeline()

    def spoil(self) -> None:
        self.repo.write(self.pick(["pipeline.toml", "params.json", "pipe.lock"]), "broken = [")

    def note(self) -> None:
        self.repo.write("notes/n", self.pick(["1", "2"]))

    def kept(self) -> None:
        self.repo.write("kept/c", self.pick(["by hand\n", "1\n2\n"]))

    def lock(self) -> None:
        (self.repo.path / "pipe.lock").unlink(missing_ok=True)

    def commit(self) -> None:
        if self.rng.random() < 0.6:
            code, _out, err = self.pipe(self.repo, "build", "-q", "-k")
            self.told.append(f"build: exit {code} {err[-200:]}")
        self.repo.git("-c", "core.safecrlf=false", "add", "-A")
        self.repo.git("commit", "-q", "--allow-empty", "-m", "change")
        self.told.append("commit " + self.repo.git("rev-parse", "--short", "HEAD").stdout.strip())

    def live(self, steps: int) -> None:
        for _ in range(steps):
            for _ in range(self.rng.choice([1, 1, 2, 3])):
                self.edit()
            self.commit()
            if (self.repo.path / "pipeline.toml").read_text().startswith("broken"):
                self.write_pipeline()
            if self.repo.read("params.json").startswith("broken"):
                self.repo.write("params.json", '{"p": 1}')
            lock = self.repo.path / "pipe.lock"
            if lock.exists() and lock.read_text().startswith("broken"):
                lock.unlink()
            if self.rng.random() < 0.15:
                back = self.rng.choice(self.repo.git("rev-list", "HEAD").stdout.split())
                self.repo.git("checkout", "-qf", back)
                self.repo.git("clean", "-fdq")
                self.repo.git(*_ALLOW, "submodule", "update", "-q", "--init", "-f")
                self.repo.git("branch", "-f", f"b{self.rng.random()}")
                self.told.append(f"checkout {back[:8]}")
                self.shape |= {"name": "b", "cells": "1, 2", "source": "src/b", "extra": ""}

    # -- commands -----------------------------------------------------------------------------------------------------

    def pipe(self, repo: Repo, *words: str) -> tuple[int, str, str]:
        """Run a command in this process."""
        from pipesmith.__main__ import main

        out, err = io.StringIO(), io.StringIO()
        environ, folder, argv = dict(os.environ), os.getcwd(), sys.argv
        try:
            os.environ.clear()
            os.environ.update(repo.env)
            os.chdir(repo.path)
            sys.argv = ["pipe", *words]
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main(list(words))
        finally:
            os.environ.clear()
            os.environ.update(environ)
            os.chdir(folder)
            sys.argv = argv
        return code, out.getvalue(), err.getvalue()

    def status(self, repo: Repo, *words: str) -> Any:
        code, out, err = self.pipe(repo, "status", "--json", *words)
        assert code in (0, 2), f"{words}: exit {code}: {err}"
        return json.loads(out)

    # -- laws ---------------------------------------------------------------------------------------------------------

    def hold(self, folder: Path) -> None:
        """Hold the laws for every commit."""
        commits = self.repo.git("rev-list", "--reverse", "--topo-order", "--all").stdout.split()
        alone = {commit: self.status(self.repo, "--rev", commit) for commit in commits}
        start = commits[0]
        for tip in self.repo.git("for-each-ref", "--format=%(objectname)", "refs/heads").stdout.split():
            told = self.status(self.repo, "--rev", f"{start}..{tip}")["commits"]
            for entry in told:
                expected = alone[entry["revision"]]
                if "error" in expected:
                    assert entry["error"] == expected["error"], entry["revision"]
                else:
                    assert entry == expected, entry["revision"]
            listed = self.repo.git("rev-list", "--reverse", "--topo-order", f"{start}..{tip}").stdout.split()
            assert [entry["revision"] for entry in told] == listed
            self._as_before(start, tip, self.rng.choice([start, *listed]))
        for commit in self.rng.sample(commits, min(5, len(commits))):
            self._as_checked_out(commit, alone[commit], folder / f"clone-{commit[:8]}")

    def _as_before(self, start: str, tip: str, part: str) -> None:
        """What is said with a part remembered, and with all, is what is said without a memory."""
        span = ("status", "--no-color", "--rev", f"{start}..{tip}")
        self.pipe(self.repo, *span[:-1], f"{start}..{part}")
        partly, all_known = self.pipe(self.repo, *span), self.pipe(self.repo, *span)
        for path in (self.repo.path / ".git/pipe").glob("state.db*"):
            path.unlink()
        without = self.pipe(self.repo, *span)
        assert partly == all_known == without, f"{part[:8]} of {start[:8]}..{tip[:8]}"

    def _as_checked_out(self, commit: str, at_commit: Any, target: Path) -> None:
        clone = Repo(target, self.repo.home)
        self.repo.git("clone", "-q", "-n", str(self.repo.path), str(target))
        for key in ("clean", "smudge"):
            self._configure(clone, key, self.repo.git("config", f"filter.up.{key}").stdout.strip())
        clone.git("checkout", "-q", commit)
        clone.git(*_ALLOW, "submodule", "update", "-q", "--init")
        if clone.git("status", "--porcelain").stdout:
            return  # git itself calls the fresh checkout changed: it has other ids than the commit
        found = self.status(clone, "--allow-missing")
        if "error" in found or "error" in at_commit:
            assert "error" in found and "error" in at_commit, commit
        else:
            assert _told(found) == _told(at_commit), f"{commit}: checked out, and at the commit"


def _told(document: Any) -> dict[str, Any]:
    """What must be the same: states, fingerprints and reasons. Outputs that a clone does not have are no reason."""
    return {
        entry["name"]: (entry["state"], entry["fingerprint"], [(why["kind"], why["item"]) for why in entry["why"]])
        for entry in document["stages"]
    }


def live(repo: Repo, make_repo: Callable[[str], Repo], tmp_path: Path, seed: int, steps: int) -> None:
    past = Past(repo, make_repo("sub"), seed)
    try:
        past.live(steps)
        past.hold(tmp_path)
    except AssertionError as error:
        pytest.fail("\n".join([*past.told, "", str(error)]), pytrace=True)


@pytest.mark.parametrize("seed", _SEEDS or range(3))
def test_commits(repo: Repo, make_repo: Callable[[str], Repo], tmp_path: Path, seed: int) -> None:
    live(repo, make_repo, tmp_path, seed, 6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1100))
def test_many_commits(repo: Repo, make_repo: Callable[[str], Repo], tmp_path: Path, seed: int) -> None:
    live(repo, make_repo, tmp_path, seed, 15)
