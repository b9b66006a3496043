"""Random histories, asked what would be, and held to what then really is: in a copy of the whole clone the commit is
checked out, the branch merged, and built. Where every stage's output changes with whatever the stage is given, so that
no early cutoff can make a guess wrong, no difference is allowed; elsewhere none in what is said to be sure.

PIPESMITH_SEEDS="7 8 9" asks these seeds only; a failure prints its seed and all that was done.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Repo

_SEEDS = [int(word) for word in os.environ.get("PIPESMITH_SEEDS", "").split()]
_REALLY = {"fresh": "fresh", "restored": "restored", "run": "ran"}


@dataclass(frozen=True)
class Spec:
    """A stage: it reads its source, data and other stages' outputs, and makes a digest of all of it."""

    name: str
    data: tuple[str, ...]
    before: tuple[str, ...]  # `STAGE` for its output; `STAGE/x` for a file in it, where that is a folder
    params: tuple[str, ...]
    folder: bool
    cache: bool
    temp: bool
    reuse: bool
    cut: bool = False  # its output takes two values only

    @property
    def output(self) -> str:
        return f"{'out' if self.cache else 'kept'}/{self.name}"

    def table(self, stages: dict[str, Spec]) -> str:
        given = [(f"d{index}", path) for index, path in enumerate(self.data)]
        for index, text in enumerate(self.before):
            maker, _, inner = text.partition("/")
            given.append((f"i{index}", f"{stages[maker].output}/{inner}" if inner else f"stage:{maker}.o"))
        inputs = ", ".join(f'{name} = "{path}"' for name, path in given)
        reads = " ".join([f"src/{self.name}", *(f"{{inputs.{name}}}" for name, _path in given)])
        echoes = "".join(f"echo {name}={{params.{name}}}; " for name in self.params)
        main = "{outputs.o}/x" if self.folder else "{outputs.o}"
        digest = "sha256sum | cut -c1 | tr 0-9a-f 0000000011111111" if self.cut else "sha256sum"
        make = f"( find {reads} -type f | LC_ALL=C sort | xargs sha256sum; {echoes}) | {digest} > {main}"
        steps = ["mkdir -p {outputs.o}", make, "echo same > {outputs.o}/y"] if self.folder else [make]
        words = [f'path = "{self.output}"', *([] if self.cache else ["cache = false"])]
        words += ["temp = true"] if self.temp else []
        lines = [f"[stage.{self.name}]", f'source = "src/{self.name}"', f"run = '''{'; '.join(steps)}'''"]
        lines += [f"inputs = {{ {inputs} }}", f"outputs = {{ o = {{ {', '.join(words)} }} }}"]
        return "\n".join([*lines, *([] if self.reuse else ["reuse = false"]), ""])


class Life:
    """One clone's history, all drawn from one seed."""

    def __init__(self, repo: Repo, seed: int, *, cuts: bool = False) -> None:
        self.repo = repo
        self.cuts = cuts
        self.rng = random.Random(seed)
        self.count = 0
        self.told = [f"seed {seed}"]
        self.stages: dict[str, Spec] = {}
        self.params = {"p": 1, "q": 1}
        self.answers: dict[str, int] = {}
        repo.env["PIPE_SANDBOX"] = "copies"
        repo.write(".gitignore", "/raw/\n*.skip\n")
        for path in ("data/one", "data/mix/a", "data/mix/b", "data/mix/c.skip", "raw/x", "raw/deep/y"):
            repo.write(path, self.word())
        for _ in range(self.rng.randint(2, 5)):
            self.add_stage()
        self.build()
        self.commit()

    def word(self) -> str:
        """Return a text that was never there before."""
        self.count += 1
        return f"{self.count}\n"

    # -- edits ----------------------------------------------------------------------------------------------------

    def save(self) -> None:
        params = "\n".join(f"{name} = {value}" for name, value in self.params.items())
        self.repo.write(
            "pipeline.toml",
            f"[params]\n{params}\n\n" + "\n".join(spec.table(self.stages) for spec in self.stages.values()),
        )

    def spec(self, name: str, earlier: list[Spec]) -> Spec:
        rng = self.rng
        before = []
        for other in rng.sample(earlier, min(len(earlier), rng.choice([0, 1, 1, 2]))):
            before.append(f"{other.name}/x" if other.folder and not other.temp and rng.random() < 0.5 else other.name)
        cache = rng.random() < 0.8
        return Spec(
            name=name,
            data=tuple(path for path in ("data/one", "data/mix", "raw/x", "raw/deep") if rng.random() < 0.25),
            before=tuple(before),
            params=tuple(param for param in ("p", "q") if rng.random() < 0.3),
            folder=rng.random() < 0.4,
            cache=cache,
            temp=cache and rng.random() < 0.15,
            reuse=rng.random() < 0.9,
            cut=self.cuts and rng.random() < 0.6,
        )

    def add_stage(self) -> None:
        name = f"s{len(self.stages)}"
        self.stages[name] = self.spec(name, list(self.stages.values()))
        if not self.repo.exists(f"src/{name}/main"):
            self.repo.write(f"src/{name}/main", self.word())
        self.save()

    def change_stage(self) -> None:
        name = self.rng.choice(list(self.stages))
        earlier = [spec for spec in self.stages.values() if spec.name < name]
        new, old = self.spec(name, earlier), self.stages[name]
        self.stages[name] = Spec(
            **{
                key: getattr(new if key in ("data", "before", "params") else old, key)
                for key in Spec.__dataclass_fields__
            }
        )
        self.save()

    def source(self) -> str:
        return f"src/{self.rng.choice(list(self.stages))}"

    def write_source(self) -> None:
        self.repo.write(f"{self.source()}/main", self.word())

    def untracked_source(self) -> None:
        self.repo.write(f"{self.source()}/{self.rng.choice(['new', 'tmp'])}{self.count}.txt", self.word())

    def ignored_source(self) -> None:
        self.repo.write(f"{self.source()}/{self.count}.{self.rng.choice(['skip', 'tmp'])}", self.word())

    def other_rules(self) -> None:
        lines = self.repo.read(".gitignore").splitlines()
        line = self.rng.choice(["*.tmp", "tmp*"])
        lines = [each for each in lines if each != line] if line in lines else [*lines, line]
        self.repo.write(".gitignore", "\n".join(lines) + "\n")

    def leave_out(self) -> None:
        self.repo.write(".pipeignore", f"{self.rng.choice(['new*', '*.txt', 'lib'])}\n")

    def write_data(self) -> None:
        path = ["data/one", "data/mix/a", "data/mix/b", "data/mix/c.skip", "raw/x", "raw/deep/y", "raw/deep/z"]
        self.repo.write(self.rng.choice(path), self.word())

    def set_param(self) -> None:
        self.params[self.rng.choice("pq")] = self.rng.randint(1, 3)
        self.save()

    def delete_output(self) -> None:
        self.remove(self.repo.path / self.rng.choice(list(self.stages.values())).output)

    def tamper(self) -> None:
        spec = self.rng.choice(list(self.stages.values()))
        self.remove(self.repo.path / spec.output)
        self.repo.write(f"{spec.output}/x" if spec.folder else spec.output, self.word())

    @staticmethod
    def remove(path: Path) -> None:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def forget(self) -> None:
        what = self.rng.choice(["cache/files", "cache/actions", "state.db"])
        self.told.append(what)
        self.remove(self.repo.pipe_dir / what)

    def build(self) -> None:
        self.repo.pipe("build", "-k")

    def commit(self) -> None:
        self.repo.git("add", "-A", "--", ".", ":(exclude)out")
        if self.rng.random() < 0.2:
            self.repo.git("reset", "-q", "pipe.lock", check=False)
        self.repo.git("commit", "-q", "--allow-empty", "-m", "change")
        if self.rng.random() < 0.5:
            self.repo.git("branch", "-f", f"b{self.rng.randint(0, 3)}")

    def build_and_commit(self) -> None:
        self.build()
        self.commit()

    def go_to(self) -> None:
        """Check out a branch, what is not committed thrown away."""
        self.repo.git("checkout", "-q", "-f", "--detach", self.rng.choice(self.revisions()))
        text = self.repo.read("pipeline.toml")
        self.stages, self.params = self.known[text]

    @property
    def known(self) -> dict[str, tuple[dict[str, Spec], dict[str, int]]]:
        return self.__dict__.setdefault("_known", {})  # type: ignore[no-any-return]

    def revisions(self) -> list[str]:
        return self.repo.git("rev-list", "--branches", "HEAD").stdout.split()

    def edit(self) -> None:
        self.known[self.repo.read("pipeline.toml")] = (dict(self.stages), dict(self.params))
        chosen = self.rng.choice(
            [
                *[self.write_source] * 3,
                *[self.write_data] * 3,
                *[self.build_and_commit] * 4,
                *[self.build] * 2,
                *[self.commit] * 2,
                *[self.set_param] * 2,
                *[self.go_to] * 3,
                self.untracked_source,
                self.ignored_source,
                self.other_rules,
                self.leave_out,
                self.add_stage,
                self.change_stage,
                self.delete_output,
                self.tamper,
                self.forget,
            ]
        )
        self.told.append(chosen.__name__)
        chosen()
        self.known[self.repo.read("pipeline.toml")] = (dict(self.stages), dict(self.params))

    # -- questions ------------------------------------------------------------------------------------------------

    def ask(self, other: Path) -> None:
        """Ask one question, and hold the answer to what really happens in a copy at `other`."""
        rng = self.rng
        rev = rng.choice(self.revisions()) if rng.random() < 0.6 else None
        merge = rng.choice(self.revisions()) if rng.random() < 0.35 else None
        settings = [f"--set={rng.choice('pq')}={rng.randint(1, 4)}"] if rng.random() < 0.3 else []
        args = [*settings, *(["--rev", rev] if rev else []), *(["--merge", merge] if merge else [])]
        self.told.append(f"pipe what-if {' '.join(args)}")
        before = footprint(self.repo)
        asked = self.repo.pipe("what-if", "--json", *args, check=False)
        after = footprint(self.repo)
        assert {key for key in before.keys() | after if before.get(key) != after.get(key)} == set()
        shutil.copytree(self.repo.path, other, symlinks=True)
        copy = Repo(other, self.repo.home)
        copy.env = self.repo.env
        if rev or merge:
            copy.git("checkout", "-q", "-f", "--detach", rev or "HEAD")
        if merge:
            conflicts = merged(copy, merge)
            if conflicts:
                assert asked.returncode == 1
                assert set(asked.json()["conflicts"]) == conflicts
                self.count_answer("conflict")
                return
        built = copy.pipe("build", "-k", "--json", *settings, check=False)
        if built.returncode == 2:
            assert asked.returncode == 2, built.stdout + asked.stdout
            self.count_answer("refused")
            return
        assert built.returncode == 0, built.stdout + built.stderr
        assert asked.returncode == 0, asked.stdout + asked.stderr
        self.compare(asked.json(), built.json())

    def compare(self, asked: Any, built: Any) -> None:
        really = {stage["name"]: stage for stage in built["stages"]}
        assert {stage["name"] for stage in asked["stages"]} == set(really)
        held = [stage for stage in asked["stages"] if stage["sure"] or not self.cuts]
        told = {stage["name"]: _REALLY[stage["would"]] for stage in held}
        assert told == {name: really[name]["status"] for name in told}, asked["stages"]
        for stage in asked["stages"]:
            self.count_answer(stage["would"] if stage["sure"] else f"{stage['would']}?")
            if stage["sure"]:
                assert stage["fingerprint"] == really[stage["name"]]["fingerprint"]
                assert stage["why"] == really[stage["name"]]["why"]

    def count_answer(self, word: str) -> None:
        self.answers[word] = self.answers.get(word, 0) + 1


def footprint(repo: Repo) -> dict[str, Any]:
    """Return all that what-if must leave as it is: work tree with its stamps, index, refs, objects."""
    files: dict[str, Any] = {"refs": repo.git("for-each-ref").stdout}
    for folder, folders, names in os.walk(repo.path):
        if folder == str(repo.path / ".git"):
            folders[:] = [name for name in folders if name in ("refs", "objects", "logs")]
            names = [name for name in names if name in ("HEAD", "index", "ORIG_HEAD", "packed-refs", "config")]
        for name in [*names, *folders]:
            path = os.path.join(folder, name)
            info = os.lstat(path)
            files[path] = (info.st_ino, info.st_mode, info.st_size)
            if "/.git/objects/" not in path:  # git marks an object as used that it would write again
                files[path] += (info.st_mtime_ns, info.st_ctime_ns)
    return files


def merged(repo: Repo, branch: str) -> set[str]:
    """Merge a branch, the lockfile mended where git could not; return what else is in conflict."""
    done = repo.git("merge", "-q", "--no-edit", branch, check=False)
    left = set(repo.git("diff", "--name-only", "--diff-filter=U", "-z").stdout.split("\0")) - {""}
    if done.returncode and not left:
        pytest.fail(done.stdout + done.stderr)
    if left == {"pipe.lock"} and repo.exists("pipe.lock") and "<<<<<<<" in repo.read("pipe.lock"):
        repo.pipe("lock", "resolve")
        return set()
    return left - {"pipe.lock"} or left


def live(repo: Repo, seed: int, questions: int, *, cuts: bool = False) -> dict[str, int]:
    life = Life(repo, seed, cuts=cuts)
    try:
        for number in range(questions):
            for _ in range(life.rng.randint(1, 4)):
                life.edit()
            other = repo.path.parent / f"copy{number}"
            life.ask(other)
            shutil.rmtree(other)
    except (AssertionError, subprocess.CalledProcessError, pytest.fail.Exception) as error:
        pytest.fail("\n".join([*life.told, "", str(error)]), pytrace=True)
    return life.answers


@pytest.mark.parametrize("seed", _SEEDS or range(3))
def test_what_would_be_is(repo: Repo, seed: int) -> None:
    live(repo, seed, 4)


@pytest.mark.parametrize("seed", _SEEDS or range(100, 101))
def test_what_is_sure(repo: Repo, seed: int) -> None:
    live(repo, seed, 4, cuts=True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1060))
def test_what_would_be_is_over_and_over(repo: Repo, seed: int) -> None:
    live(repo, seed, 12, cuts=seed % 3 == 0)
