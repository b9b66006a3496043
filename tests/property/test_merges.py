"""Two branches of random edits and builds, merged or rebased by git with the driver of pipe.lock, held to a build from nothing.

PIPESMITH_SEEDS="7 8 9" runs these seeds only; a failure prints its seed and all that was done.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import pytest
from tests.conftest import Repo, Result

from pipesmith.git.drivers import install_drivers
from pipesmith.git.repository import Repository
from pipesmith.lockfile.model import Lockfile
from pipesmith.lockfile.reader import parse
from pipesmith.pipeline.graph import upstream
from pipesmith.pipeline.model import Pipeline
from pipesmith.pipeline.reader import read_pipeline

from .history import History, stage_all
from .oracle import read

_SEEDS = [int(word) for word in os.environ.get("PIPESMITH_SEEDS", "").split()]


class Merge(History):
    """`main` and `side`, both from one commit, each edited and built."""

    def live(self) -> None:
        install_drivers(Repository.discover(str(self.repo.path)))
        with open(self.repo.path / ".git/info/attributes", "a") as file:
            file.write(".gitignore merge=union\n")
        base = self.built()
        self.repo.git("branch", "side")
        ours = self.side("main")
        theirs = self.side("side")
        self.repo.git("checkout", "-qf", "main")
        clean, dropped = self.merge()
        merged = self.lockfile()
        fresh = self.fresh_at_head()
        nothing = self.from_nothing()

        # A stage that is called fresh has what a build of nothing but these sources makes.
        for name in fresh:
            assert merged.stages[name].fingerprint == nothing.stages[name].fingerprint, name
            assert merged.stages[name].outs == nothing.stages[name].outs, name
        assert not fresh & dropped
        text = self.repo.read("pipe.lock")

        code, told = self.pipe("build")
        assert code == 0
        ran = {stage["name"] for stage in told["stages"] if stage["status"] == "ran"}
        assert not ran & fresh, "what is fresh is at most restored"
        assert _bare(self.repo.read("pipe.lock")) == _bare(self.nothing_text)
        for path in {out.path for stage in self.pipeline.stages.values() for out in stage.outputs.values()}:
            here, there = read(self.repo.path / path), read(self.nothing.path / path)
            assert here is None or there is None or here == there, path

        # Sides that do not reach each other come to the lockfile that a build would write.
        if clean and not self.meet() and not self.reach(_changed(base, ours)) & self.reach(_changed(base, theirs)):
            self.told.append("apart")
            assert dropped == set()
            assert ran == set()
            assert _bare(text) == _bare(self.nothing_text)

    # -- steps --------------------------------------------------------------------------------------------------------

    def commit(self) -> str:
        stage_all(self.repo)
        self.repo.git("commit", "-q", "--allow-empty", "-m", "change")
        return "commit"

    def built(self) -> Lockfile:
        code, _told = self.pipe("build")
        assert code == 0
        self.commit()
        return self.lockfile()

    def side(self, branch: str) -> Lockfile:
        self.repo.git("checkout", "-qf", branch)
        self.told.append(f"on {branch}")
        for _ in range(self.rng.randint(1, 3)):
            edit: Callable[[], str | None] = self.rng.choice(
                [
                    self.write_source,
                    self.write_source,
                    self.flip_mode,
                    self.write_data,
                    self.write_note,
                    self.change_param,
                    self.add_stage,
                    self.remove_stage,
                    self.change_stage,
                ]
            )
            self.told.append(edit() or "nothing")
            if self.rng.random() < 0.2:
                self.built()
        return self.built()

    def merge(self) -> tuple[bool, set[str]]:
        """Bring both sides together, and return whether all files but the lockfile merged by themselves, and the stages
        that were dropped and are not there again."""
        ours = self.repo.git("rev-parse", "main").stdout.strip()
        if self.rng.random() < 0.6:
            done = self.repo.git("merge", "--no-edit", "side", check=False)
        else:
            self.told.append("rebase")
            self.repo.git("checkout", "-qf", "side")
            done = self.repo.git("rebase", "main", check=False)
        said, clean = done.stdout + done.stderr, done.returncode == 0
        while done.returncode != 0:
            for path in self.repo.git("diff", "-z", "--name-only", "--diff-filter=U").stdout.split("\0")[:-1]:
                assert path != "pipe.lock"
                self.settle(path)
            stage_all(self.repo)
            done = self.proceed()
            said += done.stdout + done.stderr
        self.told += [f"      {line}" for line in said.splitlines()]
        if self.repo.pipe("status", check=False).returncode == 2:  # merged as text, and no pipeline any more
            clean = False
            self.repo.git("checkout", ours, "--", "pipeline.toml")
        self.commit()
        text = self.repo.read("pipe.lock")
        assert "<<<<<<<" not in text and ">>>>>>>" not in text
        dropped = set(re.findall(r"^pipe.lock: dropped (\S+):", said, re.MULTILINE))
        return clean, dropped - self.lockfile().stages.keys()

    def proceed(self) -> Result:
        """Go on with the merge or rebase that is under way."""
        if (self.repo.path / ".git/MERGE_HEAD").exists():
            return self.repo.git("commit", "-q", "--no-edit")
        nothing = self.repo.git("diff", "--cached", "--quiet", check=False).returncode == 0
        return self.repo.git("-c", "core.editor=true", "rebase", "--skip" if nothing else "--continue", check=False)

    def settle(self, path: str) -> None:
        """Take one side's version of a file in conflict, at random."""
        chosen = self.rng.choice(["ours", "theirs"])
        if self.repo.git("checkout", f"--{chosen}", "--", path, check=False).returncode != 0:
            self.repo.git("rm", "-q", "--cached", "--", path)  # removed on that side
            (self.repo.path / path).unlink(missing_ok=True)

    def fresh_at_head(self) -> set[str]:
        code, told = self.pipe("status", "--rev", "HEAD")
        assert code == 0
        return {stage["name"] for stage in told["stages"] if stage["state"] == "fresh"}

    def from_nothing(self) -> Lockfile:
        """Build the merged commit in a clone that knows no result, and return its lockfile."""
        self.nothing = self.repo.clone("nothing")
        (self.nothing.path / "pipe.lock").unlink()
        here, self.repo = self.repo, self.nothing
        try:
            code, _told = self.pipe("build")
            assert code == 0
            self.nothing_text = self.repo.read("pipe.lock")
            return parse(self.nothing_text)
        finally:
            self.repo = here

    def lockfile(self) -> Lockfile:
        return parse(self.repo.read("pipe.lock"))

    @property
    def pipeline(self) -> Pipeline:
        return read_pipeline(self.repo.read("pipeline.toml"), files=lambda path: None, default_name="x")

    def meet(self) -> bool:
        """Return whether one side changed what a stage may read that the other added or rewired."""
        start = self.told.index("on side")
        sides = [self.told[:start], self.told[start:]]
        wired = [any(line.startswith(("add stage", "change stage")) for line in side) for side in sides]
        shared = [any(line.startswith(("param", "write data", "write notes")) for line in side) for side in sides]
        return (wired[0] and shared[1]) or (wired[1] and shared[0])

    def reach(self, names: set[str]) -> set[str]:
        """Return the stages that these lead to, in the merged pipeline, and these."""
        pipeline = self.pipeline
        return names | {name for name in pipeline.stages if set(upstream(pipeline, {name})) & names}


def _changed(old: Lockfile, new: Lockfile) -> set[str]:
    return {name for name in old.stages.keys() | new.stages.keys() if old.stages.get(name) != new.stages.get(name)}


def _bare(text: str) -> str:
    """Return a lockfile without git's ids of inputs: a side may have built before it committed them."""
    return re.sub(r'(size = \d+(?:, nfiles = \d+)?), git = "[0-9a-f]+"', r"\1", text)


def live(repo: Repo, seed: int) -> list[str]:
    merge = Merge(repo, seed)
    try:
        merge.live()
    except AssertionError as error:
        pytest.fail("\n".join([*merge.told, "", str(error)]), pytrace=True)
    return merge.told


@pytest.mark.parametrize("seed", _SEEDS or [*range(4), 630])  # 630: two readers of an output that is absent
def test_merges(repo: Repo, seed: int) -> None:
    live(repo, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1100))
def test_many_merges(repo: Repo, seed: int) -> None:
    live(repo, seed)
