"""Builds on a machine with GPUs, or without: what stages are given, what is said, what is recorded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.gpus.conftest import FakeDriver
from tests.users import EVE, needs_root, run_as, start_as

GIB = 1 << 30
# Says which GPU it sees, then waits until the test lets it go on.
HELD = "echo $CUDA_VISIBLE_DEVICES > $HOME/sees-{n}; until test -e $HOME/go; do sleep 0.05; done; cat $HOME/sees-{n} > {{outputs.o}}"


def stage(n: str, resources: str, run: str | None = None) -> str:
    return f"""
[stage.{n}]
run = "{run or HELD.format(n=n)}"
outputs = {{ o = "{n}.txt" }}
resources = {{ {resources} }}
"""


@pytest.fixture(autouse=True)
def nothing_waits_on(repo) -> Iterator[None]:
    """Let stages of HELD end, whatever becomes of the test."""
    yield
    (repo.home / "go").touch()


def until(true: Callable[[], Any], what: str, build: subprocess.Popen[str] | None = None) -> Any:
    """Wait for a condition, however slow the machine is, unless the build that is to bring it has ended."""
    for _ in range(2000):
        if found := true():
            return found
        if build is not None and build.poll() is not None:
            break
        time.sleep(0.03)
    pytest.fail(f"never: {what}{build.communicate() if build is not None and build.poll() is not None else ''}")


def sees(repo, n: str, build: subprocess.Popen[str]) -> str:
    """Return which GPU a stage of HELD sees, once it runs."""
    file = repo.home / f"sees-{n}"
    return until(lambda: file.exists() and file.read_text().strip(), f"{n} runs", build)


def pid_of(repo, n: str) -> int:
    """Return the pid that the driver knows a running stage by."""

    def found() -> int | None:
        for entry in Path("/proc").iterdir():
            try:
                variables = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"PIPE_STAGE={n}".encode() in variables and f"HOME={repo.home}".encode() in variables:
                return int(entry.name)
        return None

    return until(found, f"{n} runs")


def finish(repo, *builds) -> str:
    """Let the stages go on, and return what the builds printed."""
    (repo.home / "go").touch()
    told = ""
    for build in builds:
        out, err = build.communicate(timeout=60)
        assert build.returncode == 0, out + err
        told += out + err
    return told


def recorded(repo, n: str) -> dict[str, Any]:
    stages: list[dict[str, Any]] = repo.pipe("show", "latest", "--json").json()["stages"]
    return next(each for each in stages if each["name"] == n)


@pytest.mark.parametrize("sandbox", ["namespaces", "copies"])
def test_a_stage_gets_a_free_gpu_and_one_that_asks_for_none_sees_none(repo, on_box: FakeDriver, sandbox: str) -> None:
    """Also between two pipes, in two clones."""
    repo.env["PIPE_SANDBOX"] = sandbox
    ids = {on_box.gpu(0), on_box.gpu(1)}
    repo.write(
        "pipeline.toml", stage("a", "gpus = 1") + stage("none", "cpus = 1", "echo $CUDA_VISIBLE_DEVICES > {outputs.o}")
    )
    repo.commit()
    other = repo.clone()
    other.env |= repo.env
    other.write("pipeline.toml", stage("b", "gpus = 1") + stage("c", "gpus = 2"))
    first = repo.start("build", "-j4")
    a = sees(repo, "a", first)
    second = other.start("build", "-j4")
    b = sees(repo, "b", second)
    assert {a, b} == ids
    finish(repo, first, second)
    assert repo.read("none.txt") == "\n" and set(other.read("c.txt").strip().split(",")) == ids
    assert recorded(repo, "a")["gpus"] == [a] and recorded(repo, "none")["gpus"] == []


def test_gpu_memory_shares_a_gpu(repo, on_box: FakeDriver) -> None:
    """As many at once as it has room for, other programs' memory counted; one more waits, and says for what."""
    id = on_box.gpu(0)
    on_box.process(id, 1, 15)
    repo.write("pipeline.toml", "".join(stage(n, 'gpu-memory = "30G"') for n in "abc"))
    build = repo.start("build", "-j8")
    running = until(lambda: [f for f in os.listdir(repo.home) if f.startswith("sees-")][1:], "two run", build)
    assert len(running) == 1
    out = finish(repo, build)
    assert "waits for 30G of GPU memory" in out
    assert {repo.read(f"{n}.txt").strip() for n in "abc"} == {id}
    spans = sorted((recorded(repo, n)["start"], recorded(repo, n)["end"]) for n in "abc")
    assert spans[1][0] < spans[0][1] and spans[2][0] >= min(end for _start, end in spans[:2])


def test_the_record_has_seconds_peak_memory_and_utilisation(repo, on_box: FakeDriver) -> None:
    """Peak memory is of the stage's own processes; more than it asked for is told."""
    ids = [on_box.gpu(0, percent=60), on_box.gpu(1, percent=20)]
    on_box.process(ids[0], 1, 5)
    repo.write(
        "pipeline.toml", stage("a", 'gpus = 2, gpu-memory = "4G"') + stage("cpu", "cpus = 1", "echo 1 > {outputs.o}")
    )
    build = repo.start("build")
    sees(repo, "a", build)
    pid = pid_of(repo, "a")
    on_box.process(ids[0], pid, 10)
    on_box.process(ids[1], pid, 4)
    looked = on_box.looks(ids[1])
    until(lambda: on_box.looks(ids[1]) >= looked + 2, "the driver is asked")
    on_box.no_process(ids[0], pid)
    told = finish(repo, build)
    assert "`a` used 15.0 GB of GPU memory and asked for 8.6 GB: what runs beside it may run short" in told
    a, cpu = recorded(repo, "a"), recorded(repo, "cpu")
    assert a["gpu_peak_bytes"] == 14 * GIB and a["gpu_percent"] == 40
    assert 0 < a["gpu_s"] <= 2 * (a["end"] - a["start"])
    assert cpu["gpus"] == [] and "gpu_s" not in cpu
    shown = repo.pipe("show", "latest").stdout
    assert "2 GPUs for" in shown and "15.0 GB of GPU memory at most, 40 % busy" in shown
    assert shown.count(" GPU") == 3


def test_a_short_stage_is_seen_too(repo, on_box: FakeDriver) -> None:
    """Where processes are not listed, peak memory is all that was in use on its GPU."""
    on_box.gpu(0, used=3, percent=50)
    for function in ("", "_v2", "_v3"):
        on_box.say(f"lacks nvmlDeviceGetComputeRunningProcesses{function}")
    repo.write("pipeline.toml", stage("a", "gpus = 1", "echo 1 > {outputs.o}"))
    repo.pipe("build")
    a = recorded(repo, "a")
    assert (a["gpu_peak_bytes"], a["gpu_percent"]) == (3 * GIB, 50) and 0 < a["gpu_s"] <= a["end"] - a["start"]


def test_tries_add_up(repo, on_box: FakeDriver) -> None:
    on_box.gpu(0, percent=30)
    text = stage(
        "a", "gpus = 1", "sleep 0.3; test -e $HOME/tried || {{ touch $HOME/tried; exit 1; }}; echo 1 > {outputs.o}"
    )
    repo.write("pipeline.toml", text + "retries = 1\n")
    repo.pipe("build")
    a = recorded(repo, "a")
    assert a["attempts"] == 2 and a["gpu_s"] >= 0.6 and a["gpu_percent"] == pytest.approx(30)


def test_the_driver_is_opened_twice_a_build_whatever_is_measured(repo, on_box: FakeDriver) -> None:
    """Once to count, once to measure; and not at all where all is fresh or no GPU is asked for."""
    on_box.gpu(0)
    on_box.gpu(1)
    repo.write("pipeline.toml", "".join(stage(n, "gpus = 1", "sleep 0.2; echo 1 > {outputs.o}") for n in "abcd"))
    repo.pipe("build", "-j4")
    assert on_box.calls == 2
    repo.pipe("status")
    os.utime(repo.path / "pipeline.toml", (1, 1))
    repo.pipe("build")
    (repo.path / "a.txt").unlink()
    assert repo.pipe("build", "--json").stages() == {"a": "restored", "b": "fresh", "c": "fresh", "d": "fresh"}
    assert on_box.calls == 2


def test_idle_gpus_are_told_once_and_then_the_driver_is_left_alone(repo, on_box: FakeDriver) -> None:
    on_box.gpu(0)
    repo.write("pipeline.toml", stage("a", "cpus = 1", "echo 1 > {outputs.o}"))
    assert "this machine has 1 GPU and no stage asks for one" in repo.pipe("build").stderr
    for n in (2, 3):
        repo.write("pipeline.toml", stage("a", "cpus = 1", f"echo {n} > {{outputs.o}}"))
        assert "GPU" not in repo.pipe("build").stderr
    assert on_box.calls == 1


def test_a_gpu_that_others_use_is_the_last_choice(repo, on_box: FakeDriver) -> None:
    busy, free = on_box.gpu(0), on_box.gpu(1)
    on_box.process(busy, os.getpid(), 10)
    repo.write("pipeline.toml", stage("a", "gpus = 1", "echo $CUDA_VISIBLE_DEVICES > {outputs.o}"))
    assert "other programs" not in repo.pipe("build").stderr
    assert repo.read("a.txt").strip() == free
    on_box.process(free, os.getpid(), 20)
    done = repo.pipe("build", "--force")
    assert repo.read("a.txt").strip() == busy
    assert (
        f"`a`: GPU 0 (Fake H100) is used by other programs, no free one was left (10G: pid {os.getpid()} ("
        in done.stderr
    )


def test_mig_devices(repo, on_box: FakeDriver) -> None:
    on_box.gpu(0)
    parts = {on_box.mig(0, n) for n in range(2)}
    repo.write("pipeline.toml", stage("a", "gpus = 1") + stage("b", 'gpu-memory = "10G"'))
    build = repo.start("build", "-j2")
    assert {sees(repo, "a", build), sees(repo, "b", build)} == parts
    finish(repo, build)
    assert recorded(repo, "a")["gpu_percent"] is None


# -- what can't be had --------------------------------------------------------------------------------------------


def refused(repo) -> str:
    """Return what a build says that ends before anything runs."""
    done = repo.pipe("build", check=False)
    assert done.returncode == 2 and repo.ran() == [] and "Traceback" not in done.stderr
    return done.stderr


def asks(repo, resources: str = "gpus = 1", more: str = "") -> None:
    repo.write(
        "pipeline.toml",
        more
        + stage("first", "cpus = 1", f"{repo.note('first')}; echo 1 > {{outputs.o}}")
        + stage("train", resources, f"{repo.note('train')}; echo 1 > {{outputs.o}}"),
    )


def test_without_a_driver_and_without_a_number(repo) -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a driver")
    asks(repo)
    told = refused(repo)
    assert "pipeline.toml:9: stage.train.resources.gpus: " in told
    assert "`train` asks for 1 GPU, this machine has 0: no NVIDIA driver is installed" in told
    assert "help: where no driver counts them, say how many there are: `[compute.local]` with `gpus = N`" in told
    assert not repo.exists(".gitignore")
    asks(repo, more="[compute.local]\ngpus = 1\n")
    repo.pipe("build")
    assert repo.ran() == ["first", "train"]


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["init 9"], "0: the NVIDIA driver is not loaded"),
        (["init 18"], "0: the NVIDIA driver and its library are of different versions"),
        (["init 999"], "0: the NVIDIA driver can't be asked: Unknown Error"),
        ([], "0: the NVIDIA driver sees none"),
        (["count 2"], "0: GPU 0 can't be used: Unknown Error (NVML error 2)"),
    ],
)
def test_a_driver_that_counts_none(repo, on_box: FakeDriver, lines: list[str], why: str) -> None:
    for line in lines:
        on_box.say(line)
    asks(repo)
    assert f"`train` asks for 1 GPU, this machine has {why}" in refused(repo)


@pytest.mark.parametrize(
    ("resources", "text"),
    [
        ("gpus = 3", "`train` asks for 3 GPUs, this machine has 2"),
        ('gpu-memory = "81G"', "`train` asks for 81G of GPU memory, the largest GPU here has 80G"),
        (
            'gpus = 2, gpu-memory = "30G"',
            "`train` asks for 30G of GPU memory on each of 2 GPUs, and 1 here has as much",
        ),
    ],
)
def test_more_than_there_is(repo, on_box: FakeDriver, resources: str, text: str) -> None:
    on_box.gpu(0)
    on_box.gpu(1, gib=24)
    asks(repo, resources)
    assert text in refused(repo)


def test_pipe_itself_may_have_fewer(repo, on_box: FakeDriver) -> None:
    ids = [on_box.gpu(0), on_box.gpu(1)]
    repo.env["CUDA_VISIBLE_DEVICES"] = "1"
    asks(repo, "gpus = 2")
    assert "this machine has 1: of 2, CUDA_VISIBLE_DEVICES=`1` lets pipe have no more" in refused(repo)
    repo.write("pipeline.toml", stage("a", "gpus = 1", "echo $CUDA_VISIBLE_DEVICES > {outputs.o}"))
    repo.pipe("build")
    assert repo.read("a.txt").strip() == ids[1]


def test_what_is_fresh_or_can_be_restored_needs_no_gpu(repo, on_box: FakeDriver) -> None:
    on_box.gpu(0)
    asks(repo)
    repo.pipe("build")
    assert repo.ran() == ["first", "train"]
    on_box.say("init 9")
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"
    repo.write("pipeline.toml", repo.read("pipeline.toml") + "# another look\n")
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"
    (repo.path / "train.txt").unlink()
    assert repo.pipe("build", "--json").stages() == {"first": "fresh", "train": "restored"}
    (repo.path / "train.txt").unlink()
    assert "asks for 1 GPU, this machine has 0" in repo.pipe("build", "--no-restore", check=False).stderr


def test_a_gpu_that_is_lost_meanwhile(repo, on_box: FakeDriver) -> None:
    """The stage that has it goes on to its end, and it is said; the next one can't have it."""
    id = on_box.gpu(0)
    repo.write(
        "pipeline.toml", stage("a", "gpus = 1") + stage("b", "gpus = 1", "echo 1 > {outputs.o}") + 'after = ["a"]\n'
    )
    build = repo.start("build")
    sees(repo, "a", build)
    on_box.say(f"error {id} 15")
    (repo.home / "go").touch()
    out, err = build.communicate(timeout=60)
    assert build.returncode == 1 and "Traceback" not in err
    assert "`a`: GPU 0 (Fake H100): GPU is lost (NVML error 15)" in err
    assert "it asks for 1 GPU, and GPU 0 (Fake H100): GPU is lost (NVML error 15)" in out + err
    assert {each["name"]: each["status"] for each in repo.pipe("show", "latest", "--json").json()["stages"]} == {
        "a": "ran",
        "b": "failed",
    }


def test_a_driver_that_goes_away_meanwhile(repo, on_box: FakeDriver) -> None:
    """It was there to count; whatever it is then, a stage ends."""
    id = on_box.gpu(0)
    repo.write("pipeline.toml", stage("a", "gpus = 1"))
    build = repo.start("build")
    assert sees(repo, "a", build) == id
    on_box.say("init 9")
    on_box.say("lacks nvmlDeviceGetMemoryInfo")
    on_box.say("lacks nvmlDeviceGetMemoryInfo_v2")
    on_box.say("lacks nvmlDeviceGetUtilizationRates")
    assert "Traceback" not in finish(repo, build)


# -- other computes of this machine, and what is shown ------------------------------------------------------------


def test_another_compute_of_this_machine(repo) -> None:
    """Its own number holds where it says one, else that of `local`."""
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine's driver counts its GPUs")
    asks(repo, "gpus = 2", '[pipeline]\ncompute = "here"\n[compute.here]\nkind = "local"\n[compute.local]\ngpus = 2\n')
    repo.pipe("build")
    asks(repo, "gpus = 2", '[pipeline]\ncompute = "here"\n[compute.here]\nkind = "local"\ngpus = 1\n')
    repo.write("pipeline.toml", repo.read("pipeline.toml").replace("echo 1", "echo 2"))
    assert repo.ran() == ["first", "train"]
    assert "`train` asks for 2 GPUs, this machine has 1" in refused(repo)


def test_compute_status_and_doctor_show_them(repo, on_box: FakeDriver) -> None:
    ids = [on_box.gpu(0, used=1, percent=37), on_box.gpu(1), on_box.gpu(2), on_box.gpu(3)]
    on_box.process(ids[1], os.getpid(), 20)
    on_box.say(f"error {ids[3]} 15")
    repo.write("pipeline.toml", stage("a", 'gpu-memory = "8G"'))
    build = repo.start("build")
    assert sees(repo, "a", build) == ids[1]  # the fullest that has room: whole ones stay free
    state = repo.pipe("compute", "status", "--json").json()["computes"][0]
    assert state["gpus"] == {"free": 2, "used": 1, "total": 3} and "GPU 3 can't be used: GPU is lost" in state["error"]
    first, second, third = state["devices"]
    assert (first["id"], first["name"], first["state"]) == (ids[0], "Fake H100", "free")
    assert (first["memory"], first["used"], first["percent"]) == (80 * GIB, GIB, 37)
    assert (second["state"], second["promised"]) == ("shared", pytest.approx(8 * GIB, rel=0.02))
    assert second["processes"][0].startswith(f"pid {os.getpid()} (") and third["state"] == "free"
    shown = repo.pipe("compute", "status").stdout
    assert "GPU 0 (Fake H100), 1.1 GB of 85.9 GB used, 37 % busy: free" in shown
    assert "GPU 1 (Fake H100), 21.5 GB of 85.9 GB used, 0 % busy: shared, 8.6 GB given out; pid" in shown
    finish(repo, build)
    doctor = {each["name"]: each for each in repo.pipe("doctor", "--json", check=False).json()["checks"]}["GPUs"]
    assert f"{ids[0]}: Fake H100, 80G" in doctor["text"] and "GPU 3 can't be used: GPU is lost" in doctor["text"]
    on_box.say("init 18")
    doctor = {each["name"]: each for each in repo.pipe("doctor", "--json", check=False).json()["checks"]}["GPUs"]
    assert not doctor["ok"] and "of different versions" in doctor["text"]


def test_a_shell_has_the_gpus_of_its_stage(repo, on_box: FakeDriver) -> None:
    """Where none is free it says so, and sees none."""
    id = on_box.gpu(0)
    repo.write("pipeline.toml", stage("a", "gpus = 1"))
    assert repo.pipe("shell", "a", "--", "sh", "-c", "echo sees $CUDA_VISIBLE_DEVICES").stdout == f"sees {id}\n"
    build = repo.start("build")
    assert sees(repo, "a", build) == id
    done = repo.pipe("shell", "a", "--", "sh", "-c", "echo sees $CUDA_VISIBLE_DEVICES")
    assert done.stdout == "sees\n" and f"`a` asks for 1 GPU, held by pid {build.pid} (" in done.stderr
    finish(repo, build)


@needs_root
def test_between_users(repo, make_repo, on_box: FakeDriver) -> None:
    """A GPU that somebody else's pipe gave out is taken, and who has it is named; what their stage uses is known as theirs."""
    id = on_box.gpu(0)
    hers = make_repo("hers")
    hers.env |= on_box.env
    hers.write("pipeline.toml", stage("a", 'gpu-memory = "30G"'))
    subprocess.run(["chown", "-R", str(EVE.uid), hers.path], check=True)
    lib = shutil.copytree(on_box.env["LD_LIBRARY_PATH"], repo.path.parent / "lib")  # where she can read it
    hers.env["LD_LIBRARY_PATH"] = str(lib)
    lib.chmod(0o755)
    first = start_as(hers, EVE, sys.executable, "-m", "pipesmith", "build")
    hers.home = hers.path.parent / "home-eve"
    assert sees(hers, "a", first) == id
    on_box.process(id, pid_of(hers, "a"), 40)
    repo.write("pipeline.toml", stage("b", 'gpu-memory = "35G"') + stage("c", "gpus = 1", "echo 1 > {outputs.o}"))
    second = repo.start("build", "-j2")
    assert sees(repo, "b", second) == id
    assert second.stderr is not None and second.stdout is not None
    for line in second.stdout:
        if "waits for" in line:
            break
    assert f"c waits for 1 GPU, held by pid {first.pid} of user {EVE.uid} (" in line
    told = finish(hers, first) + finish(repo, second)
    assert "used 42.9 GB of GPU memory and asked for 32.2 GB" not in told  # no more than half as much again
    record = run_as(hers, EVE, "pipe", "show", "latest", "--json").json()["stages"][0]
    assert record["gpu_peak_bytes"] == 40 * GIB
