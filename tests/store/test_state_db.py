"""state.db may be lost, broken, locked or read-only: time is lost, nothing else, and nothing is raised."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipesmith.store.state_db import StateDB


def put(state: StateDB, key: str, value: bytes = b"v") -> None:
    state.write([("INSERT OR REPLACE INTO parsed VALUES (?, ?)", (key, value))])


def keys(state: StateDB) -> list[str]:
    return [row[0] for row in state.query("SELECT key FROM parsed ORDER BY key")]


def test_what_is_written_is_there_for_the_next(tmp_path: Path) -> None:
    path = str(tmp_path / "pipe" / "state.db")
    state = StateDB(path)
    put(state, "a")
    state.write_many("INSERT INTO timings VALUES (?, ?, ?)", [("s", 1.5, 2.0), ("t", 2.5, 3.0)])
    state.close()
    again = StateDB(path)
    assert keys(again) == ["a"]
    assert again.query("SELECT stage, seconds FROM timings ORDER BY stage") == [("s", 1.5), ("t", 2.5)]
    assert again.writable and again.notices == []


def test_all_statements_or_none(tmp_path: Path) -> None:
    state = StateDB(str(tmp_path / "state.db"))
    state.write([("INSERT INTO parsed VALUES ('a', 1)", ()), ("INSERT INTO nowhere VALUES (1)", ())])
    assert keys(state) == []
    put(state, "b")
    assert keys(state) == ["b"], "it goes on after that"


def test_a_generator_that_fails_leaves_no_open_transaction(tmp_path: Path) -> None:
    state = StateDB(str(tmp_path / "state.db"))

    def rows():  # type: ignore[no-untyped-def]
        yield ("a", b"1")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        state.write_many("INSERT INTO parsed VALUES (?, ?)", rows())
    put(state, "b")
    assert keys(StateDB(str(tmp_path / "state.db"))) == ["b"]


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    state = StateDB(str(tmp_path / "state.db"))
    odd = "caf\udce9"
    put(state, odd, b"1")
    put(state, "café", b"2")
    assert state.query("SELECT value FROM parsed WHERE key = ?", (odd,)) == [(b"1",)]
    assert state.query("SELECT value FROM parsed WHERE key = ?", ("café",)) == [(b"2",)]


@pytest.mark.parametrize("damage", ["garbage", "middle", "truncated", "folder", "text", "no tables"])
def test_a_broken_one_is_put_aside_and_said_once(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state.db"
    state = StateDB(str(path))
    state.write_many("INSERT INTO parsed VALUES (?, ?)", [(f"k{n:05}", os.urandom(300)) for n in range(2000)])
    state.close()
    data = path.read_bytes()
    if damage == "garbage":
        path.write_bytes(os.urandom(len(data)))
    elif damage == "middle":
        path.write_bytes(data[:5000] + b"\xff" * 200_000 + data[205_000:])
    elif damage == "truncated":
        path.write_bytes(data[: len(data) // 3])
    elif damage == "text":
        path.write_text("hello")
    elif damage == "no tables":
        path.unlink()
        made = sqlite3.connect(path)
        made.execute("PRAGMA user_version = 1")
        made.close()
    else:
        path.unlink()
        path.mkdir()
    again = StateDB(str(path))
    again.query("SELECT value FROM parsed")
    again.query("SELECT value FROM parsed")
    put(again, "new")
    assert keys(again) == ["new"]
    assert len(again.notices) == 1 and "state.db was broken" in again.notices[0] and ".bad-1" in again.notices[0]
    assert os.path.lexists(f"{path}.bad-1")
    after = StateDB(str(path))
    assert keys(after) == ["new"] and after.notices == []


def test_an_empty_file_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / "state.db").touch()
    state = StateDB(str(tmp_path / "state.db"))
    put(state, "a")
    assert keys(state) == ["a"] and state.notices == []


def test_garbage_beside_it_is_no_damage(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    first = StateDB(path)
    put(first, "a")
    first.close()
    code = "import os,sys; from pipesmith.store.state_db import StateDB; s=StateDB(sys.argv[1]); os._exit(0)"
    subprocess.run([sys.executable, "-c", code, path], check=True)
    for suffix in ("-wal", "-shm"):
        Path(path + suffix).write_bytes(os.urandom(5000))
    state = StateDB(path)
    put(state, "b")
    assert "b" in keys(state)


def test_a_later_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    made = sqlite3.connect(path)
    made.execute("PRAGMA user_version = 99")
    made.execute("CREATE TABLE later (x)")
    made.close()
    before = path.read_bytes()
    state = StateDB(str(path))
    put(state, "a")
    assert keys(state) == [] and not state.writable
    assert "version 99" in state.notices[0] and "version 1" in state.notices[0]
    assert path.read_bytes() == before


def test_a_full_disk_is_no_damage(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    state = StateDB(path)
    put(state, "a")
    assert state._connection is not None
    state._connection.execute("PRAGMA max_page_count = 20")
    state.write_many("INSERT INTO parsed VALUES (?, ?)", [(f"k{n}", os.urandom(4000)) for n in range(100)])
    put(state, "later")
    assert keys(state) == ["a"]
    assert len(state.notices) == 1 and "can't be written" in state.notices[0]
    assert not os.path.exists(f"{path}.bad-1")


def mount_read_only(folder: Path, code: str) -> str:
    """Run Python code with a folder mounted read-only, in a mount namespace of its own."""
    script = (
        f"mount --bind '{folder}' '{folder}' && mount -o remount,ro,bind '{folder}' && exec {sys.executable} -c \"$0\""
    )
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script, code], capture_output=True, text=True)
    if done.returncode != 0 and "unshare" in done.stderr:
        pytest.skip("no namespaces")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("live", [False, True])
def test_on_a_read_only_disk_it_is_read(tmp_path: Path, live: bool) -> None:
    pipe = tmp_path / "pipe"
    state = StateDB(str(pipe / "state.db"))
    put(state, "a")
    if not live:
        state.close()
    code = (
        "from pipesmith.store.state_db import StateDB; s = StateDB('%s'); "
        "s.write([('DELETE FROM parsed', ())]); print(s.query('SELECT key FROM parsed'), s.writable, s.notices)"
    ) % (pipe / "state.db")
    assert mount_read_only(pipe, code) == "[('a',)] False []"


def test_a_read_only_disk_without_one(tmp_path: Path) -> None:
    (tmp_path / "pipe").mkdir()
    code = (
        "from pipesmith.store.state_db import StateDB; s = StateDB('%s'); "
        "s.write([('DELETE FROM parsed', ())]); print(s.query('SELECT key FROM parsed'), s.writable, s.notices)"
    ) % (tmp_path / "pipe/sub/state.db")
    assert mount_read_only(tmp_path / "pipe", code) == "[] False []"


MENDER = """
import sys
from pipesmith.store.state_db import StateDB
s = StateDB(sys.argv[1])
s.write([("INSERT OR REPLACE INTO parsed VALUES (?, ?)", (sys.argv[2], b"v"))])
print(len(s.notices))
"""


def test_four_processes_that_meet_a_broken_one_mend_it_once(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    for _round in range(3):
        for name in os.listdir(tmp_path):
            os.unlink(tmp_path / name)
        path.write_bytes(os.urandom(50_000))
        running = [
            subprocess.Popen([sys.executable, "-c", MENDER, str(path), f"k{n}"], stdout=subprocess.PIPE, text=True)
            for n in range(4)
        ]
        said = sorted(process.communicate()[0].strip() for process in running)
        assert said == ["0", "0", "0", "1"]
        assert keys(StateDB(str(path))) == ["k0", "k1", "k2", "k3"]
        assert not os.path.exists(f"{path}.bad-2")


BUSY = """
import sys
from pipesmith.store.state_db import StateDB
s = StateDB(sys.argv[1])
for n in range(200):
    s.query("SELECT count(*) FROM parsed")
    s.write([("INSERT INTO parsed VALUES (?, ?)", (sys.argv[2] + str(n), b"v" * 100))])
"""


def test_four_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    running = [subprocess.Popen([sys.executable, "-c", BUSY, path, f"{n}-"]) for n in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    assert len(keys(StateDB(path))) == 800


def test_killed_in_the_middle_it_is_still_whole(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    code = BUSY.replace("range(200)", "range(10**9)")
    for turn in range(8):
        process = subprocess.Popen([sys.executable, "-c", code, path, f"{turn}-"])
        time.sleep(0.15 + turn * 0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        state = StateDB(path)
        assert state.notices == []
        assert state.query("PRAGMA quick_check") == [("ok",)]
        state.close()


def test_deleted_while_open_nothing_is_raised(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    state = StateDB(str(path))
    put(state, "a")
    for name in os.listdir(tmp_path):
        os.unlink(tmp_path / name)
    put(state, "b")
    keys(state)
    assert keys(StateDB(str(path))) == []
