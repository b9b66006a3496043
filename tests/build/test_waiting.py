"""Who waits for whom, and what is let finish."""

from __future__ import annotations

import time


def wait_for(path) -> None:
    for _ in range(500):
        if path.exists():
            return
        time.sleep(0.02)
    raise AssertionError(f"{path} never came")


def test_what_runs_is_let_finish(repo, toml) -> None:
    """After a failure what runs is let finish and nothing new starts."""
    toml("""
        [stage.bad]
        run = "while ! test -e $HOME/go; do sleep 0.02; done; exit 1"
        [stage.long]
        run = "touch $HOME/go; sleep 0.3; echo 1 > {outputs.o}"
        outputs = { o = "long" }
        [stage.next]
        run = "NOTE(next) && cat {inputs.i} > {outputs.o}"
        inputs = { i = "long" }
        outputs = { o = "next" }
    """)
    done = repo.pipe("build", "-j2", "--json", check=False)
    assert done.stages() == {"bad": "failed", "long": "ran", "next": "skipped"}
    assert repo.read("long") == "1\n" and repo.ran() == []


def test_waiting_names_the_holder(repo, toml) -> None:
    """Builds wait for each other per stage; waiting names the holder."""
    toml("""
        [stage.a]
        run = "NOTE(a) && touch $HOME/in; while ! test -e $HOME/go; do sleep 0.02; done; echo 1 > {outputs.o}"
        outputs = { o = "o" }
    """)
    first = repo.start("build")
    wait_for(repo.home / "in")
    second = repo.start("build")
    time.sleep(1)
    (repo.home / "go").touch()
    out, err = second.communicate(timeout=20)
    first.communicate(timeout=20)
    assert first.returncode == second.returncode == 0
    assert str(first.pid) in out + err
    assert repo.ran() == ["a"]


def test_an_interrupt_while_waiting(repo, toml) -> None:
    """Ctrl-C ends a build that waits for another one, and leaves that one alone."""
    import signal

    toml("""
        [stage.a]
        run = "touch $HOME/in; while ! test -e $HOME/go; do sleep 0.02; done; echo 1 > {outputs.o}"
        outputs = { o = "o" }
    """)
    first = repo.start("build")
    wait_for(repo.home / "in")
    second = repo.start("build")
    time.sleep(1)
    second.send_signal(signal.SIGINT)
    second.communicate(timeout=10)
    assert second.returncode == 130
    (repo.home / "go").touch()
    first.communicate(timeout=20)
    assert first.returncode == 0 and repo.read("o") == "1\n"


def test_a_reused_result_of_a_stage_that_failed_there(repo, toml) -> None:
    """The second build runs a stage itself where the first one's failed."""
    toml("""
        [stage.a]
        run = "NOTE(a) && touch $HOME/in; while ! test -e $HOME/go; do sleep 0.02; done; mkdir $HOME/once 2> /dev/null && exit 1; echo 1 > {outputs.o}"
        outputs = { o = "o" }
    """)
    first = repo.start("build")
    wait_for(repo.home / "in")
    second = repo.start("build")
    time.sleep(0.5)
    (repo.home / "go").touch()
    second.communicate(timeout=20)
    first.communicate(timeout=20)
    assert (first.returncode, second.returncode) == (1, 0)
    assert repo.read("o") == "1\n" and repo.ran() == ["a", "a"]


def test_gpu_memory_shares_a_gpu(repo, toml) -> None:
    """A GPU is given by memory with `gpu-memory`, where its memory is known; else to one stage at a time."""
    toml("""
        [compute.local]
        gpus = 1
        [stage.a]
        run = "echo $CUDA_VISIBLE_DEVICES > {outputs.o}"
        outputs = { o = "a" }
        resources = { gpus = 1, gpu-memory = "1G" }
    """)
    repo.pipe("build")
    assert repo.read("a").strip() == "0"


def test_a_stage_of_this_build_that_is_waited_for_is_named(repo, toml) -> None:
    """Two stages that do the same run once; the one that waits names the other, and so does one that waits for a word."""
    toml("""
        [stage.a]
        run = "NOTE(a) && sleep 0.5"
        [stage.twin]
        run = "NOTE(a) && sleep 0.5"
        [stage.m]
        run = "NOTE(m) && sleep 0.5"
        mutex = ["db"]
        [stage.n]
        run = "NOTE(n) && sleep 0.5"
        mutex = ["db"]
    """)
    done = repo.pipe("build", "-j4")
    assert repo.ran() == ["a", "m", "n"]
    assert "twin waits for `a`, which does the same" in done.stdout
    assert "n waits for mutex db, held by `m`" in done.stdout
