"""`build --detach`, `wait` and `cancel`: builds that go on by themselves."""

from __future__ import annotations

import json
import os
import sys
import time


def _write(repo, run: str) -> None:
    repo.write("pipeline.toml", f'[stage.a]\nrun = "{run}"\noutputs = {{ o = "o" }}\n')


def _detached(repo, *args: str) -> str:
    return repo.pipe("build", "--detach", "--json", *args).json()["run"]


def test_wait_exits_as_the_build_did(repo):
    """`build --detach --json` prints {"run": ID} at once; `wait` exits as the build did."""
    _write(repo, "while test -e $HOME/hold; do sleep 0.05; done; echo 1 > {outputs.o}")
    (repo.home / "hold").touch()
    run = _detached(repo)
    early = repo.pipe("wait", run, "--timeout", "1s", "--json", check=False)
    assert (early.returncode, early.json()) == (1, {"run": run, "status": "running"})
    (repo.home / "hold").unlink()
    assert repo.pipe("wait", run).returncode == 0
    assert repo.read("o") == "1\n"
    shown = repo.pipe("show", run, "--json").json()
    assert shown["status"] == "succeeded"
    assert shown["command"][1:] == ["build", "--detach", "--json"]
    assert repo.pipe("wait", "latest").returncode == 0


def test_a_failed_one_and_one_with_nothing_to_do(repo):
    _write(repo, "exit 3")
    assert repo.pipe("wait", _detached(repo), check=False).returncode == 1
    _write(repo, "echo 1 > {outputs.o}")
    assert repo.pipe("wait", _detached(repo)).returncode == 0
    again = repo.pipe("wait", _detached(repo), "--json")
    assert again.json()["status"] == "up-to-date"


def test_what_is_wrong_is_told_at_once(repo):
    repo.write("pipeline.toml", "[stage.a]\nrum = 1\n")
    assert repo.pipe("build", "--detach", check=False).returncode == 2
    _write(repo, "true")
    assert repo.pipe("build", "--detach", "nosuch", check=False).returncode == 2
    repo.commit()
    for wrong in (
        ["--rev", "nosuch"],
        ["--since", "nosuch"],
        ["--tag", "nosuch"],
        ["--rev", "HEAD", "--set", "nosuch"],
    ):
        assert repo.pipe("build", "--detach", *wrong, check=False).returncode == 2
    assert not (repo.pipe_dir / "detached").exists()
    assert repo.pipe("wait", "nosuch", check=False).returncode == 2
    assert repo.pipe("wait", "latest", "--timeout", "soon", check=False).returncode == 2
    inside = repo.pipe("build", "--detach", check=False, env={"PIPE_RUN": "r", "PIPE_STAGE": "s"})
    assert inside.returncode == 2


def test_cancel(repo):
    """A cancelled run's status is `cancelled`; its children end, and nothing is recorded."""
    _write(repo, "echo $$ > $HOME/pid; sleep 300; echo 1 > {outputs.o}")
    run = _detached(repo)
    until = time.monotonic() + 30
    while not (repo.home / "pid").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert repo.pipe("cancel", run, "--json").json() == {"run": run, "status": "cancelled"}
    assert repo.pipe("wait", run, check=False).returncode == 130
    assert repo.pipe("show", run, "--json").json()["status"] == "cancelled"
    assert not repo.exists("o")
    assert repo.pipe("cancel", run).stdout.split()[0] == "cancelled"


def test_a_killed_one_is_not_waited_for_for_ever(repo):
    _write(repo, "echo go > $HOME/go; sleep 300")
    run = _detached(repo)
    until = time.monotonic() + 30
    while not (repo.home / "go").exists() and time.monotonic() < until:
        time.sleep(0.05)
    record = repo.pipe("show", run, "--json").json()
    os.kill(record["pid"], 9)
    assert repo.pipe("wait", run, check=False).returncode == 1


def test_it_outlives_who_started_it(repo):
    """Another build's wait is for it alone, and what it prints is kept."""
    _write(repo, "echo said; echo 1 > {outputs.o}")
    run = _detached(repo)
    repo.pipe("wait", run)
    assert repo.pipe("logs", run, "a").stdout == "said\n"
    assert "ran" in (repo.pipe_dir / "detached" / f"{run}.log").read_text()


def test_a_run_is_known_as_soon_as_it_has_an_id(repo):
    """`--detach` returns the run's id at once; `show` and `logs -f` of it work from then on."""
    _write(repo, "echo said; echo 1 > {outputs.o}")
    run = _detached(repo)
    assert repo.pipe("logs", run, "-f").stdout == "==> a <==\nsaid\n"
    assert repo.pipe("show", run, "--json").json()["id"] == run
    again = _detached(repo)
    shown = repo.pipe("show", again, check=False)
    assert shown.returncode == 2 and "up-to-date" in shown.stderr


def test_cancelled_before_it_began(repo):
    """A cancelled run's status is `cancelled`, however early that was."""
    _write(repo, "sleep 300; echo 1 > {outputs.o}")
    run = _detached(repo)
    assert repo.pipe("cancel", run, "--json").json() == {"run": run, "status": "cancelled"}
    waited = repo.pipe("wait", run, "--json", check=False)
    assert (waited.returncode, waited.json()["status"]) == (130, "cancelled")


def test_cancelled_while_it_does_not_listen(repo):
    """What does not hear of an interrupt yet is asked again: here one that a script started with interrupts ignored."""
    _write(repo, "sleep 300; echo 1 > {outputs.o}")
    deaf = 'trap "" INT; exec "$0" -m pipesmith build --detach --json'
    run = json.loads(repo.run("sh", "-c", deaf, sys.executable).stdout)["run"]
    assert repo.pipe("cancel", run, "--json").json() == {"run": run, "status": "cancelled"}
    assert not repo.exists("o")


def test_the_id_is_the_answer(repo):
    _write(repo, "echo 1 > {outputs.o}")
    run = repo.pipe("build", "-q", "--detach").stdout.strip()
    assert repo.pipe("wait", run, "--json").json() == {"run": run, "status": "succeeded"}
    assert repo.pipe("build", "--detach", "--dry-run", check=False).returncode == 2


def test_from_another_folder(repo):
    """`-C DIR`, relative to where the command was typed, holds for what goes on by itself."""
    repo.write("sub/pipeline.toml", '[stage.a]\nrun = "echo 1 > {outputs.o}"\noutputs = { o = "o" }\n')
    run = repo.pipe("-C", "sub", "build", "--json", "--detach").json()["run"]
    assert repo.pipe("wait", run, "-C", "sub", "--json").json() == {"run": run, "status": "succeeded"}
    assert repo.read("sub/o") == "1\n"


def test_in_a_bare_repository(repo):
    """Commits are built there as well, so it has a history to ask."""
    _write(repo, "echo said; echo 1 > {outputs.o}")
    repo.commit()
    repo.git("clone", "-q", "--bare", ".", "../bare.git")
    run = repo.pipe("-C", "../bare.git", "build", "--rev", "main", "--detach", "--json").json()["run"]
    assert repo.pipe("-C", "../bare.git", "wait", run, "--json").json()["status"] == "succeeded"
    assert repo.pipe("-C", "../bare.git", "logs", run).stdout == "said\n"
    assert run in repo.pipe("-C", "../bare.git", "runs").stdout
    assert repo.pipe("-C", "../bare.git", "show", "--json").json()["id"] == run
    assert repo.pipe("-C", "../bare.git", "cancel", run).returncode == 0
