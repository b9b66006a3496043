"""SIGINT and SIGTERM in the middle of a run: exit 130, recorded as cancelled, nothing left running, nothing
half-made."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time

import pytest
from tests.conftest import Repo

from .conftest import Bed, eventually, nobody_left

_SLEEPER = """
    [stage.quick]
    run = "echo quick >> $HOME/ran; echo quick > {outputs.o}"
    outputs = { o = "out/quick" }
    [stage.long]
    inputs = { i = "stage:quick.o" }
    run = '''%s echo half > {outputs.o}; echo long >> $HOME/ran; sleep 1000 & sleep 1000'''
    outputs = { o = "out/long" }
    [stage.later]
    inputs = { i = "stage:long.o" }
    run = "echo later >> $HOME/ran; cp {inputs.i} {outputs.o}"
    outputs = { o = "out/later" }
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("sandbox", ["namespaces", "copies", "off"])
def test_interrupted(repo: Repo, number: signal.Signals, sandbox: str) -> None:
    text = _SLEEPER % "mkdir -p out;"
    if sandbox == "off":
        text = text.replace("[stage.long]", "[stage.long]\n    sandbox = false")
    repo.write("pipeline.toml", text)
    build = repo.start("build", "--json", env={"PIPE_SANDBOX": "auto" if sandbox != "copies" else "copies"})
    ran = repo.home / "ran"
    assert eventually(lambda: ran.exists() and "long" in ran.read_text())
    started = time.monotonic()
    os.kill(build.pid, number)
    out, err = build.communicate(timeout=60)
    assert build.returncode == 130, err
    assert time.monotonic() - started < 30
    told = json.loads(out)
    assert told["status"] == "cancelled"
    assert {stage["name"]: stage["status"] for stage in told["stages"]} == {
        "quick": "ran",
        "long": "cancelled",
        "later": "cancelled",
    }
    assert nobody_left(repo.home) == {}
    assert "Traceback" not in err
    runs = repo.pipe("runs", "--json").json()
    newest = (runs["runs"] if isinstance(runs, dict) else runs)[0]
    assert newest["status"] == "cancelled"
    assert repo.exists("out/quick") and not repo.exists("out/long")
    assert repo.pipe("status", "--json").stages(key="state") == {"quick": "fresh", "long": "stale", "later": "pending"}
    repo.ran()


def test_what_ignores_term_is_killed_after_the_grace_time(repo: Repo) -> None:
    repo.write("pipeline.toml", _SLEEPER % "trap '' TERM INT;")
    build = repo.start("build", "--json")
    ran = repo.home / "ran"
    assert eventually(lambda: ran.exists() and "long" in ran.read_text())
    os.kill(build.pid, signal.SIGTERM)
    build.communicate(timeout=90)
    assert build.returncode == 130
    assert nobody_left(repo.home) == {}


def test_ctrl_c_in_a_terminal_reaches_the_whole_group(repo: Repo) -> None:
    """A terminal sends SIGINT to every process of the foreground group, the supervisor's as well."""
    repo.write("pipeline.toml", _SLEEPER % "")
    build = repo.start("build", "--json")
    ran = repo.home / "ran"
    assert eventually(lambda: ran.exists() and "long" in ran.read_text())
    os.killpg(build.pid, signal.SIGINT)
    out, _err = build.communicate(timeout=60)
    assert build.returncode == 130
    assert json.loads(out)["status"] == "cancelled"
    assert nobody_left(repo.home) == {}


def test_interrupted_at_any_moment(bed: Bed) -> None:
    """Also before the first stage and after the last: 130 or done, never a traceback, and the next build does the
    rest."""
    started = time.monotonic()
    bed.repo.pipe("build")
    whole_s = time.monotonic() - started
    bed.repo.ran()
    for number in range(1, 9):
        bed.write(number)
        build = bed.repo.start("build", "-j2")
        time.sleep(whole_s * number / 8)
        build.send_signal(signal.SIGINT)
        out, err = build.communicate(timeout=60)
        assert build.returncode in (0, 130), err
        assert "Traceback" not in err + out
        assert nobody_left(bed.repo.home) == {}
        recorded, ran = bed.recorded(), set(bed.repo.ran())
        assert recorded <= ran
        bed.repo.pipe("build")
        assert not set(bed.repo.ran()) & recorded
        bed.check_outputs()


_SLOW_GIT = """#!/bin/sh
case " $* " in
*" $SLOW "*) [ -e "$HOME/slow" ] || { touch "$HOME/slow"; sleep 1; } ;;
esac
exec %s "$@"
"""


@pytest.mark.parametrize("verb", ["config", "ls-files", "add", "write-tree", "commit-tree", "update-ref"])
def test_ctrl_c_while_git_works(repo: Repo, verb: str) -> None:
    """The terminal sends it to git as well. No traceback, nothing half, and the run is recorded as it ended."""
    git = shutil.which("git", path=repo.env["PATH"])
    wrapper = repo.home / "bin/git"
    wrapper.parent.mkdir()
    wrapper.write_text(_SLOW_GIT % git)
    wrapper.chmod(0o755)
    repo.write("pipeline.toml", '[stage.a]\nrun = "echo 1 > {outputs.o}"\noutputs = { o = "o.txt" }\n')
    repo.write("untracked", "1\n")
    repo.commit()
    build = repo.start("build", env={"PATH": f"{wrapper.parent}:{repo.env['PATH']}", "SLOW": verb})
    assert eventually((repo.home / "slow").exists)
    os.killpg(build.pid, signal.SIGINT)
    out, err = build.communicate(timeout=60)
    assert build.returncode == 130, out + err
    assert "Traceback" not in err and "exit -2" not in err and "could not be recorded" not in err
    runs = repo.pipe("runs", "--json").json()["runs"]
    assert [entry["status"] for entry in runs] in ([], ["cancelled"])
    assert repo.pipe("build", "--json").stages() == {"a": "ran"}
    assert not list(repo.path.glob(".git/**/*.lock"))


_SLOW_END = """#!%s -IS
import os, sys, time
home = os.environ["HOME"]
if "update-ref" in sys.argv and os.path.exists(home + "/ran") and not os.path.exists(home + "/slow"):
    open(home + "/slow", "w").close()
    time.sleep(1)
os.execv("%s", ["git", *sys.argv[1:]])
"""


def test_ctrl_c_while_the_end_of_a_run_is_recorded(repo: Repo) -> None:
    """Its stages have ended well by then, and that is what history says."""
    git = shutil.which("git", path=repo.env["PATH"])
    wrapper = repo.home / "bin/git"
    wrapper.parent.mkdir()
    wrapper.write_text(_SLOW_END % (sys.executable, git))  # no shell script: dash hears what was blocked for it
    wrapper.chmod(0o755)
    repo.write(
        "pipeline.toml", '[stage.a]\nrun = "echo a >> $HOME/ran; echo 1 > {outputs.o}"\noutputs = { o = "o.txt" }\n'
    )
    repo.commit()
    build = repo.start("build", env={"PATH": f"{wrapper.parent}:{repo.env['PATH']}", "SLOW": "update-ref"})
    assert eventually((repo.home / "slow").exists)
    os.killpg(build.pid, signal.SIGINT)
    out, err = build.communicate(timeout=60)
    assert "could not be recorded" not in err and "Traceback" not in err
    (run,) = repo.pipe("runs", "--json").json()["runs"]
    assert run["status"] == "succeeded" and "succeeded: 1 ran" in out
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"
