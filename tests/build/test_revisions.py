"""Rule 10: at a revision, judged from git's objects and the lockfile there alone."""

from __future__ import annotations

import shutil

import pytest

TEXT = """
    [stage.a]
    run = "NOTE(a) && cat {inputs.i}/* > {outputs.o}"
    inputs = { i = "data" }
    outputs = { o = "o" }
    [stage.b]
    run = "NOTE(b) && cat {inputs.i} {inputs.j} > {outputs.o}"
    inputs = { i = "o", j = "data/y" }
    outputs = { o = "b" }
"""


@pytest.fixture
def ignored(repo, toml):
    """Stages that read a data folder that git ignores."""
    repo.write("data/x", "1")
    repo.write("data/y", "1")
    repo.write(".gitignore", "/data/\n")
    toml(TEXT)
    repo.pipe("build")
    repo.commit()
    return repo


def states(repo, rev: str = "HEAD") -> dict[str, str]:
    return repo.pipe("status", "--rev", rev, "--json").stages(key="state")


def test_an_input_that_git_does_not_hold(ignored) -> None:
    """It has the digest that the lock's entries give it, though it is not there."""
    assert states(ignored) == {"a": "fresh", "b": "fresh"}
    shutil.rmtree(ignored.path / "data")
    shutil.rmtree(ignored.pipe_dir)
    assert states(ignored) == {"a": "fresh", "b": "fresh"}
    clone = ignored.clone()
    assert states(clone) == {"a": "fresh", "b": "fresh"}


def test_entries_that_disagree(ignored) -> None:
    """Entries that disagree make the stages that read it stale."""
    ignored.write("data/y", "2")
    ignored.pipe("build", "a")
    ignored.commit()
    told = states(ignored)
    assert told["a"] == "fresh"
    ignored.write("pipeline.toml", ignored.read("pipeline.toml").replace('j = "data/y"', 'j = "data"'))
    ignored.commit()
    assert states(ignored)["b"] == "stale"


def test_entries_that_disagree_are_said_to(repo, toml) -> None:
    """Not that the input is gone, which may lie there."""
    repo.write("data/y", "1")
    repo.write(".gitignore", "/data/\n")
    toml("""
        [stage.a]
        run = "cat {inputs.i}"
        inputs = { i = "data/y" }
        [stage.b]
        run = "cat {inputs.i} | wc -c"
        inputs = { i = "data/y" }
    """)
    repo.pipe("build")
    repo.write("data/y", "2")
    repo.pipe("build", "a")
    repo.commit()
    assert states(repo) == {"a": "stale", "b": "stale"}
    said = repo.pipe("status", "--rev", "HEAD").stdout
    assert said.count("git does not hold `data/y`, and the lockfile's entries for it disagree") == 2
    assert "does not exist" not in said
    repo.pipe("build")
    repo.commit()
    assert states(repo) == {"a": "fresh", "b": "fresh"}


def test_no_entries(ignored) -> None:
    """None: stale."""
    (ignored.path / "pipe.lock").unlink()
    ignored.commit()
    assert states(ignored) == {"a": "stale", "b": "pending"}
    assert ignored.pipe("status", "--rev", "HEAD", "--check", check=False).returncode == 1


def test_an_input_that_git_holds_counts_by_its_blob(repo, toml) -> None:
    """An input that git does not ignore counts by the bytes git stores for it: the same at a commit."""
    repo.write(".gitattributes", "*.txt text eol=crlf\n")
    repo.write("data.txt", b"1\r\n2\r\n")
    toml("""
        [stage.a]
        run = "NOTE(a) && cat {inputs.i} > {outputs.o}"
        inputs = { i = "data.txt" }
        outputs = { o = "o" }
    """)
    repo.pipe("build")
    repo.commit()
    assert states(repo) == {"a": "fresh"}
    repo.write("data.txt", b"1\r\n3\r\n")
    repo.commit()
    assert states(repo) == {"a": "stale"}


def test_untracked_work_does_not_count_there(repo, chain) -> None:
    """A commit is judged by what is in it: neither the work tree nor untracked files count."""
    repo.pipe("build")
    repo.commit()
    repo.write("a.txt", "2x")
    repo.write("pipeline.toml", "broken = [")
    (repo.path / "pipe.lock").unlink()
    assert states(repo) == {"a": "fresh", "b": "fresh", "c": "fresh"}


def test_a_lock_not_committed_with_its_source(repo, chain) -> None:
    """The lock that counts is that revision's."""
    repo.pipe("build")
    repo.commit()
    repo.write("a.txt", "2x")
    repo.pipe("build")
    repo.git("add", "a.txt")
    repo.git("commit", "-q", "-m", "source only")
    assert states(repo) == {"a": "stale", "b": "pending", "c": "pending"}
    assert repo.pipe("status", "--check").returncode == 0


@pytest.mark.parametrize("rev", ["nope", "HEAD:a.txt", "--foo", ""])
def test_a_revision_that_is_none(repo, chain, rev: str) -> None:
    """A revision that is none is wrong use: exit 2."""
    repo.commit()
    done = repo.pipe("status", f"--rev={rev}", check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_a_commit_without_a_pipeline(repo, toml) -> None:
    """A commit without a pipeline.toml has nothing to judge: exit 2."""
    repo.commit("empty")
    toml("""
        [stage.a]
        run = "true"
    """)
    assert repo.pipe("status", "--rev", "HEAD", check=False).returncode == 2


def test_a_branch_a_tag_and_a_broken_pipeline(repo, chain) -> None:
    """Any name of a commit does; a broken pipeline.toml there is told with its lines."""
    repo.pipe("build")
    repo.commit()
    repo.git("tag", "-a", "v1", "-m", "v1")
    assert states(repo, "v1") == states(repo, "main") == {"a": "fresh", "b": "fresh", "c": "fresh"}
    repo.write("pipeline.toml", "[stage.a]\nrnu = 1\n")
    repo.commit()
    done = repo.pipe("status", "--rev", "HEAD", check=False)
    assert done.returncode == 2 and "pipeline.toml:2" in done.stderr


def test_params_of_the_environment_are_not_asked(repo, toml) -> None:
    """PIPE_PARAM_* are not asked: what they would change in the work tree does not count at a commit."""
    toml("""
        [params]
        p = 1
        [stage.a]
        run = "echo {params.p} > {outputs.o}"
        outputs = { o = "o" }
    """)
    repo.pipe("build")
    repo.commit()
    env = {"PIPE_PARAM_p": "2"}
    assert repo.pipe("status", "--json", env=env).stages(key="state") == {"a": "stale"}
    for _look in range(2):
        told = repo.pipe("status", "--rev", "HEAD", "--json", env=env)
        assert told.stages(key="state") == {"a": "fresh"}
        assert told.stdout == repo.pipe("status", "--rev", "HEAD", "--json").stdout


def test_the_action_cache_and_the_network_are_not_asked(repo, chain) -> None:
    """What is known here of other results makes nothing fresh or restorable there."""
    repo.pipe("build")
    repo.commit("first")
    repo.write("a.txt", "2x")
    repo.pipe("build")
    repo.git("checkout", "-q", "pipe.lock")
    repo.commit("without its lock")
    assert repo.pipe("status", "--json").stages(key="state")["a"] == "restorable"
    assert states(repo) == {"a": "stale", "b": "pending", "c": "pending"}


def test_a_committed_output_that_differs_from_the_lock(repo, toml) -> None:
    """It is `output-changed`: for a file and for a folder, whatever lies in the work tree."""
    toml("""
        [stage.a]
        run = "echo 1 > {outputs.o}; mkdir {outputs.d}; echo 2 > {outputs.d}/x"
        outputs = { o = { path = "o", cache = false }, d = { path = "d", cache = false } }
    """)
    repo.pipe("build")
    repo.commit()
    assert states(repo) == {"a": "fresh"}
    for path in ("o", "d/x"):
        before = repo.read(path)
        repo.write(path, "by hand\n")
        repo.commit()
        repo.write(path, before)
        done = repo.pipe("status", "--rev", "HEAD", "--check", "--json", check=False)
        assert done.returncode == 1 and done.why("a") == [("output-changed", path.partition("/")[0])]
        repo.commit("put back")
        assert states(repo) == {"a": "fresh"}
    repo.git("rm", "-rq", "--cached", "o", "d")
    repo.git("commit", "-qm", "outputs are not committed")
    assert states(repo) == {"a": "fresh"}


def test_a_broken_expectation_is_named(repo, toml) -> None:
    """It makes --check exit 1 and names the metric, though the stage is fresh; `vs` too."""
    toml("""
        [stage.a]
        source = "n"
        run = "cat n > {outputs.m}"
        metrics = ["m"]
        outputs = { m = "m.json" }
    """)
    repo.write("n", '{"auc": 0.9}')
    repo.pipe("build")
    repo.commit("good")
    repo.git("branch", "good")
    repo.write("n", '{"auc": 0.5}')
    repo.pipe("build")
    repo.commit("worse")
    assert repo.pipe("status", "--rev", "HEAD", "--check").returncode == 0
    text = repo.read("pipeline.toml")
    for bound, says in (
        ("{ min = 0.8 }", "`m:auc` is 0.5, expected at least 0.8"),
        ('{ vs = "good", drop = 0.1 }', "`m:auc` is 0.5, at `good` it is 0.9: a drop of more than 0.1"),
        ("{ max = 0.1 }", "`m:auc` is 0.5, expected at most 0.1"),
    ):
        repo.write("pipeline.toml", f'{text}[stage.a.expect]\n"m:auc" = {bound}\n')
        repo.commit()
        done = repo.pipe("status", "--rev", "HEAD", "--check", check=False)
        assert done.returncode == 1 and says in done.stdout
        assert states(repo) == {"a": "fresh"}
    repo.write("pipeline.toml", f'{text}[stage.a.expect]\n"m:auc" = {{ min = 0.1, vs = "nowhere" }}\n')
    repo.commit()
    assert repo.pipe("status", "--rev", "HEAD", "--check").returncode == 0


def test_a_path_inside_a_folder_that_changed_beside_it(repo, toml) -> None:
    """A stage that reads one file of a folder stays fresh when another one changes: at the commit as in the work tree."""
    toml("""
        [stage.a]
        source = ["x", "y"]
        run = "mkdir {outputs.d}; cp x y {outputs.d}"
        outputs = { d = "d" }
        [stage.b]
        run = "NOTE(b) && cat {inputs.i} > {outputs.o}"
        inputs = { i = "d/x" }
        outputs = { o = "o" }
    """)
    repo.write("x", "x\n")
    repo.write("y", "y\n")
    repo.pipe("build")
    repo.commit()
    assert states(repo) == {"a": "fresh", "b": "fresh"}
    repo.write("y", "other\n")
    repo.ran()
    repo.pipe("build")
    assert repo.ran() == []
    repo.commit()
    assert repo.pipe("status", "--json").stages(key="state") == {"a": "fresh", "b": "fresh"}
    assert states(repo) == {"a": "fresh", "b": "fresh"}


def test_edits_that_do_not_count(repo, chain) -> None:
    """Comments, key order, desc, resources and the branch: nothing that counts has changed."""
    repo.pipe("build")
    repo.commit()
    repo.git("checkout", "-qb", "other")
    text = repo.read("pipeline.toml")
    repo.write(
        "pipeline.toml", "# a remark\n" + text.replace("[stage.b]", "[stage.b]\ndesc = 'b'\nresources = { cpus = 1 }")
    )
    commit = repo.commit()
    assert states(repo) == {"a": "fresh", "b": "fresh", "c": "fresh"}
    assert repo.pipe("status", "--rev", f"main..{commit}", "--check").returncode == 0


def test_a_new_file_that_was_built_with_and_never_committed(repo) -> None:
    """It was in the folder when the lock was written; a commit without it is another content, and so stale."""
    repo.write("data/a", "1\n")
    repo.write(
        "pipeline.toml",
        '[stage.a]\nrun = "cat {inputs.d}/* > {outputs.o}"\ninputs = { d = "data" }\noutputs = { o = "o.txt" }\n',
    )
    repo.commit()
    repo.write("data/new", "2\n")
    repo.pipe("build")
    (repo.path / "data/new").rename(repo.home / "new")
    repo.commit()
    assert repo.pipe("status", "--rev", "HEAD", "--json").stages(key="state") == {"a": "stale"}
    assert repo.pipe("status", "--json").stages(key="state") == {"a": "stale"}
    (repo.home / "new").rename(repo.path / "data/new")
    repo.commit()
    assert repo.pipe("status", "--rev", "HEAD", "--json").stages(key="state") == {"a": "fresh"}
    assert repo.pipe("status", "--rev", "HEAD~1", "--json").stages(key="state") == {"a": "stale"}
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"


def test_a_workspace_that_is_not_on_disk(repo, chain) -> None:
    """What lies in the work tree does not count, and be it nothing at all."""
    repo.pipe("build")
    repo.commit()
    (repo.path / "pipeline.toml").unlink()
    (repo.path / "pipe.lock").unlink()
    assert states(repo) == {"a": "fresh", "b": "fresh", "c": "fresh"}
    assert repo.pipe("status", "--rev", "HEAD..HEAD").stdout == "no commits\n"
    (repo.path / "deep").mkdir()
    assert repo.pipe("-C", "deep", "status", "--rev", "HEAD", "--check").returncode == 0
    assert repo.pipe("status", check=False).returncode == 2
