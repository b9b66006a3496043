"""A Docker daemon that dies in the middle, or whose disk is full: what happened is told, nothing is lost, and nothing
half is recorded."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from tests.conformance.executors.test_far_side import clone_of, containers, wait_for_line
from tests.services import docker_services

SLOW_STAGE = """
    [stage.a]
    run = "i=0; while [ $i -lt {count} ]; do echo line $i; i=$((i+1)); sleep 0.05; done; echo err >&2; echo 1 > {{outputs.o}}"
    outputs = {{ o = "o" }}
"""


def failure(repo, result_out: str) -> str:
    """Return what a build in JSON says of the one stage that failed."""
    import json

    (stage,) = json.loads(result_out)["stages"]
    assert stage["status"] == "failed"
    return str(stage["error"])


def test_a_daemon_that_is_killed_and_comes_back(repo, mortal_place, pipeline):
    """Its containers go on: the stage is followed again, and what it said is in the log once, and whole."""
    docker_services.end(mortal_place.daemon)
    docker_services.revive(mortal_place.daemon, "--live-restore")
    pipeline(mortal_place, SLOW_STAGE.format(count=150))
    process = repo.start("build", "-v")
    wait_for_line(process, "line 5")
    docker_services.kill(mortal_place.daemon)
    docker_services.revive(mortal_place.daemon, "--live-restore")
    _out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    said = repo.pipe("logs", "latest", "a").stdout.splitlines()
    assert sorted(said) == sorted([*(f"line {number}" for number in range(150)), "err"])
    assert repo.read("o") == "1\n" and containers(mortal_place, repo, "-a") == []


@pytest.mark.parametrize("how", ["killed", "ended"])
def test_a_daemon_that_takes_its_containers_with_it(repo, mortal_place, pipeline, how):
    """The stage has failed, by no fault of its own; the next build runs it anew."""
    pipeline(
        mortal_place,
        """
        [stage.a]
        run = "trap 'exit 0' TERM; echo half > {outputs.o}; echo begun; n=0; while [ $n -lt 600 ]; do sleep 0.1; n=$((n+1)); done; echo 1 > {outputs.o}"
        outputs = { o = "o" }
        """,
    )
    process = repo.start("build", "--json")
    follow_log(repo, "begun")
    {"killed": docker_services.kill, "ended": docker_services.end}[how](mortal_place.daemon)
    docker_services.revive(mortal_place.daemon)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    said = failure(repo, out)
    assert "went away while it ran, and ended it" in said or "was ended from outside" in said
    assert not repo.exists("o") and not list((repo.pipe_dir / "cache" / "actions").rglob("*.json"))
    assert containers(mortal_place, repo, "-a") == []
    pipeline(mortal_place, '[stage.a]\nrun = "echo 2 > {outputs.o}"\noutputs = { o = "o" }\n')
    repo.pipe("build")
    assert repo.read("o") == "2\n"


def follow_log(repo, word: str) -> None:
    """Wait until a stage of the one run has said something."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        if any(word in path.read_text(errors="replace") for path in (repo.pipe_dir / "logs").glob("*/a.log")):
            return
        time.sleep(0.02)
    pytest.fail(f"`{word}` was never said")


def test_a_daemon_that_dies_while_inputs_are_sent(repo, mortal_place, pipeline):
    """Nothing half is trusted by the next build."""
    repo.write("data/x.bin", os.urandom(60_000_000))
    pipeline(
        mortal_place,
        '[stage.a]\nrun = "md5sum < data/x.bin > {outputs.o}"\ninputs = { d = "data" }\noutputs = { o = "o" }\n',
    )
    process = repo.start("build", "--json")
    until = time.monotonic() + 60
    while not mortal_place.docker("ps", "-aq", "--filter", "name=pipesmith-for-") and time.monotonic() < until:
        time.sleep(0.01)
    docker_services.kill(mortal_place.daemon)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert "the Docker daemon of `where`" in failure(repo, out)
    docker_services.revive(mortal_place.daemon)
    repo.pipe("build")
    assert (
        repo.read("o")
        == subprocess.run("md5sum < data/x.bin", shell=True, cwd=repo.path, capture_output=True, text=True).stdout
    )
    assert mortal_place.docker("ps", "-aq") == ""


@pytest.mark.parametrize("mortal_place", ["elsewhere"], indirect=True)  # else there is nothing to come back
def test_a_daemon_that_dies_while_results_come_back(repo, mortal_place, pipeline):
    """They are there as long as the container is: they come when the daemon is back, and nothing runs twice."""
    pipeline(
        mortal_place,
        """
        [stage.a]
        run = "echo begun; head -c 80000000 /dev/zero > {outputs.o}; echo ended"
        outputs = { o = "o" }
        """,
    )
    process = repo.start("build", "-v")
    until = time.monotonic() + 120
    while not list((repo.pipe_dir / "tmp").glob("stage-*/sandbox/o")) and time.monotonic() < until:
        if process.poll() is not None:
            break
        time.sleep(0.001)
    docker_services.kill(mortal_place.daemon)
    docker_services.revive(mortal_place.daemon)
    _out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert (repo.path / "o").stat().st_size == 80_000_000
    assert repo.pipe("logs", "latest", "a").stdout.split() == ["begun", "ended"]
    assert containers(mortal_place, repo, "-a") == []


@pytest.mark.slow
def test_a_daemon_that_stays_away(repo, mortal_place, pipeline):
    """The build says so and ends; the next one, with the daemon back, takes the container up."""
    docker_services.end(mortal_place.daemon)
    docker_services.revive(mortal_place.daemon, "--live-restore")
    pipeline(mortal_place, SLOW_STAGE.format(count=600))
    process = repo.start("build", "--json")
    follow_log(repo, "line 5")
    docker_services.kill(mortal_place.daemon)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert "went away while it ran; the next build takes its container up" in failure(repo, out)
    assert not repo.exists("o")
    gone = repo.pipe("build", check=False)
    assert gone.returncode == 1 and "can't be reached" in gone.stderr
    docker_services.revive(mortal_place.daemon, "--live-restore")
    again = repo.pipe("build")
    assert "goes on in a container of an earlier build" in again.stdout + again.stderr
    said = repo.pipe("logs", "latest", "a").stdout.splitlines()
    assert sorted(said) == sorted([*(f"line {number}" for number in range(600)), "err"])


@pytest.mark.slow
def test_ctrl_c_when_a_daemon_says_nothing(repo, mortal_place, pipeline):
    """Nobody waits for it for ever."""
    pipeline(mortal_place, '[stage.a]\nrun = "echo begun; sleep 300"\noutputs = { o = "o" }\n')
    process = repo.start("build")
    wait_for_line(process, "begun")
    daemon = int((mortal_place.daemon / "dockerd.pid").read_text())
    os.kill(daemon, signal.SIGSTOP)
    try:
        os.kill(process.pid, signal.SIGINT)
        _out, err = process.communicate(timeout=100)
        assert process.returncode == 130
        assert "says nothing: `a` may go on there" in err
    finally:
        os.kill(daemon, signal.SIGCONT)
    # Its container goes on, unless the daemon wakes to the request to end it, which had reached it.
    repo.pipe("compute", "down", "where")
    assert containers(mortal_place, repo, "-a") == []


@pytest.mark.parametrize("mortal_place", ["elsewhere"], indirect=True)
def test_a_full_disk(repo, mortal_place, pipeline):
    """It is named, whether inputs fill it or the stage itself; what was half there makes room again."""
    size = docker_services.SPARE_BYTES + (40 << 20)
    (repo.path / "data").mkdir()
    (repo.path / "data" / "x.bin").write_bytes(bytes(size))
    stages = """
        [stage.a]
        run = "wc -c < data/x.bin > {outputs.o}"
        inputs = { d = "data" }
        outputs = { o = "o" }
        [stage.b]
        run = ["python", "-c", "with open('p', 'wb') as file: file.write(bytes(SIZE))"]
        outputs = { p = "p" }
    """.replace("SIZE", str(size))
    pipeline(mortal_place, stages)
    sent = repo.pipe("build", "a", "--json", check=False)
    assert sent.returncode == 1
    assert "the disk of `where`" in failure(repo, sent.stdout) and "is full" in failure(repo, sent.stdout)
    made = repo.pipe("build", "b", "--json", check=False)
    assert made.returncode == 1
    assert "no space was left where it wrote" in failure(repo, made.stdout)
    assert not repo.exists("o") and not repo.exists("p")
    repo.write("data/x.bin", "small\n")
    pipeline(mortal_place, stages.replace(str(size), "100"))
    repo.pipe("build")
    assert repo.read("o").strip() == "6" and (repo.path / "p").stat().st_size == 100
    assert clone_of(repo) not in mortal_place.docker("ps", "-a", "--no-trunc")
