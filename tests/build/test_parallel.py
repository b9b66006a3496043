"""Rules 8, 9, 11: side by side, within resources, GPUs, interrupts."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

MEET = "NOTE({n}) && touch $HOME/in-{n} && for i in $(seq 250); do test -e $HOME/in-{o} && break; sleep 0.02; done; test -e $HOME/in-{o} && echo 1 > {{outputs.o}}"


def meeting(extra: str = "") -> str:
    return "".join(
        f"""
        [stage.{n}]
        run = "{MEET.format(n=n, o=o)}"
        outputs = {{ o = "{n}" }}
        {extra}
    """
        for n, o in (("a", "b"), ("b", "a"))
    )


def test_independent_stages_run_side_by_side(repo, toml) -> None:
    """Independent stages run in parallel (`-j`)."""
    toml(meeting())
    assert repo.pipe("build", "-j2", "--json").stages() == {"a": "ran", "b": "ran"}


ALONE = "mkdir $HOME/held && sleep 0.1 && rmdir $HOME/held && echo 1 > {outputs.o}"


def alone(extra: str, count: int = 3, head: str = "") -> str:
    return head + "".join(
        f"""
        [stage.s{n}]
        run = "{ALONE}"
        outputs = {{ o = "o{n}" }}
        {extra}
    """
        for n in range(count)
    )


def test_one_at_a_time(repo, toml) -> None:
    """-j 1: one after the other."""
    toml(alone(""))
    repo.pipe("build", "-j1")


def test_within_cpus(repo, toml) -> None:
    """Within `resources`: stages that together ask for more CPUs than there are wait for each other."""
    toml(alone(f"resources = {{ cpus = {os.cpu_count()} }}"))
    done = repo.pipe("build", "-j4", check=False)
    if "this machine has" in done.stderr:
        pytest.skip("fewer CPUs than are counted")
    assert done.returncode == 0


def test_within_max_jobs(repo, toml) -> None:
    """`max-jobs` holds on every kind."""
    toml(alone("", head="""
        [compute.local]
        max-jobs = 1
    """))  # fmt: skip
    repo.pipe("build", "-j4")


@pytest.mark.parametrize(
    "resources, name", [("cpus = 100000", "cpus"), ('memory = "900T"', "memory"), ("gpus = 3", "gpus")]
)
def test_more_than_the_machine_has(repo, toml, resources: str, name: str) -> None:
    """Asking for more CPUs, memory or GPUs than the compute has is exit 2 before anything runs."""
    toml(f"""
        [compute.local]
        gpus = 2
        [stage.a]
        run = "NOTE(a)"
        [stage.b]
        run = "NOTE(b)"
        resources = {{ {resources} }}
    """)
    done = repo.pipe("build", check=False)
    assert done.returncode == 2 and "stage.b.resources" in done.stderr and repo.ran() == []


def gpu_toml(count: int, stages: int, ask: str = "gpus = 1", sleep: str = "0") -> str:
    return f"""
        [compute.local]
        gpus = {count}
        [stage.none]
        run = "echo ${{{{CUDA_VISIBLE_DEVICES-unset}}}} > {{outputs.o}}"
        outputs = {{ o = "none" }}
    """ + "".join(
        f"""
        [stage.g{n}]
        run = "echo $CUDA_VISIBLE_DEVICES > {{outputs.o}}; mkdir $HOME/gpu-$CUDA_VISIBLE_DEVICES && sleep {sleep} && rmdir $HOME/gpu-$CUDA_VISIBLE_DEVICES"
        outputs = {{ o = "g{n}" }}
        resources = {{ {ask} }}
    """
        for n in range(stages)
    )


@pytest.fixture
def no_driver(repo) -> None:
    """GPUs are counted by [compute.local] only where no driver counts them."""
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine's driver counts its GPUs")


def test_gpus_one_by_one(repo, toml, no_driver) -> None:
    """A GPU is given to one stage at a time, and a stage that asks for none sees none."""
    toml(gpu_toml(2, 4, sleep="0.1"))
    repo.pipe("build", "-j8", env={"CUDA_VISIBLE_DEVICES": "0,1"})
    assert repo.read("none") == "\n"
    assert {repo.read(f"g{n}").strip() for n in range(4)} == {"0", "1"}


def test_several_gpus(repo, toml, no_driver) -> None:
    """A stage that asks for two sees two."""
    toml(gpu_toml(2, 1, "gpus = 2"))
    repo.pipe("build")
    assert sorted(repo.read("g0").strip().split(",")) == ["0", "1"]


def test_gpus_between_two_pipes(repo, make_repo, no_driver) -> None:
    """On the machine: two pipes at once, in two clones, never give out the same GPU."""
    other = make_repo("other")
    for each in (repo, other):
        text = gpu_toml(1, 2, sleep="0.15")
        each.write("pipeline.toml", text)
    builds = [each.start("build", "-j4") for each in (repo, other)]
    assert [build.wait(30) for build in builds] == [0, 0]


def test_resources_placeholder(repo, toml) -> None:
    """{resources.gpus} is a placeholder and counts when named."""
    text = """
        [stage.a]
        run = "NOTE(a) && echo {resources.cpus} > {outputs.o}"
        outputs = { o = "o" }
        resources = { cpus = 1 }
    """
    toml(text)
    repo.pipe("build")
    assert repo.read("o") == "1\n"
    toml(text.replace("{ cpus = 1 }", '{ cpus = 1, memory = "10M" }'))
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"
    toml(text.replace("cpus = 1", "cpus = 2"))
    assert repo.pipe("status", "--json").stages(key="state") == {"a": "stale"}


SLOW = """
    [stage.first]
    run = "NOTE(first) && echo 1 > {outputs.o}"
    outputs = { o = "first" }
    [stage.slow]
    run = "CHILD"
    inputs = { i = "first" }
    outputs = { o = "slow" }
    [stage.after]
    run = "NOTE(after) && echo 1 > {outputs.o}"
    inputs = { i = "slow" }
    outputs = { o = "after" }
"""


def started(repo, toml, child: str, *words: str):
    toml(SLOW.replace("CHILD", child))
    process = repo.start("build", "--json", *words)
    for _ in range(500):
        if (repo.home / "pid").exists() and (repo.home / "pid").read_text().strip():
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    time.sleep(0.05)
    return process


def left(repo) -> list[str]:
    """Command lines of processes that a stage of this repository left: they have its marker in their environment."""
    found = []
    marker = f"HOME={repo.home}\0".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environ = (folder / "environ").read_bytes() + b"\0"
            if marker in environ and b"PIPE_STAGE=" in environ:
                found.append((folder / "cmdline").read_bytes().decode())
        except OSError:
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt(repo, toml, sandbox, number: int) -> None:
    """Ctrl-C ends children, records the run as cancelled, exit 130; SIGTERM the same."""
    process = started(repo, toml, "echo $$ > $HOME/pid; (setsid sleep 600 &) ; sleep 600; echo 1 > {outputs.o}")
    began = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert time.monotonic() - began < 300
    document = json.loads(out)
    assert document["status"] == "cancelled"
    assert {s["name"]: s["status"] for s in document["stages"]} == {
        "first": "ran", "slow": "cancelled", "after": "cancelled",
    }  # fmt: skip
    assert left(repo) == []
    (run,) = repo.pipe("runs", "--json").json()["runs"]
    assert run["status"] == "cancelled"
    assert repo.read("first") == "1\n" and not repo.exists("slow")
    assert repo.pipe("status", "--json").stages(key="state")["first"] == "fresh"
    assert [name for name in os.listdir(repo.pipe_dir / "tmp") if name != "failed"] == []


def test_term_then_kill(repo, toml) -> None:
    """TERM, then KILL after a grace time."""
    process = started(
        repo,
        toml,
        "trap 'echo got >> $HOME/got' TERM; echo $$ > $HOME/pid; while true; do sleep 0.1; done; : {outputs.o}",
    )
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert (repo.home / "got").read_text().startswith("got")
    assert left(repo) == []


def test_kill_9_leaves_no_child(repo, toml, sandbox) -> None:
    """`kill -9` of pipe leaves no child running on Linux, loses nothing recorded, trusts nothing unfinished."""
    process = started(repo, toml, "echo $$ > $HOME/pid; (setsid sleep 60 &) ; echo half > {outputs.o}; sleep 60")
    process.kill()
    process.communicate(timeout=20)
    for _ in range(100):
        if not left(repo):
            break
        time.sleep(0.05)
    assert left(repo) == []
    assert repo.ran() == ["first"]
    assert not repo.exists("slow")
    toml(SLOW.replace("CHILD", "echo 1 > {outputs.o}"))
    done = repo.pipe("build", "--json")
    assert done.stages()["first"] in ("fresh", "restored") and done.stages()["slow"] == "ran"
    assert repo.ran() == ["after"]


def test_two_builds_at_once_run_each_stage_once(repo, toml) -> None:
    """Any number of `pipe` processes may work in one clone at once: they wait per stage, and the second reuses."""
    toml("".join(f"""
        [stage.s{n}]
        run = "NOTE(s{n}) && sleep 0.2 && date +%N > {{outputs.o}}"
        outputs = {{ o = "o{n}" }}
    """ for n in range(3)))  # fmt: skip
    builds = [repo.start("build", "-j2", "--json") for _ in range(3)]
    for build in builds:
        out, err = build.communicate(timeout=30)
        assert build.returncode == 0, out + err
    assert repo.ran() == ["s0", "s1", "s2"]
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"


def test_crossed_builds_do_not_deadlock(repo, toml) -> None:
    """A waiting stage holds no slot: two single-threaded builds on crossed stages don't deadlock."""
    toml("""
        [stage.a1]
        run = "sleep 0.2; echo 1 > {outputs.o}"
        outputs = { o = "a1" }
        [stage.b1]
        run = "sleep 0.2; echo 2 > {outputs.o}"
        outputs = { o = "b1" }
        [stage.a2]
        run = "cat {inputs.i} > {outputs.o}"
        after = ["a1"]
        inputs = { i = "b1" }
        outputs = { o = "a2" }
        [stage.b2]
        run = "cat {inputs.i} > {outputs.o}"
        after = ["b1"]
        inputs = { i = "a1" }
        outputs = { o = "b2" }
    """)
    builds = [repo.start("build", "-j1", name) for name in ("a2", "b2")]
    assert [build.wait(30) for build in builds] == [0, 0]


def test_worktrees_at_once(repo, toml) -> None:
    """In one or several worktrees: the second reuses what the first makes."""
    toml("""
        [stage.a]
        run = "NOTE(a) && sleep 0.3 && echo 1 > {outputs.o}"
        outputs = { o = "a" }
    """)
    repo.write(".gitignore", "/a\n")
    repo.commit()
    other = repo.worktree()
    builds = [each.start("build") for each in (repo, other)]
    assert [build.wait(30) for build in builds] == [0, 0]
    assert repo.ran() == ["a"] and repo.read("a") == other.read("a") == "1\n"


def test_much_output(repo, toml) -> None:
    """Logs are capped on the console, whole on disk."""
    toml("""
        [stage.a]
        run = "seq 300000; echo 1 > {outputs.o}"
        outputs = { o = "o" }
    """)
    done = repo.pipe("build")
    assert len(done.stdout) + len(done.stderr) < 1_000_000
    run = repo.pipe("runs", "--json").json()["runs"][0]["id"]
    assert repo.pipe("logs", run, "a").stdout.count("\n") >= 300000
