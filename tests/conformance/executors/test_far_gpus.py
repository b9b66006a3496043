"""GPUs of a Docker daemon's machine: given out once among all that speak to the daemon, and measured in the container.

The daemon of these tests takes its machine for one with GPUs; tests/services/docker_services.py says how."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.services.docker_services import IMAGE


def until(true: Callable[[], Any]) -> Any:
    """Wait for a condition, however slow the machine is."""
    for _ in range(600):
        if found := true():
            return found
        time.sleep(0.1)
    pytest.fail("it never came")


def given_out(place) -> dict[str, str]:
    """Return stage to the GPUs of its container, of all that are there."""
    told = place.docker("ps", "--format", '{{.Label "pipesmith.stage"}} {{.Label "pipesmith.gpus"}}')
    rows = [line.split() for line in told.splitlines()]
    return {row[0]: row[1] for row in rows if len(row) == 2}


def test_two_pipes_and_a_stranger(make_repo, far_gpus, pipeline, repo):
    """What another pipe was given is known by its container; one that somebody else's container was given comes last."""
    far_gpus.toml = far_gpus.toml.replace("gpus = 2", "gpus = 3")
    pipeline(far_gpus, "")
    stranger = far_gpus.docker("run", "-d", "--gpus", '"device=0"', IMAGE, "sleep", "600").strip()
    builds, builds_of = {}, {}
    try:
        for name, count in (("one", 1), ("two", 1), ("three", 2)):
            each = builds_of[name] = make_repo(name)
            each.env |= repo.env
            stage = f'[stage.{name}]\nrun = "sleep 600; echo 1 > {{outputs.o}}"\noutputs = {{ o = "o" }}\n'
            each.write("pipeline.toml", f"{repo.read('pipeline.toml')}\n{stage}resources = {{ gpus = {count} }}\n")
            builds[name] = each.start("build")
            if name != "three":
                until(lambda name=name: name in given_out(far_gpus))
        assert given_out(far_gpus) == {"one": "1", "two": "2"}
        stderr = builds["three"].stderr
        assert stderr is not None
        assert any("`three` waits for 2 GPUs of `where`" in line and "held by `one`, `two`" in line for line in stderr)
        states = repo.pipe("compute", "status", "where", "--json").json()["computes"]
        assert states[0]["gpus"] == {"free": 1, "used": 2, "total": 3}
        shell = builds_of["three"].pipe("shell", "three", "--", "sh", "-c", "echo sees $CUDA_VISIBLE_DEVICES")
        assert (
            shell.stdout == "sees\n"
            and "no GPU is free now: `three` asks for 2 GPUs, held by `one`, `two`" in shell.stderr
        )
        os.kill(builds["one"].pid, signal.SIGINT)
        assert until(lambda: given_out(far_gpus).get("three")) == "0,1"
    finally:
        for build in builds.values():
            if build.poll() is None:
                os.kill(build.pid, signal.SIGINT)
        for build in builds.values():
            build.communicate(timeout=60)
        far_gpus.docker("rm", "-f", stranger)
    assert given_out(far_gpus) == {}


def test_what_a_container_does_with_its_gpus_is_recorded(repo, far_gpus, pipeline):
    """As `nvidia-smi` in it says: of its GPUs 1000 and 2000 MiB are in use, and they are busy for 10 and 20 %."""
    pipeline(
        far_gpus,
        """
        [stage.a]
        run = "until test -e /tmp/asked; do sleep 0.1; done; echo 1 > {outputs.o}"
        outputs = { o = "o" }
        resources = { gpus = 2 }
        [stage.b]
        run = "echo 1 > {outputs.o}"
        outputs = { o = "p" }
        """,
    )
    build = repo.start("build")
    (container,) = until(lambda: far_gpus.docker("ps", "-q", "--filter", "label=pipesmith.gpus=0,1").split())
    asked = ("events", "--since", "30m", "--until", "0s", "--filter", f"container={container}")
    until(lambda: "exec_die" in far_gpus.docker(*asked))
    far_gpus.docker("exec", container, "touch", "/tmp/asked")
    out, err = build.communicate(timeout=60)
    assert build.returncode == 0, out + err
    a, b = sorted(repo.pipe("show", "latest", "--json").json()["stages"], key=lambda each: each["name"])
    assert a["gpus"] == ["0", "1"] and a["gpu_peak_bytes"] == 3000 << 20 and a["gpu_percent"] == 15
    assert 0 < a["gpu_s"] <= 2 * (a["end"] - a["start"]) and "gpu_s" not in b


def test_without_nvidia_smi_the_seconds_are_known(repo, far_gpus, pipeline):
    """An image can do without it."""
    made = far_gpus.docker("create", IMAGE, "true").strip()
    far_gpus.docker("commit", "--change", "ENV PATH=/nowhere", made, "pipesmith/bare:test")
    far_gpus.docker("rm", made)
    far_gpus.toml = far_gpus.toml.replace(IMAGE, "pipesmith/bare:test")
    run = ["/bin/busybox", "sh", "-c", "/bin/busybox sleep 1; echo 1 > {outputs.o}"]
    pipeline(far_gpus, f'[stage.a]\nrun = {run!r}\noutputs = {{ o = "o" }}\nresources = {{ gpus = 1 }}\n')
    repo.pipe("build")
    (a,) = repo.pipe("show", "latest", "--json").json()["stages"]
    assert a["gpu_s"] >= 1 and a["gpu_peak_bytes"] is None and a["gpu_percent"] is None
    shown = repo.pipe("show", "latest").stdout
    assert "1 GPU for " in shown and "GPU memory" not in shown


def test_an_image_of_cuda_sees_no_gpu_unless_its_stage_asks_for_one(repo, far_gpus, pipeline):
    """Such images ask NVIDIA's container runtime for all of them by a variable."""
    made = far_gpus.docker("create", IMAGE, "true").strip()
    far_gpus.docker("commit", "--change", "ENV NVIDIA_VISIBLE_DEVICES=all", made, "pipesmith/cuda:test")
    far_gpus.docker("rm", made)
    far_gpus.toml = far_gpus.toml.replace(IMAGE, "pipesmith/cuda:test")
    pipeline(
        far_gpus,
        """
        [stage.none]
        run = "echo $NVIDIA_VISIBLE_DEVICES =$CUDA_VISIBLE_DEVICES= > {outputs.o}"
        outputs = { o = "none" }
        [stage.one]
        run = "echo =$CUDA_VISIBLE_DEVICES= > {outputs.o}"
        outputs = { o = "one" }
        resources = { gpus = 1 }
        """,
    )
    repo.pipe("build")
    assert (repo.read("none"), repo.read("one")) == ("void ==\n", "=0=\n")


def test_a_turn_that_nobody_ends_is_over_when_its_pipe_is_gone(repo, far_gpus, pipeline):
    """GPUs are chosen in turn; a pipe that was killed in its turn keeps nobody from choosing."""
    far_gpus.docker(
        "create",
        "--name",
        "pipesmith-for-gpus",
        "--label",
        f"pipesmith.owner={os.uname().nodename} 1 gone",
        IMAGE,
        "none",
    )
    pipeline(far_gpus, '[stage.a]\nrun = "echo 1 > {outputs.o}"\noutputs = { o = "o" }\nresources = { gpus = 1 }\n')
    repo.pipe("build")
    assert far_gpus.docker("ps", "-aq", "--filter", "name=pipesmith-for-gpus") == ""
