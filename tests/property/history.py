"""One random history: edits of a repository, and builds of it that are held to the oracle."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.conftest import Repo

from pipesmith.digest import new_hasher

from .graphs import Graph, Spec, random_spec, rewired
from .oracle import Expected, Fingerprint, Oracle, read

_TRACKED = ["pipeline.toml", "pipe.lock", ".gitignore", "src", "data", "kept", "notes.txt"]
_WORDS = ["alpha", "beta", "gamma", "delta"]
_STATE_OF = {"fresh": "fresh", "restorable": "restored", "stale": "ran"}


def stage_all(repo: Repo) -> None:
    """Stage what lies in the work tree, each file read again.

    git judges a file by its size and by seconds of its times, so that alone it would not see one that was rewritten
    within a second with its time put back: the index loses what it noted of each file first.
    """
    repo.git("read-tree", "HEAD" if repo.git("rev-parse", "-q", "--verify", "HEAD", check=False).stdout else "--empty")
    there = [path for path in _TRACKED if os.path.lexists(repo.path / path)]
    repo.git("add", "-A", "--", *there)
    gone = [path for path in _TRACKED if path not in there]
    if gone:
        repo.git("rm", "-rq", "--cached", "--ignore-unmatch", "--", *gone)


class History:
    """Edits and builds of one repository, all drawn from one seed. told: what was done, for the message of a
    failure."""

    def __init__(self, repo: Repo, seed: int) -> None:
        self.repo = repo
        self.rng = random.Random(seed)
        self.oracle = Oracle(repo.path)
        self.graphs: dict[str, Graph] = {}
        self.told: list[str] = [f"seed {seed}"]
        self.commits: list[str] = []
        self.fresh_names = 0
        self.builds = 0
        self.keys: dict[Fingerprint, str] = {}
        self.meanings: dict[str, Fingerprint] = {}
        self.env = {"PIPE_SANDBOX": "copies"} if self.rng.random() < 0.3 else {}
        self._begin()

    # -- the beginning ------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        repo, rng = self.repo, self.rng
        repo.write(".gitignore", "*.skip\n")
        repo.write("notes.txt", "a note\n")
        for name in ("one", "two"):
            repo.write(f"data/{name}.txt", f"{name}\n")
        for name in ("a", "b/c", "é"):
            repo.write(f"data/many/{name}", f"{name}\n")
        graph = Graph()
        for _ in range(rng.randint(2, 6)):
            self._grow(graph)
        self._save(graph)
        self.commit()

    @property
    def data(self) -> list[str]:
        return ["data/one.txt", "data/two.txt", "data/many", "data/many/b"]

    @property
    def graph(self) -> Graph:
        return self.graphs[self.repo.read("pipeline.toml")]

    def _grow(self, graph: Graph) -> None:
        name = f"s{self.fresh_names}"
        self.fresh_names += 1
        graph.stages[name] = random_spec(self.rng, name, graph, self.data)
        self.repo.write(f"src/{name}/main", f"{name}\n")

    def _save(self, graph: Graph) -> None:
        text = graph.toml()
        self.graphs[text] = graph
        self.repo.write("pipeline.toml", text)

    # -- edits --------------------------------------------------------------------------------------------------------

    def edit(self) -> None:
        """Change something, at random."""
        edits: list[tuple[int, Callable[[], str | None]]] = [
            (5, self.write_source),
            (2, self.drop_source),
            (2, self.flip_mode),
            (1, self.ignored_source),
            (1, self.link_source),
            (4, self.write_data),
            (1, self.drop_data),
            (1, self.write_note),
            (2, self.same_stamps),
            (1, self.touch),
            (3, self.change_param),
            (2, self.add_stage),
            (1, self.remove_stage),
            (3, self.change_stage),
            (3, self.commit),
            (4, self.go_to),
            (3, self.delete_output),
            (4, self.tamper),
            (1, self.forget_lock),
            (1, self.forget_everything),
            (1, self.forget_state),
            (1, self.forget_actions),
            (1, self.forget_objects),
            (2, self.fail_stage),
            (3, self.mend_stages),
        ]
        weights, choices = zip(*edits, strict=True)
        chosen = self.rng.choices(choices, weights)[0]
        told = chosen()
        if told is not None:
            self.told.append(told)

    def _word(self) -> str:
        return f"{self.rng.choice(_WORDS)} {self.rng.randint(0, 3)}\n"

    def _stage(self) -> Spec:
        return self.rng.choice(list(self.graph.stages.values()))

    def write_source(self) -> str:
        name = self.rng.choice(["main", "main", "lib", "deep/er", "é ü".replace(" ", "")])
        path = f"{self._stage().source}/{name}"
        self.repo.write(path, self._word())
        return f"write {path}"

    def drop_source(self) -> str | None:
        folder = self.repo.path / self._stage().source
        files = [each for each in folder.rglob("*") if each.is_file() and each.name not in ("main", "link")]
        if not files:
            return None
        path = self.rng.choice(files)
        (folder / "link").unlink(missing_ok=True)
        path.unlink()
        return f"remove {path.relative_to(self.repo.path)}"

    def flip_mode(self) -> str:
        path = self.repo.path / self._stage().source / "main"
        path.chmod(0o644 if path.stat().st_mode & 0o100 else 0o755)
        return f"chmod {path.relative_to(self.repo.path)}"

    def ignored_source(self) -> str:
        path = f"{self._stage().source}/{self.rng.choice('ab')}.skip"
        self.repo.write(path, self._word())
        return f"write the ignored {path}"

    def link_source(self) -> str:
        path = self.repo.path / self._stage().source / "link"
        path.unlink(missing_ok=True)
        path.symlink_to("main")
        return f"link {path.relative_to(self.repo.path)}"

    def write_data(self) -> str:
        path = self.rng.choice(["data/one.txt", "data/two.txt", "data/many/a", "data/many/b/c", "data/many/new"])
        self.repo.write(path, self._word())
        return f"write {path}"

    def drop_data(self) -> str | None:
        path = self.repo.path / "data/many/new"
        if not path.exists():
            return None
        path.unlink()
        return "remove data/many/new"

    def write_note(self) -> str:
        self.repo.write("notes.txt", self._word())
        return "write notes.txt"

    def same_stamps(self) -> str:
        """Another content of the same size, with its time put back."""
        path = self.repo.path / self.rng.choice([f"{self._stage().source}/main", "data/one.txt", "data/many/a"])
        before, data = path.stat(), path.read_bytes()
        path.write_bytes(data[:-2] + bytes([48 + self.rng.randint(0, 9)]) + data[-1:])
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return f"rewrite {path.relative_to(self.repo.path)} with its time put back"

    def touch(self) -> str:
        path = self.repo.path / self._stage().source / "main"
        os.utime(path)
        return f"touch {path.relative_to(self.repo.path)}"

    def change_param(self) -> str:
        graph = self.graph.copy()
        name = self.rng.choice(list(graph.params))
        graph.params[name] = self.rng.randint(1, 4)
        self._save(graph)
        return f"param {name} = {graph.params[name]}"

    def add_stage(self) -> str:
        graph = self.graph.copy()
        self._grow(graph)
        self._save(graph)
        return f"add stage {list(graph.stages)[-1]}"

    def remove_stage(self) -> str | None:
        graph = self.graph.copy()
        leaves = [name for name in graph.stages if not graph.readers(name)]
        if len(graph.stages) < 3 or not leaves:
            return None
        name = self.rng.choice(leaves)
        del graph.stages[name]
        self._save(graph)
        return f"remove stage {name}"

    def change_stage(self) -> str:
        graph = self.graph.copy()
        spec = self._stage()
        graph.stages[spec.name] = rewired(self.rng, spec, graph, self.data)
        self._save(graph)
        return f"change stage {spec.name}"

    def commit(self) -> str:
        stage_all(self.repo)
        self.repo.git("commit", "-q", "--allow-empty", "-m", "change")
        self.commits.append(self.repo.git("rev-parse", "HEAD").stdout.strip())
        if self.rng.random() < 0.4:
            self.repo.git("branch", "-f", f"b{len(self.commits)}")
        self._compare_revision()
        return "commit"

    def go_to(self) -> str:
        """Check out an earlier state; what git does not track stays."""
        branches = self.repo.git("for-each-ref", "--format=%(refname:short)", "refs/heads").stdout.split()
        target = self.rng.choice([*self.commits, *(each for each in branches if each.startswith("b"))])
        self.repo.git("checkout", "-qf", target)
        for spec in self.graph.stages.values():  # what git dropped with a stage, and the stage is back
            assert (self.repo.path / spec.source / "main").exists(), spec.source
            link = self.repo.path / spec.source / "link"
            if link.is_symlink() and not link.exists():
                link.unlink()
        return f"checkout {target[:8]}"

    def _output(self) -> Path:
        spec = self._stage()
        return self.repo.path / self.rng.choice(list(spec.outputs.values()))

    def delete_output(self) -> str:
        path = self.rng.choice([self._output(), self._output(), self.repo.path / "out"])
        _drop(path)
        return f"delete {path.relative_to(self.repo.path)}"

    def tamper(self) -> str | None:
        path = self._output()
        if not path.exists() or path.is_symlink():
            return None
        told = f"tamper with {path.relative_to(self.repo.path)}"
        files = (
            [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file() and not each.is_symlink()]
        )
        way = self.rng.choice(["write", "write", "strip", "kind", "link", "mode"])
        if way == "kind":
            folder = path.is_dir()
            _drop(path)
            if folder:
                path.write_text(f"by hand {self._word()}")
            else:
                (path / "sub").mkdir(parents=True)
                (path / "sub/mine").write_text(f"by hand {self._word()}")
            return f"{told}: of another kind"
        if way == "link":
            _drop(path)
            path.symlink_to("nowhere" if self.rng.random() < 0.5 else "../notes.txt")
            return f"{told}: a link"
        if not files:
            return None
        victim = self.rng.choice(files)
        if way == "mode":
            if path.is_file():
                return None  # of a single file the bit does not count
            victim.chmod(victim.stat().st_mode ^ 0o111)
            return f"{told}: mode of {victim.name}"
        if way == "strip" and path.is_dir():
            victim.unlink()
            return f"{told}: without {victim.name}"
        before = victim.stat()
        victim.chmod(0o644)
        data = victim.read_bytes()
        victim.write_bytes(b"X" + data[1:])
        if self.rng.random() < 0.5:
            os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
        victim.chmod(before.st_mode & 0o777)
        return f"{told}: other bytes in {victim.name}"

    def forget_lock(self) -> str:
        (self.repo.path / "pipe.lock").unlink(missing_ok=True)
        return "remove pipe.lock"

    def forget_everything(self) -> str:
        shutil.rmtree(self.repo.pipe_dir, ignore_errors=True)
        self.oracle.cache.known.clear()
        self.oracle.cache.objects.clear()
        return "remove .git/pipe"

    def forget_state(self) -> str:
        for each in self.repo.pipe_dir.glob("state.db*"):
            each.unlink()
        return "remove state.db"

    def forget_actions(self) -> str:
        shutil.rmtree(self.repo.pipe_dir / "cache/actions", ignore_errors=True)
        self.oracle.cache.known.clear()
        return "remove cache/actions"

    def forget_objects(self) -> str:
        shutil.rmtree(self.repo.pipe_dir / "cache/files", ignore_errors=True)
        self.oracle.cache.objects.clear()
        return "remove cache/files"

    def fail_stage(self) -> str:
        spec = self._stage()
        self.repo.write(f"{spec.source}/bug", "FAIL\n")
        return f"{spec.name} fails from here on"

    def mend_stages(self) -> str:
        for bug in (self.repo.path / "src").rglob("bug"):
            bug.unlink()
        return "mend all"

    # -- commands -----------------------------------------------------------------------------------------------------

    def pipe(self, *args: str) -> tuple[int, Any]:
        """Run a command with --json, mostly in this process, and return exit code and document."""
        self.told.append(f"pipe {' '.join(args)}")
        words = [*args, "--json"]
        if self.rng.random() < 0.2:
            done = self.repo.pipe(*words, check=False, env=self.env)
            code, out, err = done.returncode, done.stdout, done.stderr
        else:
            code, out, err = self._within(words)
        self.told += [f"      {line}" for line in err.splitlines()[-12:]]
        assert code in (0, 1), f"exit {code}: {out}{err}"
        return code, json.loads(out)

    def _within(self, words: list[str]) -> tuple[int, str, str]:
        from pipesmith.__main__ import main

        out, err = io.StringIO(), io.StringIO()
        environ, folder, argv = dict(os.environ), os.getcwd(), sys.argv
        try:
            os.environ.clear()
            os.environ.update({**self.repo.env, **self.env})
            os.chdir(self.repo.path)
            sys.argv = ["pipe", *words]
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main(words)
        finally:
            os.environ.clear()
            os.environ.update(environ)
            os.chdir(folder)
            sys.argv = argv
        return code, out.getvalue(), err.getvalue()

    # -- what must hold -----------------------------------------------------------------------------------------------

    def check_status(self) -> dict[str, str]:
        """Compare `pipe status` with the oracle's; return the states."""
        code, told = self.pipe("status")
        assert code == 0
        expected = self.oracle.states(self.graph)
        states = {entry["name"]: entry["state"] for entry in told["stages"]}
        assert states == {name: state for name, (state, _fingerprint) in expected.items()}
        self._match(told, {name: fingerprint for name, (_state, fingerprint) in expected.items()})
        assert self.repo.ran() == []
        return states

    def _match(self, told: Any, expected: Mapping[str, Fingerprint | None]) -> None:
        """Hold that fingerprints are equal exactly when what they stand for is."""
        for entry in told["stages"]:
            meaning, key = expected[entry["name"]], entry["fingerprint"]
            if meaning is None or key is None:
                continue
            assert self.keys.setdefault(meaning, key) == key, f"{entry['name']}: the same stage, another fingerprint"
            assert self.meanings.setdefault(key, meaning) == meaning, f"{entry['name']}: one fingerprint, two stages"

    def _compare_revision(self) -> None:
        """The commit just made, without checking it out, has the states and fingerprints that its files say."""
        code, told = self.pipe("status", "--rev", "HEAD")
        assert code == 0
        expected = self.oracle.states(self.graph, committed=True)
        assert {entry["name"]: entry["state"] for entry in told["stages"]} == {
            name: state for name, (state, _fingerprint) in expected.items()
        }
        # What is inside a folder that git does not hold is known by the lock's entries only: a stale stage may have
        # none of it.
        unknown = {
            name for name, spec in self.graph.stages.items() if any("/" in given.path[5:] for given in spec.inputs)
        }
        self._match(
            told,
            {
                name: None if state == "stale" and name in unknown else fingerprint
                for name, (state, fingerprint) in expected.items()
            },
        )

    def build(self) -> None:
        """Build, in one of many ways; hold all that it did to the oracle."""
        rng, graph, oracle = self.rng, self.graph, self.oracle
        states = self.check_status() if rng.random() < 0.5 else None
        names = list(graph.stages)
        wanted, args = set(names), list[str]()
        if rng.random() < 0.2:
            named = rng.sample(names, rng.randint(1, min(2, len(names))))
            args += named
            wanted = graph.upstream(named)
        forced: Collection[str] = ()
        if rng.random() < 0.1:
            forced = list(args) or names
            args.append(rng.choice(["-f", "--force"]))
        overrides = {}
        if rng.random() < 0.1:
            overrides = {rng.choice(list(graph.params)): rng.randint(1, 6)}
            args += [f"--set={name}={value}" for name, value in overrides.items()]
        restore = rng.random() > 0.05
        if not restore:
            args.append("--no-restore")
        keep_going = rng.random() < 0.5
        if keep_going:
            args.append("-k")
        if rng.random() < 0.4:
            args.append(f"-j{rng.randint(1, 3)}")
        before = oracle.lock()
        plan = oracle.plan(graph, wanted, forced=forced, overrides=overrides, restore=restore)
        kept_before = {
            path: read(self.repo.path / path) for spec in graph.stages.values() for path in spec.outputs.values()
        }
        code, told = self.pipe("build", *args)
        self.builds += 1
        did = self._compare(told, plan, keep_going)
        for name in did:
            state = states[name] if states and not (forced or overrides) and restore else "pending"
            if state != "pending" and plan[name].status in ("fresh", "restored", "ran"):
                temp = graph.stages[name].temp and state == "fresh"
                assert temp or did[name].status in (_STATE_OF[state], "skipped"), (
                    "status did not say what the build did"
                )
        ran = sorted(name for name, expected in did.items() if expected.status in ("ran", "failed"))
        assert self.repo.ran() == ran
        failed = any(expected.status == "failed" for expected in did.values())
        assert code == (1 if failed else 0)
        status = "up-to-date" if all(expected.status == "fresh" for expected in did.values()) else "succeeded"
        assert told["status"] == ("failed" if failed else status)
        replaced = self._check_outputs(graph, did, kept_before)
        oracle.took(graph, before, did, replaced)
        self._check_kept(replaced)
        if not failed and not (forced or overrides) and restore:
            self._nothing_left(args)

    def _compare(self, told: Any, plan: Mapping[str, Expected], keep_going: bool) -> dict[str, Expected]:
        did = {}
        failing = any(expected.status == "failed" for expected in plan.values())
        statuses = {entry["name"]: entry["status"] for entry in told["stages"]}
        assert set(statuses) == set(plan)
        for name, expected in plan.items():
            allowed = {expected.status}
            if failing and not keep_going:
                allowed.add("skipped")
            assert statuses[name] in allowed, f"{name}: {statuses[name]}, expected {expected.status}; {statuses}"
            did[name] = replace(expected, status=statuses[name])
        self._match(
            told,
            {name: expected.fingerprint for name, expected in did.items() if expected.status != "skipped"}
            | {name: None for name, expected in did.items() if expected.status == "skipped"},
        )
        return did

    def _check_outputs(self, graph: Graph, did: Mapping[str, Expected], before: Mapping[str, Any]) -> list[Any]:
        """Hold what lies in the workspace now to the plan; return what was replaced by something else."""
        replaced = []
        good = ("fresh", "restored", "ran")
        for name, expected in did.items():
            spec = graph.stages[name]
            for output, path in spec.outputs.items():
                now, was = read(self.repo.path / path), before[path]
                if expected.status not in good:
                    assert now == was, f"{path}: a stage that {expected.status} changed it"
                    if not spec.sandbox and expected.status == "failed" and was is not None:
                        replaced.append(was)
                    continue
                temp = spec.temp and output == "o"
                if temp and now is None:
                    if was is not None:
                        replaced.append(was)
                    continue
                assert now == expected.outs[path], f"{path} is {now!r}, expected {expected.outs[path]!r}"
                aside = not spec.sandbox and expected.status == "ran"
                if temp:
                    readers = graph.readers(name)
                    assert not all(each in did and did[each].status in good for each in readers), (
                        f"{path} is still there"
                    )
                if was is not None and (was != now or aside):
                    replaced.append(was)
        found = []
        for content in replaced:
            found.append(content.encode() if isinstance(content, str) else content)
        return found

    def _check_kept(self, replaced: list[Any]) -> None:
        """Whatever a build replaced is in the cache."""
        for content in replaced:
            for data in [content] if isinstance(content, bytes) else [each[1] for each in content]:
                if isinstance(data, bytes):
                    hasher = new_hasher("blake3")
                    hasher.update(data)
                    hex = hasher.hexdigest()
                    assert (self.repo.pipe_dir / "cache/files/blake3" / hex[:2] / hex[2:]).exists(), f"{data!r} is lost"

    def _nothing_left(self, args: list[str]) -> None:
        """A second build has nothing to do and changes nothing."""
        lock = self.oracle.lock_text
        for _ in range(self.rng.choice([1, 1, 2])):
            code, told = self.pipe("build", *(each for each in args if not each.startswith("-")))
            assert (code, told["status"]) == (0, "up-to-date")
            assert {entry["status"] for entry in told["stages"]} == {"fresh"}
            assert self.repo.ran() == []
            assert self.oracle.lock_text == lock, "the second build wrote another pipe.lock"

    def from_nothing(self, other: Repo) -> None:
        """The same files in another repository make the same outputs."""
        self.mend_stages()
        self.told.append("build from nothing")
        for path in ["pipeline.toml", ".gitignore", "src", "data", "notes.txt"]:
            source, target = self.repo.path / path, other.path / path
            if source.is_dir():
                shutil.copytree(source, target, symlinks=True)
            else:
                shutil.copy2(source, target)
        self.told.append("pipe build")
        _code, here = self.pipe("build")
        there = other.pipe("build", "--json", env=self.env).json()
        assert _results(here) == _results(there)
        assert {entry["status"] for entry in there["stages"]} == {"ran"}
        for spec in self.graph.stages.values():
            for path in spec.outputs.values():
                assert read(self.repo.path / path) == read(other.path / path)

    def run(self, steps: int) -> None:
        """Live through a history."""
        self.build()
        for _ in range(steps):
            for _ in range(self.rng.choice([1, 1, 1, 2, 3])):
                self.edit()
            self.build()


def _results(told: Any) -> dict[str, Any]:
    return {
        entry["name"]: (entry["fingerprint"], sorted(entry["outputs"], key=lambda out: out["name"]))
        for entry in told["stages"]
    }


def _drop(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
