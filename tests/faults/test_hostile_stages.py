"""Stages that misbehave: they flood, hide, linger, kill their own group or remove the ground they stand on."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.conftest import Repo

from .conftest import nobody_left

both = pytest.mark.parametrize("sandbox", ["auto", "copies"])


def logs(repo: Repo) -> list[Path]:
    return [path for path in (repo.pipe_dir / "logs").rglob("*") if path.is_file()]


def peak_mib(build: subprocess.Popen[str]) -> float:
    """Wait for a build, and return the most memory that `pipe` itself had."""
    peak = 0

    def drain() -> None:
        build.communicate(timeout=180)

    reader = threading.Thread(target=drain)
    reader.start()
    while reader.is_alive():
        try:
            status = Path(f"/proc/{build.pid}/status").read_text()
            peak = max([peak, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))])
        except OSError:
            pass
        time.sleep(0.02)
    return peak / 1024


@pytest.mark.parametrize("kind", ["lines", "one line", "both streams"])
def test_a_hundred_megabytes_of_output(repo: Repo, kind: str) -> None:
    million = 1_000_000
    text = {
        "lines": "yes 0123456789012345678901234567890123456789012345678 | head -c 100000000",
        "one line": "yes | tr -d '\\n' | head -c 100000000",
        "both streams": "yes ou | head -c 50000000; yes er | head -c 50000000 >&2",
    }[kind]
    repo.write(
        "pipeline.toml",
        f"""
        [stage.loud]
        run = '''{text}; echo done > {{outputs.o}}'''
        outputs = {{ o = "out/o" }}
        """,
    )
    build = repo.start("build")
    peak = peak_mib(build)
    assert build.returncode == 0
    assert peak < 150
    assert [path.stat().st_size for path in logs(repo)] == [100 * million]


def test_a_loud_stage_that_fails_shows_its_last_lines(repo: Repo) -> None:
    repo.write(
        "pipeline.toml",
        """
        [stage.loud]
        run = "yes | head -c 20000000; echo the end is here >&2; exit 4"
        outputs = { o = "out/o" }
        """,
    )
    result = repo.pipe("build", check=False)
    assert result.returncode == 1
    assert "the end is here" in result.stdout + result.stderr
    assert len(result.stdout + result.stderr) < 5_000_000


@both
def test_secrets_in_two_writes(repo: Repo, sandbox: str) -> None:
    repo.write(
        "pipeline.toml",
        """
        [stage.leak]
        pass-env = ["TOKEN", "PEM"]
        run = '''printf 's3cr'; sleep 0.2; printf '3t-word\\n'; echo "all $TOKEN at once" >&2; printf "%s" "$TOKEN"
        echo "$PEM" | while read l; do echo "[$l]"; done; printf 's3cr3'; echo "$TOKEN" > {outputs.o}'''
        outputs = { o = "out/o" }
        """,
    )
    result = repo.pipe(
        "build",
        "--json",
        "--tag",
        "note=s3cr3t-word",
        env={"TOKEN": "s3cr3t-word", "PEM": "first-line-of-key\nsecond-line-of-key", "PIPE_SANDBOX": sandbox},
    )
    said = result.stdout + result.stderr
    assert "s3cr3t-word" not in said
    texts = [path.read_text() for path in logs(repo)]
    assert len(texts) == 1
    for word in ("s3cr3t-word", "first-line-of-key", "second-line-of-key"):
        assert word not in texts[0]
    assert texts[0].count("***") == 5 and texts[0].endswith("s3cr3")
    assert repo.read("out/o") == "s3cr3t-word\n", "outputs are the stage's own business"
    shown = repo.pipe("show", result.json()["run"], "--json").stdout + repo.pipe("logs", result.json()["run"]).stdout
    assert "s3cr3t-word" not in shown
    record = repo.git("log", "-1", "--format=%B", f"refs/pipe/runs/{result.json()['run']}").stdout
    assert "s3cr3t-word" not in record


@both
def test_a_grandchild_in_the_background(repo: Repo, sandbox: str) -> None:
    """It holds the output pipe and would write to the output later on."""
    repo.write(
        "pipeline.toml",
        """
        [stage.fork]
        run = '''(setsid sh -c 'while :; do sleep 0.05; echo late >> {outputs.o}; done' &) ; echo now > {outputs.o}'''
        outputs = { o = "out/o" }
        """,
    )
    started = time.monotonic()
    repo.pipe("build", env={"PIPE_SANDBOX": sandbox})
    assert time.monotonic() - started < 60
    assert nobody_left(repo.home) == {}
    content = repo.read("out/o")
    assert content.splitlines()[0] == "now"
    time.sleep(0.3)
    assert repo.read("out/o") == content
    assert repo.pipe("status", "--json", "--check").stages(key="state") == {"fork": "fresh"}


@both
@pytest.mark.parametrize(
    "command",
    ["kill -9 0", "kill -TERM 0; sleep 1", "kill -9 $PPID; sleep 1", "kill -9 -1; sleep 1"],
    ids=["group", "group-term", "parent", "everybody"],
)
def test_a_stage_that_kills(repo: Repo, sandbox: str, command: str) -> None:
    """Its own group, its parent, and (in a namespace of its own only) all it can reach: at worst it fails itself.

    In a namespace the parent and all others are out of its reach, and the command goes on."""
    if "-1" in command and (sandbox == "copies" or not _namespaces(repo)):
        pytest.skip("it would reach the tests themselves")
    repo.write(
        "pipeline.toml",
        f"""
        [stage.bad]
        run = "{command}; echo went on > {{outputs.o}}"
        outputs = {{ o = "out/bad" }}
        [stage.good]
        run = "sleep 0.3; echo good > {{outputs.o}}"
        outputs = {{ o = "out/good" }}
        """,
    )
    started = time.monotonic()
    result = repo.pipe("build", "-k", "-j2", "--json", check=False, env={"PIPE_SANDBOX": sandbox})
    assert "Traceback" not in result.stderr
    assert time.monotonic() - started < 60
    statuses = result.stages()
    assert statuses["bad"] in (["failed"] if command.startswith(("kill -9 0", "kill -TERM 0")) else ["failed", "ran"])
    assert result.returncode == (1 if "failed" in statuses.values() else 0)
    if "PPID" not in command or sandbox == "auto":
        assert statuses["good"] == "ran"
    assert repo.exists("out/bad") == (statuses["bad"] == "ran")
    assert nobody_left(repo.home) == {}
    assert repo.pipe("build", "good", "--json").stages()["good"] in ("fresh", "ran")


def _namespaces(repo: Repo) -> bool:
    done = repo.pipe("doctor", "--json", check=False)
    return "namespaces" in done.stdout and os.geteuid() == 0


@both
@pytest.mark.parametrize("plain", [False, True])
def test_a_stage_that_removes_its_own_folder(repo: Repo, sandbox: str, plain: bool) -> None:
    repo.write("work/src/code", "code\n")
    repo.write(
        "pipeline.toml",
        f"""
        [stage.saw]
        source = "work/src"
        cwd = "work"
        sandbox = {str(not plain).lower()}
        run = '''rm -rf ../work ../out 2>/dev/null; exit 5'''
        outputs = {{ o = "out/o" }}
        [stage.good]
        run = "echo good > {{outputs.o}}"
        outputs = {{ o = "fine/o" }}
        """,
    )
    result = repo.pipe("build", "-k", "--json", check=False, env={"PIPE_SANDBOX": sandbox})
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stages() == {"saw": "failed", "good": "ran"}
    if not plain:
        assert repo.read("work/src/code") == "code\n"


@both
def test_odd_things_as_outputs(repo: Repo, sandbox: str) -> None:
    """A pipe, a socket, a link, nothing: told by name, and nothing of it enters the workspace."""
    repo.write(
        "pipeline.toml",
        """
        [stage.pipe]
        run = "mkfifo {outputs.o}"
        outputs = { o = "out/pipe" }
        [stage.link]
        run = "ln -s /etc/passwd {outputs.o}"
        outputs = { o = "out/link" }
        [stage.inner]
        run = "mkdir -p {outputs.o} && mkfifo {outputs.o}/f"
        outputs = { o = "out/inner" }
        [stage.nothing]
        run = "true"
        outputs = { o = "out/nothing" }
        [stage.closed]
        run = "mkdir -p {outputs.o}/a && echo 1 > {outputs.o}/a/b && chmod 0 {outputs.o}/a/b && chmod 0500 {outputs.o}/a"
        outputs = { o = "out/closed" }
        """,
    )
    result = repo.pipe("build", "-k", "--json", check=False, env={"PIPE_SANDBOX": sandbox})
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    statuses = result.stages()
    assert {name: statuses[name] for name in ("pipe", "link", "inner", "nothing")} == dict.fromkeys(
        ("pipe", "link", "inner", "nothing"), "failed"
    )
    for name in ("pipe", "link", "inner", "nothing"):
        assert not repo.exists(f"out/{name}")
        assert f"out/{name}" in result.stderr
    if statuses["closed"] == "ran":
        assert repo.pipe("build", "closed", "--json").json()["status"] == "up-to-date"


def test_stdin_is_empty_and_python_is_the_same(repo: Repo) -> None:
    repo.write(
        "pipeline.toml",
        f"""
        [stage.ask]
        run = ["{sys.executable}", "-c", "import sys; open(sys.argv[1], 'w').write(repr(sys.stdin.read()))", "{{outputs.o}}"]
        outputs = {{ o = "out/o" }}
        """,
    )
    repo.pipe("build")
    assert repo.read("out/o") == "''"
