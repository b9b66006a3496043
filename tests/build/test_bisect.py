"""`pipe bisect`: the commit that made a number worse; what is known costs nothing."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Repo, Result
from tests.environments.conftest import make_wheel

# `score` reads the number that `prepare` hands on; it is the least of what its own source and the params say.
TEXT = """
    [params]
    most = 100
    [stage.prepare]
    source = "number.txt"
    run = "NOTE(prepare) && cat number.txt > {outputs.o}"
    outputs = { o = "out/number" }
    [stage.score]
    source = "score.sh"
    run = "NOTE(score) && sh score.sh {inputs.i} {params.most} > {outputs.report}"
    inputs = { i = "stage:prepare.o" }
    outputs = { report = { path = "report.json", cache = false } }
    metrics = ["report"]
    [stage.other]
    source = "other.txt"
    run = "NOTE(other) && cat other.txt > {outputs.o}"
    outputs = { o = "out/other" }
"""
SCORE = 'n=$(cat "$1"); [ "$n" -gt "$2" ] && n=$2; echo "{\\"auc\\": $n, \\"deep\\": {\\"er\\": 1}}"\n'


@pytest.fixture
def base(repo: Repo, toml) -> Repo:
    """A repository with the pipeline, not committed yet."""
    repo.write("number.txt", "90\n")
    repo.write("score.sh", SCORE)
    repo.write("other.txt", "0\n")
    repo.write(".gitignore", "/out/\n")
    toml(TEXT)
    return repo


class Story:
    """Commits by number, from 0."""

    def __init__(self, repo: Repo, *, built: bool) -> None:
        self.repo = repo
        self.built = built
        self.commits: list[str] = []

    def tell(self, message: str = "change") -> str:
        """Commit what lies there, built before if the story is one of people who build."""
        if self.built:
            self.repo.pipe("build")
        self.commits.append(self.repo.commit(message))
        self.repo.ran()
        return self.commits[-1]

    def noise(self, count: int) -> None:
        """Commits that change nothing that counts for the score."""
        for _ in range(count):
            self.repo.write("other.txt", f"{len(self.commits)}\n")
            self.repo.write("notes.md", f"{len(self.commits)}\n")
            self.tell("noise")


def hunt(repo: Repo, *args: str, check: bool = True) -> Result:
    return repo.pipe("bisect", *args, "--json", check=check)


def below(repo: Repo, good: str, bad: str, *args: str) -> Any:
    return hunt(repo, "--metric", "report:auc", "--below", "80", *args, good, bad).json()


def state_of(repo: Repo) -> Any:
    """Return what bisect must leave as it is."""
    refs = [line for line in repo.git("for-each-ref").stdout.splitlines() if "refs/pipe/runs/" not in line]
    files = {}
    for folder, folders, names in os.walk(repo.path):
        folders[:] = [name for name in folders if name != ".git"]
        for name in names:
            info = os.lstat(os.path.join(folder, name))
            files[os.path.join(folder, name)] = (info.st_ino, info.st_size, info.st_mtime_ns)
    return (
        files,
        refs,
        (repo.path / ".git/HEAD").read_text(),
        (repo.path / ".git/index").read_bytes(),
        repo.git("worktree", "list").stdout,
        repo.git("status", "--porcelain", "--ignored").stdout,
    )


# -- known results -------------------------------------------------------------------------------------------------


def test_committed_locks_tell_all(base: Repo) -> None:
    """Where every commit has a fresh lockfile nothing is built; the commit, the stage and what in it are named."""
    story = Story(base, built=True)
    story.tell("first")
    story.noise(3)
    base.write("number.txt", "70\n")
    culprit = story.tell("worse data")
    story.noise(4)
    before = state_of(base)
    told = below(base, story.commits[0], "main")
    assert base.ran() == [] and state_of(base) == before
    assert told["found"] and told["ran"] == 0 and all(step["known"] for step in told["steps"])
    assert told["commit"]["id"] == culprit and told["commit"]["subject"] == "worse data"
    assert told["commit"]["author"] == "Ada <ada@example.com>" and told["commit"]["date"].startswith("20")
    assert told["good"] == story.commits[story.commits.index(culprit) - 1]
    assert told["stage"] == "prepare"
    assert [(why["kind"], why["item"]) for why in told["why"]] == [("source", "number.txt")]
    assert (told["target"], told["metric"], told["good_value"], told["value"]) == ("score", "report:auc", 90, 70)
    said = base.pipe("bisect", "--metric", "report:auc", "--below", "80", story.commits[0], "main")
    assert f"{culprit} is the first bad commit" in said.stdout and "Ada <ada@example.com>" in said.stdout
    assert "worse data" in said.stdout and "report:auc of score: 90 -> 70" in said.stdout
    assert "stage prepare\n  source `number.txt` changed" in said.stdout
    assert " good 90 (known" in said.stderr and " bad 70 (known" in said.stderr


def test_above(base: Repo) -> None:
    """--above V: bad is above V; a bound itself is neither below nor above."""
    story = Story(base, built=True)
    for number in (90, 95, 96, 99):
        base.write("number.txt", f"{number}\n")
        story.tell(str(number))
    told = hunt(base, "--metric", "report:auc", "--above", "95", story.commits[0], "HEAD").json()
    assert told["commit"]["id"] == story.commits[2]
    told = hunt(base, "--metric", "report:auc", "--above", "94.5", story.commits[0], "HEAD").json()
    assert told["commit"]["id"] == story.commits[1]


@pytest.mark.parametrize(
    ("edit", "kind", "item"),
    [
        (lambda repo: repo.write("score.sh", "echo '{\"auc\": 1}'\n"), "source", "score.sh"),
        (lambda repo: repo.write("pipeline.toml", repo.read("pipeline.toml").replace("= 100", "= 7")), "param", "most"),
    ],
    ids=["source", "param"],
)
def test_what_counted(base: Repo, edit: Any, kind: str, item: str) -> None:
    """The stage's own source, a param: found among commits that were never built, each fingerprint made once."""
    story = Story(base, built=False)
    story.tell("first")
    story.noise(2)
    edit(base)
    culprit = story.tell("culprit")
    story.noise(3)
    before = state_of(base)
    told = below(base, story.commits[0], "HEAD")
    assert told["commit"]["id"] == culprit
    assert told["stage"] == "score"
    assert [(why["kind"], why["item"]) for why in told["why"]] == [(kind, item)]
    assert base.ran() == ["prepare", "score", "score"]
    assert told["ran"] == 3
    assert state_of(base) == before


def test_equal_commits_are_one_candidate(base: Repo) -> None:
    """Ten commits with the same fingerprint are built once; asked again, all is known."""
    story = Story(base, built=False)
    story.tell("first")
    story.noise(5)
    base.write("number.txt", "10\n")
    culprit = story.tell("culprit")
    story.noise(5)
    told = below(base, story.commits[0], "HEAD")
    assert told["commit"]["id"] == culprit
    assert base.ran() == ["prepare", "prepare", "score", "score"]
    assert told["ran"] == 4 and sum(not step["known"] for step in told["steps"]) == 2
    again = below(base, story.commits[0], "HEAD")
    assert again["commit"]["id"] == culprit and again["ran"] == 0 and base.ran() == []


def test_fingerprints_are_halved_not_commits(base: Repo) -> None:
    """Sixteen different results: no more are built than halving takes, ends included."""
    story = Story(base, built=False)
    for number in range(16):
        base.write("number.txt", f"{99 - number if number < 11 else 40 - number}\n")
        story.tell(str(number))
    told = below(base, story.commits[0], "HEAD")
    assert told["commit"]["id"] == story.commits[11]
    assert sum(not step["known"] for step in told["steps"]) <= 2 + 4
    assert len(base.ran()) == told["ran"] <= 2 * (2 + 4)


def test_a_dirty_work_tree_is_left_alone(base: Repo) -> None:
    """Changes that are not committed neither count nor are touched; nor the index, nor HEAD."""
    story = Story(base, built=False)
    story.tell("first")
    base.write("number.txt", "10\n")
    culprit = story.tell("culprit")
    base.write("number.txt", "50\n")
    base.git("add", "number.txt")
    base.write("number.txt", "60\n")
    base.write("untracked.txt", "x\n")
    base.write("pipeline.toml", base.read("pipeline.toml").replace("most = 100", "most = 1"))
    base.git("checkout", "-q", "--detach")
    before = state_of(base)
    assert below(base, story.commits[0], "main")["commit"]["id"] == culprit
    assert state_of(base) == before
    assert not base.exists("report.json") and not base.exists("out")


def test_a_pointer_to_data(repo: Repo, toml) -> None:
    """Data that git does not hold: the digest in the lockfile is what changed."""
    repo.write(".gitignore", "/raw\n")
    toml("""
        [stage.score]
        run = "NOTE(score) && cp {inputs.raw} {outputs.report}"
        inputs = { raw = "raw" }
        outputs = { report = { path = "report.json", cache = false } }
        metrics = ["report"]
    """)
    story = Story(repo, built=True)
    for number in (90, 90, 10, 10):
        repo.write("raw", f'{{"auc": {number}}}\n')
        repo.write("notes.md", f"{len(story.commits)}\n")
        story.tell()
    told = below(repo, story.commits[0], "HEAD")
    assert told["commit"]["id"] == story.commits[2]
    assert [(why["kind"], why["item"]) for why in told["why"]] == [("input", "raw")]
    assert told["ran"] == 0 and repo.ran() == []


def test_an_environment(repo: Repo, toml, tmp_path: Path) -> None:
    """An environment that was resolved anew: pipe.lock alone pins it."""
    wheels = tmp_path / "wheels"
    make_wheel(wheels, "alpha", "1.0")
    repo.env |= {"UV_NO_INDEX": "1", "UV_FIND_LINKS": str(wheels), "UV_CACHE_DIR": str(tmp_path / "uv-cache")}
    repo.write("score.py", "import json, alpha\nprint(json.dumps({'auc': 90 if alpha.VERSION == '1.0' else 10}))\n")
    toml("""
        [environment.e]
        python = "PYTHON"
        packages = ["alpha"]
        [stage.score]
        source = "score.py"
        run = "NOTE(score) && python score.py > {outputs.report}"
        environment = "e"
        outputs = { report = { path = "report.json", cache = false } }
        metrics = ["report"]
    """)
    repo.write("pipeline.toml", repo.read("pipeline.toml").replace("PYTHON", ".".join(map(str, sys.version_info[:2]))))
    story = Story(repo, built=True)
    story.tell("first")
    repo.write("notes.md", "x")
    story.tell("noise")
    make_wheel(wheels, "alpha", "2.0")
    repo.pipe("env", "update")
    culprit = story.tell("newer packages")
    told = below(repo, story.commits[0], "HEAD")
    assert told["commit"]["id"] == culprit and told["stage"] == "score" and told["ran"] == 0
    assert [(why["kind"], why["item"]) for why in told["why"]] == [("environment", "")]


def test_another_result_of_the_same_action(repo: Repo, toml) -> None:
    """A lockfile that alone changed: the same fingerprint, another output; that is what is told."""
    toml("""
        [stage.score]
        run = "NOTE(score) && cat $HOME/number > {outputs.report}"
        outputs = { report = { path = "report.json", cache = false } }
        metrics = ["report"]
    """)
    story = Story(repo, built=True)
    number = repo.home / "number"
    number.write_text('{"auc": 90}')
    story.tell("first")
    repo.write("notes.md", "x\n")
    story.tell("noise")
    number.write_text('{"auc": 10}')
    repo.pipe("build", "--force")
    culprit = story.tell("run again")
    repo.write("notes.md", "y\n")
    story.tell("noise")
    told = below(repo, story.commits[0], "HEAD")
    assert told["commit"]["id"] == culprit and told["stage"] == "score"
    assert [(why["kind"], why["item"]) for why in told["why"]] == [("output-changed", "report.json")]
    assert told["ran"] == 0


# -- what can't be told -----------------------------------------------------------------------------------------------


def test_broken_commits_are_skipped(base: Repo) -> None:
    """A broken pipeline.toml and a stage that fails in the middle are skipped; the culprit is found all the same."""
    story = Story(base, built=False)
    story.tell("first")
    text = base.read("pipeline.toml")
    base.write("pipeline.toml", "broken = [")
    story.tell("broken")
    base.write("pipeline.toml", text)
    base.write("score.sh", "exit 3\n")
    story.tell("fails")
    base.write("score.sh", SCORE)
    story.tell("mended")
    base.write("number.txt", "10\n")
    culprit = story.tell("culprit")
    story.noise(1)
    told = below(base, story.commits[0], "HEAD")
    assert told["found"] and told["commit"]["id"] == culprit


def test_suspects(base: Repo) -> None:
    """Where only skipped commits are left between good and bad, the suspects are named: exit 1."""
    story = Story(base, built=False)
    story.tell("first")
    base.write("number.txt", "10\n")
    base.write("score.sh", "exit 3\n")
    story.tell("fails")
    base.write("other.txt", "z\n")
    story.tell("fails still")
    base.write("score.sh", SCORE)
    story.tell("mended")
    story.noise(2)
    done = hunt(base, "--metric", "report:auc", "--below", "80", story.commits[0], "HEAD", check=False)
    told = done.json()
    assert done.returncode == 1 and not told["found"] and told["commit"] is None
    assert {commit["id"] for commit in told["suspects"]} == set(story.commits[1:4])
    skipped = [step for step in told["steps"] if step["outcome"] == "skip"]
    assert len(skipped) == 2 and "`score` exited with 3" in skipped[0]["text"]
    assert base.ran().count("score") == 3  # good, bad, and the failing one once
    said = base.pipe("bisect", "--metric", "report:auc", "--below", "80", story.commits[0], "HEAD", check=False)
    assert said.returncode == 1 and "fails still" in said.stdout


def test_ends_that_are_not_what_they_are_said_to_be(base: Repo) -> None:
    """GOOD that is not good, BAD that is not bad: said, exit 1."""
    story = Story(base, built=True)
    story.tell("first")
    story.noise(1)
    base.write("number.txt", "10\n")
    story.tell("worse")
    first, second, third = story.commits
    done = hunt(base, "--metric", "auc", "--below", "80", first, second, check=False)
    assert done.returncode == 1 and done.json()["problem"] == f"`{second}` is not bad: `report:auc` is 90 there"
    done = hunt(base, "--metric", "auc", "--below", "95", first, third, check=False)
    assert done.returncode == 1 and "is not good: `report:auc` is 90 there" in done.json()["problem"]
    done = hunt(base, "--metric", "auc", "--below", "80", third, first, check=False)
    assert done.returncode == 1
    done = base.pipe("bisect", "--metric", "auc", "--below", "80", third, first, check=False)
    assert done.returncode == 1 and "is not bad" in done.stdout


def test_a_good_commit_beside_the_bad_one(base: Repo) -> None:
    """GOOD need not be before BAD: where they parted is asked; if it was bad there, it was mended since."""
    story = Story(base, built=True)
    story.tell("first")
    base.git("checkout", "-q", "-b", "side")
    base.write("number.txt", "95\n")
    side = story.tell("better")
    base.git("checkout", "-q", "main")
    story.noise(1)
    base.write("number.txt", "10\n")
    culprit = story.tell("worse")
    assert below(base, "side", "main")["commit"]["id"] == culprit
    done = hunt(base, "--metric", "auc", "--below", "92", side, culprit, check=False)
    assert done.returncode == 1 and "was mended" in done.json()["problem"]


def test_merges(base: Repo) -> None:
    """A culprit on a merged branch is found there; with --first-parent the merge is named."""
    story = Story(base, built=True)
    story.tell("first")
    base.git("checkout", "-q", "-b", "side")
    base.write("number.txt", "10\n")
    culprit = story.tell("worse")
    base.write("notes.md", "x\n")
    story.tell("noise on the side")
    base.git("checkout", "-q", "main")
    base.write("main.md", "x\n")
    parent = story.tell("noise on main")
    base.git("merge", "-q", "--no-edit", "side")
    base.pipe("build")
    base.git("add", "-A")
    base.git("commit", "-q", "--amend", "--no-edit")
    merge = base.git("rev-parse", "HEAD").stdout.strip()
    base.write("main.md", "y\n")
    story.tell("after")
    assert below(base, story.commits[0], "HEAD")["commit"]["id"] == culprit
    told = below(base, story.commits[0], "HEAD", "--first-parent")
    assert told["commit"]["id"] == merge and told["good"] == parent and told["stage"] == "prepare"


def test_a_broken_expectation_is_a_number_all_the_same(base: Repo) -> None:
    """A stage that fails for its number has one."""
    expect = '[stage.score.expect]\n"report:auc" = { min = 80 }\n'
    base.write("pipeline.toml", base.read("pipeline.toml").replace("[stage.other]", f"{expect}[stage.other]"))
    story = Story(base, built=False)
    story.tell("first")
    base.write("number.txt", "10\n")
    culprit = story.tell("culprit")
    told = below(base, story.commits[0], "HEAD")
    assert (told["commit"]["id"], told["value"]) == (culprit, 10)
    told = hunt(base, "--stage-fails", "score", story.commits[0], "HEAD").json()
    assert told["commit"]["id"] == culprit and told["stage"] == "prepare"


def test_nothing_is_delivered(repo: Repo, toml, tmp_path: Path) -> None:
    """Old results do not go where `to` says; a build of the commit delivers then. `reuse = false` runs nothing again."""
    blob = tmp_path / "blob"
    blob.mkdir()
    toml(f"""
        [datastore.blob]
        url = "file://{blob}"
        [stage.score]
        source = "report.txt"
        run = "NOTE(score) && cp report.txt {{outputs.report}}"
        outputs = {{ report = {{ path = "out/report.json", to = "blob:reports/" }} }}
        metrics = ["report"]
        reuse = false
    """)
    story = Story(repo, built=False)
    for number in (90, 90, 10, 10):
        repo.write("report.txt", f'{{"auc": {number}}}')
        repo.write("notes.md", f"{len(story.commits)}")
        story.tell()
    assert below(repo, story.commits[0], "HEAD")["commit"]["id"] == story.commits[2]
    assert repo.ran() == ["score", "score"] and list(blob.iterdir()) == []
    repo.pipe("build")
    assert [path.name for path in blob.rglob("*.json")] == ["report.json"]


# -- a stage that fails -----------------------------------------------------------------------------------------------


def test_a_stage_that_fails(base: Repo) -> None:
    """--stage-fails: bad is where the stage fails; where a stage before it fails it can't be told."""
    story = Story(base, built=False)
    story.tell("first")
    story.noise(2)
    base.write("score.sh", "exit 3\n")
    culprit = story.tell("culprit")
    story.noise(2)
    told = hunt(base, "--stage-fails", "score", story.commits[0], "HEAD").json()
    assert told["commit"]["id"] == culprit and told["stage"] == "score"
    assert [(why["kind"], why["item"]) for why in told["why"]] == [("source", "score.sh")]
    assert base.ran() == ["prepare", "score", "score"]
    base.write("number.txt", "x\n")
    base.write("pipeline.toml", base.read("pipeline.toml").replace("cat number.txt", "false"))
    story.tell("before it")
    done = hunt(base, "--stage-fails", "score", story.commits[0], "HEAD", check=False)
    assert done.returncode == 1 and "`prepare` exited with 1" in done.json()["problem"]


# -- names and wrong use ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["report:auc", "auc", "score:report:auc", "score.report:auc", "score:auc", "score.auc"]
)
def test_names_of_a_metric(base: Repo, name: str) -> None:
    story = Story(base, built=True)
    story.tell("first")
    base.write("number.txt", "10\n")
    culprit = story.tell("worse")
    told = hunt(base, "--metric", name, "--below", "80", story.commits[0], "HEAD").json()
    assert (told["commit"]["id"], told["target"], told["metric"]) == (culprit, "score", "report:auc")


def test_wrong_names(base: Repo) -> None:
    """The nearest name is suggested; one that is many is refused with all of them."""
    base.write(
        "pipeline.toml",
        base.read("pipeline.toml")
        + '[stage.again]\nrun = "cp {inputs.i} {outputs.report}"\ninputs = { i = "report.json" }\nmetrics = ["report"]\n'
        + 'outputs = { report = "out/again.json" }\n',
    )
    story = Story(base, built=True)
    story.tell("first")
    base.write("number.txt", "10\n")
    story.tell("worse")
    ends = (story.commits[0], "HEAD")
    done = base.pipe("bisect", "--metric", "report:acu", "--below", "80", *ends, check=False)
    assert done.returncode == 2 and "did you mean `report:auc`?" in done.stderr
    done = base.pipe("bisect", "--metric", "auc", "--below", "80", *ends, check=False)
    assert done.returncode == 2 and "`again:report:auc`, `score:report:auc`" in done.stderr
    assert hunt(base, "--metric", "again:auc", "--below", "80", *ends).json()["target"] == "again"
    done = base.pipe("bisect", "--stage-fails", "scoer", *ends, check=False)
    assert done.returncode == 2 and "did you mean `score`?" in done.stderr


@pytest.mark.parametrize(
    "args",
    [
        ["--metric", "auc", "HEAD~1", "HEAD"],
        ["--below", "1", "HEAD~1", "HEAD"],
        ["HEAD~1", "HEAD"],
        ["--metric", "auc", "--below", "1", "--above", "2", "HEAD~1", "HEAD"],
        ["--metric", "auc", "--below", "much", "HEAD~1", "HEAD"],
        ["--metric", "auc", "--below", "nan", "HEAD~1", "HEAD"],
        ["--stage-fails", "score", "--below", "1", "HEAD~1", "HEAD"],
        ["--metric", "auc", "--below", "1", "HEAD"],
        ["--metric", "auc", "--below", "1", "nope", "HEAD"],
        ["--metric", "auc", "--below", "1", "HEAD", "HEAD"],
        ["--metric", "auc", "--below", "1", "-j", "0", "HEAD~1", "HEAD"],
    ],
)
def test_wrong_use(base: Repo, args: list[str]) -> None:
    base.commit()
    base.commit("second")
    done = base.pipe("bisect", *args, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr and done.stdout == ""
    assert base.ran() == []


def test_no_common_history(base: Repo) -> None:
    base.write("number.txt", "10\n")
    base.pipe("build")
    base.commit()
    base.git("checkout", "-q", "--orphan", "alone")
    base.write("number.txt", "90\n")
    base.pipe("build")
    base.commit()
    done = base.pipe("bisect", "--metric", "auc", "--below", "80", "alone", "main", check=False)
    assert done.returncode == 2 and "no common history" in done.stderr


def test_an_interrupt(base: Repo) -> None:
    """Ctrl-C: exit 130, and nothing is left of the place that was built in."""
    story = Story(base, built=False)
    story.tell("first")
    base.write("score.sh", "sleep 60\n")
    story.tell("slow")
    before = state_of(base)
    process = base.start("bisect", "--metric", "report:auc", "--below", "80", story.commits[0], "HEAD")
    log = base.home / "ran"
    for _ in range(600):
        if log.exists() and "score" in log.read_text():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert state_of(base) == before
