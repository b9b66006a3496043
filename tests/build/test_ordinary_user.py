"""A sandbox as an ordinary user has it: what root may do by being root must not be what holds it together.

Where the tests are run by an ordinary user, all others show the same; here root becomes one.
"""

from __future__ import annotations

import os
import subprocess

import pytest
from tests.conftest import Repo
from tests.users import User, needs_root, run_as

pytestmark = needs_root

# An own user of this test process: whose processes are left is asked below.
DAN = User("dan", 1_000_000 + os.getpid(), (1_000_000 + os.getpid(),))

PIPELINE = """
    [stage.make]
    source = "src"
    inputs = { i = "data" }
    run = '''
    id -u > {outputs.who}
    ! cat secret.txt 2> /dev/null && ! cat "$PWD/secret.txt" 2> /dev/null && [ ! -e .git ] || exit 11
    ! echo more 2> /dev/null >> data/n.txt || exit 12
    ! rm -f data/n.txt 2> /dev/null || exit 13
    echo scribbled >> src/x && rm src/x || exit 14
    mkdir -p {outputs.d}/deep && cp data/n.txt {outputs.d}/deep/n && chmod -R a-w {outputs.d}
    sleep 1000 & sleep 1000 > /dev/null 2>&1 &
    '''
    outputs = { who = "out/who", d = "out/d" }
    [stage.use]
    inputs = { d = "stage:make.d" }
    run = "cat {inputs.d}/deep/n > {outputs.o}"
    outputs = { o = "out/o" }
"""


@pytest.fixture(params=["auto", "copies"])
def mine(request: pytest.FixtureRequest, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """A repository that belongs to an ordinary user, with each kind of sandbox."""
    repo.env["PIPE_SANDBOX"] = request.param
    repo.write("pipeline.toml", PIPELINE)
    repo.write("src/x", "1\n")
    repo.write("data/n.txt", "1\n").chmod(0o444)
    repo.write("secret.txt", "1\n")
    repo.commit()
    repo.git("config", "--global", "safe.directory", "*")
    subprocess.run(["chown", "-R", str(DAN.uid), repo.path], check=True)
    return repo


def test_what_a_stage_can_and_can_not(mine: Repo) -> None:
    """It is the user, sees what it declared, can't write its inputs, and leaves no process; read-only outputs are
    taken in, restored and replaced."""
    assert run_as(mine, DAN, "pipe", "build", "--json").stages() == {"make": "ran", "use": "ran"}
    assert mine.read("out/who") == f"{DAN.uid}\n" and mine.read("out/o") == "1\n"
    assert mine.read("src/x") == "1\n" and mine.read("data/n.txt") == "1\n"
    left = subprocess.run(["pgrep", "-u", str(DAN.uid)], capture_output=True, text=True)
    assert left.stdout == ""
    assert run_as(mine, DAN, "pipe", "build", "--json").json()["status"] == "up-to-date"
    run_as(mine, DAN, "sh", "-c", "rm -f data/n.txt; echo 2 > data/n.txt")
    assert run_as(mine, DAN, "pipe", "build", "--json").stages() == {"make": "ran", "use": "ran"}
    assert mine.read("out/d/deep/n") == mine.read("out/o") == "2\n"
    run_as(mine, DAN, "sh", "-c", "echo 1 > data/n.txt; chmod -R u+w out; rm -rf out")
    assert run_as(mine, DAN, "pipe", "build", "--json").stages() == {"make": "restored", "use": "restored"}
    assert mine.read("out/d/deep/n") == "1\n"
    for command in ("verify --full", "gc --keep-days 0", "status --check"):
        assert "denied" not in run_as(mine, DAN, "pipe", *command.split()).stderr


def test_a_stage_that_fails_leaves_what_even_its_owner_must_open_first(mine: Repo) -> None:
    """Folders without any permission in a failed sandbox are in nobody's way at the next try."""
    mine.write(
        "pipeline.toml",
        """
        [stage.a]
        source = "src"
        run = "mkdir -p {outputs.o}/shut/in; chmod 0 {outputs.o}/shut; test $(cat src/x) = 2 && chmod 755 {outputs.o}/shut"
        outputs = { o = "out/o" }
        """,
    )
    for _ in range(2):
        assert run_as(mine, DAN, "pipe", "build", "--json", check=False).stages() == {"a": "failed"}
    assert not mine.exists("out/o")
    run_as(mine, DAN, "sh", "-c", "echo 2 > src/x")
    assert run_as(mine, DAN, "pipe", "build", "--json").stages() == {"a": "ran"}
    assert not list((mine.pipe_dir / "tmp").glob("stage-*")) and not list((mine.pipe_dir / "tmp").glob("failed/*"))
