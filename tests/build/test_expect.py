"""`expect`: bounds on metrics."""

from __future__ import annotations

import pytest

TEXT = """
    [stage.a]
    source = "auc"
    run = "NOTE(a) && cat auc > {outputs.report}"
    outputs = { report = { path = "report.json", cache = false } }
    metrics = ["report"]
    [stage.a.expect]
    "report:auc" = EXPECT
    [stage.b]
    inputs = { i = "report.json" }
    run = "NOTE(b) && cat {inputs.i} > {outputs.o}"
    outputs = { o = "b" }
"""


def report(number: str) -> str:
    return f'{{"auc": {number}, "deep": {{"x": 1}}}}'


@pytest.fixture
def auc(repo, toml):
    def write(number: str, expect: str) -> None:
        repo.write("auc", report(number))
        toml(TEXT.replace("EXPECT", expect))

    return write


def test_kept_bounds(repo, auc) -> None:
    """min and max: a result within them is a result; its metrics are in the lock by dotted name."""
    auc("0.95", "{ min = 0.9, max = 1.0 }")
    repo.pipe("build")
    assert repo.ran() == ["a", "b"]
    metrics = repo.pipe("build", "--json").json()["stages"][0]["metrics"]
    assert metrics == {"report:auc": 0.95, "report:deep.x": 1}
    assert "report:deep.x" in repo.read("pipe.lock") or "deep.x" in repo.read("pipe.lock")


@pytest.mark.parametrize("expect", ["{ min = 0.96 }", "{ max = 0.9 }"])
def test_broken(repo, auc, expect: str) -> None:
    """Broken: `failed`, outputs in the cache, not in the workspace; the next build does not run it again."""
    auc("0.95", expect)
    done = repo.pipe("build", "--json", check=False)
    assert done.returncode == 1
    assert done.stages() == {"a": "failed", "b": "skipped"}
    assert "report:auc" in done.json()["stages"][0]["error"] or "report:auc" in done.stderr
    assert not repo.exists("report.json")
    hash = done.json()["stages"][0]["outputs"][0]["hash"]
    assert '"auc": 0.95' in repo.pipe("cat", hash).stdout
    assert repo.ran() == ["a"]
    again = repo.pipe("build", "--json", check=False)
    assert again.returncode == 1 and again.stages() == {"a": "failed", "b": "skipped"}
    assert repo.ran() == []
    auc("0.95", "{ min = 0.5 }")
    assert repo.pipe("build", "--json").stages() == {"a": "restored", "b": "ran"}
    assert repo.ran() == ["b"]


def test_broken_leaves_the_old_result(repo, auc) -> None:
    """The workspace and the lock keep the last good result."""
    auc("0.95", "{ min = 0.9 }")
    repo.pipe("build")
    before = repo.read("report.json"), repo.read("pipe.lock")
    repo.write("auc", report("0.5"))
    assert repo.pipe("build", check=False).returncode == 1
    assert (repo.read("report.json"), repo.read("pipe.lock")) == before


def test_broken_at_a_revision(repo, auc) -> None:
    """A broken `expect` makes `status --rev --check` exit 1 as well, naming the metric."""
    auc("0.95", "{ min = 0.9 }")
    repo.pipe("build")
    repo.commit()
    assert repo.pipe("status", "--rev", "HEAD", "--check").returncode == 0
    auc("0.95", "{ min = 0.99 }")
    repo.commit()
    done = repo.pipe("status", "--rev", "HEAD", "--check", check=False)
    assert done.returncode == 1 and "report:auc" in done.stdout
    assert repo.pipe("status", "--check", check=False).returncode == 1
    assert repo.pipe("build", check=False).returncode == 1


def test_vs_and_drop(repo, auc) -> None:
    """vs: not worse than at that revision by more than `drop`."""
    auc("0.95", '{ vs = "main", drop = 0.01 }')
    repo.pipe("build")
    repo.commit()
    repo.git("checkout", "-q", "-b", "work")
    repo.write("auc", report("0.945"))
    repo.pipe("build")
    repo.write("auc", report("0.93"))
    done = repo.pipe("build", "--json", check=False)
    assert done.returncode == 1 and done.stages()["a"] == "failed"
    assert "0.95" in done.json()["stages"][0]["error"] and "main" in done.json()["stages"][0]["error"]
    repo.write("auc", report("0.99"))
    repo.pipe("build")


def test_vs_of_a_revision_without_it(repo, auc) -> None:
    """Where that revision has no such metric there is nothing to compare with."""
    repo.write("x", "1")
    repo.commit()
    auc("0.1", '{ vs = "main" }')
    assert repo.pipe("build").returncode == 0


def test_a_metric_that_is_not_there(repo, auc) -> None:
    """A bound on a metric that the output does not have is broken, and named."""
    repo.write("auc", report("0.9"))
    auc("0.9", "{ min = 0.1 }")
    text = repo.read("pipeline.toml").replace('"report:auc"', '"report:acu"')
    repo.write("pipeline.toml", text)
    done = repo.pipe("build", check=False)
    assert done.returncode == 1 and "report:acu" in done.stdout + done.stderr


def test_expect_is_no_part_of_the_fingerprint(repo, auc) -> None:
    """Changing a bound runs nothing."""
    auc("0.95", "{ min = 0.9 }")
    repo.pipe("build")
    repo.ran()
    auc("0.95", "{ min = 0.8 }")
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"
    assert repo.ran() == []


def test_stages_after_a_broken_fresh_one_do_not_run(repo, auc) -> None:
    """A bound raised over the locked number makes the stage `failed` at the next build, and what follows is skipped."""
    auc("0.95", "{ min = 0.9 }")
    repo.pipe("build")
    auc("0.95", "{ min = 0.99 }")
    done = repo.pipe("build", "--json", check=False)
    assert done.returncode == 1 and done.stages()["a"] == "failed"
    assert repo.read("report.json")


def test_a_revision_to_compare_with_that_does_not_exist_is_said(repo) -> None:
    """A misspelt `vs` would compare with nothing, silently."""
    repo.write(
        "pipeline.toml",
        """
        [stage.a]
        run = "echo '{{\\"auc\\": 0.9}}' > {outputs.m}"
        metrics = ["m"]
        outputs = { m = { path = "m.json", cache = false } }
        [stage.a.expect]
        "m:auc" = { vs = "origin/mian" }
        """,
    )
    told = "`origin/mian` of `vs` is no revision of this repository"
    assert told in repo.pipe("build").stderr
    assert told in repo.pipe("build").stderr
    note = "not compared with `origin/mian`, which is no revision here"
    assert repo.pipe("status", "--json").json()["stages"][0]["notes"] == [note]
    commit = repo.commit()
    assert repo.pipe("status", "--rev", commit, "--json").json()["stages"][0]["notes"] == [note]
    repo.git("update-ref", "refs/remotes/origin/mian", commit)
    assert told not in repo.pipe("build").stderr
    assert repo.pipe("status", "--rev", commit, "--json").json()["stages"][0]["notes"] == []
