"""Where a daemon sees this machine's files, a container has its workspace here; everywhere else it is sent. Neither
leaves anything behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from tests.conformance.executors.conftest import place_of
from tests.conformance.executors.test_far_side import containers, wait_for_line

STAGE = """
    [stage.a]
    source = "src"
    run = "cat src/a.txt data/x.txt > {outputs.o}; mkdir -p $PIPE_KEEP/more; echo 1 > left; test ! -e src/fail"
    inputs = { d = "data" }
    outputs = { o = "out/o" }
    keep = "kept"
"""


def prepare(repo, place, pipeline) -> None:
    repo.write("src/a.txt", "a\n")
    repo.write("data/x.txt", "x\n")
    repo.write(".gitignore", "/out/\n/data/\n")
    pipeline(place, STAGE)
    repo.commit()


def shared(repo) -> list[str]:
    """Return the folders that containers have of this machine."""
    return [path.name for path in (repo.pipe_dir / "tmp").glob("container-*")]


def mounted(place, repo) -> list[str]:
    """Return where the mounts of a repository's one container come from."""
    (container,) = containers(place, repo)
    return [mount["Source"] for mount in json.loads(place.docker("inspect", container))[0]["Mounts"]]


@pytest.mark.parametrize("mortal_place", ["near", "elsewhere"], indirect=True)
def test_the_same_comes_of_it(repo, mortal_place, pipeline):
    prepare(repo, mortal_place, pipeline)
    repo.pipe("build")
    assert repo.read("out/o") == "a\nx\n" and shared(repo) == []
    repo.write("src/fail", "")
    assert repo.pipe("build", check=False).returncode == 1
    sandbox = repo.pipe_dir / "tmp/failed/a/sandbox"
    found = {str(path.relative_to(sandbox)) for path in sandbox.rglob("*") if path.is_file() and not path.is_symlink()}
    assert found == {"src/a.txt", "src/fail", "out/o", "left"}
    assert shared(repo) == [] and containers(mortal_place, repo, "-a") == []


@pytest.mark.slow
def test_a_daemon_that_maps_users(repo, pipeline):
    """What its containers write would be nobody's here: nothing is shared with it, and all that comes back is ours."""
    place = place_of("docker-mapped")
    prepare(repo, place, pipeline)
    repo.pipe("build")
    assert repo.read("out/o") == "a\nx\n" and os.stat(repo.path / "out/o").st_uid == os.getuid()
    assert shared(repo) == [] and containers(place, repo, "-a") == []


def test_a_daemon_of_this_machine_mounts_it(repo, container_place, pipeline):
    """The one that is asked over a socket here has the workspace mounted; to one over TCP all is sent."""
    pipeline(container_place, '[stage.a]\nrun = "echo begun; sleep 3; echo 1 > {outputs.o}"\noutputs = { o = "o" }\n')
    process = repo.start("build")
    wait_for_line(process, "begun")
    from_here = [path for path in mounted(container_place, repo) if path.startswith(str(repo.pipe_dir))]
    assert bool(from_here) == bool(shared(repo)) == (container_place.name == "docker")
    assert process.wait() == 0
    assert repo.read("o") == "1\n" and shared(repo) == []


def test_a_daemon_that_does_not_see_these_files(repo, docker_place, pipeline):
    """Its machine has the same name, but other files lie there: it is noticed, and all is sent."""
    prepare(repo, docker_place, pipeline)
    files = repo.path
    hidden = files.parent / "hidden"
    os.rename(files, hidden)
    files.mkdir()
    script = f'mount --bind "{hidden}" "{files}" && cd "{files}" && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-m", "pipesmith", "build", "--json"],
        env=repo.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (hidden / "out/o").read_text() == "a\nx\n"
    assert not list((hidden / ".git/pipe/tmp").glob("container-*")) and not any(files.iterdir())


def test_links_that_lead_out(repo, docker_place, pipeline):
    """A stage that puts a link where its input lay reaches nothing of this machine's: it is the link that is removed."""
    victim = repo.home / "victim"
    victim.mkdir()
    (victim / "x.txt").write_text("mine\n")
    repo.write("data/x.txt", "x\n")
    pipeline(
        docker_place,
        f"""
        [stage.a]
        run = "mv data moved; rm -rf data; ln -s {victim} data; echo 1 > {{outputs.o}}"
        inputs = {{ x = "data/x.txt" }}
        outputs = {{ o = "o" }}
        """,
    )
    repo.pipe("build")
    assert (victim / "x.txt").read_text() == "mine\n" and repo.read("data/x.txt") == "x\n"
    assert shared(repo) == []


def test_a_killed_pipe_leaves_its_files_to_the_next_build(repo, docker_place, pipeline):
    """Those of a container that is taken up stay, `pipe gc` or not; those of one that nobody wants go with it."""
    text = '[stage.a]\nrun = "echo begun; sleep {S}; echo {S} > {{outputs.o}}"\noutputs = {{ o = "o" }}\n'
    pipeline(docker_place, text.format(S=6))
    process = repo.start("build", "-v")
    wait_for_line(process, "a | begun")  # its reason tells of `echo begun` as well
    process.kill()
    process.wait()
    repo.pipe("gc")
    assert len(shared(repo)) == 1
    repo.pipe("build")
    assert repo.read("o") == "6\n" and shared(repo) == []
    pipeline(docker_place, text.format(S=60))
    process = repo.start("build", "-v")
    wait_for_line(process, "a | begun")  # its reason tells of `echo begun` as well
    process.kill()
    process.wait()
    assert len(shared(repo)) == 1
    pipeline(docker_place, text.format(S=0))
    repo.pipe("build")
    assert shared(repo) == [] and containers(docker_place, repo, "-a") == []


def test_files_that_are_gone_are_not_taken_up(repo, docker_place, pipeline):
    """A container whose files somebody removed has nothing that could come of it: the stage runs anew."""
    pipeline(docker_place, '[stage.a]\nrun = "echo begun; sleep 4; echo 1 > {outputs.o}"\noutputs = { o = "o" }\n')
    process = repo.start("build", "-v")
    wait_for_line(process, "begun")
    process.kill()
    process.wait()
    (left,) = shared(repo)
    subprocess.run(["rm", "-r", repo.pipe_dir / "tmp" / left], check=True)
    result = repo.pipe("build")
    assert "goes on in a container" not in result.stdout + result.stderr
    assert repo.read("o") == "1\n"
