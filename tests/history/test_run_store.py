"""Runs are commits under refs/pipe/runs/: git keeps and shares them, state.db only makes listing fast."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pipesmith.errors import EnvironmentFailure, UserError
from pipesmith.git.refs import list_refs, update_ref
from pipesmith.git.repository import Repository
from pipesmith.git.snapshot import commit_tree, write_snapshot
from pipesmith.history.record import RunRecord, StageRecord, message_of
from pipesmith.history.run_store import PREFIX, RunStore
from pipesmith.liveness import is_alive, process_mark
from pipesmith.store.state_db import StateDB

if TYPE_CHECKING:
    from tests.conftest import Repo

BASE = 1_795_560_000.0


class History:
    """A repository with runs. tree: of its snapshot."""

    def __init__(self, repo: Repo) -> None:
        self.work = repo
        repo.write("a", "a\n")
        self.head = repo.commit()
        self.git = Repository.discover(str(repo.path))
        self.tree = self.snapshot()
        self.store = self.open()

    def open(self) -> RunStore:
        """Another process's view."""
        pipe = self.work.pipe_dir
        return RunStore(self.git, StateDB(str(pipe / "state.db")), str(pipe / "logs"))

    def snapshot(self) -> str:
        index = str(self.work.pipe_dir / "tmp" / "index")
        return write_snapshot(self.git, index, left_out={}, max_file_bytes=100, ignores=lambda path: False)[0]

    def record(self, number: int, **fields: object) -> RunRecord:
        values = {
            "id": f"20261124-22{number:04}-aaaaaaaa",
            "time": BASE + number,
            "status": "succeeded",
            "end": BASE + number + 1,
            "commit": self.head,
            "snapshot": self.tree,
        }
        return RunRecord(**(values | fields))  # type: ignore[arg-type]

    def add(self, number: int, **fields: object) -> RunRecord:
        record = self.record(number, **fields)
        self.store.write(record, self.tree)
        return record

    def ids(self, **filters: object) -> list[int]:
        return [int(each.time - BASE) for each in self.open().list(**filters)]  # type: ignore[arg-type]

    def lose_index(self) -> None:
        for path in self.work.pipe_dir.glob("state.db*"):
            path.unlink()


@pytest.fixture
def history(workspace: Repo) -> History:
    return History(workspace)


def test_a_run_is_a_commit_on_head(history: History) -> None:
    """git shows it, checks it out, and its parent is what was checked out."""
    history.work.write("a", "uncommitted\n")
    history.work.write("new", "untracked\n")
    history.tree = history.snapshot()
    record = history.add(1, message="why")
    ref = f"{PREFIX}{record.id}"
    assert history.work.git("rev-parse", f"{ref}^").stdout.strip() == history.head
    shown = history.work.git("show", ref).stdout
    assert "+uncommitted" in shown and "+untracked" in shown and "    why\n" in shown
    history.work.git("worktree", "add", "-q", "../there", ref)
    assert (history.work.path.parent / "there/new").read_text() == "untracked\n"


def test_the_first_run_before_any_commit(workspace: Repo) -> None:
    """Its commit is a root."""
    git = Repository.discover(str(workspace.path))
    tree = git.run("write-tree").decode().strip()
    store = RunStore(git, StateDB(str(workspace.pipe_dir / "state.db")), str(workspace.pipe_dir / "logs"))
    store.write(RunRecord(id="r1", time=BASE), tree)
    assert workspace.git("rev-list", "--count", f"{PREFIX}r1").stdout.strip() == "1"


def test_the_record_is_replaced_when_the_run_ends(history: History) -> None:
    """Same ref, same tree, and what was replaced is no longer reachable."""
    record = history.add(1, status="running", end=None, pid=os.getpid(), host=socket.gethostname())
    first = list_refs(history.git, PREFIX)
    record.status = "failed"
    history.store.write(record, history.tree)
    second = list_refs(history.git, PREFIX)
    assert first.keys() == second.keys() and first != second
    assert history.open().get(record.id).status == "failed"
    tree = history.work.git("rev-parse", f"{PREFIX}{record.id}^{{tree}}").stdout.strip()
    assert tree == history.tree


def test_gc_keeps_runs(history: History) -> None:
    """They are refs; not even an aggressive prune takes them."""
    history.work.write("only-in-the-snapshot", "x\n")
    history.tree = history.snapshot()
    record = history.add(1)
    history.work.git("gc", "-q", "--prune=now")
    assert history.work.git("cat-file", "blob", f"{PREFIX}{record.id}:only-in-the-snapshot").stdout == "x\n"
    history.lose_index()
    assert history.open().get(record.id) == record


def test_history_outlives_state_db(history: History) -> None:
    """A lost, emptied or damaged index is made anew from the refs."""
    records = [history.add(number) for number in range(5)]
    history.lose_index()
    assert history.open().list() == records[::-1]
    rows = StateDB(str(history.work.pipe_dir / "state.db")).query("SELECT id FROM runs")
    assert len(rows) == 5
    history.lose_index()
    (history.work.pipe_dir / "state.db").write_bytes(b"garbage" * 1000)
    assert history.open().list() == records[::-1]


def test_a_damaged_row_is_read_from_its_ref(history: History) -> None:
    record = history.add(1)
    with sqlite3.connect(history.work.pipe_dir / "state.db") as connection:
        connection.execute("UPDATE runs SET body = ?", (b"{nonsense",))
    assert history.open().list() == [record]


def test_runs_of_others_come_by_fetch(history: History) -> None:
    """`git push origin 'refs/pipe/runs/*'` shares them; one fetched again later is read again."""
    record = history.add(1, status="running", host="elsewhere")
    other = history.work.clone()
    fetch = ("fetch", "-q", "origin", f"+{PREFIX}*:{PREFIX}*")
    other.git(*fetch)
    git = Repository.discover(str(other.path))
    store = RunStore(git, StateDB(str(other.pipe_dir / "state.db")), str(other.pipe_dir / "logs"))
    assert [each.status for each in store.list()] == ["running"]
    record.status = "succeeded"
    history.store.write(record, history.tree)
    other.git(*fetch)
    assert [each.status for each in store.list()] == ["succeeded"]
    assert store.get("latest").host == "elsewhere"


def test_a_deleted_ref_is_a_forgotten_run(history: History) -> None:
    """Who takes runs out of git takes them out of `pipe runs`."""
    record = history.add(1)
    history.add(2)
    history.work.git("update-ref", "-d", f"{PREFIX}{record.id}")
    assert history.ids() == [2]
    with pytest.raises(UserError, match="no run"):
        history.open().get(record.id)


def test_without_a_snapshot_the_index_has_the_run(history: History) -> None:
    record = history.record(1, snapshot=None)
    history.store.write(record, None)
    assert history.open().list() == [record]
    assert list_refs(history.git, PREFIX) == {}


def test_other_refs_are_no_runs(history: History) -> None:
    """A commit without a record, a blob, a name that no id has: nothing fails."""
    record = history.add(1)
    update_ref(history.git, f"{PREFIX}plain", history.head)
    blob = history.work.git("hash-object", "-w", "a").stdout.strip()
    update_ref(history.git, f"{PREFIX}blob", blob)
    update_ref(history.git, f"{PREFIX}deep/er", history.head)
    copied = list_refs(history.git, PREFIX)[f"{PREFIX}{record.id}"]
    update_ref(history.git, f"{PREFIX}copy", copied)
    assert history.open().list() == [record]
    with pytest.raises(UserError, match="no run `plain`"):
        history.open().get("plain")


def test_filters(history: History) -> None:
    history.add(1, branch="main", tags={"team": "a"}, stages=[StageRecord(name="train@0.1", status="ran")])
    history.add(2, branch="side", status="failed", stages=[StageRecord(name="train", status="failed")])
    history.add(3, branch="main", tags={"team": "b"}, experiment="wide")
    assert history.ids() == [3, 2, 1]
    assert history.ids(n=2) == [3, 2]
    assert history.ids(n=0) == []
    assert history.ids(stage="train") == [2, 1]
    assert history.ids(stage="train@0.1") == [1]
    assert history.ids(stage="trai") == []
    assert history.ids(failed=True) == [2]
    assert history.ids(branch="main", n=1) == [3]
    assert history.ids(experiment="wide") == [3]
    assert history.ids(tag="team") == [3, 1]
    assert history.ids(tag="team=a") == [1]
    assert history.ids(tag="tea") == []
    assert history.ids(since=BASE + 2) == [3, 2]
    assert history.ids(until=BASE + 2) == [2, 1]


def test_runs_are_named_by_either_end_of_their_id(history: History) -> None:
    one = history.add(1)
    two = history.add(2, id="20261124-220002-bbbbbbbb")
    store = history.open()
    assert store.get("latest") == two
    assert store.get("20261124-220001") == one
    assert store.get("bbbb") == two
    with pytest.raises(UserError, match="beginning of 2 runs"):
        store.get("2026")
    for name in ("nothing", ""):
        with pytest.raises(UserError, match="no run"):
            store.get(name)


def test_an_id_that_begins_another_is_itself(history: History) -> None:
    short = history.add(1, id="r1")
    history.add(2, id="r12")
    assert history.open().get("r1") == short


def test_no_runs_yet(history: History) -> None:
    assert history.store.list() == []
    with pytest.raises(UserError, match="no runs yet") as raised:
        history.store.get("latest")
    assert raised.value.help == "run `pipe build`"


def test_a_run_of_a_later_version_spoils_no_list(history: History) -> None:
    """It is told and passed over in lists, and refused when asked for by name."""
    record = history.add(1)
    later = history.record(2)
    body = json.dumps(later.as_json() | {"version": 2})
    message = f"run {later.id}\n\npipesmith-run: {body}\n"
    update_ref(history.git, f"{PREFIX}{later.id}", commit_tree(history.git, history.tree, None, message))
    store = history.open()
    assert store.list() == [record]
    assert store.notices == [f"run {later.id} is left out: a run record of version 2, this pipesmith reads version 1"]
    with pytest.raises(UserError, match="version 2"):
        store.get(later.id)


def test_a_run_whose_process_is_gone_was_cancelled(history: History) -> None:
    """Also when its pid has been given to another process since."""
    here = socket.gethostname()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        mark = process_mark(child.pid)
        assert mark and mark != process_mark()
        history.add(1, status="running", host=here, pid=child.pid, process=mark)
        history.add(2, status="running", host=here, pid=os.getpid(), process=mark)
        history.add(3, status="running", host="elsewhere", pid=1, process=mark)
        assert [each.status for each in history.open().list()] == ["running", "cancelled", "running"]
    finally:
        child.communicate(b"\n")
    assert [each.status for each in history.open().list()] == ["running", "cancelled", "cancelled"]


def test_liveness_without_marks() -> None:
    """Records of systems that say nothing about processes: the pid has to do."""
    assert is_alive(os.getpid(), "")
    assert is_alive(os.getpid(), process_mark())
    assert not is_alive(os.getpid(), "other-boot 1")
    assert not is_alive(0, "")
    child = subprocess.Popen(["true"])
    child.wait()
    assert not is_alive(child.pid, "")
    assert process_mark(child.pid) == ""


def test_prune_forgets_old_runs_alone(history: History) -> None:
    """Ref, row and logs go; a run that goes on stays however old it is."""
    old = history.add(1)
    going = history.add(2, status="running", end=None, host="elsewhere")
    recent = history.add(3, end=BASE + 10 * 86400)
    for record in (old, recent):
        (history.work.pipe_dir / "logs" / record.id).mkdir(parents=True)
    assert history.store.prune(5, now=BASE + 12 * 86400) == (old.id,)
    assert history.open().list() == [recent, going]
    assert sorted(path.name for path in (history.work.pipe_dir / "logs").iterdir()) == [recent.id]
    history.lose_index()
    assert history.open().list() == [recent, going]


def test_remove_what_is_not_there(history: History) -> None:
    """Nothing happens, and nothing outside the logs is touched."""
    kept = history.add(1)
    history.store.remove("no-such-run")
    history.store.remove("../cache")
    assert history.open().list() == [kept]


def test_a_repository_that_cannot_be_written(history: History) -> None:
    """The caller is told; the run is not half recorded."""
    with pytest.raises(EnvironmentFailure):
        history.store.write(history.record(1), "0" * 40)
    assert history.open().list() == []


def test_messages_are_whole_in_git(history: History) -> None:
    """What git stores is what was written, byte for byte."""
    record = history.add(1, message="größe\n\n# no comment\n  trailing  \n")
    raw = subprocess.run(
        ["git", "cat-file", "commit", f"{PREFIX}{record.id}"],
        cwd=history.work.path, env=history.work.env, capture_output=True, check=True,
    ).stdout  # fmt: skip
    assert raw.partition(b"\n\n")[2] == message_of(record).encode()


def test_many_lost_rows_are_read_by_one_process(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a hundred runs from refs starts two git programs, not a hundred."""
    for number in range(100):
        history.add(number)
    history.lose_index()
    store = history.open()
    started: list[str] = []
    for name in ("process", "start"):
        real = getattr(Repository, name)

        def counted(self: Repository, *args: str, _real: object = real, **rest: object) -> object:
            started.append(args[0])
            return _real(self, *args, **rest)  # type: ignore[operator]

        monkeypatch.setattr(Repository, name, counted)
    assert len(store.list()) == 100
    assert started == ["for-each-ref", "cat-file"]
    started.clear()
    assert len(store.list()) == 100
    assert started == ["for-each-ref"]
