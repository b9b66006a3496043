"""Global flags, exit codes, streams, folders: what holds for every command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.cli.conftest import failed, on_terminal
from tests.conftest import Repo, Result

from pipesmith import __version__
from pipesmith.cli.commands import COMMANDS

JSON_CALLS = [
    ["build"],
    ["build", "--dry-run"],
    ["build", "-f", "report"],
    ["status"],
    ["status", "--rev", "HEAD"],
    ["why", "report"],
    ["why", "report", "latest"],
    ["accept", "report", "--reason", "x"],
    ["graph"],
    ["runs"],
    ["show"],
    ["logs"],
    ["logs", "-f"],
    ["diff", "latest"],
    ["metrics"],
    ["metrics", "HEAD"],
    ["checkout"],
    ["verify"],
    ["gc"],
    ["gc", "--auto"],
    ["data", "ls"],
    ["data", "status"],
    ["data", "update"],
    ["env", "ls"],
    ["env", "build"],
    ["env", "update"],
    ["doctor"],
    ["schema"],
    ["completion", "bash"],
    ["completion", "fish"],
    ["lock", "resolve"],
    ["init"],
    ["--version"],
]


@pytest.mark.parametrize("args", JSON_CALLS, ids=" ".join)
def test_json_is_one_document(project: Repo, args: list[str]) -> None:
    """With `--json`, before or after the command, stdout holds one JSON document and nothing else."""
    assert isinstance(project.pipe(*args, "--json").json(), dict)
    assert isinstance(project.pipe("--json", *args).json(), dict)


def test_json_has_no_numbers_that_json_lacks(repo: Repo) -> None:
    """A metric that is NaN, as losses are, is a text, so that every program can read the answer."""
    repo.write(
        "pipeline.toml",
        """
        [params]
        top = inf
        [stage.a]
        run = "echo '{{ \\"loss\\": NaN, \\"n\\": 1 }}' > {outputs.m}"
        params = ["top"]
        outputs = { m = "m.json" }
        metrics = ["m"]
        """,
    )

    def odd(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    for args in (["build"], ["metrics"], ["show"], ["diff", "latest"], ["status"]):
        said = json.loads(repo.pipe(*args, "--json").stdout, parse_constant=odd)
        if args == ["metrics"]:
            assert said["metrics"]["workspace"]["a"] == {"m:loss": "nan", "m:n": 1.0}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command(repo: Repo, name: str) -> None:
    """`--help` and `help NAME` say what a command takes, on stdout, whatever the folder."""
    for args in ([name, "--help"], [name, "-h"], ["help", name]):
        done = repo.pipe(*args)
        assert done.stdout.startswith(f"usage: pipe {name}") and done.stderr == ""
        assert done.stdout.isascii() or name in ("build",)


def test_help_lists_every_command(repo: Repo) -> None:
    done = repo.pipe("--help")
    assert [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")] == list(COMMANDS)
    assert repo.pipe("-h").stdout == repo.pipe("help").stdout == done.stdout


def test_version(repo: Repo) -> None:
    assert repo.pipe("--version").stdout == f"pipe {__version__}\n"
    assert repo.pipe("--json", "--version").json() == {"version": __version__}


def test_flags_before_and_after(project: Repo) -> None:
    """Global flags may stand before and after the command."""
    sub = project.path.parent
    for args in (
        ["-C", str(project.path), "status", "--json"],
        ["--json", "status", "-C", str(project.path)],
        ["status", f"-C{project.path}", "--json"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "pipesmith", *args], cwd=sub, env=project.env, capture_output=True, text=True
        )
        assert json.loads(done.stdout)["stages"][0]["name"] == "prepare", done.stderr


def test_flags_between_words(project: Repo) -> None:
    """As git and make take them."""
    assert project.pipe("logs", "latest", "-f", "prepare").stdout == "preparing\n"
    done = project.pipe("build", "train@1", "-k", "prepare", "-j", "1", "report", "--json")
    assert set(done.stages()) == {"prepare", "train@1", "train@two%20words", "report"}
    assert project.pipe("status", "prepare", "--check", "--", "report").stdout.count("fresh") == 2
    waited = project.pipe("compute", "wait", "--timeout", "5s", "local", "--json").json()
    assert [each["name"] for each in waited["computes"]] == ["local"]
    assert "post-merge: installed" in project.pipe("hooks", "install", "--all", "pre-push").stdout
    assert project.pipe("shell", "prepare", "echo", "-n", "--flag").stdout == "--flag"


def test_c_adds_up(project: Repo) -> None:
    """Several `-C` follow one another, as git's do."""
    project.write("a/b/keep", "")
    assert project.pipe("-C", "a", "-C", "b", "status").returncode == 0
    assert project.pipe("-C", "a", "-Cb", "status").returncode == 0


def test_quiet_says_nothing_but_errors(project: Repo) -> None:
    """-q leaves the exit code, errors and warnings."""
    project.write("src/numbers.txt", "7\n")
    assert project.pipe("status", "-q", "--check", check=False) == Result(
        (sys.executable, "-m", "pipesmith", "status", "-q", "--check"), 1, "", ""
    )
    done = project.pipe("-q", "build")
    assert (done.stdout, done.stderr) == ("", "")
    assert project.ran() == ["prepare", "report", "train", "train"]
    assert "no stage `x`" in failed(project.pipe("-q", "build", "x", check=False))


def test_quiet_still_answers_programs(project: Repo) -> None:
    assert project.pipe("-q", "status", "--json").stages(key="state")["prepare"] == "fresh"


def test_verbose_shows_fresh_stages_and_the_sandbox(project: Repo) -> None:
    """-v also shows fresh stages, and which sandbox there is and why."""
    done = project.pipe("build", "-v")
    assert done.stdout.splitlines() == [
        "fresh     prepare",
        "fresh     train@1",
        "fresh     train@two%20words",
        "fresh     report",
        "up to date (4 stages)",
    ]
    assert done.stderr.startswith("sandbox: ")
    project.write("src/numbers.txt", "7\n")
    done = project.pipe("build", "-v", "prepare", env={"PIPE_SANDBOX": "copies"})
    assert done.stderr == "sandbox: copies, since PIPE_SANDBOX asks for them\n"
    (project.path / "list.txt").unlink()
    done = project.pipe("-v", "build")
    assert "fresh     prepare" in done.stdout and done.stdout.count("fresh     prepare") == 1
    assert "sandbox" not in project.pipe("build").stderr


def test_colour_only_on_a_terminal(project: Repo) -> None:
    """Colour on a terminal, none in a pipe, with NO_COLOR, with --no-color."""
    _code, text = on_terminal(project, "status")
    assert "\x1b[32m" in text
    assert "\x1b" not in on_terminal(project, "status", "--no-color")[1]
    assert "\x1b" not in on_terminal(project, "--no-color", "status")[1]
    assert "\x1b" not in on_terminal(project, "status", env={"NO_COLOR": "1"})[1]
    assert "\x1b" not in on_terminal(project, "status", "--json")[1]
    assert "\x1b" not in project.pipe("status", env={"NO_COLOR": ""}).stdout


def test_live_console(project: Repo) -> None:
    """On a terminal a build shows what runs, for how long, and how long it took last time; lines of stages stay
    above."""
    project.write(
        "pipeline.toml", project.read("pipeline.toml").replace("echo preparing;", "echo preparing; sleep 1.5;")
    )
    code, text = on_terminal(project, "build", "prepare")
    assert code == 0, text
    assert "0/1 stages" in text and "prepare: " in text and "last time" in text and "preparing" in text
    assert "succeeded" in text and "Traceback" not in text


def test_live_console_names_what_a_stage_waits_for(repo: Repo) -> None:
    stages = "".join(
        f'[stage.{name}]\nrun = "sleep 1; echo {name} > {{outputs.o}}"\noutputs = {{ o = "{name}.txt" }}\nmutex = ["db"]\n'
        for name in "ab"
    )
    repo.write("pipeline.toml", stages)
    code, text = on_terminal(repo, "build", "-j2")
    assert code == 0 and "waits for" in text and "db" in text, text


def test_interrupted_on_a_terminal(repo: Repo) -> None:
    """Ctrl-C typed at a live console: exit 130, the run is recorded as cancelled, no traceback."""
    import pty
    import select

    repo.write("pipeline.toml", f'[stage.a]\nrun = "{repo.note("a")}; sleep 60"\noutputs = {{ o = "o" }}\n')
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(repo.path)
        environment = {**repo.env, "TERM": "xterm"}
        environment.pop("NO_COLOR")
        os.execve(sys.executable, [sys.executable, "-m", "pipesmith", "build"], environment)
    text, typed, end = b"", False, time.monotonic() + 40
    while time.monotonic() < end:
        if not typed and (repo.home / "ran").exists():
            os.write(terminal, b"\x03")
            typed = True
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                text += os.read(terminal, 65536)
            except OSError:
                break
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert b"Traceback" not in text
    assert repo.pipe("runs", "--json").json()["runs"][0]["status"] == "cancelled"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(repo: Repo, number: int) -> None:
    repo.write("pipeline.toml", f'[stage.a]\nrun = "{repo.note("a")}; sleep 60"\noutputs = {{ o = "o" }}\n')
    going = repo.start("build", "--json")
    for _ in range(200):
        if (repo.home / "ran").exists():
            break
        time.sleep(0.1)
    going.send_signal(number)
    out, err = going.communicate(timeout=40)
    assert going.returncode == 130
    assert "Traceback" not in err
    assert json.loads(out)["status"] == "cancelled"
    assert repo.pipe("show", "--json").json()["status"] == "cancelled"


_INTERRUPTED_IN_IMPORT = """
import sys
from pipesmith.__main__ import main

module = sys.argv.pop(1)

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
sys.exit(main())
"""


@pytest.mark.parametrize("module", ["pipesmith.fingerprint", "pipesmith.cli", "pipesmith.cli.status_command"])
def test_interrupted_while_it_is_loaded(project: Repo, module: str) -> None:
    """130 and no traceback, however early it comes."""
    done = project.run(sys.executable, "-c", _INTERRUPTED_IN_IMPORT, module, "status", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")


def test_exit_codes(project: Repo) -> None:
    """0 done, 1 a stage failed or --check found something, 2 wrong use."""
    assert project.pipe("build").returncode == 0
    project.write(
        "pipeline.toml", project.read("pipeline.toml") + '[stage.bad]\nrun = "exit 5"\noutputs = { o = "bad.txt" }\n'
    )
    assert project.pipe("status").returncode == 0
    assert project.pipe("status", "--check", check=False).returncode == 1
    assert project.pipe("build", "bad", check=False).returncode == 1
    assert project.pipe("build", "worse", check=False).returncode == 2


@pytest.mark.parametrize(
    "args",
    [
        ["status"],
        ["status", "--json"],
        ["runs"],
        ["graph"],
        ["show"],
        ["logs"],
        ["--help"],
        ["schema"],
        ["build"],
        ["build", "-f"],
        ["build", "-f", "--json"],
        ["verify"],
        ["doctor"],
    ],
    ids=" ".join,
)
def test_broken_pipe(project: Repo, args: list[str]) -> None:
    """`pipe … | head -1`: no traceback, nothing on stderr about it."""
    for streams in ("", "2>&1 >/dev/null"):
        done = project.run(
            "sh", "-c", f'"$0" -m pipesmith "$@" {streams} | head -c 1 >/dev/null', sys.executable, *args
        )
        assert "Traceback" not in done.stderr and "Broken" not in done.stderr and "Exception" not in done.stderr, (
            done.stderr
        )
    assert project.pipe("verify", check=False).returncode in (0, 1)


@pytest.mark.parametrize(
    "args",
    [["status"], ["status", "--json"], ["build", "-f", "report"], ["graph"], ["logs"], ["build", "x", "--json"]],
    ids=" ".join,
)
@pytest.mark.parametrize("streams", [">/dev/full", ">&-", "2>&-", ">&- 2>&- <&-", ">/dev/full 2>/dev/full"])
def test_outputs_that_take_nothing(project: Repo, args: list[str], streams: str) -> None:
    """A full disk or a closed stream is no traceback."""
    done = project.run("sh", "-c", f'"$0" -m pipesmith "$@" {streams}', sys.executable, *args, check=False)
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    assert done.returncode in (0, 1, 2)


@pytest.mark.parametrize(
    "args", [["status"], ["status", "--json"], ["build"], ["--version"], ["build", "--help"]], ids=" ".join
)
@pytest.mark.parametrize("streams", [">/dev/full", "| true"])
def test_an_answer_at_once_that_nobody_takes(project: Repo, args: list[str], streams: str) -> None:
    """What is answered before anything is loaded is told as any other: exit 1, and no traceback."""
    project.pipe("build")
    for unbuffered in ("", "1"):
        command = f'(sleep 0.2; "$0" -m pipesmith "$@"; echo "exit $?" >&2) {streams}'
        done = project.run("sh", "-c", command, sys.executable, *args, env={"PYTHONUNBUFFERED": unbuffered})
        assert "Traceback" not in done.stderr and "Exception" not in done.stderr, done.stderr
        lines = done.stderr.splitlines()
        if args != ["build", "--help"] or not unbuffered:  # argparse itself passes over what can't be printed
            assert lines[-1] == "exit 1" and ("no space left" in lines[0]) == (streams == ">/dev/full"), lines


ENCODINGS = [
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},  # as a locale that is not UTF-8
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1"},
]


@pytest.mark.parametrize("env", ENCODINGS, ids=["locale", "ascii", "latin-1"])
def test_where_not_all_can_be_printed(repo: Repo, env: dict[str, str]) -> None:
    """Names are UTF-8 in pipeline.toml and pipe.lock and bytes on the disk, whatever the locale: the same content has
    the same fingerprint, and no character is a traceback."""
    repo.write("quellä/✓.txt", "code\n")
    repo.write("däta.csv", "1\n")
    repo.write(
        "pipeline.toml",
        """
        [stage.a]
        source = "quellä"
        run = "echo 'said ✓'; cat {inputs.i} quellä/* > {outputs.o}"
        inputs = { i = "däta.csv" }
        outputs = { o = "öut/✓" }
        """,
    )
    assert repo.pipe("build", "--json").stages() == {"a": "ran"}
    lock = repo.read("pipe.lock")
    assert repo.pipe("build", env=env).stdout == "up to date (1 stage)\n"
    repo.pipe("build", "-f", env=env)
    assert repo.read("pipe.lock") == lock and repo.read("öut/✓") == "1\ncode\n"
    for args in (
        ["--help"],
        ["build", "--help"],
        ["logs"],
        ["show"],
        ["why", "a"],
        ["graph"],
        ["lock", "show"],
        ["runs"],
    ):
        done = repo.pipe(*args, env=env)
        assert "Traceback" not in done.stderr
    repo.pipe("cat", "--json", repo.pipe("status", "--json").json()["stages"][0]["outputs"][0]["hash"], env=env)
    (repo.path / "öut/✓").unlink()
    assert repo.pipe("checkout", "--json", env=env).json()["placed"] == ["öut/✓"]
    assert repo.pipe("build", "dä", env=env, check=False).returncode == 2


def test_in_a_subfolder(project: Repo) -> None:
    """The nearest pipeline.toml from the current folder up to the top is used."""
    project.write("deep/er/keep", "")
    done = subprocess.run(
        [sys.executable, "-m", "pipesmith", "status", "--json"],
        cwd=project.path / "deep/er",
        env=project.env,
        capture_output=True,
        text=True,
    )
    assert {stage["state"] for stage in json.loads(done.stdout)["stages"]} == {"fresh"}


def test_a_workspace_in_a_subfolder(repo: Repo) -> None:
    """A monorepo: paths are relative to the pipeline's own folder, git's ids to the repository."""
    for team in ("one", "two words"):
        repo.write(f"{team}/src/a.txt", team)
        repo.write(
            f"{team}/pipeline.toml",
            '[stage.s]\nsource = "src"\nrun = "cat src/a.txt > {outputs.o}"\noutputs = { o = "out/o.txt" }\n',
        )
        assert repo.pipe("-C", team, "build", "--json").stages() == {"s": "ran"}
        assert repo.read(f"{team}/out/o.txt") == team
    assert "no pipeline.toml" in failed(repo.pipe("status", check=False))
    repo.commit()
    for team in ("one", "two words"):
        for args in (
            ["status", "--check"],
            ["status", "--rev", "HEAD", "--check"],
            ["verify"],
            ["metrics", "HEAD"],
            ["diff", "HEAD"],
        ):
            repo.pipe("-C", team, *args)
    assert repo.git("status", "--porcelain").stdout == ""


def test_before_the_first_commit(repo: Repo) -> None:
    """Everything works in a repository without a commit."""
    repo.write("pipeline.toml", '[stage.a]\nrun = "echo 1 > {outputs.o}"\noutputs = { o = "o.txt" }\n')
    for args in (
        ["status"],
        ["build"],
        ["build"],
        ["status", "--check"],
        ["why", "a"],
        ["runs"],
        ["show"],
        ["logs"],
        ["metrics"],
        ["checkout"],
        ["verify"],
        ["gc"],
        ["graph"],
        ["doctor"],
    ):
        done = repo.pipe(*args)
        assert "Traceback" not in done.stderr
    for args in (["status", "--rev", "HEAD"], ["metrics", "HEAD"], ["diff", "HEAD"]):
        failed(repo.pipe(*args, check=False))
    assert "None" not in repo.pipe("show").stdout + repo.pipe("runs").stdout


def test_in_a_linked_worktree(project: Repo) -> None:
    """Cache and history are shared by all worktrees; outputs are linked there without running."""
    other = project.worktree()
    assert set(other.pipe("status", "--json").stages(key="state").values()) == {"restorable"}
    done = other.pipe("build", "--json")
    assert set(done.stages().values()) == {"restored"}
    assert project.ran() == []
    assert len(other.pipe("runs", "--json").json()["runs"]) == 2 == len(project.pipe("runs", "--json").json()["runs"])
    for args in (["show"], ["logs"], ["verify"], ["gc"], ["why", "report"], ["checkout"], ["doctor"], ["metrics"]):
        other.pipe(*args)
    assert other.git("status", "--porcelain").stdout == project.git("status", "--porcelain").stdout == ""


ODD = [
    "with space",
    "ümläut",
    "quote'\"s",
    "$HOME",
    "new\nline",
    "-dash",
    "*star?[x]",
    "back\\slash",
    "#hash",
    "percent%20",
    "emoji🙂",
    "tab\there",
]


@pytest.mark.parametrize("name", ODD)
def test_odd_file_names(repo: Repo, name: str) -> None:
    """Sources, inputs and outputs may have any name that a file can have."""
    path = json.dumps(name)
    inner = f"in/{name}"
    repo.write(f"src/{name}/{name}", "code\n")
    repo.write(inner, "data\n")
    repo.write(
        "pipeline.toml",
        f"""
        [stage.a]
        source = "src"
        run = "cat {{inputs.i}} > {{outputs.o}}; mkdir {{outputs.d}}; cp -r src/. {{outputs.d}}/"
        inputs = {{ i = {json.dumps(inner, ensure_ascii=False)} }}
        outputs = {{ o = {json.dumps(f"out/{name}", ensure_ascii=False)}, d = {json.dumps(f"dir/{name}", ensure_ascii=False)} }}
        [stage.b]
        run = "cat {{inputs.o}} > {{outputs.p}}"
        inputs = {{ o = "stage:a.o" }}
        outputs = {{ p = "p.txt" }}
        """,
    )
    assert path
    done = repo.pipe("build", "--json", check=False)
    if name in ("new\nline", "tab\there"):
        assert "has a character that paths here can't have" in failed(
            done
        )  # control characters: refused before anything runs
        return
    assert done.returncode == 0, done.stderr
    assert done.stages() == {"a": "ran", "b": "ran"}
    assert repo.read(f"out/{name}") == "data\n" and repo.read(f"dir/{name}/{name}/{name}") == "code\n"
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"
    repo.commit()
    assert not [line for line in repo.git("ls-files", "-z").stdout.split("\0") if line.startswith(("out/", "dir/"))]
    assert set(repo.pipe("status", "--rev", "HEAD", "--json").stages(key="state").values()) == {"fresh"}
    for args in (
        ["verify", "--full"],
        ["show"],
        ["graph"],
        ["graph", "--format", "svg"],
        ["graph", "--format", "dot"],
        ["why", "a"],
    ):
        repo.pipe(*args)
    (repo.path / "out" / name).unlink()
    repo.pipe("checkout")
    assert repo.read(f"out/{name}") == "data\n"


def test_secrets_are_masked(repo: Repo) -> None:
    """A value of pass-env stands in no output, log, record or file of pipe's."""
    secret = "s3cr3t-v4lue"
    repo.write(
        "pipeline.toml",
        '[stage.a]\nrun = "echo it is $TOKEN; echo $TOKEN >&2; echo 1 > {outputs.o}"\noutputs = { o = "o.txt" }\npass-env = ["TOKEN"]\n',
    )
    env = {"TOKEN": secret}
    done = repo.pipe("build", "-m", f"with {secret}", env=env)
    assert secret not in done.stdout + done.stderr and "it is ***" in done.stdout
    for args in (
        ["logs"],
        ["logs", "--json"],
        ["logs", "-f"],
        ["show"],
        ["show", "--json"],
        ["runs"],
        ["runs", "--json"],
        ["build", "-f", "--json"],
    ):
        done = repo.pipe(*args, env=env)
        assert secret not in done.stdout + done.stderr, args
    for path in repo.pipe_dir.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path
    assert secret not in repo.git("log", "--all", "--format=%B", "-p").stdout
    assert secret not in repo.read("pipe.lock")


def test_a_bug_is_told_as_one(project: Repo, tmp_path: Path) -> None:
    """Only a bug of pipesmith shows a traceback, exits 70, and with --json is a document of kind internal."""
    code = "import pipesmith.workspace.workspace as w, sys; w.Workspace.open = lambda *a: 1 / 0; from pipesmith.cli import run; sys.exit(run(['--json', 'status']))"
    done = project.run(sys.executable, "-c", code, check=False)
    assert done.returncode == 70 and done.json()["error"]["kind"] == "internal" and "ZeroDivisionError" in done.stderr


def test_quiet_tells_of_a_stage_that_failed(repo: Repo) -> None:
    """`-q` leaves out how a build goes on, not what went wrong."""
    repo.write("pipeline.toml", '[stage.a]\nrun = "echo why >&2; exit 3"\noutputs = { o = "o" }\n')
    done = repo.pipe("build", "-q", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "a | why" in done.stderr and "`a` failed" in done.stderr


def test_words_that_are_missing_or_exclude_each_other(repo: Repo) -> None:
    """Wrong use is exit 2, and says which word."""
    repo.write("pipeline.toml", '[stage.a]\nrun = "echo 1 > {outputs.o}"\noutputs = { o = "o" }\n')
    assert "needs one of ls, status" in failed(repo.pipe("compute", check=False))
    assert "--downstream" in failed(repo.pipe("build", "a", "--upstream-only", "--downstream", check=False))
    assert "no such file" in failed(repo.pipe("lock", "show", "nowhere", check=False))
    assert "`--set` needs K=V" in failed(repo.pipe("build", "--set", check=False))
    assert "`--message` needs TEXT" in failed(repo.pipe("build", "-m", check=False))
    assert not repo.exists("o")


def test_a_committed_lockfile_that_cant_be_read(repo: Repo) -> None:
    """The help names a command that works at a revision."""
    repo.write("pipeline.toml", '[stage.a]\nrun = "echo 1 > {outputs.o}"\noutputs = { o = "o" }\n')
    repo.write("pipe.lock", "[[[")
    repo.git("add", "-A")
    repo.git("commit", "-qm", "broken")
    told = failed(repo.pipe("status", "--rev", "HEAD", check=False))
    assert "~1 -- pipe.lock`" in told


def test_words_of_several_lines_keep_to_their_line(repo: Repo) -> None:
    """A note or a reason with line ends does not break lists of lines."""
    repo.write("a.sh", "echo 1 > $1\n")
    repo.write("pipeline.toml", '[stage.a]\nsource = "a.sh"\nrun = "sh a.sh {outputs.o}"\noutputs = { o = "o" }\n')
    repo.pipe("build", "-m", "one\ntwo")
    assert [line.endswith("one two") for line in repo.pipe("runs").stdout.splitlines()] == [False, True]
    assert "  one\n  two\n" in repo.pipe("show").stdout
    repo.write("a.sh", "echo 1 > $1  # same\n")
    repo.pipe("accept", "a", "--reason", "only\na comment")
    assert repo.pipe("status").stdout == "fresh      a  (accepted: only a comment)\n"
