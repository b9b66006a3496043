"""`push --runs` and `fetch --runs`: a colleague's clone knows runs, logs and metrics, by a plain git remote."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipesmith.git.refs import list_refs
from pipesmith.git.repository import Repository
from pipesmith.git.snapshot import commit_tree
from pipesmith.history.record import RunRecord, StageRecord, message_of
from pipesmith.history.run_store import LOGS, PREFIX, RunStore
from pipesmith.store.state_db import StateDB

if TYPE_CHECKING:
    from tests.conftest import Repo

PIPELINE = """
    [params]
    lr = 0.1
    [stage.train]
    source = ["train.py"]
    run = "python train.py {params.lr} {outputs.model} {outputs.report}"
    outputs = { model = "model.bin", report = { path = "report.json", cache = false } }
    metrics = ["report"]
    pass-env = ["HF_TOKEN"]
"""
TRAIN = """
    import os, sys
    from pipesmith.sdk import Run

    run = Run.get_context()
    token = os.environ.get("HF_TOKEN", "none")
    print("training with", token)
    run.log("loss", 0.5, step=1)
    run.log(f"by {token}", 1)
    run.log_table("confusion", [{"a": 1, "token": token}])
    open(sys.argv[2], "w").write(f"model {sys.argv[1]}")
    open(sys.argv[3], "w").write('{"auc": %s}' % sys.argv[1])
"""


class Team:
    """Ada's repository, Ben's clone, and the bare remote between them."""

    def __init__(self, ada: Repo) -> None:
        self.ada = ada
        ada.write("pipeline.toml", PIPELINE)
        ada.write("train.py", TRAIN)
        ada.write(".gitignore", "/model.bin\n")
        ada.commit()
        self.hub = ada.path.parent / "hub.git"
        ada.git("init", "-q", "--bare", "-b", "main", str(self.hub))
        ada.git("remote", "add", "origin", str(self.hub))
        ada.git("push", "-q", "-u", "origin", "main")
        ada.git("clone", "-q", str(self.hub), str(ada.path.parent / "ben"))
        self.ben = type(ada)(ada.path.parent / "ben", ada.home)

    def build(self, *args: str, check: bool = True, env: dict[str, str] | None = None) -> str:
        return str(self.ada.pipe("build", "--json", *args, check=check, env=env).json()["run"])

    def refs(self, where: Path | None = None) -> set[str]:
        """Return the refs of runs and logs at the remote (or in another repository)."""
        listed = self.ada.run("git", "ls-remote", str(where or self.hub), "refs/pipe/*").stdout
        return {line.split("\t")[1] for line in listed.splitlines()}

    def hook(self, name: str, script: str) -> None:
        path = self.hub / "hooks" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)


@pytest.fixture
def team(repo: Repo) -> Team:
    return Team(repo)


def test_a_colleague_sees_runs_logs_metrics_and_differences(team: Team) -> None:
    """Everything that the one clone says of a run, the other says as well."""
    first = team.build("-m", "a try", "--tag", "team=blue")
    second = team.build("--set", "lr=0.2")
    team.ada.write("train.py", "raise SystemExit('sorry')\n")
    third = team.build(check=False)
    sent = team.ada.pipe("push", "--runs", "--yes", "--json").json()
    assert (sent["remote"], sent["runs"], sent["logs"]) == ("origin", [first, second, third], [first, second, third])
    got = team.ben.pipe("fetch", "--runs", "--json").json()
    assert got == {
        "remote": "origin",
        "runs": [first, second, third],
        "updated": [],
        "logs": [first, second, third],
        "notes": [],
    }
    for command in (
        ("runs",),
        ("runs", "--failed"),
        ("runs", "--tag", "team=blue"),
        ("runs", "--branch", "main", "--since", "1d", "-n", "2"),
        ("runs", "--stage", "train"),
        ("show", first),
        ("show", third),
        ("logs", first),
        ("logs", third, "train"),
        ("diff", first, second),
        ("metrics", first, second),
    ):
        assert team.ben.pipe(*command).stdout == team.ada.pipe(*command).stdout, command
        assert team.ben.pipe(*command, "--json").json() == team.ada.pipe(*command, "--json").json(), command
    logs = team.ben.pipe("logs", first, "--json").json()
    assert logs["logs"] == {"train": "training with none\n"}
    assert [entry["name"] for entry in logs["logged"]["train"]] == ["loss", "by none", "confusion"]
    table = next((team.ben.pipe_dir / "logs" / first / "train.log.files").iterdir())
    assert json.loads(table.read_text())["rows"] == [[1, "none"]]
    team.ben.git("worktree", "add", "-q", "../then", f"{PREFIX}{third}")
    assert "sorry" in (team.ben.path.parent / "then/train.py").read_text()


def test_experiments_and_tags_are_shown_and_filtered(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of fetched runs as of one's own."""
    seal(team, monkeypatch)
    ada = Records(team.ada)
    ada.write(experiment="wide", tags={"team": "blue"}, branch="side")
    ada.write(
        id="20261124-220002-bbbbbbbb",
        branch="main",
        status="failed",
        stages=[StageRecord(name="train", status="failed")],
    )
    team.ada.pipe("push", "--runs", "--yes")
    team.ben.pipe("fetch", "--runs")

    def found(*args: str) -> list[str]:
        return [each["id"][-8:] for each in team.ben.pipe("runs", "--json", *args).json()["runs"]]

    assert found("--experiment", "wide") == found("--tag", "team=blue") == found("--branch", "side") == ["aaaaaaaa"]
    assert found("--failed") == found("--stage", "train") == found("-n", "1") == ["bbbbbbbb"]
    assert "wide" in team.ben.pipe("runs").stdout
    shown = team.ben.pipe("show", "aaaaaaaa").stdout
    assert "experiment wide" in shown and "team=blue" in shown


def test_metrics_of_a_run(team: Team) -> None:
    run = team.build("--set", "lr=0.7")
    assert team.ada.pipe("metrics", run, "--json").json() == {"metrics": {run: {"train": {"report:auc": 0.7}}}}


def test_only_what_is_new_goes(team: Team) -> None:
    """A second push sends nothing; a third only the run since."""
    team.build()
    team.ada.pipe("push", "--runs", "--yes")
    assert team.ada.pipe("push", "--runs").stdout == "`origin` has all runs\n"
    new = team.build("--set", "lr=0.3")
    assert team.ada.pipe("push", "--runs", "--yes", "--json").json()["runs"] == [new]
    assert team.ben.pipe("fetch", "--runs").stdout == "2 runs from `origin`, logs of 2\n"
    assert team.ben.pipe("fetch", "--runs").stdout == "`origin` has no run that is not here\n"
    assert team.ben.pipe("push", "--runs").stdout == "`origin` has all runs\n"


def test_nothing_untracked_nothing_asked(team: Team) -> None:
    """A snapshot whose files the remote has holds no news."""
    run = team.build()
    sent = team.ada.pipe("push", "--runs", "--json").json()
    assert (sent["runs"], sent["untracked"], sent["changed"], sent["commits"]) == ([run], [], [], 0)


def test_untracked_files_are_listed_and_without_yes_nothing_is_sent(team: Team) -> None:
    """Each by its path; what was left out of the snapshot is not among them."""
    team.ada.write("notes/idea.txt", "mine\n")
    team.ada.write("new line\n", "odd\n")
    team.ada.write(".env", "TOKEN=secret\n")
    team.ada.write("train.py", TRAIN + "    # more\n")
    team.build()
    refused = team.ada.pipe("push", "--runs", check=False)
    assert refused.returncode == 2
    assert "  notes/idea.txt\n" in refused.stderr and "--yes" in refused.stderr and ".env" not in refused.stderr
    assert "uncommitted changes that it would get: train.py" in refused.stderr
    assert team.refs() == set()
    as_json = team.ada.pipe("push", "--runs", "--json", check=False)
    assert as_json.returncode == 2 and as_json.json()["error"]["kind"] == "user"
    sent = team.ada.pipe("push", "--runs", "--yes", "--json").json()
    assert (sent["untracked"], sent["changed"]) == (["new line\n", "notes/idea.txt"], ["train.py"])
    assert len(team.refs()) == 2


def test_a_file_that_was_pushed_since_is_no_news(team: Team) -> None:
    team.ada.write("later.txt", "x\n")
    team.build()
    team.ada.git("add", "later.txt")
    team.ada.git("commit", "-qm", "later")
    assert team.ada.pipe("push", "--runs", check=False).returncode == 2
    team.ada.git("push", "-q")
    assert team.ada.pipe("push", "--runs", "--json").json()["untracked"] == []


def test_commits_that_go_along_are_counted(team: Team) -> None:
    """A run stands on a commit, which the remote gets with it."""
    team.ada.write("train.py", TRAIN + "    # one\n")
    team.ada.commit("one")
    team.ada.write("train.py", TRAIN + "    # two\n")
    team.ada.commit("two")
    team.build()
    done = team.ada.pipe("push", "--runs")
    assert "2 commits that it does not have yet go along" in done.stderr


def asked(repo: Repo, answer: str) -> tuple[int, str]:
    """Run `pipe push --runs` on a terminal, type an answer, and return exit code and what was shown."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pipesmith", "push", "--runs"],
        cwd=repo.path, env=repo.env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, f"{answer}\n".encode())
    shown = b""
    while True:
        try:
            data = os.read(ours, 4096)
        except OSError:
            break
        if not data:
            break
        shown += data
    os.close(ours)
    return process.wait(), shown.decode()


def test_on_a_terminal_it_asks(team: Team) -> None:
    team.ada.write("notes.txt", "mine\n")
    team.build()
    code, shown = asked(team.ada, "n")
    assert (code, team.refs()) == (2, set())
    assert "  notes.txt" in shown and "share 1 untracked file with `origin`? [y/N]" in shown
    code, shown = asked(team.ada, "y")
    assert code == 0 and "sent 1 run" in shown
    assert len(team.refs()) == 2


def test_secrets_travel_neither_in_logs_nor_in_what_was_logged(team: Team) -> None:
    """Not in any object of the remote."""
    token = 'hf_"quoted"_token'
    run = team.build(env={"HF_TOKEN": token})
    team.ada.pipe("push", "--runs", "--yes")
    objects = subprocess.run(
        ["git", "cat-file", "--batch-all-objects", "--batch"],
        cwd=team.hub,
        env=team.ada.env,
        capture_output=True,
        check=True,
    ).stdout
    assert b"confusion" in objects and b"training with ***" in objects
    assert b"hf_" not in objects
    assert team.ada.pipe("logs", run).stdout == "training with ***\n"


def test_runs_pushed_and_fetched_by_plain_git(team: Team) -> None:
    """`git push origin 'refs/pipe/runs/*'` does as well; logs come with `refs/pipe/*` once they are there."""
    run = team.build()
    team.ada.git("push", "-q", "origin", "refs/pipe/runs/*")
    assert team.ben.pipe("fetch", "--runs", "--json").json()["runs"] == [run]
    assert team.ben.pipe("logs", run).stdout == ""
    team.ada.pipe("push", "--runs")
    assert team.refs() == {f"{PREFIX}{run}", f"{LOGS}{run}"}
    assert team.ben.pipe("fetch", "--runs", "--json").json()["logs"] == [run]
    team.ben.git("clone", "-q", str(team.hub), "../carol")
    carol = type(team.ben)(team.ben.path.parent / "carol", team.ben.home)
    carol.git("fetch", "-q", "origin", "refs/pipe/*:refs/pipe/*")
    assert carol.pipe("logs", run).stdout == team.ada.pipe("logs", run).stdout != ""


def test_a_mirror_has_the_history(team: Team) -> None:
    run = team.build()
    team.ada.pipe("push", "--runs", "--yes")
    team.ada.git("clone", "-q", "--mirror", str(team.hub), "../mirror.git")
    mirror = team.ada.path.parent / "mirror.git"
    team.ada.run("git", "-C", str(mirror), "worktree", "add", "-q", "../looking", "main")
    looking = type(team.ada)(team.ada.path.parent / "looking", team.ada.home)
    assert [each["id"] for each in looking.pipe("runs", "--json").json()["runs"]] == [run]
    assert looking.pipe("logs", run).stdout == team.ada.pipe("logs", run).stdout


class Records:
    """Runs written by hand into a clone."""

    def __init__(self, repo: Repo) -> None:
        self.git = Repository.discover(str(repo.path))
        pipe = repo.pipe_dir
        self.store = RunStore(self.git, StateDB(str(pipe / "state.db")), str(pipe / "logs"))
        self.tree = self.git.run("rev-parse", "HEAD^{tree}").decode().strip()

    def write(self, **fields: Any) -> RunRecord:
        values = {
            "id": "20261124-220001-aaaaaaaa",
            "time": 1e9,
            "host": "far",
            "snapshot": self.tree,
            "status": "succeeded",
            "end": 1e9 + 1,
        }
        record = RunRecord(**(values | fields))
        self.store.write(record, self.tree)
        return record

    @property
    def refs(self) -> dict[str, str]:
        return list_refs(self.git, PREFIX)

    def status(self) -> list[str]:
        return [each.status for each in self.store.list()]


def test_running_runs_stay_and_are_sent_when_they_have_ended(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was pushed by hand while it ran is replaced by what became of it, there and in every clone."""
    seal(team, monkeypatch)
    ada, ben = Records(team.ada), Records(team.ben)
    ada.write(status="running", end=None)
    assert team.ada.pipe("push", "--runs").stdout == "`origin` has all runs\n"
    team.ada.git("push", "-q", "origin", "refs/pipe/runs/*")
    team.ben.pipe("fetch", "--runs")
    assert ben.status() == ["running"]
    ada.write(status="failed")
    team.ada.pipe("push", "--runs", "--yes")
    got = team.ben.pipe("fetch", "--runs", "--json").json()
    assert (got["runs"], got["updated"]) == ([], ["20261124-220001-aaaaaaaa"])
    assert ben.status() == ["failed"]


def test_a_finished_run_is_not_replaced_by_its_earlier_record(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    seal(team, monkeypatch)
    ada = Records(team.ada)
    ada.write(status="running", end=None)
    team.ada.git("push", "-q", "origin", "refs/pipe/runs/*")
    ada.write(status="failed")
    got = team.ada.pipe("fetch", "--runs", "--json").json()
    assert (got["runs"], got["updated"], got["notes"], ada.status()) == ([], [], [], ["failed"])


def test_another_run_of_the_same_id_overwrites_nothing(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither here nor there; both commands say so."""
    seal(team, monkeypatch)
    ada, ben = Records(team.ada), Records(team.ben)
    ada.write(host="one")
    ben.write(host="two", status="failed")
    mine, theirs = ada.refs, ben.refs
    assert "is another one at `origin`" not in team.ada.pipe("push", "--runs", "--yes").stderr
    assert "is another one at `origin`: left as it is there" in team.ben.pipe("push", "--runs").stderr
    assert "is another one at `origin`: left as it is here" in team.ben.pipe("fetch", "--runs").stderr
    assert (ada.refs, ben.refs) == (mine, theirs)
    assert set(team.ada.run("git", "ls-remote", str(team.hub), "refs/pipe/runs/*").stdout.split()[:1]) == set(
        mine.values()
    )


def test_a_run_that_was_cut_off_is_sent_as_cancelled(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere nobody could tell that its process is gone."""
    import socket

    seal(team, monkeypatch)
    record = Records(team.ada).write(status="running", end=None, host=socket.gethostname(), pid=0)
    team.ada.pipe("push", "--runs", "--yes")
    message = team.ada.run("git", "-C", str(team.hub), "log", "-1", "--format=%B", f"{PREFIX}{record.id}").stdout
    assert message.startswith(f"run {record.id}: cancelled\n")


def test_what_is_no_run_is_not_fetched(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit without a record, a record under another name: passed over and said; a later version's is taken."""
    seal(team, monkeypatch)
    ada = Records(team.ada)
    good = ada.write()
    team.ada.git("push", "-q", "origin", "HEAD:refs/pipe/runs/plain", f"{PREFIX}{good.id}:refs/pipe/runs/copy")
    later = json.dumps(
        RunRecord(id="later", time=1.0, stages=[StageRecord(name="a", status="ran")]).as_json() | {"version": 9}
    )
    commit = commit_tree(ada.git, ada.tree, None, f"run later\n\npipesmith-run: {later}\n")
    team.ada.git("push", "-q", "origin", f"{commit}:refs/pipe/runs/later", f"{PREFIX}{good.id}")
    got = team.ben.pipe("fetch", "--runs", "--json").json()
    assert got["runs"] == [good.id, "later"]
    assert [note.split(":")[0] for note in got["notes"]] == [
        "`refs/pipe/runs/copy` at `origin` is no run",
        "run later",
        "`refs/pipe/runs/plain` at `origin` is no run",
    ]
    assert set(Records(team.ben).refs) == {f"{PREFIX}{good.id}", f"{PREFIX}later"}
    listed = team.ben.pipe("runs", "--json")
    assert [each["id"] for each in listed.json()["runs"]] == [good.id]
    assert "run later is left out: a run record of version 9" in listed.stderr


def test_logs_from_elsewhere_stay_in_their_folder(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links, folders in folders and what has no log's form are not unpacked."""
    seal(team, monkeypatch)
    ada = Records(team.ada)
    run = ada.write().id
    blob = team.ada.run("git", "hash-object", "-w", "--stdin", input="x\n").stdout.strip()

    def tree(*rows: str) -> str:
        return team.ada.run("git", "mktree", input="".join(f"{row}\n" for row in rows)).stdout.strip()

    inner = tree(f"100644 blob {blob}\tin")
    deep = tree(f"040000 tree {inner}\tdeep", f"100644 blob {blob}\tok", f"120000 blob {blob}\tlink")
    logs = tree(
        f"100644 blob {blob}\ta.log",
        f"120000 blob {blob}\tb.log",
        f"040000 tree {deep}\ta.log.files",
        f"040000 tree {deep}\tother",
    )
    commit = commit_tree(ada.git, logs, None, "logs")
    team.ada.git("push", "-q", "origin", f"{PREFIX}{run}", f"{commit}:{LOGS}{run}")
    team.ben.pipe("fetch", "--runs")
    folder = team.ben.pipe_dir / "logs" / run
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == [
        "a.log",
        "a.log.files",
        "a.log.files/ok",
    ]
    assert list((team.ben.pipe_dir / "tmp").iterdir()) == []


def seal(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("GIT_", "PIPE_"))]:
        monkeypatch.delenv(name)
    for name, value in team.ada.env.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("how", ["--depth=1", "--filter=blob:none"])
def test_clones_that_lack_objects(team: Team, how: str) -> None:
    """A shallow and a partial clone fetch runs, look at them, and send their own."""
    team.ada.write("train.py", TRAIN + "    # two\n")
    team.ada.commit("two")
    team.ada.git("push", "-q")
    run = team.build()
    team.ada.pipe("push", "--runs", "--yes")
    team.ada.run("git", "-C", str(team.hub), "config", "uploadpack.allowFilter", "true")
    team.ada.git("clone", "-q", how, f"file://{team.hub}", "../carol")
    carol = type(team.ada)(team.ada.path.parent / "carol", team.ada.home)
    assert carol.pipe("fetch", "--runs", "--json").json()["runs"] == [run]
    assert carol.pipe("logs", run).stdout == team.ada.pipe("logs", run).stdout
    assert "# two" in carol.git("show", f"{PREFIX}{run}:train.py").stdout
    carol.write("more.txt", "x\n")
    own = carol.pipe("build", "--set", "lr=0.9", "--json").json()["run"]
    sent = carol.pipe("push", "--runs", "--yes", "--json").json()
    assert (sent["runs"], sent["untracked"]) == ([own], ["more.txt"])
    assert team.ben.pipe("fetch", "--runs", "--json").json()["runs"] == [run, own]


def test_sha256_repositories(repo: Repo) -> None:
    repo.git("init", "-q", "--object-format=sha256", "-b", "main", "../long")
    repo.git("init", "-q", "--object-format=sha256", "--bare", "-b", "main", "../long.git")
    ada = type(repo)(repo.path.parent / "long", repo.home)
    ada.write("pipeline.toml", PIPELINE)
    ada.write("train.py", TRAIN)
    ada.commit()
    ada.git("remote", "add", "hub", "../long.git")
    ada.git("push", "-q", "hub", "main")
    run = ada.pipe("build", "--json").json()["run"]
    assert ada.pipe("push", "--runs", "--yes", "--json").json()["logs"] == [run]
    ada.git("clone", "-q", "../long.git", "../other")
    other = type(repo)(repo.path.parent / "other", repo.home)
    assert other.pipe("fetch", "--runs", "--json").json()["logs"] == [run]
    assert other.pipe("show", run).stdout == ada.pipe("show", run).stdout


def test_a_path_is_relative_to_the_current_folder(team: Team) -> None:
    team.build()
    (team.ada.path / "sub").mkdir()
    assert team.ada.pipe("-C", "sub", "push", "--runs", "--yes", "../../hub.git", "--json").json()["remote"] == str(
        team.hub
    )


# -- remotes ----------------------------------------------------------------------------------------------------------


def test_without_runs_there_is_no_remote_cache_yet(team: Team) -> None:
    for name in ("push", "fetch"):
        done = team.ada.pipe(name, check=False)
        assert done.returncode == 2
        assert "this version has no remote cache yet" in done.stderr and f"`pipe {name} --runs`" in done.stderr


def test_which_remote(team: Team) -> None:
    """Named, the branch's, origin, the only one; a path or URL does as well."""
    run = team.build()
    other = team.ada.path.parent / "other.git"
    team.ada.git("init", "-q", "--bare", str(other))
    assert team.ada.pipe("push", "--runs", "--yes", str(other), "--json").json()["remote"] == str(other)
    assert team.refs(other) == {f"{PREFIX}{run}", f"{LOGS}{run}"} and team.refs() == set()
    team.ada.git("remote", "add", "fork", str(other))
    for key, value, found in (
        ("branch.main.remote", ".", "origin"),
        ("branch.main.remote", "fork", "fork"),
        ("remote.pushDefault", "origin", "origin"),
        ("branch.main.pushRemote", "fork", "fork"),
    ):
        team.ada.git("config", key, value)
        assert team.ada.pipe("push", "--runs", "--yes", "--json").json()["remote"] == found
    assert team.ada.pipe("fetch", "--runs", "origin", "--json").json()["remote"] == "origin"
    unknown = team.ada.pipe("push", "--runs", "origni", check=False)
    assert unknown.returncode == 2 and "did you mean `origin`?" in unknown.stderr


def test_no_remote_or_too_many(repo: Repo) -> None:
    repo.write("pipeline.toml", "[stage.a]\nrun = 'true'\n")
    for name in ("push", "fetch"):
        done = repo.pipe(name, "--runs", check=False)
        assert done.returncode == 2 and "git remote add origin URL" in done.stderr
    repo.git("remote", "add", "one", "/nowhere/1")
    alone = repo.pipe("fetch", "--runs", check=False)
    assert alone.returncode == 1 and "`one`" in alone.stderr
    repo.git("remote", "add", "two", "/nowhere/2")
    done = repo.pipe("fetch", "--runs", check=False)
    assert done.returncode == 2 and "one, two" in done.stderr


def test_a_remote_that_cannot_be_reached(team: Team) -> None:
    """Exit 1 with git's words, no password among them."""
    team.build()
    team.ada.git("remote", "set-url", "origin", "/nowhere/hub.git")
    for name in ("push", "fetch"):
        done = team.ada.pipe(name, "--runs", "--yes" if name == "push" else "-q", check=False)
        assert done.returncode == 1
        assert "'/nowhere/hub.git' does not appear to be a git repository" in done.stderr
    done = team.ada.pipe("fetch", "--runs", "https://ada:hunter22@127.0.0.1:9/x.git", check=False)
    assert done.returncode == 1 and "hunter22" not in done.stdout + done.stderr


def test_pushurl_is_asked_what_it_has(team: Team) -> None:
    """Where pushes go elsewhere than fetches come from, that place decides what is new."""
    run = team.build()
    other = team.ada.path.parent / "other.git"
    team.ada.git("init", "-q", "--bare", str(other))
    team.ada.pipe("push", "--runs", "--yes")
    team.ada.git("remote", "set-url", "--push", "origin", str(other))
    assert team.ada.pipe("push", "--runs", "--yes", "--json").json()["runs"] == [run]
    assert team.ada.pipe("push", "--runs").stdout == "`origin` has all runs\n"


def test_a_refusal_of_the_remote_is_told(team: Team) -> None:
    """Its hook's words, exit 1; what it took stays, and the next push sends the rest."""
    one, two = team.build(), team.build("--set", "lr=0.2")
    team.hook("update", f'case $1 in *{two}) echo "not this one" >&2; exit 1;; esac')
    done = team.ada.pipe("push", "--runs", "--yes", check=False)
    assert done.returncode == 1
    assert (
        "refused 1 run and 1 logs" in done.stderr and "hook declined" in done.stderr and "not this one" in done.stderr
    )
    assert team.refs() == {f"{PREFIX}{one}", f"{LOGS}{one}"}
    (team.hub / "hooks/update").unlink()
    assert team.ada.pipe("push", "--runs", "--yes", "--json").json()["runs"] == [two]


def test_hidden_refs_are_a_refusal(team: Team) -> None:
    team.build()
    team.ada.run("git", "-C", str(team.hub), "config", "receive.hideRefs", "refs/pipe")
    done = team.ada.pipe("push", "--runs", "--yes", check=False)
    assert done.returncode == 1 and "hidden ref" in done.stderr


def test_a_pre_push_hook_of_this_clone(team: Team) -> None:
    """It runs as with any push; one that refuses is told in its own words. The one that `pipe init` lays out lets runs pass."""
    team.build()
    hook = team.ada.write(
        ".git/hooks/pre-push", "#!/bin/sh\necho 'no pushes on fridays' >&2\nexit 1\n", executable=True
    )
    done = team.ada.pipe("push", "--runs", "--yes", check=False)
    assert done.returncode == 1 and "no pushes on fridays" in done.stderr
    team.ada.git("init", "-q", "../fresh")
    fresh = type(team.ada)(team.ada.path.parent / "fresh", team.ada.home)
    fresh.pipe("init")
    hook.write_text(fresh.read("hooks/pre-push"))
    team.ada.write("train.py", TRAIN + "    # stale\n")
    team.ada.commit("stale")
    team.ada.pipe("push", "--runs", "--yes")
    assert len(team.refs()) == 2


def test_configuration_for_other_pushes_does_not_count(team: Team) -> None:
    """Tags that follow, mirrors, submodules to check: this push sends runs alone."""
    team.ada.git("tag", "-am", "v1", "v1")
    for key, value in (
        ("push.followTags", "true"),
        ("push.recurseSubmodules", "check"),
        ("remote.origin.mirror", "true"),
    ):
        team.ada.git("config", key, value)
    run = team.build()
    team.ada.pipe("push", "--runs", "--yes")
    assert team.refs() == {f"{PREFIX}{run}", f"{LOGS}{run}"}
    assert "refs/tags/v1" not in team.ada.git("ls-remote", "origin").stdout


def test_a_log_over_the_limit_stays_and_is_named(team: Team) -> None:
    team.ada.write("pipeline.toml", PIPELINE + '    [snapshot]\n    max-file = "1K"\n')
    team.ada.write("train.py", TRAIN + "    print('x' * 5000)\n")
    run = team.build()
    done = team.ada.pipe("push", "--runs", "--yes")
    assert f"logs/{run}/train.log stays here" in done.stderr and "max-file" in done.stderr
    assert set(os.listdir(team.ada.pipe_dir / "logs" / run)) >= {"train.log", "train.log.jsonl"}
    team.ben.pipe("fetch", "--runs")
    assert "train.log" not in os.listdir(team.ben.pipe_dir / "logs" / run)


def test_neither_command_touches_fetch_head_branches_or_remote_branches(team: Team) -> None:
    team.build()
    before = team.ada.git("for-each-ref").stdout
    team.ada.pipe("push", "--runs", "--yes")
    assert team.ada.git("for-each-ref").stdout == before
    team.ben.pipe("fetch", "--runs")
    refs = team.ben.git("for-each-ref", "--format=%(refname)").stdout.split()
    assert {ref for ref in refs if not ref.startswith(PREFIX)} == {
        "refs/heads/main",
        "refs/remotes/origin/HEAD",
        "refs/remotes/origin/main",
    }
    assert not team.ben.exists(".git/FETCH_HEAD")


def test_message_of_a_shared_run_is_the_record(team: Team) -> None:
    run = team.build()
    team.ada.pipe("push", "--runs", "--yes")
    record = RunRecord.from_json(team.ada.pipe("show", run, "--json").json())
    assert (
        team.ada.run("git", "-C", str(team.hub), "log", "-1", "--format=%B", f"{PREFIX}{run}").stdout.strip()
        == message_of(record).strip()
    )
