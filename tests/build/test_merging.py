"""Branches that were built, merged: what the merged lockfile says is what a build of the merged tree would lock, or
stale."""

from __future__ import annotations

import os

import pytest
from tests.conftest import Repo

from pipesmith.git.drivers import install_drivers
from pipesmith.git.repository import Repository

PIPELINE = """
[params]
lr = 1

[stage.clean]
run = "grep -v '#' {inputs.raw} > {outputs.o}"
inputs = { raw = "data/raw.txt" }
outputs = { o = "out/clean.txt" }

[stage.train]
source = "src/train"
run = "sh src/train/main.sh < {inputs.i} > {outputs.model}"
inputs = { i = "stage:clean.o" }
outputs = { model = "out/model.txt" }

[stage.other]
run = "echo {params.lr} | cat {inputs.i} - > {outputs.o}"
inputs = { i = "data/other.txt" }
outputs = { o = "out/other.txt" }

[stage.report]
run = "cat {inputs.a} {inputs.b} | wc -c | sed 's/^/size = /' > {outputs.r}"
inputs = { a = "stage:train.model", b = "stage:other.o" }
metrics = ["r"]
[stage.report.outputs]
r = { path = "report.toml", cache = false }
"""
Files = dict[str, str]


@pytest.fixture
def project(workspace: Repo) -> Repo:
    """Built and committed on `main`, with the drivers set."""
    workspace.write("pipeline.toml", PIPELINE)
    workspace.write("data/raw.txt", "# one\n1\n")
    workspace.write("data/other.txt", "1\n")
    workspace.write("src/train/main.sh", "tr 1 2\n")
    workspace.write(".gitignore", "/out/\n")
    workspace.commit("sources")
    workspace.pipe("build")
    workspace.commit("base")
    install_drivers(Repository.discover(str(workspace.path)))
    return workspace


def built(repo: Repo, files: Files, *args: str) -> None:
    """Change files, build, and commit. args: what to run instead of `pipe build`."""
    for path, text in files.items():
        repo.write(path, text)
    repo.pipe(*(args or ("build",)))
    repo.commit("change")


def fork(repo: Repo, ours: Files, theirs: Files) -> None:
    """Two branches built each by itself; on `main`."""
    repo.git("checkout", "-q", "-b", "side")
    built(repo, theirs)
    repo.git("checkout", "-q", "main")
    built(repo, ours)


def merge(repo: Repo) -> str:
    """Merge `side` into `main`, and return what was said of the lockfile."""
    done = repo.git("merge", "--no-edit", "side", check=False)
    if done.returncode != 0:  # not the lockfile's: that never conflicts
        conflicts = repo.git("diff", "--name-only", "--diff-filter=U").stdout.split()
        assert "pipe.lock" not in conflicts
        repo.git("checkout", "-q", "--ours", *conflicts)
        repo.git("add", *conflicts)
        repo.git("commit", "-q", "--no-edit")
    assert "<<<<<<<" not in repo.read("pipe.lock")
    return "".join(line for line in done.stderr.splitlines(keepends=True) if line.startswith("pipe.lock: "))


def from_nothing(repo: Repo) -> str:
    """Return what a build of the committed tree locks that knows of no result at all."""
    clone = repo.clone(f"nothing{len(os.listdir(repo.path.parent))}")
    (clone.path / "pipe.lock").unlink()
    clone.pipe("build")
    return clone.read("pipe.lock")


def states(repo: Repo) -> dict[str, str]:
    """Return what the lockfile of the merge says, wherever the outputs are."""
    return repo.pipe("status", "--rev", "HEAD", "--json").stages(key="state")


def builds(repo: Repo) -> list[str]:
    """Build, and return the stages that ran."""
    return [name for name, status in repo.pipe("build", "--json").stages().items() if status == "ran"]


def test_different_stages_merge_to_what_a_build_would_lock(project: Repo) -> None:
    """Nothing is left to run, though no side ever built both."""
    fork(
        project,
        {"data/raw.txt": "# one\n1\n1\n", "report.toml": "gone\n"},
        {"src/train/main.sh": "tr 1 2 # as before\n"},
    )
    said = merge(project)
    assert said.splitlines() == [
        "pipe.lock: dropped train: the two sides disagree",
        "pipe.lock: `pipe build` makes what was dropped",
    ]
    assert states(project) == {"clean": "fresh", "other": "fresh", "train": "stale", "report": "pending"}
    assert builds(project) == ["train"], "and so the report is what one side made"
    assert project.read("pipe.lock") == from_nothing(project)


def test_stages_that_do_not_reach_each_other(project: Repo) -> None:
    built(project, {"pipeline.toml": PIPELINE[: PIPELINE.index("[stage.report]")]})
    fork(project, {"data/raw.txt": "3\n"}, {"data/other.txt": "3\n"})
    assert merge(project) == ""
    assert set(states(project).values()) == {"fresh"}
    assert project.read("pipe.lock") == from_nothing(project)
    assert builds(project) == [], "outputs are restored"
    assert project.git("status", "--porcelain").stdout == ""


def test_where_both_reach_one_stage_it_alone_is_dropped(project: Repo) -> None:
    fork(project, {"data/raw.txt": "3\n3\n"}, {"data/other.txt": "3\n3\n3\n"})
    assert "dropped report: " in merge(project)
    assert states(project) == {"clean": "fresh", "train": "fresh", "other": "fresh", "report": "stale"}
    assert builds(project) == ["report"]
    assert project.read("pipe.lock") == from_nothing(project)


def test_early_cutoff_on_one_side(project: Repo) -> None:
    """Another comment in the data changes one entry only: what the other side made of the stages after it holds."""
    fork(project, {"data/raw.txt": "# two\n1\n"}, {"src/train/main.sh": "tr 1 3\n"})
    assert merge(project) == ""
    assert set(states(project).values()) == {"fresh"}
    assert project.read("pipe.lock") == from_nothing(project)


def test_the_same_change_on_both_sides(project: Repo) -> None:
    change = {"data/raw.txt": "3\n"}
    fork(project, {**change, "notes.txt": "ours\n"}, change)
    assert merge(project) == ""
    assert set(states(project).values()) == {"fresh"}


def test_a_stage_added_there_of_what_changed_here(project: Repo) -> None:
    """Its entry tells of another input than there is now: stale, and told what changed."""
    more = PIPELINE + '\n[stage.more]\nrun = "cat {inputs.i} > {outputs.o}"\ninputs = { i = "stage:clean.o" }\n'
    fork(project, {"data/raw.txt": "3\n"}, {"pipeline.toml": more + 'outputs = { o = "out/more.txt" }\n'})
    assert merge(project) == ""
    told = project.pipe("status", "--rev", "HEAD", "--json")
    assert told.stages(key="state")["more"] == "stale"
    assert told.why("more") == [("input", "i")]
    assert builds(project) == ["more"]
    assert project.read("pipe.lock") == from_nothing(project)


def test_a_stage_removed_here_and_changed_there(project: Repo) -> None:
    fork(
        project,
        {"pipeline.toml": PIPELINE[: PIPELINE.index("[stage.report]")]},
        {"data/other.txt": "333333333333\n"},
    )
    assert "dropped report: " in merge(project)
    assert "[stage.report]" not in project.read("pipe.lock")
    assert set(states(project).values()) == {"fresh"}
    assert project.read("pipe.lock") == from_nothing(project)


def test_a_stage_renamed_here_and_changed_there(project: Repo) -> None:
    """The new name stands for the old fingerprint: stale, and what the other side made of it is known."""
    fork(
        project,
        {"pipeline.toml": PIPELINE.replace("[stage.other]", "[stage.another]").replace("stage:other", "stage:another")},
        {"data/other.txt": "3\n"},
    )
    merge(project)
    assert states(project)["another"] == "stale"
    assert builds(project) == [], "both results are known under their fingerprints"
    assert project.read("pipe.lock") == from_nothing(project)


def test_params_of_two_stages_on_two_sides(project: Repo) -> None:
    text = PIPELINE.replace("lr = 1", "lr = 1\n\n\n\n\nunused = 1")
    built(project, {"pipeline.toml": text})
    fork(project, {"pipeline.toml": text.replace("lr = 1", "lr = 5")}, {"src/train/main.sh": "tr 1 9\n"})
    merge(project)
    assert states(project) == {"clean": "fresh", "train": "fresh", "other": "fresh", "report": "stale"}
    assert builds(project) == ["report"]
    assert project.read("pipe.lock") == from_nothing(project)


MATRIX = """
[stage.cell]
run = "cat {inputs.i} > {outputs.o}; echo {matrix.k} >> {outputs.o}"
inputs = { i = "data/other.txt" }
outputs = { o = "out/{matrix.k}.txt" }
matrix = { k = [1, 2] }

[stage.all]
run = "cat {inputs.i}/* > {outputs.o}"
inputs = { i = "stage:cell@*.o" }
outputs = { o = "out/all.txt" }
"""


def test_cells_merge_one_by_one(project: Repo) -> None:
    """A cell added on each side: four cells, and only what reads them all is left to run."""
    fork(
        project,
        {"pipeline.toml": MATRIX.replace("[1, 2]", "[0, 1, 2]"), "src/train/main.sh": "ours\n"},
        {"pipeline.toml": MATRIX.replace("[1, 2]", "[1, 2, 3]"), "src/train/main.sh": "theirs\n"},
    )
    merge(project)
    project.write("pipeline.toml", MATRIX.replace("[1, 2]", "[0, 1, 2, 3]"))
    project.commit("settled")
    assert states(project) == {
        "cell@0": "fresh",
        "cell@1": "fresh",
        "cell@2": "fresh",
        "cell@3": "fresh",
        "all": "stale",
    }
    assert builds(project) == ["all"]
    assert project.read("pipe.lock") == from_nothing(project)


# -- accepted -----------------------------------------------------------------------------------------------------


def accept(repo: Repo, text: str, reason: str) -> None:
    built(repo, {"src/train/main.sh": text}, "accept", "train", "--reason", reason)


def test_what_one_side_accepted_is_accepted(project: Repo) -> None:
    project.git("checkout", "-q", "-b", "side")
    accept(project, "tr 1 2 # a comment\n", "a comment")
    project.git("checkout", "-q", "main")
    built(project, {"data/other.txt": "3\n"})
    assert merge(project) == ""
    assert states(project)["train"] == "fresh"
    assert 'reason = "a comment"' in project.read("pipe.lock")
    assert builds(project) == []


def test_what_the_sides_accepted_for_different_things_counts_for_neither(project: Repo) -> None:
    project.git("checkout", "-q", "-b", "side")
    accept(project, "tr 1 2 # theirs\n", "theirs")
    project.git("checkout", "-q", "main")
    accept(project, "tr 1 2 # ours\n", "ours")
    assert "train: the two sides accepted different things, neither counts" in merge(project)
    assert "accepted" not in project.read("pipe.lock")
    told = project.pipe("status", "--rev", "HEAD", "--json")
    assert told.stages(key="state")["train"] == "stale"
    assert told.why("train") == [("source", "src/train")], "what was locked is known still"


def test_accepted_here_and_made_anew_there(project: Repo) -> None:
    project.git("checkout", "-q", "-b", "side")
    accept(project, "tr 1 2 # theirs\n", "theirs")
    project.git("checkout", "-q", "main")
    built(project, {"src/train/main.sh": "tr 1 4\n"})
    assert "dropped train" in merge(project)
    assert states(project)["train"] == "stale"


# -- pins, and results that differ ----------------------------------------------------------------------------------


DATASET = """
[dataset.raw]
from = "DATA/*.txt"

[stage.a]
run = "cat {inputs.d}/* > {outputs.o}"
inputs = { d = "dataset:raw" }
outputs = { o = "out/a.txt" }
"""


def test_pins_that_disagree_are_ours(workspace: Repo) -> None:
    """Here a dataset was updated, there as well, later: ours; the stage's entries differ with them, so it is made of
    ours."""
    data = workspace.path.parent / "data"
    data.mkdir()
    (data / "1.txt").write_text("1\n")
    workspace.write("pipeline.toml", DATASET.replace("DATA", str(data)))
    workspace.pipe("build")
    workspace.commit("base")
    install_drivers(Repository.discover(str(workspace.path)))
    for branch in ("side", "main"):
        workspace.git("checkout", "-q", *(["-b"] if branch == "side" else []), branch)
        (data / f"{branch}.txt").write_text(f"{branch}\n")
        workspace.pipe("data", "update")
        built(workspace, {})
    ours = workspace.read("pipe.lock")
    (data / "side.txt").write_text("other\n")
    said = merge(workspace)
    assert "pipe.lock: dataset.raw: the two sides disagree, ours was taken\n" in said and "dropped a:" in said
    pin = ours[ours.index("[dataset.raw]") : ours.index("\n[stage.a]")]
    assert pin in workspace.read("pipe.lock")
    assert states(workspace) == {"a": "stale"}
    (data / "side.txt").write_text("side\n")
    assert builds(workspace) == [], "made on main already"
    assert workspace.read("pipe.lock") == ours


def test_one_fingerprint_with_two_results_is_dropped(workspace: Repo) -> None:
    """A stage that is not deterministic, built on both sides: neither result is more right than the other."""
    pipeline = '[stage.a]\nsource = "src"\nrun = "cat src/x; date +%N > {outputs.o}"\noutputs = { o = "out/a.txt" }\n'
    workspace.write("pipeline.toml", pipeline)
    workspace.write("src/x", "1\n")
    workspace.pipe("build")
    workspace.commit("base")
    install_drivers(Repository.discover(str(workspace.path)))
    workspace.git("checkout", "-q", "-b", "side")
    built(workspace, {"src/x": "2\n"})
    workspace.git("checkout", "-q", "main")
    built(workspace, {"src/x": "2\n"}, "build", "--no-restore")
    assert "dropped a:" in merge(workspace)
    assert states(workspace) == {"a": "stale"}


# -- both files in conflict -----------------------------------------------------------------------------------------


def test_pipeline_and_lockfile_in_conflict(project: Repo) -> None:
    """Without the driver: each is told, and what to do about it, one after the other."""
    project.pipe("hooks", "uninstall")
    fork(
        project,
        {"pipeline.toml": PIPELINE.replace("lr = 1", "lr = 5")},
        {"pipeline.toml": PIPELINE.replace("lr = 1", "lr = 6")},
    )
    assert project.git("merge", "side", check=False).returncode == 1
    line = PIPELINE.splitlines().index("lr = 1")  # the first line is empty, and not written
    for command in ("status", "build"):
        told = project.pipe(command, check=False)
        assert told.returncode == 2
        assert told.stderr.startswith(f"pipeline.toml:{line}: has conflict markers\nhelp: ")
    project.write("pipeline.toml", PIPELINE.replace("lr = 1", "lr = 5"))
    for command in ("status", "build"):
        told = project.pipe(command, check=False)
        assert told.returncode == 2
        assert told.stderr.startswith("pipe.lock:") and "help: run `pipe lock resolve`, then build" in told.stderr
    told = project.pipe("lock", "resolve").stdout
    assert "dropped other" in told and "dropped report" in told
    project.git("add", "pipeline.toml", "pipe.lock")
    assert builds(project) == [], "one side has made this"


# -- what people see ------------------------------------------------------------------------------------------------


def test_a_diff_tells_outputs_metrics_and_params(project: Repo) -> None:
    built(project, {"pipeline.toml": PIPELINE.replace("lr = 1", "lr = 15")})
    lines = project.git("log", "-p", "-1", "--format=", "-U0", "--", "pipe.lock").stdout.splitlines()
    changed = [line for line in lines if line[0] in "+-" and not line.startswith(("+++", "---"))]
    assert "-other: param lr: 1" in changed and "+other: param lr: 15" in changed
    assert "-report: metric r:size: 6.0" in changed and "+report: metric r:size: 7.0" in changed
    assert [line[1:].split(": ")[:2] for line in changed if line.startswith("+")] == [
        ["other", "fingerprint"],
        ["other", "output o"],
        ["other", "param lr"],
        ["report", "fingerprint"],
        ["report", "input b"],
        ["report", "output r"],
        ["report", "metric r:size"],
    ]
    assert project.git("show", "--format=", "HEAD", "--", "pipe.lock").stdout == (
        project.git("diff", "HEAD~", "--", "pipe.lock").stdout
    )


def test_a_diff_of_what_can_t_be_read_is_one_of_text(project: Repo) -> None:
    before = project.read("pipe.lock")
    for text in (f"<<<<<<< x\n{before}=======\n{before}>>>>>>> y\n", "nothing\n", "version = 99\n", "", b"\xff\xfe\n"):
        project.write("pipe.lock", text)
        shown = project.git("diff", "HEAD", "--", "pipe.lock", check=False)
        assert shown.returncode == 0 and "-clean: run: grep" in shown.stdout
        if text:
            first = (text if isinstance(text, str) else "").partition("\n")[0]
            assert f"+{first}" in shown.stdout


def test_the_shown_lockfile_of_the_workspace(project: Repo) -> None:
    shown = project.pipe("lock", "show").stdout
    assert shown.splitlines()[0].startswith("clean: fingerprint: ")
    assert "report: metric r:size: 6.0" in shown.splitlines()
    assert project.pipe("lock", "show", "--json").json() == {"text": shown}
    assert project.pipe("lock", "show", "pipe.lock").stdout == shown
    assert project.pipe("lock", "show", "gone", check=False).returncode == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["resolve", "x"], "takes no files"),
        (["merge", "a", "b"], "takes 3 or 4 files"),
        (["show", "a", "b"], "takes one file at most"),
    ],
)
def test_wrong_use(project: Repo, words: list[str], told: str) -> None:
    done = project.pipe("lock", *words, check=False)
    assert done.returncode == 2 and told in done.stderr
