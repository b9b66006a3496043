"""How jobs end, and that nothing of them is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import pipesmith
from pipesmith.executors.local import LocalExecutor

from .conftest import Box, running

Eventually = Callable[[Callable[[], bool]], bool]
both = pytest.mark.parametrize("sandboxed", [True, False], ids=["sandboxed", "plain"])


@pytest.fixture
def word(tmp_path: Path) -> str:
    """A number of seconds to sleep that tells this test's processes from all others."""
    return f"{10_000 + os.getpid() % 10_000}.{time.monotonic_ns() % 10**9:09d}"


@both
@pytest.mark.parametrize("code", [0, 1, 3, 127, 255])
def test_exit_codes(box: Box, sandboxed: bool, code: int) -> None:
    result = box.run(f"exit {code}", sandboxed=sandboxed)
    assert (result.exit_code, result.signal, result.problem, result.ok) == (code, None, None, code == 0)


@both
@pytest.mark.parametrize("name", ["TERM", "KILL", "SEGV", "USR1", "INT", "PIPE"])
def test_signals(box: Box, sandboxed: bool, name: str) -> None:
    result = box.run(f"kill -{name} $$", sandboxed=sandboxed)
    assert (result.exit_code, result.signal, result.ok) == (None, signal.Signals[f"SIG{name}"], False)
    assert not (result.timed_out or result.cancelled or result.out_of_memory)


def test_signals_are_as_a_shell_has_them(box: Box) -> None:
    """Python ignores SIGPIPE and others; a job must not inherit that, nor anything blocked."""
    box.run("grep -E 'Sig(Blk|Ign)' /proc/self/status")
    assert [int(line.split()[1], 16) & 0x7FFF_FFFF for line in box.text()] == [0, 0]


def test_no_descriptor_leaks_in(box: Box) -> None:
    other = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(other, True)
    try:
        box.run("ls /proc/self/fd")
    finally:
        os.close(other)
    assert box.text() == ["0", "1", "2", "3"]  # 3 is the folder that `ls` reads


def test_stdin_is_empty_and_the_session_its_own(box: Box) -> None:
    box.python("import os, sys; print(repr(sys.stdin.read()), os.getsid(0) == os.getpid(), os.isatty(0))")
    assert box.text() == ["'' True False"]


def test_environment_is_what_was_given(box: Box) -> None:
    box.run(["/usr/bin/env"], env={"A": "1", "ODD": os.fsdecode(b"\xff=x")})
    assert {line.split("=")[0] for line in box.text()} == {"PATH", "LANG", "TMPDIR", "A", "ODD"}


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["no-such-command-xyz"], "the command `no-such-command-xyz` is not on PATH"),
        (["./nothing"], "`./nothing` does not exist, or its interpreter does not"),
        (["/"], "`/` can't be executed: Permission denied"),
    ],
)
def test_command_that_can_not_be_executed(box: Box, argv: list[str], said: str) -> None:
    result = box.run(argv)
    assert (result.problem, result.ok) == (said, False)


@both
def test_background_child_neither_blocks_nor_lives_on(
    box: Box, sandboxed: bool, word: str, eventually: Eventually
) -> None:
    """A child that keeps the pipes open, one in a session of its own, and a daemon: all gone with the result."""
    started = time.monotonic()
    result = box.run(
        f"sleep {word} & setsid sleep {word} & (setsid sh -c 'sleep {word} & sleep {word}' &) ; sleep 0.1; echo done",
        sandboxed=sandboxed,
    )
    assert result.ok and box.text() == ["done"]
    assert time.monotonic() - started < 300
    assert running(word) == []


@both
def test_what_ignores_term_is_killed_after_its_end(box: Box, sandboxed: bool, word: str) -> None:
    result = box.run(f"(trap '' TERM HUP; sleep {word}) & sleep 0.1", sandboxed=sandboxed)
    assert result.ok
    assert running(word) == []


@both
def test_timeout(box: Box, sandboxed: bool, word: str) -> None:
    result = box.run(f"echo begun; sleep {word}; echo never", sandboxed=sandboxed, timeout_s=2.0)
    assert (result.timed_out, result.cancelled, result.signal, result.ok) == (True, False, signal.SIGTERM, False)
    assert box.text() == ["begun"]
    assert running(word) == []


@both
def test_timeout_kills_what_ignores_term(box: Box, sandboxed: bool, word: str) -> None:
    result = box.run(
        f"trap '' TERM; (trap '' TERM; sleep {word}) & sleep {word}", sandboxed=sandboxed, timeout_s=2.0, grace_s=0.3
    )
    assert (result.timed_out, result.signal, result.exit_code) == (True, signal.SIGKILL, None)
    assert running(word) == []


@both
def test_term_lets_a_command_clean_up(box: Box, sandboxed: bool) -> None:
    """A command that catches TERM and ends well was timed out all the same."""
    result = box.run(
        "trap 'echo cleaned; exit 0' TERM; while :; do sleep 0.02; done", sandboxed=sandboxed, timeout_s=2.0
    )
    assert (result.timed_out, result.exit_code, result.ok) == (True, 0, False)
    assert box.text() == ["cleaned"]


@both
def test_cancel(box: Box, sandboxed: bool, word: str, eventually: Eventually) -> None:
    attempt = box.executor.submit(box.job(f"sleep {word}", sandboxed=sandboxed), box.note)
    assert eventually(lambda: running(word) != [])
    for _ in range(3):
        attempt.cancel()
    result = attempt.wait()
    assert (result.cancelled, result.timed_out, result.ok) == (True, False, False)
    assert running(word) == []
    attempt.cancel()


def test_cancel_before_it_has_begun(box: Box, word: str) -> None:
    """At whatever moment: the job ends, and is told as cancelled."""
    for pause in (0, 0.001, 0.003, 0.006):
        attempt = box.executor.submit(box.job(f"sleep {word}"), box.note)
        time.sleep(pause)
        attempt.cancel()
        assert attempt.wait().cancelled
    assert running(word) == []


def test_cancel_after_the_end_changes_nothing(box: Box) -> None:
    attempt = box.executor.submit(box.job("true"), box.note)
    first = attempt.wait()
    attempt.cancel()
    assert attempt.wait() == first and first.ok


def test_jobs_run_side_by_side(box: Box, tmp_path: Path) -> None:
    """Each ends when all have begun."""
    met = tmp_path / "met"
    met.mkdir(mode=0o777)
    command = f"touch {met}/{{}}; until [ $(ls {met} | wc -l) = 8 ]; do sleep 0.05; done; exit {{}}"
    attempts = [box.executor.submit(box.job(command.format(code, code)), box.note) for code in range(8)]
    assert [attempt.wait().exit_code for attempt in attempts] == list(range(8))


def test_submit_from_many_threads(box: Box) -> None:
    codes: dict[int, int | None] = {}

    def work(code: int) -> None:
        codes[code] = box.executor.submit(box.job(f"echo {code}; exit {code}"), box.note).wait().exit_code

    jobs = [threading.Thread(target=work, args=(code,)) for code in range(20)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert codes == {code: code for code in range(20)}
    assert sorted(int(text) for text in box.text()) == list(range(20))


def test_usage(box: Box) -> None:
    """Seconds and bytes are those of the command and of what it waited for."""
    result = box.python(
        "import time; x = bytearray(80 << 20); end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    )
    assert result.ok
    assert 80 << 20 <= result.usage.peak_bytes < 200 << 20
    assert 0.3 <= result.usage.cpu_s < 2 and result.usage.wall_s >= 0.3
    small = box.run("true")
    assert 0 < small.usage.peak_bytes < 40 << 20


def test_close_ends_what_runs(box: Box, word: str, eventually: Eventually) -> None:
    attempt = box.executor.submit(box.job(f"trap '' TERM; setsid sleep {word} & sleep {word}"), box.note)
    assert eventually(lambda: len(running(word)) >= 3)
    box.executor.close()
    assert attempt.wait().cancelled
    assert running(word) == []
    box.executor.close()


def test_submit_after_close_is_an_error(box: Box) -> None:
    box.executor.close()
    with pytest.raises(pipesmith.errors.EnvironmentFailure, match="was closed"):
        box.executor.submit(box.job("true"), box.note)


def supervisor_pids() -> list[int]:
    """Return the supervisors of this process, and the first processes of their jobs."""
    from pipesmith.launcher.processes import descendants

    return [pid for pid in descendants(os.getpid()) if b"supervisor.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@both
def test_death_of_the_supervisor_is_told(box: Box, sandboxed: bool, word: str, eventually: Eventually) -> None:
    """Somebody kills it: the job ends with a problem, no process of it lives on, the next job gets a new one."""
    attempt = box.executor.submit(box.job(f"setsid sleep {word} & sleep {word}", sandboxed=sandboxed), box.note)
    assert eventually(lambda: len(running(word)) >= 2)
    os.kill(supervisor_pids()[0], signal.SIGKILL)
    result = attempt.wait()
    assert result.problem is not None and "supervisor" in result.problem and not result.ok
    assert eventually(lambda: running(word) == [])
    assert box.run("exit 4", sandboxed=sandboxed).exit_code == 4


PARENT = """
import os, sys, threading
sys.path[:0] = sys.argv[6:]
from pipesmith.executors.base import Job, Layout
from pipesmith.executors.local import LocalExecutor
mode, folder, word, sandboxed = sys.argv[1:5]
executor = LocalExecutor(os.path.join(folder, ".git", "pipe"), mode)
os.makedirs(os.path.join(folder, ".git/pipe/tmp/s"))
daemon = f"setsid sh -c 'trap \\"\\" TERM HUP; sleep {word} & sleep {word}'"
command = f"sleep {word} & setsid sleep {word} & ({daemon} &) ; sleep {word}"
job = Job(run="r", stage="s", argv=("/bin/sh", "-c", command), cwd=".", env=dict(os.environ),
          layout=Layout(workspace=folder), scratch=os.path.join(folder, ".git/pipe/tmp/s"), log_path=sys.argv[5],
          tmpdir="/tmp", sandboxed=sandboxed == "True")
attempt = executor.submit(job, lambda *line: None)
print("begun", flush=True)
attempt.wait()
"""


@both
def test_kill_9_of_pipe_leaves_nothing(
    box: Box, sandboxed: bool, word: str, tmp_path: Path, eventually: Eventually
) -> None:
    """pipe gone in an instant: children, those in sessions of their own and daemons go with it."""
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            PARENT,
            box.mode,
            str(box.workspace),
            word,
            str(sandboxed),
            str(tmp_path / "log"),
            *sys.path,
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert parent.stdout is not None and parent.stdout.readline() == b"begun\n"
        assert eventually(lambda: len(running(f"sleep\0{word}")) >= 5)
    finally:
        parent.kill()
        parent.wait()
    assert eventually(lambda: running(word) == [])


def test_works_with_closed_standard_streams(box: Box, tmp_path: Path) -> None:
    """pipe started by something that closed its stdin, stdout and stderr."""
    code = f"""
import os, sys
for fd in (0, 1, 2):
    os.close(fd)
sys.path[:0] = {sys.path!r}
from pipesmith.executors.base import Job, Layout
from pipesmith.executors.local import LocalExecutor
executor = LocalExecutor({str(box.pipe_dir)!r}, {box.mode!r})
os.makedirs({str(box.pipe_dir / "tmp/s")!r})
job = Job(run="r", stage="s", argv=("/bin/sh", "-c", "echo out; echo err >&2; cat"), cwd=".", env=dict(os.environ),
          layout=Layout(workspace={str(box.workspace)!r}), scratch={str(box.pipe_dir / "tmp/s")!r},
          log_path={str(tmp_path / "log")!r}, tmpdir="/tmp")
result = executor.submit(job, lambda *line: None).wait()
executor.close()
os._exit(0 if result.ok else 1)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert sorted((tmp_path / "log").read_text().splitlines()) == ["err", "out"]


def test_interactive(box: Box, tmp_path: Path) -> None:
    """`pipe shell`: the same sandbox with the terminal's own streams; the exit code is the shell's."""
    box.write("src/a", "x\n")
    code = f"""
import sys
sys.path[:0] = {sys.path!r}
from pipesmith.executors.base import Job, Layout, Mount
from pipesmith.executors.local import LocalExecutor
import os
os.makedirs({str(box.pipe_dir / "tmp/s")!r})
mount = Mount(origin={str(box.workspace / "src/a")!r}, path="src/a")
layout = Layout(workspace={str(box.workspace)!r}, mounts=(mount,))
job = Job(run="r", stage="s", argv=("/bin/sh",), cwd=".", env=dict(os.environ), layout=layout,
          scratch={str(box.pipe_dir / "tmp/s")!r}, log_path="", tmpdir="/tmp")
executor = LocalExecutor({str(box.pipe_dir)!r}, {box.mode!r})
code = executor.run_interactive(job)
executor.close()
sys.exit(code)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], input="find . -type f; exit 7\n", capture_output=True, text=True
    )
    assert (done.stdout, done.returncode) == ("./src/a\n", 7), done.stderr


def test_interactive_on_a_terminal(private_box: Box) -> None:
    """A shell on a terminal has job control, and the terminal is pipe's again afterwards."""
    import pty

    box = private_box
    (box.pipe_dir / "tmp/s").mkdir(parents=True)
    child, terminal = pty.fork()
    if child == 0:
        from pipesmith.executors.base import Job, Layout

        try:
            argv = ("/bin/sh", "-i")
            executor = LocalExecutor(str(box.pipe_dir), box.mode)
            scratch = str(box.pipe_dir / "tmp/s")
            layout = Layout(workspace=str(box.workspace))
            env = {"PATH": os.environ["PATH"], "PS1": "$ "}
            job = Job(
                run="r",
                stage="s",
                argv=argv,
                cwd=".",
                env=env,
                layout=layout,
                scratch=scratch,
                log_path="",
                tmpdir="/tmp",
            )
            code = executor.run_interactive(job)
            os.write(1, b"back:%d:%d" % (code, os.tcgetpgrp(0) == os.getpgrp()))
        finally:
            os._exit(0)
    os.write(terminal, b"sleep 0.1 & wait; echo 4''2; exit 5\n")
    said = b""
    try:
        while b"back:" not in said or not said.endswith((b":0", b":1")):
            chunk = os.read(terminal, 1000)
            said += chunk
    except OSError:
        pass
    os.waitpid(child, 0)
    os.close(terminal)
    assert b"42" in said and said.endswith(b"back:5:1"), said
    assert b"job control" not in said and b"can't access tty" not in said


def test_starting_costs_little() -> None:
    """The supervisor imports few modules: its start must not show in a build's."""
    folder = Path(pipesmith.__file__).parent
    code = "import sys; sys.path.append(sys.argv[1]); import launcher.serve; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    imported = set(done.stdout.split())
    assert not imported & {
        "re",
        "enum",
        "signal",
        "socket",
        "subprocess",
        "threading",
        "typing",
        "json",
        "pathlib",
        "pipesmith",
    }
