"""Rule 5: what a stage sees, and what enters the workspace. Both kinds of sandbox."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("sandbox")


def test_undeclared_files_are_unseen(repo, toml) -> None:
    """A folder that holds its declared source and inputs and nothing else of the workspace (no `.git` either)."""
    repo.write("src/main.sh", "1")
    repo.write("src/deep/x", "1")
    repo.write("data/in.csv", "1")
    repo.write("data/other.csv", "1")
    repo.write("secret", "1")
    toml("""
        [stage.a]
        source = "src"
        run = "find . | sort > $HOME/seen && echo 1 > {outputs.o}"
        inputs = { i = "data/in.csv" }
        outputs = { o = "out/deep/o" }
    """)
    repo.pipe("build")
    seen = (repo.home / "seen").read_text().split()
    assert seen == [
        ".", "./data", "./data/in.csv", "./out", "./out/deep", "./src", "./src/deep", "./src/deep/x", "./src/main.sh",
    ]  # fmt: skip


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("where", ["data", "data/deep/lib"])
def test_the_git_folders_of_inputs_are_unseen(repo, toml, where: str, ignored: bool) -> None:
    """No `.git` either: of a nested repository that is an input, or lies in one, its files count, and they are given."""
    repo.write(f"{where}/x", "1")
    repo.git("-C", where, "init", "-q")
    repo.git("-C", where, "add", "x")
    repo.git("-C", where, "commit", "-qm", "nested")
    if ignored:
        repo.write(".gitignore", "data\n")
    toml("""
        [stage.a]
        run = "NOTE(a) && find data > $HOME/seen && echo 1 > {outputs.o}"
        inputs = { d = "data" }
        outputs = { o = "o" }
    """)
    repo.pipe("build")
    seen = (repo.home / "seen").read_text().split()
    assert f"{where}/x" in seen and not [path for path in seen if ".git" in path]
    assert repo.ran() == ["a"]
    repo.git("-C", where, "commit", "-q", "--allow-empty", "-m", "no other content")
    assert repo.pipe("build", "--json").stages() == {"a": "fresh"}
    repo.pipe("build", "--force")
    assert not [path for path in (repo.home / "seen").read_text().split() if ".git" in path]
    assert repo.read(f"{where}/.git/HEAD").startswith("ref:") and repo.read(f"{where}/x") == "1"


def test_inputs_are_read_only(repo, toml) -> None:
    """Inputs are read-only: not even root's stage can change the workspace's."""
    repo.write("data/x", "1")
    repo.write("file", "1")
    toml("""
        [stage.a]
        run = "echo 2 > data/x; echo 2 > file; rm -rf data/x; echo 2 > data/new; echo 1 > {outputs.o}"
        inputs = { d = "data", f = "file" }
        outputs = { o = "o" }
    """)
    repo.pipe("build", check=False)
    assert repo.read("data/x") == "1" and repo.read("file") == "1"
    assert not repo.exists("data/new")


def test_an_input_that_is_another_stages_output_is_safe(repo, toml) -> None:
    """An input that a stage writes to changes neither the workspace nor the cache."""
    toml("""
        [stage.a]
        run = "head -c 3000000 /dev/zero > {outputs.o}"
        outputs = { o = "a" }
        [stage.b]
        run = "chmod u+w a; echo bad > a; echo 1 > {outputs.o}"
        inputs = { i = "a" }
        outputs = { o = "b" }
    """)
    repo.pipe("build", check=False)
    assert (repo.path / "a").stat().st_size == 3000000
    (repo.path / "a").unlink()
    repo.pipe("build", "a")
    assert (repo.path / "a").read_bytes() == bytes(3000000)


def test_source_is_a_private_copy(repo, toml) -> None:
    """Source is a private copy that it may scribble on."""
    repo.write("src/x", "1")
    toml("""
        [stage.a]
        source = "src"
        run = "echo 2 > src/x && mkdir src/__pycache__ && echo 3 > src/new && cat src/x > {outputs.o}"
        outputs = { o = "o" }
    """)
    repo.pipe("build")
    assert repo.read("o") == "2\n" and repo.read("src/x") == "1"
    assert os.listdir(repo.path / "src") == ["x"]
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"


def test_folders_of_outputs_exist_and_outputs_do_not(repo, toml) -> None:
    """The folders of its outputs exist and the outputs don't, also when they were made before."""
    repo.write("src/x", "1")
    toml("""
        [stage.a]
        source = "src"
        run = "test -d deep/er && test ! -e deep/er/o && test ! -e src/made && echo 1 > {outputs.o} && echo 1 > {outputs.p}"
        outputs = { o = "deep/er/o", p = "src/made" }
    """)
    repo.pipe("build")
    assert repo.pipe("build", "--force", "--json").stages() == {"a": "ran"}


def test_outside_it_sees_what_the_user_sees(repo, toml) -> None:
    """Outside the workspace it sees what the user sees, HOME included, and may write there."""
    (repo.home / "given").write_text("1")
    toml("""
        [stage.a]
        run = "cat $HOME/given > {outputs.o} && echo 2 > $HOME/made"
        outputs = { o = "o" }
    """)
    repo.pipe("build")
    assert repo.read("o") == "1" and (repo.home / "made").read_text() == "2\n"


def test_a_missing_output_fails_the_stage(repo, toml) -> None:
    """Outputs enter the workspace and the cache only with every declared output there."""
    toml("""
        [stage.a]
        run = "echo 1 > {outputs.o}; true {outputs.p}"
        outputs = { o = "o", p = "p" }
    """)
    done = repo.pipe("build", "--json", check=False)
    assert done.returncode == 1 and done.stages() == {"a": "failed"}
    assert "`p`" in done.json()["stages"][0]["error"]
    assert not repo.exists("o") and not repo.exists("p")
    assert repo.pipe("status", "--json").why("a") == [("new", "")]


def test_a_failed_stage_leaves_the_workspace_as_it_was(repo, toml) -> None:
    """A failed stage leaves the workspace as it was, old outputs included."""
    repo.write("src/x", "1")
    toml("""
        [stage.a]
        source = "src"
        run = "echo new > {outputs.o}; echo > src/y; exit $(cat src/x)"
        outputs = { o = "o" }
    """)
    repo.write("src/x", "0")
    repo.pipe("build")
    before = repo.read("pipe.lock")
    repo.write("src/x", "3")
    done = repo.pipe("build", "--json", check=False)
    assert done.json()["stages"][0]["exit_code"] == 3
    assert repo.read("o") == "new\n" and repo.read("pipe.lock") == before
    assert os.listdir(repo.path / "src") == ["x"]


@pytest.mark.parametrize("how", ["kill -9 $$", "sleep 30"])
def test_a_killed_or_timed_out_stage_leaves_the_workspace_as_it_was(repo, toml, how: str) -> None:
    """A killed or timed-out stage is failed, whatever it had written."""
    toml(f"""
        [stage.a]
        run = "echo 1 > {{outputs.o}}; {how}"
        outputs = {{ o = "o" }}
        timeout = "1s"
    """)
    done = repo.pipe("build", "--json", check=False)
    assert done.returncode == 1 and done.stages() == {"a": "failed"}
    assert ("killed by signal 9" if "kill" in how else "timed out") in done.json()["stages"][0]["error"]
    assert not repo.exists("o")


def test_what_it_leaves_running_is_killed(repo, toml) -> None:
    """What it leaves running is killed when its command ends, before outputs are read."""
    toml("""
        [stage.a]
        run = '''(setsid sh -c 'sleep 1; echo late > {outputs.o}; echo late > $HOME/late; sleep 600' &) ; echo 1 > {outputs.o}'''
        outputs = { o = "o" }
    """)
    began = time.monotonic()
    repo.pipe("build")
    assert time.monotonic() - began < 300
    assert repo.read("o") == "1\n"
    time.sleep(1.2)
    assert not (repo.home / "late").exists()


def test_source_hint(repo, toml) -> None:
    """When a failed command names a workspace file that it was not given, the error says which key to add."""
    repo.write("src/main.sh", "exit 0")
    toml("""
        [stage.a]
        run = "sh src/main.sh && echo 1 > {outputs.o}"
        outputs = { o = "o" }
    """)
    done = repo.pipe("build", "--json", check=False)
    assert 'source = ["src"]' in done.json()["stages"][0]["help"]
    assert 'source = ["src"]' in repo.pipe("build", check=False).stdout


def test_module_hint(repo, toml) -> None:
    """Or a Python module."""
    repo.write("src/main.py", "import helpers.deep")
    repo.write("helpers/deep.py", "")
    toml("""
        [stage.a]
        source = "src"
        run = "python src/main.py && echo 1 > {outputs.o}"
        outputs = { o = "o" }
    """)
    done = repo.pipe("build", "--json", check=False)
    assert "helpers" in done.json()["stages"][0]["help"] and "source" in done.json()["stages"][0]["help"]


def test_a_module_that_python_was_to_run_is_hinted_at(repo, toml) -> None:
    """`python -m` says the module's name without quotes."""
    repo.write("tools/__main__.py", "")
    toml("""
        [stage.a]
        run = "python -m tools && echo 1 > {outputs.o}"
        outputs = { o = "o" }
    """)
    (stage,) = repo.pipe("build", "--json", check=False).json()["stages"]
    assert stage["help"].startswith("Python module `tools` was not given to it")
    assert 'source = ["tools"]' in stage["help"]


@pytest.mark.parametrize(
    "run",
    [
        "echo no data today; exit 1",
        "echo 'no data today'; exit 1",
        "sh src/say.sh 'no data today'",
        "sh src/say.sh 'error: no such column: data'",
    ],
)
def test_a_folder_s_name_that_is_just_a_word_is_not_hinted_at(repo, toml, run: str) -> None:
    """A word that is said, and happens to be a folder's name as well, names no workspace file."""
    repo.write("data/x", "1")
    repo.write("src/say.sh", 'echo "$1"; exit 1')
    toml(f"""
        [stage.a]
        source = "src"
        run = "{run} && echo 1 > {{outputs.o}}"
        outputs = {{ o = "o" }}
    """)
    (stage,) = repo.pipe("build", "--json", check=False).json()["stages"]
    assert "source =" not in stage["help"] and "pipe shell a" in stage["help"]


@pytest.mark.parametrize(
    ("run", "missed"),
    [
        ("ls data", "data"),
        ("test -d data", "data"),
        ("cd data", "data"),
        ("cat data/*", "data"),
        ("cat ./data/?.csv", "data"),
        ("find . -prune && find $(echo da)ta", "data"),
        ("sh src/say.sh 'no data today in data/x'", "data/x"),
        ("sh src/say.sh 'read README' || cat $(echo da)ta/x", "data/x"),
    ],
)
def test_a_folder_that_could_not_be_opened_is_hinted_at(repo, toml, run: str, missed: str) -> None:
    """As an argument, and where a line says that it could not be had; of several words, by the one of such a line."""
    repo.write("data/x", "1")
    repo.write("README", "1")
    repo.write("src/say.sh", 'echo "$1"; exit 1')
    toml(f"""
        [stage.a]
        source = "src"
        run = "{run} && echo 1 > {{outputs.o}}"
        outputs = {{ o = "o" }}
    """)
    (stage,) = repo.pipe("build", "--json", check=False).json()["stages"]
    assert stage["help"].startswith(f"`{missed}` was not given to it")


@pytest.mark.parametrize(
    ("path", "inputs", "key"),
    [
        ("data/made/x", "", 'add `inputs = { clean = "stage:first.clean" }` to [stage.a]'),
        ("data/*/x", "", 'add `inputs = { clean = "stage:first.clean" }` to [stage.a]'),
        ("data/made/x", 'inputs = { t = "text" }', 'add `clean = "stage:first.clean"` to `inputs` of [stage.a]'),
        ("big.bin", "", 'add `inputs = { big = "big.bin" }` to [stage.a]'),
    ],
)
def test_what_can_not_be_source_is_hinted_at_as_an_input(repo, toml, path: str, inputs: str, key: str) -> None:
    """What another stage makes, and what git ignores. What the hint says to write works."""
    repo.write(".gitignore", "*.bin\n")
    repo.write("big.bin", "1")
    repo.write("text", "1")

    def pipeline(inputs: str) -> None:
        toml(f"""
            [stage.first]
            run = "mkdir {{outputs.clean}} && echo 1 > {{outputs.clean}}/x"
            outputs = {{ clean = "data/made" }}
            [stage.a]
            run = "cat {path} > {{outputs.o}}"
            outputs = {{ o = "o" }}
            after = ["first"]
            {inputs}
        """)

    pipeline(inputs)
    result = repo.pipe("build", "--json", check=False)
    assert result.json()["stages"][1]["help"] == f"`{path.removesuffix('/*/x')}` was not given to it: {key}"
    entry = key.split("`")[1].removeprefix("inputs = { ").removesuffix(" }")
    pipeline(f'inputs = {{ {entry}, t = "text" }}')
    assert repo.pipe("build", "--json").stages() == {"first": "fresh", "a": "ran"}


def test_a_folder_that_it_has_in_part_is_not_hinted_at(repo, toml) -> None:
    """It is there, so that is not what the command missed."""
    repo.write("data/in/x", "1")
    repo.write("data/other", "1")
    toml("""
        [stage.a]
        run = "cat data/in/* && ls data && echo 1 > {outputs.o} && exit 3"
        inputs = { x = "data/in" }
        outputs = { o = "data/o" }
    """)
    (stage,) = repo.pipe("build", "--json", check=False).json()["stages"]
    assert "not given" not in stage["help"] and "pipe shell a" in stage["help"]


def test_a_whole_path_is_hinted_at_as_the_workspace_s_own(repo, toml) -> None:
    """Wherever the stage sees the workspace: scripts look for data beside themselves."""
    repo.write("data/x", "1")
    repo.write("src/main.py", "import pathlib\nopen(pathlib.Path(__file__).resolve().parents[1] / 'data' / 'x')")
    toml("""
        [stage.a]
        source = "src"
        run = "python src/main.py && echo 1 > {outputs.o}"
        outputs = { o = "o" }
    """)
    (stage,) = repo.pipe("build", "--json", check=False).json()["stages"]
    assert stage["help"].startswith("`data/x` was not given to it")


def test_a_failed_sandbox_is_kept(repo, toml) -> None:
    """`pipe build` keeps the sandbox under tmp/failed/STAGE until the next try."""
    repo.write("src/x", "1")
    toml("""
        [stage.a]
        source = "src"
        run = "test $(cat src/x) = 2 && echo 1 > {outputs.o} || (echo half > {outputs.o}; exit 1)"
        outputs = { o = "o" }
    """)
    repo.pipe("build", check=False)
    kept = list((repo.pipe_dir / "tmp/failed/a").rglob("o"))
    assert [path.read_text() for path in kept] == ["half\n"]
    repo.write("src/x", "2")
    repo.pipe("build")
    assert not (repo.pipe_dir / "tmp/failed/a").exists()
    assert [name for name in os.listdir(repo.pipe_dir / "tmp") if name != "failed"] == []


def test_tmpdir(repo, toml) -> None:
    """TMPDIR is outside the workspace and gone after a good run."""
    toml("""
        [stage.a]
        run = "echo $TMPDIR > $HOME/tmpdir && touch $TMPDIR/x && python -c 'import tempfile; print(tempfile.mkdtemp())' >> $HOME/tmpdir && echo 1 > {outputs.o}"
        outputs = { o = "o" }
    """)
    repo.pipe("build")
    tmpdir, made = (repo.home / "tmpdir").read_text().split()
    assert made.startswith(tmpdir) and not tmpdir.startswith(str(repo.path))
    assert not os.path.exists(tmpdir)


def test_tmpdir_where_the_user_s_own_lies_in_the_workspace(repo, toml) -> None:
    """Then it is elsewhere all the same, and so are the context and what is logged."""
    (repo.path / "tmp").mkdir()
    toml("""
        [stage.a]
        run = "echo $TMPDIR $PIPE_CONTEXT > $HOME/seen && touch $TMPDIR/x && python -c 'from pipesmith.sdk import Run; Run.get_context().log(\\"loss\\", 1)' && echo 1 > {outputs.o}"
        outputs = { o = "o" }
    """)
    within = {"TMPDIR": str(repo.path / "tmp")}
    run = repo.pipe("build", "--json", env=within).json()["run"]
    for path in (repo.home / "seen").read_text().split():
        assert not path.startswith(str(repo.path))
    assert repo.pipe("logs", run, "--json").json()["logged"]["a"][0]["value"] == 1
    assert os.listdir(repo.path / "tmp") == []
    assert repo.pipe("shell", "a", "sh", "-c", "cat $PIPE_CONTEXT", env=within).json()["stage"] == "a"


def test_environment_variables(repo, toml) -> None:
    """PIPE_RUN, PIPE_STAGE, PIPE_INPUT_<NAME>, PIPE_OUTPUT_<NAME>, PIPE_PARAMS, PIPE_CONTEXT, and a clean environment
    otherwise."""
    repo.write("data", "1")
    toml("""
        [params]
        seed = 7
        train = { lr = 0.01, epochs = 5 }
        other = 1
        [stage.a]
        run = "env -0 > {outputs.my-out} && cp $PIPE_CONTEXT $HOME/context"
        inputs = { my-in = "data" }
        outputs = { my-out = "o" }
        params = ["seed", "train.lr"]
        env = { OMP_NUM_THREADS = "2" }
        pass-env = ["TOKEN", "NOT_SET"]
    """)
    run = repo.pipe("build", "--json", env={"TOKEN": "sesame-open", "JUNK": "1", "LANG": "de_DE", "TZ": "Asia/Tokyo"})
    found = dict(item.split("=", 1) for item in repo.read("o").split("\0") if item)
    for noise in ("PWD", "OLDPWD", "SHLVL", "_"):
        found.pop(noise, None)
    assert found.pop("PATH").endswith(repo.env["PATH"])
    assert found.pop("HOME") == str(repo.home)
    assert found.pop("PIPE_RUN") == run.json()["run"]
    assert json.loads(found.pop("PIPE_PARAMS")) == {"seed": 7, "train": {"lr": 0.01}}
    assert found.pop("PIPE_CONTEXT") and found.pop("TMPDIR") and found.pop("PYTHONPATH")
    for name in ("USER", "LOGNAME"):
        found.pop(name, None)
    assert found == {
        "PIPE_STAGE": "a",
        "PIPE_INPUT_MY_IN": "data",
        "PIPE_OUTPUT_MY_OUT": "o",
        "OMP_NUM_THREADS": "2",
        "TOKEN": "sesame-open",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "CUDA_VISIBLE_DEVICES": "",
    }
    context = json.loads((repo.home / "context").read_text())
    assert context["params"] == {"seed": 7, "train": {"lr": 0.01}} and context["stage"] == "a"


def test_cwd(repo, toml) -> None:
    """`cwd` is relative to the workspace, and placeholders to it."""
    repo.write("sub/x", "1")
    repo.write("data", "2")
    toml("""
        [stage.a]
        source = "sub"
        cwd = "sub"
        run = "cat x {inputs.i} > {outputs.o}"
        inputs = { i = "data" }
        outputs = { o = "out/o" }
    """)
    repo.pipe("build")
    assert repo.read("out/o") == "12"


def test_ignored_files_are_not_given(repo, toml) -> None:
    """Files that git ignores are not given to a stage with its source."""
    repo.write(".gitignore", "*.pyc\n")
    repo.write("src/x", "1")
    repo.write("src/x.pyc", "1")
    toml("""
        [stage.a]
        source = "src"
        run = "ls src > {outputs.o}"
        outputs = { o = "o" }
    """)
    repo.pipe("build")
    assert repo.read("o") == "x\n"


def test_a_link_inside_the_workspace_is_content(repo, toml) -> None:
    """A symlink inside the workspace is content, as in git: its target's text counts."""
    repo.write("src/x", "1")
    repo.write("src/y", "1")
    os.symlink("x", repo.path / "src/l")
    toml("""
        [stage.a]
        source = "src"
        run = "readlink src/l > {outputs.o}"
        outputs = { o = "o" }
    """)
    repo.pipe("build")
    assert repo.read("o") == "x\n"
    os.unlink(repo.path / "src/l")
    os.symlink("y", repo.path / "src/l")
    assert repo.pipe("build", "--json").stages() == {"a": "ran"}
    assert repo.read("o") == "y\n"


def test_a_projects_own_venv_works(repo, toml) -> None:
    """A project's own `.venv` works in it."""
    import sys

    repo.run(sys.executable, "-m", "venv", "--without-pip", ".venv")
    repo.write(".gitignore", ".venv/\n")
    site = next(repo.path.glob(".venv/lib/python*/site-packages"))
    (site / "mine.py").write_text("word = 'here'")
    toml("""
        [stage.a]
        run = "python -c 'import mine; print(mine.word)' > {outputs.o}"
        outputs = { o = "o" }
    """)
    repo.pipe("build", env={"PATH": f"{repo.path}/.venv/bin:{repo.env['PATH']}"})
    assert repo.read("o") == "here\n"


def test_nothing_is_left_behind(repo, toml) -> None:
    """Nothing undeclared is left behind in the workspace."""
    toml("""
        [stage.a]
        run = "echo 1 > {outputs.o}; echo 1 > stray; mkdir out; echo 1 > out/stray"
        outputs = { o = "o" }
    """)
    repo.pipe("build")
    assert sorted(os.listdir(repo.path)) == [".git", ".gitignore", "o", "pipe.lock", "pipeline.toml"]


def test_a_deep_cwd_pythonpath_holds_the_sdk(repo, toml) -> None:
    """`pipesmith.sdk` is on the path of every stage that is Python."""
    toml("""
        [stage.a]
        run = '''python -c "from pipesmith.sdk import Run; run = Run.get_context(); run.outputs['o'].path.write_text(run.stage)"'''
        outputs = { o = "o" }
    """)
    repo.pipe("build")
    assert repo.read("o") == "a"


def test_both_ways_give_the_same(repo, toml, sandbox) -> None:
    """PIPE_SANDBOX=copies gives the same: what one has built, the other finds fresh."""
    repo.write("src/x", "1")
    repo.write("data/x", "1")
    toml("""
        [stage.a]
        source = "src"
        run = "cat src/x data/x > {outputs.o} && cp -r data {outputs.d}"
        inputs = { i = "data" }
        outputs = { o = "o", d = "d" }
    """)
    repo.pipe("build")
    first = repo.read("pipe.lock")
    other = {"namespaces": "copies", "copies": "namespaces"}[sandbox]
    (repo.path / "pipe.lock").unlink()
    import shutil

    shutil.rmtree(repo.pipe_dir)
    repo.pipe("build", env={"PIPE_SANDBOX": other})
    assert repo.read("pipe.lock") == first
    assert Path(repo.path / "d/x").read_text() == "1"


def test_a_path_folder_that_is_written_by_way_of_the_workspace_need_not_lie_in_it(repo):
    repo.write("../tools/say", "#!/bin/sh\necho said\n", executable=True)
    repo.write("src/a.txt", "1\n")
    repo.write(
        "pipeline.toml",
        """
        [stage.a]
        source = "src"
        run = "say > o.txt && ls >> o.txt"
        outputs = { o = "o.txt" }
        """,
    )
    way = f"{repo.path}/../tools:{repo.path}/src/.."
    repo.pipe("build", env={"PATH": f"{way}:{repo.env['PATH']}"})
    assert repo.read("o.txt").split() == ["said", "o.txt", "src"]
