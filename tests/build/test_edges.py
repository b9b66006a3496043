"""Situations that are rare until they are yours."""

from __future__ import annotations

import os
import shutil

import pytest


@pytest.fixture(autouse=True)
def both(sandbox) -> None:
    """Each holds for both kinds of sandbox."""


def test_an_input_inside_a_source(repo, toml) -> None:
    """An input that lies in a source folder is given read-only; both count."""
    repo.write("src/x", "1")
    repo.write("src/data/d", "1")
    toml("""
        [stage.a]
        source = "src"
        run = "NOTE(a) && cat src/x src/data/d > {outputs.o}"
        inputs = { d = "src/data" }
        outputs = { o = "src/out/o" }
    """)
    repo.pipe("build")
    assert repo.read("src/out/o") == "11"
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"
    repo.write("src/data/d", "2")
    assert repo.pipe("build", "--json").stages() == {"a": "ran"}
    assert repo.read("src/out/o") == "12"


def test_a_path_inside_a_folder_output(repo, toml) -> None:
    """An edge is found by path, also to a file in a stage's folder; only that file counts."""
    repo.write("s", "1")
    toml("""
        [stage.a]
        source = "s"
        run = "mkdir -p {outputs.d}/sub && echo same > {outputs.d}/sub/x && cp s {outputs.d}/other"
        outputs = { d = "out/d" }
        [stage.b]
        run = "NOTE(b) && cat {inputs.i} > {outputs.o} && (ls out/d; echo) >> {outputs.o}"
        inputs = { i = "out/d/sub/x" }
        outputs = { o = "b" }
    """)
    assert repo.pipe("build", "--json").stages() == {"a": "ran", "b": "ran"}
    assert "other" not in repo.read("b")
    repo.write("s", "2")
    assert repo.pipe("build", "--json").stages() == {"a": "ran", "b": "fresh"}
    assert repo.ran() == ["b"]
    repo.commit()
    assert repo.pipe("status", "--rev", "HEAD", "--check").returncode == 0


def test_an_input_at_another_path(repo, toml) -> None:
    """`path`: where it appears."""
    repo.write("data/x", "1")
    toml("""
        [stage.a]
        run = "cat in/here/x {inputs.d}/x > {outputs.o}"
        inputs = { d = { from = "data", path = "in/here" } }
        outputs = { o = "o" }
    """)
    repo.pipe("build")
    assert repo.read("o") == "11"
    assert not repo.exists("in")


def test_a_dataset_outside(repo, toml) -> None:
    """A path may lie outside in a [dataset]; it appears at inputs/NAME, and is pinned in the lock."""
    (repo.home / "big").mkdir()
    (repo.home / "big/x").write_text("1")
    toml(f"""
        [dataset.big]
        from = "{repo.home}/big"
        [stage.a]
        run = "NOTE(a) && cat inputs/big/x > {{outputs.o}}"
        inputs = {{ big = "dataset:big" }}
        outputs = {{ o = "o" }}
    """)
    repo.pipe("build")
    assert repo.read("o") == "1" and "[dataset.big]" in repo.read("pipe.lock")
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"


def test_the_executable_bit_of_an_input_counts(repo, toml) -> None:
    """A folder's: names, executable bits, link texts."""
    repo.write("data/x", "1")
    toml("""
        [stage.a]
        run = "test -x data/x && echo x > {outputs.o} || echo - > {outputs.o}"
        inputs = { d = "data" }
        outputs = { o = "o" }
    """)
    repo.pipe("build")
    (repo.path / "data/x").chmod(0o755)
    assert repo.pipe("build", "--json").stages() == {"a": "ran"}
    assert repo.read("o") == "x\n"


def test_read_only_outputs(repo, toml) -> None:
    """Outputs that a stage made read-only are outputs like others: replaced, restored, removed."""
    repo.write("s", "1")
    toml("""
        [stage.a]
        source = "s"
        run = "mkdir -p {outputs.d}/sub && cp s {outputs.d}/sub/x && chmod -R a-w {outputs.d} && cp s {outputs.o} && chmod 400 {outputs.o}"
        outputs = { d = "d", o = "o" }
    """)
    repo.pipe("build")
    repo.write("s", "2")
    repo.pipe("build")
    assert repo.read("d/sub/x") == "2"
    repo.write("s", "1")
    assert repo.pipe("build", "--json").stages() == {"a": "restored"}
    assert repo.read("d/sub/x") == "1" and repo.read("o") == "1"
    assert [name for name in os.listdir(repo.pipe_dir / "tmp") if name != "failed"] == []


def test_a_pipe_among_the_outputs(repo, toml) -> None:
    """What is neither file, folder nor link can't be stored: the stage fails and says so; it does not hang."""
    toml("""
        [stage.a]
        run = "mkdir {outputs.d} && mkfifo {outputs.d}/fifo"
        outputs = { d = "d" }
    """)
    done = repo.pipe("build", "--json", check=False)
    assert done.returncode == 1 and done.stages() == {"a": "failed"} and "fifo" in done.json()["stages"][0]["error"]
    toml("""
        [stage.a]
        run = "mkfifo {outputs.d}"
        outputs = { d = "d" }
    """)
    done = repo.pipe("build", "--json", check=False)
    assert done.returncode == 1 and done.stages() == {"a": "failed"}


def test_names_that_are_no_text(repo, toml) -> None:
    """Names in folder outputs are bytes."""
    toml(r"""
        [stage.a]
        run = '''mkdir {outputs.d} && cd {outputs.d} && touch "$(printf 'new\nline')" "$(printf '\377\376')" ' sp ace ' '"q'"'"'' && mkdir -p -- '-x/--y' '''
        outputs = { d = "d" }
        [stage.b]
        run = "ls -A {inputs.d} | wc -l > {outputs.o}"
        inputs = { d = "d" }
        outputs = { o = "o" }
    """)
    repo.pipe("build")
    names = sorted(os.listdir(os.fsencode(repo.path / "d")))
    assert b"\xff\xfe" in names and b"new\nline" in names
    shutil.rmtree(repo.path / "d")
    assert repo.pipe("build", "--json").stages() == {"a": "restored", "b": "fresh"}
    assert sorted(os.listdir(os.fsencode(repo.path / "d"))) == names


def test_standard_input_is_empty(repo, toml) -> None:
    """A stage that reads its standard input finds it empty."""
    toml("""
        [stage.a]
        run = "cat > {outputs.o}"
        outputs = { o = "o" }
    """)
    repo.pipe("build", input="typed")
    assert repo.read("o") == ""


@pytest.mark.parametrize("run", ['["no-such-program"]', '["./not-executable"]', '"no-such-program"'])
def test_a_program_that_is_not_there(repo, toml, run: str) -> None:
    """A failed command, in one line, not a traceback."""
    repo.write("not-executable", "1")
    toml(f"""
        [stage.a]
        source = "not-executable"
        run = {run}
    """)
    done = repo.pipe("build", check=False)
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert "no-such-program" in done.stdout + done.stderr or "not-executable" in done.stdout + done.stderr


def test_output_that_is_no_text(repo, toml) -> None:
    """A stage's output may be any bytes."""
    toml(r"""
        [stage.a]
        run = '''printf 'caf\351 \000 \033[31m\n'; head -c 100000 /dev/urandom; echo 1 > {outputs.o}'''
        outputs = { o = "o" }
    """)
    repo.pipe("build")
    repo.pipe("logs", "latest", "a")
    repo.pipe("build", "--force", "--json").json()


def test_a_stage_that_removes_everything(repo, toml) -> None:
    """A stage that removes all it sees fails, and the workspace is as it was."""
    repo.write("src/x", "1")
    repo.write("data/x", "1")
    toml("""
        [stage.a]
        source = "src"
        run = "rm -rf * .[a-z]* 2> /dev/null; true"
        inputs = { d = "data" }
        outputs = { o = "out/o" }
    """)
    done = repo.pipe("build", "--json", check=False)
    assert done.returncode == 1 and done.stages() == {"a": "failed"}
    assert repo.read("src/x") == "1" and repo.read("data/x") == "1"


@pytest.mark.parametrize("name", ["we ird", 'it\'s "q"', "ünï", "a:b,c", "new\nline", "$HOME", "back\\slash"])
def test_workspaces_of_strange_names(make_repo, sandbox, name: str) -> None:
    """A workspace may lie anywhere."""
    repo = make_repo(name)
    repo.env["PIPE_SANDBOX"] = sandbox
    repo.write("src/x", "1")
    repo.write("pipeline.toml", """
        [stage.a]
        source = "src"
        run = "cat src/x {inputs.d} > {outputs.o}"
        inputs = { d = "data" }
        outputs = { o = "out/o" }
    """)  # fmt: skip
    repo.write("data", "1")
    repo.pipe("build")
    assert repo.read("out/o") == "11"
    assert "up to date" in repo.pipe("build").stdout
    repo.commit()
    assert repo.pipe("status", "--rev", "HEAD", "--check").returncode == 0


def test_files_from_the_future(repo, toml) -> None:
    """Times never count, not even those of the future."""
    repo.write("s", "1")
    toml("""
        [stage.a]
        source = "s"
        run = "NOTE(a) && cat s > {outputs.o} && touch -d 2090-01-01 {outputs.o}"
        outputs = { o = "o" }
    """)
    os.utime(repo.path / "s", (4e9, 4e9))
    repo.pipe("build")
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"
    repo.write("s", "2")
    os.utime(repo.path / "s", (1, 1))
    assert repo.pipe("build", "--json").stages() == {"a": "ran"}


def test_a_narrow_umask(repo, toml) -> None:
    """A narrow umask is the user's choice, and no hindrance."""
    toml("""
        [stage.a]
        run = "echo 1 > {outputs.o}"
        outputs = { o = "o" }
    """)
    import sys

    repo.run("sh", "-c", f"umask 077; {sys.executable} -m pipesmith build")
    assert "up to date" in repo.pipe("build").stdout
    assert (repo.path / "o").stat().st_mode & 0o077 == 0


def test_without_path_and_home(repo, toml) -> None:
    """Without PATH and HOME it still builds."""
    toml("""
        [stage.a]
        run = "echo 1 > {outputs.o}"
        outputs = { o = "o" }
    """)
    import sys

    repo.run("env", "-u", "PATH", "-u", "HOME", "-u", "XDG_CACHE_HOME", sys.executable, "-m", "pipesmith", "build")
    assert repo.read("o") == "1\n"


def test_an_empty_pipeline(repo, toml) -> None:
    """No stages: nothing to do."""
    toml("[params]\nx = 1\n")
    assert repo.pipe("build", "--json").json() == {"run": None, "status": "up-to-date", "stages": []}
    assert repo.pipe("status").returncode == 0


def test_no_pipeline(repo) -> None:
    """Without a pipeline.toml: exit 2, and says how to make one."""
    done = repo.pipe("build", check=False)
    assert done.returncode == 2 and "pipe init" in done.stderr


def test_links_in_outputs(repo, toml) -> None:
    """Links in a folder output are content by their text."""
    toml("""
        [stage.a]
        run = "mkdir {outputs.d} && echo 1 > {outputs.d}/x && ln -s x {outputs.d}/l"
        outputs = { d = "d" }
        [stage.b]
        run = "cat {inputs.d}/l > {outputs.o}"
        inputs = { d = "d" }
        outputs = { o = "o" }
    """)
    repo.pipe("build")
    assert repo.read("o") == "1\n"
    shutil.rmtree(repo.path / "d")
    repo.pipe("build")
    assert os.readlink(repo.path / "d/l") == "x"


@pytest.mark.parametrize(
    ("given", "target", "said"),
    [
        ("stage:a.d", "nowhere", "does not exist"),
        ("d/in", "/etc/passwd", "leads out"),
        ("d/in", "nowhere", "does not exist"),
        ("d/in/l", "../../../x", "leads out"),
        ("stage:c@*.o", "../../../x", "leads out"),
    ],
)
def test_a_made_link_that_dangles_or_leads_out(repo, toml, given: str, target: str, said: str) -> None:
    """A link that dangles or leads out is content where a stage makes it, and an error when a stage is given it."""
    toml(f"""
        [stage.a]
        run = "mkdir -p {{outputs.d}}/in && echo 1 > {{outputs.d}}/x && ln -s {target} {{outputs.d}}/in/l"
        outputs = {{ d = "d" }}
        [stage.c]
        run = "mkdir {{outputs.o}} && ln -s {target} {{outputs.o}}/l"
        matrix = {{ n = [1] }}
        outputs = {{ o = "o{{matrix.n}}" }}
        [stage.b]
        run = "NOTE(b) && echo 1 > {{outputs.o}}"
        inputs = {{ i = "{given}" }}
        outputs = {{ o = "o" }}
        [stage.other]
        run = "cat {{inputs.i}} > {{outputs.o}}"
        inputs = {{ i = "d/x" }}
        outputs = {{ o = "other" }}
    """)
    done = repo.pipe("build", "--json", "-k", check=False)
    assert done.stages() == {"a": "ran", "c@1": "ran", "other": "ran", "b": "failed"}
    assert done.returncode == 1 and repo.ran() == []
    (error,) = [stage["error"] for stage in done.json()["stages"] if stage["name"] == "b"]
    assert said in error and ("`o1/l`" if "@" in given else "`d/in/l`") in error


def test_one_input_under_two_names(repo, toml) -> None:
    """Two names for one file are two inputs."""
    repo.write("data", "1")
    toml("""
        [stage.a]
        run = "cat {inputs.i} {inputs.j} > {outputs.o}"
        inputs = { i = "data", j = "data" }
        outputs = { o = "o" }
    """)
    repo.pipe("build")
    assert repo.read("o") == "11"
    assert "up to date" in repo.pipe("build").stdout


def test_a_stage_renamed_and_its_output_moved(repo, chain) -> None:
    """A stage that is gone from pipeline.toml is gone from the lock at the next build; its output stays where it is."""
    repo.pipe("build")
    text = repo.read("pipeline.toml")
    repo.write("pipeline.toml", text[: text.index("[stage.c]")])
    repo.pipe("build")
    assert "[stage.c]" not in repo.read("pipe.lock") and repo.read("out/c") == "11"


def test_outputs_that_change_kind(repo, toml) -> None:
    """A file becomes a folder, and a folder a file."""
    repo.write("s", "1")
    toml("""
        [stage.a]
        source = "s"
        run = "if test $(cat s) = 1; then echo 1 > {outputs.o}; else mkdir {outputs.o}; echo 2 > {outputs.o}/x; fi"
        outputs = { o = "out/o" }
    """)
    repo.pipe("build")
    repo.write("s", "2")
    repo.pipe("build")
    assert repo.read("out/o/x") == "2\n"
    repo.write("s", "1")
    assert repo.pipe("build", "--json").stages() == {"a": "restored"}
    assert repo.read("out/o") == "1\n"


def test_an_emptied_folder_output(repo, toml) -> None:
    """An empty folder and an empty file are outputs."""
    toml("""
        [stage.a]
        run = "mkdir {outputs.d} && : > {outputs.f}"
        outputs = { d = "d", f = "f" }
        [stage.b]
        run = "ls -A {inputs.d} > {outputs.o}; cat {inputs.f} >> {outputs.o}"
        inputs = { d = "d", f = "f" }
        outputs = { o = "o" }
    """)
    repo.pipe("build")
    shutil.rmtree(repo.path / "d")
    os.unlink(repo.path / "f")
    assert repo.pipe("build", "--json").stages() == {"a": "restored", "b": "fresh"}
    assert os.listdir(repo.path / "d") == [] and repo.read("f") == ""
