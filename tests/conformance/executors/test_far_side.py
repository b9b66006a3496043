"""What a far side adds: no folder is shared, the way there costs, and either end may go away."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time

import pytest
from tests.services import docker_services
from tests.users import ADA, EVE, GROUP, needs_root, run_as


def clone_of(repo) -> str:
    from pipesmith.executors.docker import clone_name

    return clone_name(str(repo.path / ".git"), ".")


def containers(place, repo, *flags: str) -> list[str]:
    """Return the ids of a repository's containers."""
    return place.docker("ps", "-q", *flags, "--filter", f"label=pipesmith.clone={clone_of(repo)}").split()


def made_since(place, began: float) -> list[str]:
    """Return the names of the containers that were made since a time."""
    told = place.docker(
        "events", "--since", str(began), "--until", str(time.time() + 1), "--filter", "type=container",
        "--filter", "event=create", "--format", "{{.Actor.Attributes.name}}",
    )  # fmt: skip
    return told.split()


def test_every_way_there(repo, far_place, pipeline):
    """A unix socket, TCP with TLS, ssh: inputs go there, output comes back live, results come back."""
    repo.write("data/x.txt", "x\n")
    repo.write("src/a.sh", "cat data/x.txt; echo err >&2; cp -r data out; exit 0\n")
    pipeline(
        far_place,
        """
        [stage.a]
        source = "src"
        run = "sh src/a.sh"
        inputs = { d = "data" }
        outputs = { o = "out" }
        """,
    )
    repo.pipe("build")
    assert repo.read("out/x.txt") == "x\n"
    assert sorted(repo.pipe("logs", "latest", "a").stdout.split()) == ["err", "x"]
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"
    assert os.stat(repo.path / "out" / "x.txt").st_uid == os.getuid()


def test_a_shell_sees_what_the_stage_sees(repo, far_place, pipeline):
    """Source, inputs, variables and environment, in a container; of what it makes only the `keep` folder stays."""
    repo.write("data/x.txt", "x\n")
    repo.write("src/a.py", "")
    pipeline(
        far_place,
        """
        [stage.a]
        source = "src"
        run = "false"
        inputs = { d = "data" }
        outputs = { o = "out/o" }
        keep = "ckpt"
        """,
    )
    script = "pwd; cat data/x.txt; touch data/y || echo kept; ls; echo $PIPE_STAGE; echo 1 > $PIPE_KEEP/mark; exit 5"
    done = repo.pipe("shell", "a", "--", "sh", "-c", script, check=False)
    assert done.returncode == 5
    assert done.stdout.split() == ["/workspace", "x", "kept", "ckpt", "data", "out", "src", "a"]
    done = repo.pipe(
        "shell", "a", input="cat ckpt/mark\npython -c 'import pipesmith.sdk as s; print(s.Run)'\nexit 3\n", check=False
    )
    assert done.returncode == 3 and done.stdout.startswith("1\n<class")
    assert containers(far_place, repo, "-a") == []
    assert not list((repo.pipe_dir / "tmp").glob("shell-*"))


@pytest.mark.parametrize("how", ["DOCKER_HOST", "DOCKER_CONTEXT", "context"])
def test_without_a_host_it_is_what_the_docker_command_uses(repo, docker_place, pipeline, how):
    url = docker_place.host.partition('"')[2].rstrip('"')
    docker_place.toml = docker_place.toml.replace(docker_place.host, "")
    if how == "DOCKER_HOST":
        repo.env["DOCKER_HOST"] = url
    else:
        repo.run("docker", "context", "create", "box", "--docker", f"host={url}")
        if how == "context":
            repo.run("docker", "context", "use", "box")
        else:
            repo.env["DOCKER_CONTEXT"] = "box"
    pipeline(docker_place, '[stage.a]\nrun = "cat /proc/1/cgroup > {outputs.o}"\noutputs = { o = "o" }\n')
    began = time.time()
    repo.pipe("build")
    assert [name for name in made_since(docker_place, began) if name.endswith(clone_of(repo))]
    repo.env.pop("DOCKER_HOST", None)
    if how == "context":
        repo.run("docker", "context", "use", "default")
        repo.run("docker", "context", "rm", "box")
        (repo.home / ".docker" / "config.json").write_text('{"currentContext": "box"}')
        gone = repo.pipe("build", "--force", check=False)
        assert gone.returncode == 1 and "`where`" in gone.stderr and "current Docker context" in gone.stderr
    wrong = {"DOCKER_CONTEXT": "nosuch"}
    if how == "DOCKER_HOST":
        wrong = {"DOCKER_HOST": "tcp://127.0.0.1:1", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/no/such"}
    gone = repo.pipe("build", "--force", check=False, env=wrong)
    assert gone.returncode == 1 and "`where`" in gone.stderr and "Traceback" not in gone.stderr
    assert ("`/no/such` lacks" if how == "DOCKER_HOST" else "Docker context `nosuch` does not exist") in gone.stderr


@needs_root
def test_an_ordinary_user_of_the_group(repo, docker_place, pipeline):
    """All that comes back is the user's own, whatever the daemon is; nothing of it needs root."""
    assert docker_place.daemon is not None
    socket_file = docker_place.daemon / "docker.sock"
    os.chown(socket_file, 0, GROUP)
    socket_file.chmod(0o660)
    repo.write("data/x.txt", "x\n")
    repo.write("src/run.sh", "id -u; id -g; touch $HOME/mine $TMPDIR/mine src/mine; ! touch data/y && cp -r data $1\n")
    pipeline(
        docker_place,
        """
        [stage.a]
        source = "src"
        run = "sh src/run.sh {outputs.o} && chmod -R a-w {outputs.o}"
        inputs = { d = "data" }
        outputs = { o = "out" }
        [stage.bad]
        source = "src"
        run = "mkdir closed; echo 1 > closed/x; chmod a-w closed; exit 3"
        outputs = { o = "bad" }
        """,
    )
    repo.commit()
    repo.git("config", "--global", "safe.directory", "*")
    subprocess.run(["chown", "-R", f"{ADA.uid}:{ADA.gids[0]}", repo.path], check=True)
    eve = run_as(repo, EVE, "pipe", "compute", "status", "where", "--json").json()["computes"][0]
    assert eve["state"] == "down" and "ermission denied" in eve["error"]
    for _again in range(2):
        result = run_as(repo, ADA, "pipe", "build", "-k", "--force", "--json", check=False)
        assert result.returncode == 1 and result.stages() == {"a": "ran", "bad": "failed"}
    said = run_as(
        repo, ADA, "pipe", "logs", "latest", "a"
    ).stdout.split()  # what of stderr came in between is no number
    assert [word for word in said if word.isdigit()] == [str(ADA.uid), str(ADA.gids[0])]
    assert repo.read("out/x.txt") == "x\n" and (repo.pipe_dir / "tmp/failed/bad/sandbox/closed/x").exists()
    others = [path for path in repo.path.rglob("*") if path.lstat().st_uid != ADA.uid]
    assert others == []
    assert run_as(repo, ADA, "pipe", "build", "a", "--json").json()["status"] == "up-to-date"


def test_an_input_is_sent_once(repo, docker_place, pipeline):
    """A second stage with the same inputs, and another build, send no data."""
    repo.write("data/x.txt", os.urandom(100_000))
    pipeline(
        docker_place,
        """
        [stage.a]
        run = "cat data/x.txt | wc -c > {outputs.o}; echo {matrix.n} >> {outputs.o}"
        inputs = { d = "data" }
        matrix = { n = [1, 2] }
        outputs = { o = "o/{matrix.n}" }
        """,
    )
    began = time.time()
    repo.pipe("build", "-j1")
    filled = [name for name in made_since(docker_place, began) if name.startswith("pipesmith-for-")]
    assert filled and len(filled) == len(set(filled))
    again = time.time()
    repo.pipe("build", "--force")
    assert not set(filled) & set(made_since(docker_place, again))
    repo.write("data/x.txt", "other\n")
    repo.pipe("build", "a@1")
    assert repo.read("o/1") == "6\n1\n"


def test_two_builds_send_one_input_once(repo, docker_place, pipeline):
    repo.write("data/x.txt", os.urandom(3_000_000))
    pipeline(
        docker_place,
        """
        [stage.a]
        run = "cat data/x.txt | wc -c > {outputs.o}"
        inputs = { d = "data" }
        matrix = { n = [1, 2] }
        outputs = { o = "o/{matrix.n}" }
        """,
    )
    repo.commit()
    other = repo.clone("other")
    other.env = repo.env
    began = time.time()
    processes = [each.start("build", "-q") for each in (repo, other)]
    for process in processes:
        _out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    filled = [name for name in made_since(docker_place, began) if name.startswith("pipesmith-for-")]
    assert filled and len(filled) == len(set(filled))


def test_a_stage_outlives_its_pipe_and_is_taken_up(repo, container_place, pipeline):
    """`kill -9` of pipe: the container goes on; the next build finds it, and runs nothing twice."""
    pipeline(
        container_place,
        """
        [stage.a]
        run = "echo begun; sleep 6; echo $RANDOM$RANDOM > {outputs.o}; echo ended"
        outputs = { o = "o" }
        """,
    )
    process = repo.start("build")
    wait_for_line(process, "begun")
    process.kill()
    process.wait()
    (left,) = containers(container_place, repo)
    began = time.time()
    result = repo.pipe("build")
    assert "goes on in a container of an earlier build" in result.stdout + result.stderr
    assert not [name for name in made_since(container_place, began) if name.endswith(clone_of(repo))]
    assert repo.pipe("logs", "latest", "a").stdout.split() == ["begun", "ended"]
    assert repo.exists("o") and containers(container_place, repo, "-a") == []
    assert left


@pytest.mark.slow
def test_the_timeout_of_one_that_is_taken_up(repo, container_place, pipeline):
    """It counts from the start of its container: the time that no pipe looked after it is over as well."""
    pipeline(
        container_place,
        """
        [stage.a]
        run = "n=0; while [ $n -lt 600 ]; do date +%s; sleep 0.5; n=$((n+1)); done; echo 1 > {outputs.o}"
        outputs = { o = "o" }
        timeout = "15s"
        """,
    )
    process = repo.start("build")
    wait_for_line(process, "17")
    process.kill()
    process.wait()
    time.sleep(17)
    result = repo.pipe("build", check=False)
    assert "goes on in a container of an earlier build" in result.stdout + result.stderr
    assert "timed out after 15 s" in result.stdout + result.stderr
    told = [int(line) for line in repo.pipe("logs", "latest", "a").stdout.split()]
    assert max(told) - min(told) < 30


def test_what_an_ended_build_left_is_removed(repo, container_place, pipeline):
    """A container that no build wants any more does not go on for ever."""
    text = '[stage.a]\nrun = "echo {WORD}; {SLEEP}echo 1 > {{outputs.o}}"\noutputs = {{ o = "o" }}\n'
    pipeline(container_place, text.format(WORD="begun", SLEEP="sleep 300; "))
    process = repo.start("build")
    wait_for_line(process, "begun")
    process.kill()
    process.wait()
    assert len(containers(container_place, repo)) == 1
    pipeline(container_place, text.format(WORD="other", SLEEP=""))
    repo.pipe("build")
    assert containers(container_place, repo, "-a") == []


def wait_for_line(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if word in line:
            return
    pytest.fail(f"`{word}` was never said: {lines} {process.stderr.read() if process.stderr else ''}")


def test_too_much_memory_is_named(repo, docker_place, pipeline):
    pipeline(
        docker_place,
        """
        [stage.a]
        run = ["python", "-c", "x = bytearray(400 << 20); x[::4096] = b'1' * len(x[::4096])"]
        outputs = { o = "o" }
        resources = { memory = "100M" }
        """,
    )
    result = repo.pipe("build", check=False)
    assert result.returncode == 1
    assert "too much memory" in result.stdout + result.stderr
    (stage,) = repo.pipe("show", "--json").json()["stages"]
    assert stage["peak_bytes"] >= 100 << 20


def test_a_compute_that_cannot_be_reached(repo, pipeline, docker_place):
    """It is told by its name, exit 1; a fresh stage asks no compute, whatever has become of it."""
    pipeline(docker_place, '[stage.a]\nrun = "echo 1 > {outputs.o}"\noutputs = { o = "o" }\n')
    repo.pipe("build")
    toml = repo.read("pipeline.toml")
    gone = toml.replace("docker.sock", "no-such.sock")
    repo.write("pipeline.toml", gone)
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"
    assert repo.pipe("compute", "status", "where", "--json").json()["computes"][0]["state"] == "down"
    assert repo.pipe("compute", "wait", "where", "--timeout", "1s", check=False).returncode == 1
    repo.write("pipeline.toml", gone.replace("echo 1", "echo 2"))
    result = repo.pipe("build", check=False)
    assert result.returncode == 1
    assert "`where`" in result.stderr and "can't be reached" in result.stderr
    keys = 'tls = { ca = "keys/ca.pem", cert = "keys/cert.pem", key = "keys/key.pem" }'
    lines = [f'host = "tcp://127.0.0.1:1"\n{keys}' if "no-such" in line else line for line in gone.splitlines()]
    repo.write("pipeline.toml", "\n".join(lines).replace("echo 1", "echo 3"))
    result = repo.pipe("build", check=False)
    assert result.returncode == 1 and "keys/ca.pem`: No such file" in result.stderr


def test_compute_commands(repo, pipeline, docker_place):
    pipeline(
        docker_place, '[stage.a]\nrun = "echo begun; sleep 300"\noutputs = { o = "o" }\nresources = { cpus = 1 }\n'
    )
    listed = repo.pipe("compute", "ls", "--json").json()["computes"]
    assert [(each["name"], each["kind"], each["state"]) for each in listed] == [
        ("local", "local", "up"),
        ("where", "docker", "up"),
    ]
    for each in listed:
        assert {"nodes", "cpus", "memory", "gpus", "queue", "error"} <= set(each)
    (state,) = repo.pipe("compute", "up", "where", "--json").json()["computes"]
    assert state["state"] == "up" and state["nodes"] == 1 and state["cpus"]["total"] >= 1
    process = repo.start("build")
    wait_for_line(process, "begun")
    (busy,) = repo.pipe("compute", "status", "where", "--json").json()["computes"]
    assert busy["queue"] >= 1 and busy["cpus"]["used"] >= 1
    process.kill()
    process.wait()
    repo.pipe("compute", "down", "where")
    assert containers(docker_place, repo, "-a") == []
    assert repo.pipe("compute", "ls", "wher", check=False).returncode == 2
    inside = repo.pipe("compute", "up", check=False, env={"PIPE_RUN": "r", "PIPE_STAGE": "s"})
    assert inside.returncode == 2 and "inside a stage" in inside.stderr


def test_one_compute_that_is_gone_keeps_no_other_waiting(repo, pipeline, docker_place):
    """`compute up` and `down` do their work on the others, say which is gone, and exit with 1."""
    docker_place.toml += '[compute.gone]\nkind = "docker"\nhost = "unix:///no/such.sock"\n'
    text = """
        [stage.a]
        compute = "gone"
        run = "echo 1 > {outputs.o}"
        outputs = { o = "o" }
        [stage.b]
        run = "echo begun; sleep 300"
        outputs = { p = "p" }
        """
    pipeline(docker_place, text)
    process = repo.start("build", "b")
    wait_for_line(process, "begun")
    process.kill()
    process.wait()
    for action in ("up", "down"):
        result = repo.pipe("compute", action, "--json", check=False)
        states = {each["name"]: each["state"] for each in result.json()["computes"]}
        assert result.returncode == 1 and states == {"local": "up", "where": "up", "gone": "down"}
    assert containers(docker_place, repo, "-a") == []


def test_a_pool_shares_the_work(repo, docker_place, tls_place, pipeline):
    """Stages go where there is room."""
    first = docker_place.host.partition('"')[2].rstrip('"')
    url, keys = tls_place.host.split("\n")
    url = url.partition('"')[2].rstrip('"')
    hosts = f'hosts = ["{first}", {{ url = "{url}", cpus = 1 }}]\n{keys}'
    docker_place.toml = docker_place.toml.replace(docker_place.host, hosts)
    pipeline(
        docker_place,
        """
        [stage.a]
        run = "sleep 2; echo {matrix.n} > {outputs.o}"
        matrix = { n = [1, 2] }
        outputs = { o = "o/{matrix.n}" }
        """,
    )
    began = time.time()
    repo.pipe("build", "-j2")
    for each in (docker_place, tls_place):
        assert len([name for name in made_since(each, began) if name.endswith(clone_of(repo))]) == 1


def pool(place, *hosts: str) -> None:
    """Make a place a pool of hosts."""
    listed = ", ".join(f'"{host}"' for host in hosts)
    place.toml = place.toml.replace(place.host, f"hosts = [{listed}]")


def test_a_pool_goes_on_without_a_host_that_is_gone(repo, docker_place, pipeline):
    """It is told which one does not answer, and why; what needs more than the others have is told too."""
    first = docker_place.host.partition('"')[2].rstrip('"')
    pool(docker_place, "unix:///nowhere/docker.sock", first)
    text = """
        [stage.a]
        run = "echo {matrix.n} > {outputs.o}"
        matrix = { n = [1, 2] }
        outputs = { o = "o/{matrix.n}" }
        resources = { cpus = CPUS }
    """
    pipeline(docker_place, text.replace("CPUS", "1"))
    result = repo.pipe("build")
    said = result.stdout + result.stderr
    assert said.count("`where` (unix:///nowhere/docker.sock) can't be reached") == 1
    assert "its stages go to the other hosts" in said and repo.read("o/2") == "2\n"
    (state,) = repo.pipe("compute", "status", "where", "--json").json()["computes"]
    assert (state["state"], state["nodes"]) == ("up", 1) and "unix:///nowhere" in state["error"]
    for action in ("up", "down", "wait"):
        assert repo.pipe("compute", action, "where").returncode == 0
    pipeline(docker_place, text.replace("CPUS", "4000"))
    much = repo.pipe("build", "--force", check=False)
    assert much.returncode == 1 and "4000 CPUs" in much.stderr and "unix:///nowhere" in much.stderr
    pool(docker_place, "unix:///nowhere/docker.sock", "unix:///neither/docker.sock")
    pipeline(docker_place, text.replace("CPUS", "1"))
    none = repo.pipe("build", "--force", check=False)
    assert none.returncode == 1 and "none of the hosts of `where` can be reached" in none.stderr


def test_a_stage_is_taken_up_on_the_host_that_has_it(repo, docker_place, tls_place, pipeline):
    """Of a pool the one where it runs, though another one is as free."""
    text = """
        [stage.a]
        run = "echo begun; sleep 5; echo 1 > {outputs.o}"
        outputs = { o = "o" }
    """
    pipeline(tls_place, text)
    repo.pipe("compute", "up", "where")  # its image is pinned then, whichever host is asked
    process = repo.start("build", "-v")
    wait_for_line(process, "begun")
    process.kill()
    process.communicate()
    first = docker_place.host.partition('"')[2].rstrip('"')
    url, keys = tls_place.host.split("\n")
    second = url.partition('"')[2].rstrip('"')
    tls_place.toml = tls_place.toml.replace(tls_place.host, f'hosts = ["{first}", "{second}"]\n{keys}')
    pipeline(tls_place, text)
    result = repo.pipe("build")
    assert "goes on in a container of an earlier build" in result.stdout + result.stderr
    assert repo.read("o") == "1\n" and containers(tls_place, repo, "-a") == []


@pytest.mark.slow
@pytest.mark.parametrize("mortal_place", ["elsewhere"], indirect=True)
def test_a_host_of_a_pool_that_dies(repo, mortal_place, docker_place, pipeline):
    """What ran there has failed, or is tried again elsewhere; all else goes to the others."""
    first = docker_place.host.partition('"')[2].rstrip('"')
    pool(mortal_place, f"unix://{mortal_place.daemon}/docker.sock", first)
    pipeline(
        mortal_place,
        """
        [stage.a]
        run = "echo begun; sleep 3; echo 1 > {outputs.o}"
        outputs = { o = "o" }
        retries = 1
        """,
    )
    repo.pipe("compute", "up", "where")  # its image is on both then
    process = repo.start("build", "-v")
    wait_for_line(process, "begun")
    docker_services.end(mortal_place.daemon)
    _out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert "stages go to the other hosts" in err and repo.read("o") == "1\n"


def test_what_an_ended_pipe_used_is_removed(repo, docker_place, pipeline):
    """Containers that gave access to an image or a volume go as those of stages do; what is somebody else's stays."""
    owner = f"pipesmith.owner={socket.gethostname()} 999999999 1-1"
    mine, others = f"pipesmith-for-image-{os.urandom(4).hex()}", f"somebody-{os.urandom(4).hex()}"
    image = docker_place.toml.rpartition('image = "')[2].partition('"')[0]
    for name in (mine, others):
        docker_place.docker("create", "--name", name, "--label", owner, image, "true")
    pipeline(docker_place, '[stage.a]\nrun = "echo 1 > {outputs.o}"\noutputs = { o = "o" }\n')
    repo.pipe("build")
    names = docker_place.docker("ps", "-a", "--format", "{{.Names}}").split()
    assert mine not in names and others in names
    docker_place.docker("rm", others)


def test_gpus_are_asked_of_the_daemon(repo, docker_place, pipeline):
    """Where the daemon has no driver for them it says so, and what is to be done there."""
    docker_place.toml = docker_place.toml.replace('kind = "docker"', 'kind = "docker"\ngpus = 2')
    pipeline(docker_place, '[stage.a]\nrun = "echo 1 > {outputs.o}"\noutputs = { o = "o" }\nresources = { gpus = 1 }\n')
    result = repo.pipe("build", check=False)
    assert result.returncode == 1
    told = result.stdout + result.stderr
    assert "install NVIDIA's container toolkit there (could not select device driver" in told


def test_ctrl_c_while_inputs_are_sent(repo, docker_place, pipeline):
    """Nothing half is trusted afterwards."""
    repo.write("data/x.bin", os.urandom(60_000_000))
    pipeline(
        docker_place,
        '[stage.a]\nrun = "wc -c < data/x.bin > {outputs.o}"\ninputs = { d = "data" }\noutputs = { o = "o" }\n',
    )
    process = repo.start("build")
    wait_for_line(process, "run a")
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    repo.pipe("build")
    assert repo.read("o").strip() == "60000000"


def test_ctrl_c_while_an_image_is_built(repo, docker_place, pipeline):
    """Nobody waits for what the daemon does then."""
    base = docker_place.toml.rpartition('image = "')[2].partition('"')[0]
    docker_place.toml = docker_place.toml.replace(f'image = "{base}"', 'dockerfile = "env/Dockerfile"')
    repo.write("env/Dockerfile", f"FROM {base}\nRUN sleep 100\n")
    pipeline(docker_place, '[stage.a]\nrun = "echo 1 > {outputs.o}"\noutputs = { o = "o" }\n')
    process = repo.start("build")
    assert process.stderr is not None
    for line in process.stderr:
        if "building the image" in line:
            break
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert repo.pipe("runs", "--json").json()["runs"][0]["status"] == "cancelled"


def test_an_environment_of_packages_becomes_an_image(repo, docker_place, pipeline):
    """Built once on its base; the fingerprint is that of the resolved set, the same as on this machine."""
    docker_place.toml = docker_place.toml.replace(
        "[environment.tools]\nimage = ", '[environment.tools]\npython = "PY"\npackages = ["tomli==2.0.1"]\nbase = '
    ).replace("PY", python_version())
    pipeline(
        docker_place,
        """
        [stage.a]
        run = ["python", "-c", "import tomli, pathlib; pathlib.Path('o').write_text(tomli.__name__)"]
        outputs = { o = "o" }
        """,
    )
    first = repo.pipe("build")
    assert repo.read("o") == "tomli" and "building an image" in first.stdout + first.stderr
    again = repo.pipe("build", "--force")
    assert "building an image" not in again.stdout + again.stderr
    fingerprint = repo.pipe("build", "--json").json()["stages"][0]["fingerprint"]
    toml = repo.read("pipeline.toml").replace('compute = "where"', 'compute = "local"', 1)
    repo.write("pipeline.toml", toml)
    here = repo.pipe("build", "--json").json()["stages"][0]
    assert (here["status"], here["fingerprint"]) == ("fresh", fingerprint)


def test_an_image_is_shared_by_a_registry(repo, docker_place, tls_place, registry, pipeline):
    """Made by one daemon and pushed; another one pulls it, and makes nothing."""
    table = f"""[environment.tools]
python = "{python_version()}"
packages = ["tomli==2.0.2"]
registry = "{registry}/team"
base = """
    said = []
    for place in (docker_place, tls_place):
        place.toml = place.toml.replace("[environment.tools]\nimage = ", table)
        pipeline(
            place,
            """
            [stage.a]
            run = ["python", "-c", "import tomli, pathlib; pathlib.Path('o').write_text(tomli.__name__)"]
            outputs = { o = "o" }
            """,
        )
        result = repo.pipe("build", "--force")
        said.append(result.stdout + result.stderr)
    assert "building an image" in said[0] and "building an image" not in said[1]
    assert "pulled the image" in said[1] and repo.read("o") == "tomli"
    assert repo.pipe("env", "push", "--json").json()["environments"]["tools"].startswith(f"{registry}/team/")


def test_an_environment_of_a_dockerfile(repo, docker_place, pipeline):
    """Built by the daemon, once a content of its folder; it counts by the tree id of that, at a commit as well."""
    base = docker_place.toml.rpartition('image = "')[2].partition('"')[0]
    docker_place.toml = docker_place.toml.replace(f'image = "{base}"', 'dockerfile = "env/Dockerfile"')
    repo.write("env/Dockerfile", f"FROM {base}\nCOPY word.txt /word.txt\n")
    repo.write("env/word.txt", "one\n")
    repo.commit()
    repo.git("tag", "base")
    pipeline(docker_place, '[stage.a]\nrun = "cat /word.txt > {outputs.o}"\noutputs = { o = "o" }\n')
    first = repo.pipe("build")
    assert repo.read("o") == "one\n" and "building the image" in first.stdout + first.stderr
    repo.commit()
    assert repo.pipe("status", "--rev", "HEAD", "--json").stages(key="state") == {"a": "fresh"}
    again = repo.pipe("build", "--force")
    assert "building the image" not in again.stdout + again.stderr
    repo.write("env/word.txt", "two\n")
    assert repo.pipe("status", "--json").why("a") == [("environment", "tools")]
    repo.commit()
    judged = repo.pipe("status", "--rev", "base..HEAD", "--json").json()["commits"]
    assert [each["stages"][0]["state"] for each in judged] == ["fresh", "stale"]
    repo.pipe("build")
    assert repo.read("o") == "two\n"
    repo.write("env/Dockerfile", f"FROM {base}\nRUN exit 7\n")
    broken = repo.pipe("build", check=False)
    assert broken.returncode == 1 and "can't be built" in broken.stdout + broken.stderr


def test_a_save_in_the_folder_of_a_dockerfile_is_watched(repo, docker_place, pipeline):
    base = docker_place.toml.rpartition('image = "')[2].partition('"')[0]
    docker_place.toml = docker_place.toml.replace(f'image = "{base}"', 'dockerfile = "env/Dockerfile"')
    repo.write("env/Dockerfile", f"FROM {base}\nCOPY word.txt /word.txt\n")
    repo.write("env/word.txt", "watched\n")
    pipeline(docker_place, '[stage.a]\nrun = "cat /word.txt > {outputs.o}"\noutputs = { o = "o" }\n')
    process = repo.start("watch")
    wait_for_line(process, "waiting for changes")
    repo.write("env/word.txt", "saved\n")
    wait_for_line(process, "waiting for changes")
    process.terminate()
    process.communicate(timeout=60)
    assert repo.read("o") == "saved\n"


def python_version() -> str:
    import sys

    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def test_an_image_needs_a_compute_that_runs_containers(repo, docker_place, pipeline):
    pipeline(docker_place, '[stage.a]\nrun = "echo 1 > {outputs.o}"\noutputs = { o = "o" }\n')
    result = repo.pipe("build", "--compute", "local", check=False)
    assert result.returncode == 2 and "an image needs a compute that runs containers" in result.stderr
    unknown = repo.pipe("build", "--compute", "wher", check=False)
    assert unknown.returncode == 2 and "did you mean `where`?" in unknown.stderr
    repo.write("pipeline.toml", repo.read("pipeline.toml").replace('environment = "tools"\n', ""))
    bare = repo.pipe("build", check=False)
    assert bare.returncode == 2 and "no environment" in bare.stderr
