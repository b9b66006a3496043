"""The keys of a stage, one by one."""

from __future__ import annotations

import time

import pytest


def test_matrix(repo, toml) -> None:
    """matrix: one stage a cell, named by the values in key order as written; include and exclude as GitHub Actions has
    them."""
    toml(
        """
        [stage.t]
        run = "NOTE(t) && echo {matrix.lr} {matrix.d} > {outputs.model}"
        matrix = { lr = [0.01, 0.1], d = ["a/b", "c"], exclude = [{ lr = 0.1, d = "c" }], include = [{ lr = 5, d = "z" }] }
        outputs = { model = "m/{matrix.lr}-{matrix.d}x" }
    """.replace("{matrix.lr}-{matrix.d}x", "{matrix.lr}_{matrix.d}")
    )
    done = repo.pipe("build", "--json")
    assert sorted(done.stages()) == ["t@0.01-a%2Fb", "t@0.01-c", "t@0.1-a%2Fb", "t@5-z"]
    assert repo.ran() == ["t"] * 4
    assert repo.read("m/0.01_a/b") == "0.01 a/b\n"
    assert repo.pipe("build", "t@0.01-c", "--json").stages() == {"t@0.01-c": "fresh"}
    assert len(repo.pipe("build", "t", "--json").stages()) == 4
    repo.commit()
    assert repo.pipe("status", "--rev", "HEAD", "--check").returncode == 0


def test_every_cells_output_as_a_folder(repo, toml) -> None:
    """Input "stage:train@*.model": every cell's, as a folder with one entry a cell; one cell by name too."""
    text = """
        [stage.train]
        run = "NOTE(train) && echo {matrix.lr} > {outputs.model}"
        matrix = { lr = [1, 2] }
        outputs = { model = "m/{matrix.lr}" }
        [stage.best]
        run = "NOTE(best) && (cd {inputs.all} && grep . *) > {outputs.o} && cat {inputs.one} >> {outputs.o}"
        inputs = { all = "stage:train@*.model", one = "stage:train@2.model" }
        outputs = { o = "best" }
    """
    toml(text)
    repo.pipe("build")
    lines = repo.read("best").splitlines()
    assert [line.partition(":")[2] for line in lines[:2]] == ["1", "2"] and lines[2] == "2"
    assert repo.ran() == ["best", "train", "train"]
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"
    toml(text.replace("[1, 2]", "[1, 2, 3]"))
    done = repo.pipe("build", "--json")
    assert done.stages() == {"train@1": "fresh", "train@2": "fresh", "train@3": "ran", "best": "ran"}
    repo.commit()
    assert repo.pipe("status", "--rev", "HEAD", "--check").returncode == 0


def test_matrix_of_params_and_tables(repo, toml) -> None:
    """Two cells with one output: exit 2 before anything runs."""
    toml("""
        [stage.t]
        run = "NOTE(t) && echo 1 > {outputs.o}"
        matrix = { x = [1, 2] }
        outputs = { o = "same" }
    """)
    done = repo.pipe("build", check=False)
    assert done.returncode == 2 and "same" in done.stderr and repo.ran() == []


def test_after(repo, toml) -> None:
    """after: order without data; a change before it runs nothing after it."""
    repo.write("s", "1")
    toml("""
        [stage.b]
        run = "NOTE(b) && test -e $HOME/a-was-here && echo 1 > {outputs.o}"
        after = ["a"]
        outputs = { o = "b" }
        [stage.a]
        source = "s"
        run = "NOTE(a) && touch $HOME/a-was-here && cat s > {outputs.o}"
        outputs = { o = "a" }
    """)
    assert list(repo.pipe("build", "--json").stages()) == ["a", "b"]
    repo.ran()
    repo.write("s", "2")
    assert repo.pipe("build", "--json").stages() == {"a": "ran", "b": "fresh"}


def test_mutex(repo, toml) -> None:
    """mutex: stages that share a word never run at the same time."""
    body = "mkdir $HOME/held && sleep 0.1 && rmdir $HOME/held && echo 1 > {outputs.o}"
    toml("".join(f"""
        [stage.s{n}]
        run = "{body}"
        mutex = ["db", "own{n}"]
        outputs = {{ o = "o{n}" }}
    """.replace("{{ o", "{ o").replace("}}", "}") for n in range(3)))  # fmt: skip
    assert set(repo.pipe("build", "-j4", "--json").stages().values()) == {"ran"}


def test_mutex_between_builds(repo, toml) -> None:
    """In this clone: two builds as well."""
    body = "mkdir $HOME/held && sleep 0.2 && rmdir $HOME/held && echo 1 > {outputs.o}"
    toml("".join(f"""
        [stage.s{n}]
        run = "{body}"
        mutex = ["db"]
        outputs = {{ o = "o{n}" }}
    """ for n in range(2)))  # fmt: skip
    builds = [repo.start("build", f"s{n}") for n in range(2)]
    assert [build.wait(20) for build in builds] == [0, 0]


def test_retries(repo, toml) -> None:
    """retries: tries again after a failure, from a new sandbox."""
    toml("""
        [stage.a]
        run = "NOTE(a); test ! -e half && echo > half; test $(wc -l < $HOME/ran) -ge 3 && echo 1 > {outputs.o}"
        outputs = { o = "o" }
        retries = 2
    """)
    assert repo.pipe("build", "--json").stages() == {"a": "ran"}
    assert repo.ran() == ["a", "a", "a"]
    toml("""
        [stage.a]
        run = "NOTE(a); exit 4"
        retries = 1
    """)
    done = repo.pipe("build", "--json", check=False)
    assert repo.ran() == ["a", "a"] and done.json()["stages"][0]["exit_code"] == 4


def test_timeout(repo, toml) -> None:
    """timeout: failed, with all that it started."""
    toml("""
        [stage.a]
        run = "sh -c 'trap \\"\\" TERM; sleep 600; sleep 600' & wait"
        timeout = "1s"
    """)
    began = time.monotonic()
    done = repo.pipe("build", "--json", check=False)
    assert done.returncode == 1 and "timed out" in done.json()["stages"][0]["error"]
    assert time.monotonic() - began < 300


@pytest.mark.parametrize("timeout", ["25d", "7000d", "9" * 400 + "d"])
def test_a_long_timeout(repo, toml, timeout: str) -> None:
    """Durations are written in days too, as many as there are."""
    toml(f"""
        [stage.t]
        run = "NOTE(t)"
        timeout = "{timeout}"
    """)
    assert repo.pipe("build", "--json").stages() == {"t": "ran"}


def test_frozen(repo, toml) -> None:
    """frozen: never runs; its locked outputs are used; `--force` does not run it."""
    repo.write("s", "1")
    text = """
        [stage.a]
        source = "s"
        run = "NOTE(a) && cat s > {outputs.o}"
        outputs = { o = "a" }
        FROZEN
        [stage.b]
        run = "NOTE(b) && cat {inputs.i} > {outputs.o}"
        inputs = { i = "a" }
        outputs = { o = "b" }
    """
    toml(text.replace("FROZEN", ""))
    repo.pipe("build")
    before = repo.read("pipe.lock")
    repo.ran()
    toml(text.replace("FROZEN", "frozen = true"))
    repo.write("s", "2")
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"
    assert "frozen" in repo.pipe("status").stdout
    assert repo.pipe("status", "--check").returncode == 0
    assert repo.pipe("build", "--force", "a", "--json").stages() == {"a": "fresh"}
    (repo.path / "a").unlink()
    assert repo.pipe("build", "--json").stages() == {"a": "restored", "b": "fresh"}
    assert repo.ran() == [] and repo.read("pipe.lock") == before
    repo.commit()
    assert repo.pipe("status", "--rev", "HEAD", "--check").returncode == 0


def test_frozen_and_never_built(repo, toml) -> None:
    """A frozen stage that was never built is exit 1 and says so."""
    toml("""
        [stage.a]
        run = "NOTE(a) && echo 1 > {outputs.o}"
        outputs = { o = "a" }
        frozen = true
        [stage.b]
        run = "NOTE(b) && cat {inputs.i} > {outputs.o}"
        inputs = { i = "a" }
        outputs = { o = "b" }
    """)
    done = repo.pipe("build", check=False)
    assert done.returncode == 1 and "never built" in done.stdout + done.stderr and repo.ran() == []


def test_hash_paths(repo, toml) -> None:
    """hash-paths: extra files that count, though the stage is not given them."""
    repo.write("notes/eda.ipynb", "1")
    toml("""
        [stage.a]
        run = "NOTE(a) && (ls; echo) > {outputs.o}"
        outputs = { o = "o" }
        hash-paths = ["notes/eda.ipynb"]
    """)
    repo.pipe("build")
    assert "notes" not in repo.read("o")
    repo.write("notes/eda.ipynb", "2")
    assert repo.pipe("build", "--json").stages() == {"a": "ran"}
    repo.commit()
    assert repo.pipe("status", "--rev", "HEAD", "--check").returncode == 0


@pytest.mark.parametrize(
    ("line", "key", "named"),
    [
        ('hash-paths = ["big/there"]', "hash-paths", "big"),
        ('hash-paths = ["big/sub/none"]', "hash-paths", "big"),
        ('cwd = "big"', "cwd", "big"),
        ('cwd = "big/sub"', "cwd", "big/sub"),
        ('keep = "big/kept"', "keep", "big/kept"),
        ('notebook = "out.ipynb"\noutputs = { notebook = "made.ipynb" }', "notebook", "out.ipynb"),
    ],
)
def test_no_path_leaves_by_a_link(repo, toml, line: str, key: str, named: str) -> None:
    """No path may leave the workspace through a symlink."""
    outside = repo.home / "outside"
    (outside / "sub").mkdir(parents=True)
    (outside / "there").write_text("1")
    (repo.path / "big").symlink_to(outside)
    (outside / "a.ipynb").write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    (repo.path / "out.ipynb").symlink_to(outside / "a.ipynb")
    run = "desc = 'no command'" if line.startswith("notebook") else f"run = '{repo.note('a')}'"
    repo.write("pipeline.toml", f"[stage.a]\n{run}\n{line}\n")
    done = repo.pipe("build", "--json", check=False)
    assert done.returncode == 2 and repo.ran() == []
    (message,) = done.json()["error"]["messages"]
    assert (message["line"], message["key"]) == (3, f"stage.a.{key}")
    assert f"`{named}`" in message["text"] and "leads out of the workspace" in message["text"]
    assert "Traceback" not in repo.pipe("status", check=False).stderr


@pytest.mark.parametrize("named", ["params.json", "big/params.json"])
@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("pipeline.params-files", "[pipeline]\nparams-files = ['%s']\n"),
        ("environment.e.requirements", "[environment.e]\nrequirements = '%s'\n"),
        ("environment.e.dockerfile", "[environment.e]\ndockerfile = '%s'\n"),
    ],
)
def test_no_file_of_the_pipeline_leads_out_by_a_link(repo, key: str, text: str, named: str) -> None:
    outside = repo.home / "outside"
    outside.mkdir()
    (outside / "params.json").write_text("{}")
    (repo.path / "big").symlink_to(outside)
    (repo.path / "params.json").symlink_to(outside / "params.json")
    repo.write("pipeline.toml", f"{text % named}[stage.a]\nrun = '{repo.note('a')}'\n")
    done = repo.pipe("build", "--json", check=False)
    assert done.returncode == 2 and repo.ran() == []
    (message,) = done.json()["error"]["messages"]
    assert (message["line"], message["key"]) == (2, key)
    assert f"`{named}` leads out of the workspace" in message["text"]


@pytest.mark.parametrize("named", ["loop.json", "x" * 300 + ".json"])
def test_a_file_that_can_not_be_there(repo, named: str) -> None:
    """A link to itself and a name longer than any file's are told as what does not exist is, with the line."""
    (repo.path / "loop.json").symlink_to("loop.json")
    repo.write("pipeline.toml", f"[pipeline]\nparams-files = ['{named}']\n[stage.a]\nrun = 'true'\n")
    done = repo.pipe("build", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"pipeline.toml:2: pipeline.params-files: `{named}` does not exist\n")


def test_a_hash_path_that_is_not_there(repo, toml) -> None:
    """It counts as absent, which is said: it may be misspelt."""
    repo.write("notes", "1")
    toml("""
        [stage.a]
        run = "NOTE(a)"
        hash-paths = ["notse", "notes"]
    """)
    said = repo.pipe("build").stderr
    assert "`notse`, of the `hash-paths` of `a`, does not exist" in said and "`notes`" not in said
    assert "does not exist" not in repo.pipe("build").stderr
    repo.write("notse", "1")
    assert "does not exist" not in repo.pipe("build").stderr and repo.ran() == ["a", "a"]


def test_hash_paths_by_a_link_inside(repo, toml) -> None:
    """A link that leads to what is in the workspace is content, its own target's text; a folder behind one is there."""
    repo.write("real/file", "1")
    (repo.path / "way").symlink_to("real")
    toml("""
        [stage.a]
        run = "NOTE(a)"
        hash-paths = ["way/file", "way"]
    """)
    repo.pipe("build")
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"
    repo.commit()
    assert repo.pipe("status", "--rev", "HEAD", "--check", "--json").stages(key="state") == {"a": "fresh"}
    repo.write("real/file", "2")
    assert repo.pipe("status", "--json").why("a") == [("hash-path", "way/file")]
    repo.commit("not built")
    told = repo.pipe("status", "--rev", "HEAD", "--json")
    assert told.why("a") == [("hash-path", "way/file")]
    assert told.stages(key="fingerprint") == repo.pipe("status", "--json").stages(key="fingerprint")
    assert repo.pipe("what-if", "--rev", "HEAD~1", "--json").stages(key="would") == {"a": "fresh"}


def test_pass_env_is_masked(repo, toml) -> None:
    """pass-env: handed through, not fingerprinted, masked in every log and record, also in two writes."""
    toml("""
        [stage.a]
        run = '''echo it is $TOKEN; printf '%s' "$TOKEN" | head -c 6; sleep 0.2; printf '%s' "$TOKEN" | tail -c +7; echo; echo $TOKEN >&2; echo 1 > {outputs.o}'''
        outputs = { o = "o" }
        pass-env = ["TOKEN"]
    """)
    secret = "hunter2-and-more"
    done = repo.pipe("build", "-v", env={"TOKEN": secret})
    assert secret not in done.stdout + done.stderr and "it is" in done.stdout + done.stderr
    run = repo.pipe("runs", "--json").json()["runs"][0]["id"]
    assert secret not in repo.pipe("logs", run, "a").stdout
    for path in repo.pipe_dir.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path
    assert secret not in repo.git("log", "--all", "-p").stdout
    assert repo.pipe("build", "--json", env={"TOKEN": "another-secret"}).json()["status"] == "up-to-date"


def test_short_and_many_lined_secrets(repo, toml) -> None:
    """pass-env values under 6 characters are not masked, and it is said once; each line of a longer one is."""
    toml("""
        [stage.a]
        run = '''echo $PIN; echo "$KEY"; echo 1 > {outputs.o}'''
        outputs = { o = "o" }
        pass-env = ["PIN", "KEY"]
    """)
    done = repo.pipe("build", env={"PIN": "12345", "KEY": "first-line\nsecond-line"})
    said = done.stdout + done.stderr
    assert "first-line" not in said and "second-line" not in said
    assert said.count("PIN") == 1 and "mask" in said


def test_list_run_and_list_params(repo, toml) -> None:
    """A list is executed as it is; a list param is one argument an item in it, space-joined and quoted in a string."""
    toml("""
        [params]
        items = ["p", "q r", "$x"]
        one = "a b; echo no"
        [stage.list]
        run = ["python", "-c", "import sys; open(sys.argv[1], 'w').write(repr(sys.argv[2:]))", "{outputs.o}", "{params.items}", "{params.one}", "{{x}}", "$HOME"]
        outputs = { o = "list" }
        [stage.text]
        run = "python -c 'import sys; print(sys.argv[1:])' {params.items} {params.one} {{x}} > {outputs.o}"
        outputs = { o = "text" }
    """)
    repo.pipe("build")
    assert repo.read("list") == repr(["p", "q r", "$x", "a b; echo no", "{x}", "$HOME"])
    assert repo.read("text").strip() == repr(["p", "q r", "$x", "a b; echo no", "{x}"])


@pytest.mark.parametrize("name", ["params.yaml", "params.json", "params.toml"])
def test_params_files(repo, toml, name: str) -> None:
    """params-files: their keys join [params], and a change of one that counts makes stale."""
    texts = {
        "params.yaml": "train:\n  lr: {}\n",
        "params.json": '{{"train": {{"lr": {}}}}}',
        "params.toml": "[train]\nlr = {}\n",
    }
    repo.write(name, texts[name].format(0.5))
    toml(f"""
        [pipeline]
        params-files = ["{name}"]
        [stage.a]
        run = "echo {{params.train.lr}} > {{outputs.o}}"
        outputs = {{ o = "o" }}
    """)
    repo.pipe("build")
    assert repo.read("o") == "0.5\n"
    repo.write(name, texts[name].format(0.25))
    done = repo.pipe("build", "--json")
    assert done.why("a") == [("param", "train.lr")] and repo.read("o") == "0.25\n"
    repo.commit()
    assert repo.pipe("status", "--rev", "HEAD", "--check").returncode == 0


def test_a_stage_without_outputs(repo, toml) -> None:
    """A stage without outputs runs once for a fingerprint, like a test target."""
    repo.write("s", "1")
    toml("""
        [stage.a]
        source = "s"
        run = "NOTE(a)"
    """)
    repo.pipe("build")
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"
    repo.write("s", "2")
    repo.pipe("build")
    assert repo.ran() == ["a", "a"]


def test_a_mount_that_can_not_be_is_a_download_with_one_notice(repo, toml) -> None:
    """Whatever the number of inputs and stages; what is fresh is given nothing, and says nothing."""
    repo.write("big/f", "1")
    repo.write("big/g", "2")
    text = """
        [dataset.big]
        from = "big"
        [stage.a]
        run = "NOTE(a) && cat {inputs.i}/* {inputs.j}/g > {outputs.o}"
        inputs = { i = { from = "dataset:big", mode = "mount" }, j = { from = "dataset:big", mode = "MODE", path = "j" } }
        outputs = { o = "a" }
        [stage.b]
        run = "NOTE(b) && cat {inputs.i}/f > {outputs.o}"
        inputs = { i = { from = "dataset:big", mode = "mount" } }
        outputs = { o = "b" }
    """
    toml(text.replace("MODE", "mount"))
    done = repo.pipe("build")
    assert (repo.read("a"), repo.read("b"), repo.ran()) == ("122", "1", ["a", "b"])
    assert done.stderr.count("mounts nothing") == 1
    toml(text.replace("MODE", "download"))
    again = repo.pipe("build")
    assert "mount" not in again.stderr and repo.ran() == []
