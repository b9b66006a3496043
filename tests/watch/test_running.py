"""A save while stages run: what it reaches is ended and started over, what it does not reach goes on."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

import pytest
from tests.conftest import Repo

from .conftest import Watch, runs, until


@pytest.fixture
def slow(repo: Repo) -> Repo:
    """`a` and `b` each run until HOME has a file `go-NAME`; `c` comes after `a`."""
    stages = "".join(
        f"""
        [stage.{name}]
        source = "{name}"
        run = "echo {name} >> $HOME/began; while ! test -e $HOME/go-{name}; do sleep 0.05; done; cat {name}/* > {{outputs.o}}; {repo.note(name)}"
        outputs = {{ o = "out/{name}" }}
        """
        for name in ("a", "b")
    )
    repo.write(
        "pipeline.toml",
        stages
        + f"""
        [stage.c]
        source = "c"
        run = "{repo.note("c")}; cat {{inputs.i}} c/* > {{outputs.o}}"
        inputs = {{ i = "stage:a.o" }}
        outputs = {{ o = "out/c" }}
        """,
    )
    for name in ("a", "b", "c"):
        repo.write(f"{name}/x.txt", f"{name}\n")
    repo.write(".gitignore", "/out\n")
    repo.commit()
    return repo


def began(repo: Repo, *names: str) -> Callable[[], bool]:
    log = repo.home / "began"
    return lambda: log.exists() and sorted(log.read_text().split()) == sorted(names)


def go(repo: Repo, name: str) -> None:
    (repo.home / f"go-{name}").touch()


def newest(repo: Repo) -> dict[str, object]:
    told = repo.pipe("runs", "--json").json()
    return (told["runs"] if isinstance(told, dict) else told)[0]  # type: ignore[no-any-return]


def test_a_save_that_reaches_a_running_stage_ends_it_and_starts_over(slow: Repo, watch: Callable[..., Watch]) -> None:
    w = watch("a")
    w.until(began(slow, "a"), "the start of a")
    slow.write("a/x.txt", "newer\n")
    w.until(lambda: len(w.documents) == 1, "the end of the first build")
    assert w.documents[0]["status"] == "cancelled"
    assert "`a` starts over" in w.text
    w.until(began(slow, "a", "a"), "the second start")
    assert slow.ran() == []
    go(slow, "a")
    w.until(lambda: len(w.documents) == 2, "the second build")
    assert w.documents[1]["status"] == "succeeded"
    assert slow.read("out/a") == "newer\n"
    assert slow.ran() == ["a"]
    told = [run["status"] for run in slow.pipe("runs", "--json").json()["runs"]]
    assert told == ["succeeded", "cancelled"]


def test_a_save_that_does_not_reach_what_runs_is_built_afterwards(slow: Repo, watch: Callable[..., Watch]) -> None:
    go(slow, "b")
    w = watch()
    w.until(lambda: began(slow, "a", "b")() and slow.exists("out/b"), "the start of a, and the end of b")
    slow.write("b/x.txt", "newer\n")
    slow.write("README.md", "nothing\n")
    go(slow, "a")
    w.until(lambda: len(w.documents) == 2, "two builds")
    assert [document["status"] for document in w.documents] == ["succeeded", "succeeded"]
    assert w.ran(w.documents[1]) == ["b"]
    assert slow.ran() == ["a", "b", "b", "c"]
    assert slow.read("out/b") == "newer\n"
    assert runs(slow) == 2


def test_of_two_that_run_only_the_one_that_is_reached_is_ended(slow: Repo, watch: Callable[..., Watch]) -> None:
    w = watch()
    w.until(began(slow, "a", "b"), "the start of both")
    slow.write("a/x.txt", "newer\n")
    w.until_said("cancelled a")
    go(slow, "b")
    w.until(lambda: len(w.documents) == 1, "the end of the first build")
    statuses = {stage["name"]: stage["status"] for stage in w.documents[0]["stages"]}
    assert statuses == {"a": "cancelled", "b": "ran", "c": "cancelled"}
    go(slow, "a")
    w.until(lambda: len(w.documents) == 2, "the second build")
    assert slow.ran() == ["a", "b", "c"]
    assert slow.read("out/c") == "newer\nc\n"


def test_a_save_that_reaches_a_stage_not_started_yet_is_part_of_the_build(
    slow: Repo, watch: Callable[..., Watch]
) -> None:
    w = watch("c")
    w.until(began(slow, "a"), "the start of a")
    slow.write("c/x.txt", "newer\n")
    go(slow, "a")
    w.until_ready()
    assert slow.read("out/c") == "a\nnewer\n"
    assert slow.ran() == ["a", "c"]


def test_a_command_that_is_changed_while_it_runs(slow: Repo, watch: Callable[..., Watch]) -> None:
    w = watch("a")
    w.until(began(slow, "a"), "the start of a")
    slow.write("pipeline.toml", slow.read("pipeline.toml").replace("cat a/*", "tac a/*"))
    w.until(began(slow, "a", "a"), "the second start")
    go(slow, "a")
    w.until(lambda: len(w.documents) == 2, "the second build")
    assert [document["status"] for document in w.documents] == ["cancelled", "succeeded"]


def test_what_never_counts_ends_nothing(slow: Repo, watch: Callable[..., Watch]) -> None:
    """A comment, a broken pipeline.toml, a commit, a touched file, an ignored one."""
    w = watch("a")
    w.until(began(slow, "a"), "the start of a")
    good = slow.read("pipeline.toml")
    slow.write("pipeline.toml", "# comment\n" + good)
    (slow.path / "a/x.txt").touch()
    slow.git("commit", "-qam", "meanwhile")
    slow.git("checkout", "-q", "-b", "same")
    slow.write("out/elsewhere", "ignored\n")
    slow.write("pipeline.toml", "broken")
    slow.write("pipeline.toml", good)
    go(slow, "a")
    w.until_ready()
    assert w.documents[0]["status"] == "succeeded"
    assert began(slow, "a")()


def test_a_branch_switch_while_a_stage_runs(slow: Repo, watch: Callable[..., Watch]) -> None:
    slow.git("checkout", "-q", "-b", "other")
    slow.write("a/x.txt", "other\n")
    slow.commit("other")
    slow.git("checkout", "-q", "main")
    w = watch("a")
    w.until(began(slow, "a"), "the start of a")
    slow.git("checkout", "-q", "other")
    w.until(began(slow, "a", "a"), "the second start")
    assert w.documents[0]["status"] == "cancelled"
    assert not slow.exists("out/a") and not (slow.path / "pipe.lock").exists()
    go(slow, "a")
    w.until(lambda: len(w.documents) == 2, "the second build")
    assert slow.read("out/a") == "other\n"
    assert slow.ran() == ["a"]
    assert runs(slow) == 2


def test_a_save_during_the_build_of_a_failed_stage_is_not_lost(slow: Repo, watch: Callable[..., Watch]) -> None:
    """`b` fails while `a` still runs; what is saved to mend it is built when `a` has ended."""
    slow.write(
        "pipeline.toml",
        slow.read("pipeline.toml").replace("cat b/* > {outputs.o}; ", "grep good b/* > {outputs.o} && "),
    )
    go(slow, "b")
    w = watch()
    w.until_said("failed    b")
    slow.write("b/x.txt", "good\n")
    go(slow, "a")
    w.until(lambda: len(w.documents) == 2, "the second build")
    assert {stage["name"]: stage["status"] for stage in w.documents[1]["stages"]}["b"] == "ran"
    assert slow.pipe("status", "--check").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ended_while_a_stage_runs(slow: Repo, watch: Callable[..., Watch], number: signal.Signals) -> None:
    w = watch("a")
    w.until(began(slow, "a"), "the start of a")
    assert w.end(number) == 130
    assert "Traceback" not in w.text
    assert [document["status"] for document in w.documents] == ["cancelled"]
    assert newest(slow)["status"] == "cancelled"
    assert not slow.exists("out/a")
    # Nothing is left running, and nothing is held: the stage can be built at once.
    go(slow, "a")
    assert slow.pipe("build", "a", "--json").stages() == {"a": "ran"}
    assert slow.ran() == ["a"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ended_while_it_waits(pair: Repo, watch: Callable[..., Watch], number: signal.Signals) -> None:
    w = watch()
    w.until_ready()
    assert w.end(number) == 130
    assert "Traceback" not in w.text and "error" not in w.text
    assert len(w.documents) == 1
    assert newest(pair)["status"] == "succeeded"


def test_two_watches_in_one_workspace(pair: Repo, watch: Callable[..., Watch]) -> None:
    """They wait for each other, stage by stage: nothing runs twice."""
    first, second = watch(), watch()
    first.until_ready()
    second.until_ready()
    assert pair.ran() == ["a", "b"]
    for number in range(3):
        pair.write("a/a.txt", f"{number}\n")
        until(lambda number=number: pair.exists("out/a") and pair.read("out/a") == f"{number}\n", "the output")  # type: ignore[misc]
    assert first.end() == second.end() == 130
    assert pair.ran() == ["a"] * 3
    assert pair.pipe("status", "--check").returncode == 0


def test_a_build_beside_a_watch(pair: Repo, watch: Callable[..., Watch]) -> None:
    w = watch("a")
    w.until_ready()
    pair.ran()
    pair.write("b/b.txt", "bb\n")
    pair.pipe("build", "b")
    assert pair.ran() == ["b"]
    w.next(lambda: pair.write("a/a.txt", "aa\n"))
    assert pair.ran() == ["a"]


def test_the_workspace_is_renamed(pair: Repo, watch: Callable[..., Watch]) -> None:
    w = watch()
    w.until_ready()
    pair.path.rename(pair.path.parent / "renamed")
    assert w.process.wait(60) == 1
    until(lambda: "is gone: it was removed, or has another name now" in w.text, "the reason")
    assert "Traceback" not in w.text


def test_the_workspace_is_removed_while_a_stage_runs(slow: Repo, watch: Callable[..., Watch]) -> None:
    w = watch("a")
    w.until(began(slow, "a"), "the start of a")
    slow.path.rename(slow.path.parent / "elsewhere")
    assert w.process.wait(60) == 1
    until(lambda: "is gone" in w.text, "the reason")
    assert "Traceback" not in w.text


def test_pins_that_are_new_in_a_build_end_nothing(slow: Repo, watch: Callable[..., Watch]) -> None:
    """A dataset that is pinned by the very build that goes on is not in the lockfile yet."""
    (slow.home / "data").mkdir()
    (slow.home / "data/x.txt").write_text("x")
    text = slow.read("pipeline.toml").replace('source = "a"', 'source = "a"\ninputs = { d = "dataset:d" }', 1)
    slow.write("pipeline.toml", f'[dataset.d]\nfrom = "{slow.home}/data"\n{text}')
    go(slow, "b")
    w = watch("a", "b")
    w.until(lambda: began(slow, "a", "b")() and slow.exists("out/b"), "the start of a, and the end of b")
    slow.write("b/x.txt", "newer\n")
    go(slow, "a")
    w.until(lambda: len(w.documents) == 2, "two builds")
    assert [document["status"] for document in w.documents] == ["succeeded", "succeeded"]
    assert slow.ran() == ["a", "b", "b"]


def test_ended_before_anything_runs(pair: Repo, watch: Callable[..., Watch]) -> None:
    for _ in range(3):
        w = watch()
        until(lambda w=w: pair.pipe_dir.exists() or w.process.poll() is not None, "a sign of life")  # type: ignore[misc]
        assert w.end(signal.SIGTERM) in (130, -signal.SIGTERM)  # before Python got so far it is the system's to end it
        assert "Traceback" not in w.text
    assert pair.pipe("build", "--json").json()["status"] in ("succeeded", "up-to-date")


def test_nohup_is_honoured(pair: Repo) -> None:
    """A terminal that goes away does not end what was started with nohup."""
    pair.run("sh", "-c", f"nohup {sys.executable} -m pipesmith watch > $HOME/said 2>&1 & echo $! > $HOME/pid")
    said, pid = pair.home / "said", int((pair.home / "pid").read_text())
    try:
        until(lambda: "waiting for changes" in said.read_text(), "that it waits")
        os.kill(pid, signal.SIGHUP)
        pair.write("a/a.txt", "aa\n")
        until(lambda: pair.read("out/a") == "aa\n", "a build")
        os.kill(pid, signal.SIGTERM)
        until(
            lambda: not os.path.exists(f"/proc/{pid}") or "Z (zombie)" in open(f"/proc/{pid}/status").read(), "its end"
        )
    finally:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
