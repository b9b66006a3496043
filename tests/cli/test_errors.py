"""Wrong use, wherever and of whatever: exit 2, a message with a help line, JSON with `--json`, never a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.conftest import failed, refused
from tests.conftest import Repo, new_repo, sealed_environment

from pipesmith.cli.commands import COMMANDS, LATER

CALLS: dict[str, list[str]] = {
    "build": ["build"],
    "watch": ["watch"],
    "status": ["status"],
    "why": ["why", "a"],
    "accept": ["accept", "a", "--reason", "x"],
    "what-if": ["what-if"],
    "graph": ["graph"],
    "runs": ["runs"],
    "show": ["show"],
    "logs": ["logs"],
    "diff": ["diff", "HEAD"],
    "metrics": ["metrics"],
    "bisect": ["bisect", "--metric", "m", "--below", "1", "HEAD~1", "HEAD"],
    "checkout": ["checkout"],
    "cat": ["cat", "abcdef"],
    "push": ["push", "--runs"],
    "fetch": ["fetch", "--runs"],
    "verify": ["verify"],
    "gc": ["gc"],
    "data": ["data", "ls"],
    "env": ["env", "ls"],
    "shell": ["shell", "a"],
    "lock": ["lock", "resolve"],
    "hooks": ["hooks", "install"],
    "wait": ["wait", "latest"],
    "cancel": ["cancel", "latest"],
    "compute": ["compute", "ls"],
}


@pytest.fixture
def nowhere(tmp_path: Path) -> Repo:
    """A folder outside any git repository."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".gitconfig").touch()
    (tmp_path / "bare").mkdir()
    repo = Repo(tmp_path / "bare", tmp_path / "home")
    repo.env["GIT_CEILING_DIRECTORIES"] = str(tmp_path)
    return repo


def test_every_command_is_tried() -> None:
    assert set(CALLS) == set(COMMANDS) - {"init", "schema", "completion", "doctor"}


@pytest.mark.parametrize("call", [*CALLS.values(), ["push"], ["fetch"]], ids=" ".join)
def test_outside_a_repository(nowhere: Repo, call: list[str]) -> None:
    """Every command but init, schema, completion, doctor, --help and --version ends with exit 2 and says `git init`."""
    assert "`git init`" in refused(nowhere, *call)
    assert list(nowhere.path.iterdir()) == []


@pytest.mark.parametrize(
    "args", [["init"], ["schema"], ["completion", "bash"], ["doctor"], ["--help"], ["--version"], ["build", "--help"]]
)
def test_what_works_outside_a_repository(nowhere: Repo, args: list[str]) -> None:
    done = nowhere.pipe(*args)
    assert done.stdout and not done.stderr


@pytest.mark.parametrize("name", sorted(set(CALLS) - {"hooks"}))
def test_without_a_pipeline(repo: Repo, name: str) -> None:
    """In a repository without a pipeline.toml every command says where it looked, and `pipe init`."""
    said = refused(repo, *CALLS[name])
    assert "no pipeline.toml from" in said and "`pipe init`" in said


# What looks at history or at commits, or waits for the mend.
NO_PIPELINE = {"runs", "show", "logs", "metrics", "diff", "push", "fetch", "bisect", "lock", "watch", "hooks"}
NO_PIPELINE |= {"wait", "cancel"}


@pytest.mark.parametrize("name", sorted(set(CALLS) - NO_PIPELINE))
def test_with_a_broken_pipeline(repo: Repo, name: str) -> None:
    """All faults of pipeline.toml are told at once, with file and line."""
    repo.write("pipeline.toml", '[stage.a]\nrun = 1\noutputs = { o = "o" }\ncolour = "red"\n')
    done = repo.pipe(*CALLS[name], check=False)
    said = failed(done)
    assert "pipeline.toml:2: stage.a.run: " in said and "pipeline.toml:4: stage.a.colour: " in said
    messages = repo.pipe("--json", *CALLS[name], check=False).json()["error"]["messages"]
    assert [(m["file"], m["line"], m["key"]) for m in messages] == [
        ("pipeline.toml", 2, "stage.a.run"),
        ("pipeline.toml", 4, "stage.a.colour"),
    ]


@pytest.mark.parametrize("text", ["[stage.a", "a = 1\na = 2\n", "\ufeff[x", '[stage.a]\nrun = "\\q"\n'])
def test_what_is_no_toml(repo: Repo, text: str) -> None:
    repo.write("pipeline.toml", text)
    assert failed(repo.pipe("status", check=False)).startswith("pipeline.toml:")


def test_what_is_no_text(repo: Repo) -> None:
    repo.write("pipeline.toml", b"\xff\xfe\x00")
    assert "not UTF-8" in failed(repo.pipe("status", check=False))


def test_pipeline_toml_is_a_folder(repo: Repo) -> None:
    (repo.path / "pipeline.toml").mkdir()
    failed(repo.pipe("status", check=False))


@pytest.mark.parametrize("name", LATER)
def test_commands_of_later_releases(repo: Repo, name: str) -> None:
    assert f"this version has no `pipe {name}`" in refused(repo, name)


@pytest.mark.parametrize(
    "args",
    [
        ["data", "add", "x"],
        ["data", "diff"],
        ["verify", "--remote"],
        ["init", "--from", "Makefile"],
    ],
)
def test_flags_of_later_releases(project: Repo, args: list[str]) -> None:
    assert "this version has no `pipe " in refused(project, *args)
    assert project.ran() == []


WRONG = [
    (["nonsense"], "no command `nonsense`", "`pipe --help`"),
    (["statsu"], "no command `statsu`", "did you mean `pipe status`?"),
    (["build", "--forc"], "no flag `--forc`", "did you mean `--force`?"),
    (["build", "--colour"], "no flag `--colour`", "`pipe build --help`"),
    (["build", "prepare", "-k", "report", "--forc"], "no flag `--forc`", "did you mean `--force`?"),
    (["show", "latest", "-q", "more"], "does not take `more`", "`pipe show --help`"),
    (["build", "-j", "0"], "at least 1", "leave it out"),
    (["build", "-j", "many"], "needs a whole number", "`pipe build --help`"),
    (["build", "-j"], "`--jobs` needs N", "`pipe build --help`"),
    (["build", "prepaer"], "no stage `prepaer`", "did you mean `prepare`?"),
    (["build", "--set", "seed"], "is not `K=V`", "`--set name=value`"),
    (["build", "--set", "sede=1"], "no param `sede`", "did you mean `seed`"),
    (["build", "--set", "seed=one"], "`one` is not", "seed=1"),
    (["build", "--tag", "x"], "is not `K=V`", "`--tag name=value`"),
    (["build", "--compute", "moon"], "no compute `moon`", "help"),
    (["status", "nothing"], "no stage `nothing`", "`pipe status`"),
    (["status", "--rev", "gone"], "`gone` is not a revision", "git log"),
    (["why"], "needs STAGE", "`pipe why --help`"),
    (["why", "report", "gone"], "no run `gone`", "`pipe runs`"),
    (["accept", "prepare"], "needs --reason", "`pipe accept --help`"),
    (["accept", "prepare", "--reason", " "], "needs a reason", "--reason"),
    (["graph", "--format", "png"], "no format `png`", "mermaid"),
    (["runs", "-n", "0"], "at least 1", "-n 20"),
    (["runs", "--since", "yesterday"], "not a date", "7d"),
    (["show", "gone"], "no run `gone`", "`pipe runs`"),
    (["logs", "gone"], "no run `gone`", "`pipe runs`"),
    (["logs", "latest", "gone"], "no log of stage `gone`", "`pipe show"),
    (["diff", "gone"], "neither a run nor a revision", "`pipe runs`"),
    (["diff"], "needs A", "`pipe diff --help`"),
    (["metrics", "gone"], "`gone` is neither a run nor a revision", "git log"),
    (["checkout", "gone"], "no stage `gone`", "`pipe status`"),
    (["checkout", "--run", "gone"], "no run `gone`", "`pipe runs`"),
    (["checkout", "--run", ""], "`--run` needs a run", "`pipe checkout --help`"),
    (["checkout", "--to", ""], "`--to` needs a folder", "`pipe checkout --help`"),
    (["cat", "12"], "too short", "four digits"),
    (["cat", "123456"], "no object", "hashes"),
    (["gc", "--max-size", "large"], "not a size", "help"),
    (["gc", "--max-size", ""], "not a size", "help"),
    (["gc", "--keep-days", "-1"], "0 or more", "30"),
    (["gc", "--kept", "nan"], "0 or more", "30"),
    (["data", "everything"], "it is one of ls", "`pipe data --help`"),
    (["data", "show", "gone"], "no dataset `gone`", "`pipe data ls`"),
    (["env", "biuld"], "it is one of ls", "did you mean `pipe env build`?"),
    (["env", "ls", "gone"], "no environment `gone`", "`pipe env ls`"),
    (["env", "build", "gone"], "no environment `gone`", "`pipe env ls`"),
    (["shell"], "needs STAGE", "`pipe shell --help`"),
    (["shell", "gone"], "no stage `gone`", "`pipe status`"),
    (["shell", "train"], "has 2 cells", "pipe shell train@1"),
    (["completion", "tcsh"], "one of bash, zsh, fish", "help"),
    (["lock", "mend"], "one of resolve", "help"),
    (["-C", "gone", "status"], "`gone`: no such file or directory", "`-C` takes"),
    (["status", "-C"], "`-C` needs a folder", "pipe -C DIR"),
    (["show", "a", "b", "c"], "does not take", "`pipe show --help`"),
    (["help", "nonsense"], "no command `nonsense`", "`pipe --help`"),
]


@pytest.mark.parametrize(("args", "text", "help"), WRONG, ids=[" ".join(args) for args, _text, _help in WRONG])
def test_wrong_use(project: Repo, args: list[str], text: str, help: str) -> None:
    said = refused(project, *args)
    assert text in said and help in said, said
    assert project.ran() == []


def test_no_command(project: Repo) -> None:
    """`pipe` alone shows the usage on stderr: nothing was asked for."""
    done = project.pipe(check=False)
    assert done.returncode == 2 and done.stdout == "" and "commands:" in done.stderr


def test_nothing_works_inside_a_stage_that_builds(project: Repo) -> None:
    said = refused(project, "build", env={"PIPE_RUN": "r", "PIPE_STAGE": "train"})
    assert "inside a stage" in said


def test_the_current_folder_is_gone(tmp_path: Path) -> None:
    repo = new_repo(tmp_path)
    folder = tmp_path / "gone"
    folder.mkdir()
    done = subprocess.run(
        ["sh", "-c", 'rmdir "$PWD"; exec "$0" -m pipesmith status', sys.executable],
        cwd=folder,
        env=sealed_environment(repo.home),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "the current folder is gone" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("text", ["<<<<<<< ours\n", "version = [", "\x00", "version = 99\n"])
def test_a_broken_lockfile_is_the_users(project: Repo, text: str) -> None:
    """A lock that can't be read is exit 2, and is not overwritten."""
    project.write("pipe.lock", text)
    for args in (
        ["build"],
        ["status"],
        ["why", "report"],
        ["checkout"],
        ["metrics"],
        ["verify"],
        ["accept", "report", "--reason", "x"],
    ):
        assert "pipe.lock" in refused(project, *args)
    assert project.read("pipe.lock") == text
    assert project.ran() == []


def test_a_lockfile_that_is_no_text(project: Repo) -> None:
    project.write("pipe.lock", b"\xff\xfe")
    assert "pipe.lock" in refused(project, "status")
    assert (project.path / "pipe.lock").read_bytes() == b"\xff\xfe"


def test_no_utf_8(repo: Repo) -> None:
    """In the work tree and at a commit, with the line."""
    repo.write("pipeline.toml", b'[stage.a]\r\nrun = "true"\r\ndesc = "\xff"\r\n')
    commit = repo.commit()[:10]
    for args, said in ((["build"], ""), (["status", "--rev", commit], commit), (["what-if", "--rev", commit], commit)):
        done = repo.pipe(*args, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith(f"{said}:pipeline.toml:3: is not UTF-8".lstrip(":"))


def test_status_shows_problems_as_errors_are_shown(repo: Repo) -> None:
    """Why a stage can't run at all: with its line, and what to do."""
    repo.write(
        "pipeline.toml",
        """
        [stage.a]
        source = "srcs"
        run = "cat data/raw.csv > {outputs.o}"
        inputs = { raw = "data/raw.csv" }
        outputs = { o = "out/clean.csv" }
        [stage.b]
        run = "true"
        inputs = { i = "out/cleen.csv" }
        """,
    )
    lines = [
        "stale      a",
        "             never built",
        "             pipeline.toml:4: stage.a.inputs.raw: `data/raw.csv` does not exist and no stage makes it",
        "             help: put it there, or name what makes it: `stage:NAME.OUTPUT`",
        "             pipeline.toml:2: stage.a.source: `srcs` does not exist, or git or .pipeignore ignores all of it",
        "             help: write it, or see what ignores it: `git check-ignore -v srcs`, .pipeignore",
        "stale      b",
        "             never built",
        "             pipeline.toml:8: stage.b.inputs.i: `out/cleen.csv` does not exist and no stage makes it",
        "             help: did you mean `out/clean.csv`?",
    ]
    assert repo.pipe("status").stdout.splitlines() == lines
    problems = repo.pipe("status", "--json").json()["stages"][1]["problems"]
    assert problems == [
        {
            "file": "pipeline.toml",
            "line": 8,
            "key": "stage.b.inputs.i",
            "text": "`out/cleen.csv` does not exist and no stage makes it",
            "help": "did you mean `out/clean.csv`?",
        }
    ]
    repo.write("data/row.csv", "1\n")
    assert "help: did you mean `data/row.csv`?" in repo.pipe("status").stdout
    repo.run("rm", "-r", "data")
    refused = repo.pipe("build", check=False)
    assert refused.returncode == 2
    assert {line.strip() for line in lines if "help:" in line or ".toml:" in line} <= set(refused.stderr.splitlines())
    assert [line[2:] for line in repo.pipe("why", "b").stdout.splitlines()[2:]] == [line.strip() for line in lines[-2:]]
    repo.commit()
    at_commit = repo.pipe("status", "--rev", "HEAD", "b").stdout
    assert "pipeline.toml: stage.b.inputs.i: `out/cleen.csv` does not exist and no stage makes it" in at_commit
    assert "help: did you mean `out/clean.csv`?" in at_commit


def test_a_transfer_with_outputs_is_refused_before_anything_runs(repo: Repo) -> None:
    repo.write(
        "pipeline.toml",
        """
        [datastore.one]
        url = "file:one"
        [stage.move]
        transfer = { from = "one:a/**", to = "one:b/" }
        outputs = { o = "o.txt" }
        """,
    )
    result = repo.pipe("build", check=False)
    assert (result.returncode, result.stderr) == (
        2,
        "pipeline.toml:5: stage.move.outputs: a `transfer` makes no outputs: it moves data between datastores\n"
        "help: take them out; a stage reads what was moved as a `[dataset.NAME]`\n",
    )
