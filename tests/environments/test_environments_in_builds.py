"""Environments in whole builds: resolved once, pinned, shared, and part of the fingerprint by what they hold."""

from __future__ import annotations

import subprocess
import sys
import threading
import tomllib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.conftest import Repo

from .conftest import make_wheel

RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"

PIPELINE = """
[environment.e]
python = "{python}"
packages = [{packages}]
[stage.a]
run = "python -c 'import alpha; print(alpha.VERSION)' > {{outputs.o}} && {note}"
outputs = {{ o = "o.txt" }}
environment = "e"
"""


@pytest.fixture
def project(repo: Repo, index: Path) -> Repo:
    """A stage that writes the version of `alpha` that its environment holds."""
    repo.env |= {
        "UV_NO_INDEX": "1",
        "UV_FIND_LINKS": str(index),
        "UV_CACHE_DIR": str(index.parent / "uv-cache"),
        "UV_LINK_MODE": "copy",
    }
    return repo


def write(repo: Repo, *packages: str, python: str = RUNNING) -> None:
    listed = ", ".join(f'"{package}"' for package in packages)
    repo.write("pipeline.toml", PIPELINE.format(python=python, packages=listed, note=repo.note("a")))


def test_a_stage_runs_in_what_its_environment_resolved_to(project: Repo) -> None:
    write(project, "alpha<2")
    project.pipe("build")
    assert project.read("o.txt") == "1.0\n"
    assert "alpha==1.0" in project.read("pipe.lock")
    assert project.pipe("build", "--json").json()["status"] == "up-to-date"


def test_the_same_set_written_in_another_way_runs_nothing(project: Repo) -> None:
    write(project, "alpha==1.0", "beta")
    project.pipe("build")
    project.ran()
    lock = project.read("pipe.lock")
    write(project, "BETA", "Alpha == 1.0")
    assert project.pipe("build", "--json").json()["status"] == "up-to-date"
    assert project.read("pipe.lock") == lock
    write(project, "beta==1.0", "alpha<2")
    assert project.pipe("build", "--json").stages() == {"a": "fresh"}
    assert project.ran() == []


def test_another_set_runs_the_stage_and_says_why(project: Repo) -> None:
    write(project, "alpha==1.0")
    project.pipe("build")
    write(project, "alpha==2.0")
    assert project.pipe("status", "--json").stages(key="state") == {"a": "stale"}
    result = project.pipe("build", "--json")
    assert [kind for kind, _item in result.why("a")] == ["environment"]
    assert project.read("o.txt") == "2.0\n"


def test_a_build_while_an_update_resolves(project: Repo, index: Path) -> None:
    """Any number of commands at once: an update writes its pins beside what a build wrote meanwhile."""
    asked, answer = threading.Event(), threading.Event()

    class Index(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.set()
            answer.wait()
            super().do_GET()

        def log_message(self, *_: object) -> None: ...

    write(project, "alpha")
    with (project.path / "pipeline.toml").open("a") as file:
        file.write('[stage.other]\nrun = "echo 1 > {outputs.o}"\noutputs = { o = "other.txt" }\n')
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Index, directory=str(index))) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            update = project.start("env", "update", env={"UV_FIND_LINKS": f"http://127.0.0.1:{server.server_port}/"})
            assert asked.wait(60)
            assert project.pipe("build", "other", "--json").stages() == {"other": "ran"}
            answer.set()
            said = update.communicate()
            assert update.returncode == 0, said
        finally:
            answer.set()
            server.shutdown()
    lock = tomllib.loads(project.read("pipe.lock"))
    assert set(lock["environment"]) == {"e"} and set(lock["stage"]) == {"other"}
    assert project.pipe("status", "other", "--json").stages(key="state") == {"other": "fresh"}


def test_a_new_release_changes_nothing_until_an_update(project: Repo, index: Path) -> None:
    write(project, "alpha")
    project.pipe("build")
    make_wheel(index, "alpha", "3.0")
    write(project, "alpha>0")
    assert project.pipe("build", "--json").stages() == {"a": "fresh"}
    assert "alpha 2.0 -> 3.0" in project.pipe("env", "update").stdout
    assert project.pipe("build", "--json").stages() == {"a": "ran"}
    assert project.read("o.txt") == "3.0\n"


def test_a_clone_takes_the_pinned_set(project: Repo, index: Path) -> None:
    write(project, "alpha<3")
    project.pipe("build")
    project.commit()
    make_wheel(index, "alpha", "2.5")
    clone = project.clone()
    clone.env |= project.env
    assert clone.pipe("build", "--json").stages() == {"a": "ran"}
    assert clone.read("o.txt") == "2.0\n"
    assert clone.read("pipe.lock") == project.read("pipe.lock")


def test_four_builds_at_once_build_one_environment(make_repo, index: Path) -> None:  # type: ignore[no-untyped-def]
    repos = [make_repo(f"r{number}") for number in range(4)]
    started = []
    for repo in repos:
        write(repo, "alpha", "beta")
        env = {"UV_NO_INDEX": "1", "UV_FIND_LINKS": str(index), "UV_LINK_MODE": "copy"}
        started.append(repo.start("build", env=env))
    texts = ["".join(process.communicate(timeout=120)) for process in started]
    assert [process.returncode for process in started] == [0] * 4, texts
    assert sum("building an environment" in text for text in texts) == 1


def test_the_running_interpreter_is_an_environment(project: Repo) -> None:
    project.write(
        "pipeline.toml",
        """
        [environment.s]
        python = "system"
        [stage.a]
        run = "python -c 'import sys; print(sys.prefix)' > {outputs.o}"
        outputs = { o = "o.txt" }
        environment = "s"
        """,
    )
    project.pipe("build")
    assert project.read("o.txt").strip() == sys.prefix
    assert "[environment.s]" not in project.read("pipe.lock")
    assert project.pipe("build", "--json").json()["status"] == "up-to-date"


def test_a_package_that_is_not_there_ends_the_build_before_anything_runs(project: Repo) -> None:
    write(project, "no-such-package")
    result = project.pipe("build", check=False)
    assert result.returncode == 1
    assert "environment `e` can't be resolved: because no-such-package was not found" in result.stderr
    assert project.ran() == []


def test_listing_says_what_is_built(project: Repo) -> None:
    write(project, "alpha")
    assert [each["state"] for each in project.pipe("env", "ls", "--json").json()["environments"]] == ["not resolved"]
    built = project.pipe("env", "build", "--json").json()["environments"]["e"]
    done = subprocess.run([f"{built}/bin/python", "-c", "import alpha"], check=False)
    assert done.returncode == 0
    (each,) = project.pipe("env", "ls", "--json").json()["environments"]
    assert (each["state"], each["packages"], each["prefix"]) == ("built", 1, built)


@pytest.mark.parametrize("way", ["kill -INT $$", "exit 130"])
def test_ctrl_c_while_packages_are_resolved(repo: Repo, way: str) -> None:
    """The terminal interrupts uv as well: that is no failure of the environment."""
    uv = repo.home / "bin/uv"
    uv.parent.mkdir()
    uv.write_text(f"#!/bin/sh\nkill -INT $PPID\nsleep 0.2\n{way}\n")
    uv.chmod(0o755)
    repo.write(
        "pipeline.toml",
        """
        [environment.e]
        python = "3.11"
        packages = ["alpha"]
        [stage.a]
        run = "echo 1 > {outputs.o}"
        outputs = { o = "o.txt" }
        environment = "e"
        """,
    )
    # `uv` beside pipesmith comes first, and on PATH only where that is not installed.
    hidden = repo.home / "hidden/uv"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("def find_uv_bin(): raise FileNotFoundError\n")
    paths = [str(hidden.parent), *filter(None, [repo.env.get("PYTHONPATH")])]
    env = {"PATH": f"{uv.parent}:{repo.env['PATH']}", "PYTHONPATH": ":".join(paths)}
    result = repo.pipe("build", check=False, env=env)
    assert (result.returncode, result.stderr.splitlines()[-1]) == (130, "error: interrupted")
    assert not repo.exists("o.txt") and "environment.e" not in (
        repo.read("pipe.lock") if repo.exists("pipe.lock") else ""
    )


def test_what_is_stale_names_the_packages(project: Repo) -> None:
    """Before and after it is resolved, and after an update whose old pin stands in no lockfile any more."""
    write(project, "alpha==1.0", "windowsonly")
    assert "environment `e` is not resolved yet" in project.pipe("status").stdout
    project.pipe("build")
    write(project, "alpha==2.0", "windowsonly", "beta")
    (why,) = project.pipe("status", "--json").json()["stages"][0]["why"]
    assert (why["kind"], why["item"]) == ("environment", "e")
    assert (why["old"], why["new"]) == ("alpha==1.0, beta (none)", "alpha==2.0, beta (any)")
    assert "environment `e` changed: alpha 1.0 -> 2.0, beta none -> any" in project.pipe("status").stdout
    write(project, "alpha>0", "windowsonly")
    assert "environment `e` asks for something else: the next build resolves it" in project.pipe("status").stdout
    write(project, "alpha==2.0", "windowsonly", "beta")
    told = project.pipe("env", "update", "--json").json()["environments"]["e"]
    assert [(each["package"], each["old"], each["new"]) for each in told] == [
        ("alpha", "1.0", "2.0"),
        ("beta", None, "1.0"),
    ]
    result = project.pipe("build")
    assert "run a: environment `e` changed: alpha 1.0 -> 2.0, beta none -> 1.0" in result.stdout
    (why,) = project.pipe("show", "--json").json()["stages"][0]["why"]
    assert (why["old"], why["new"]) == ("alpha==1.0, beta (none)", "alpha==2.0, beta==1.0")
    (known,) = project.pipe("why", "a", "--json").json()["stages"][0]["nearest"]["differs"]
    assert known == why
    write(project, "alpha==1.0", "windowsonly")
    project.commit()
    (why,) = project.pipe("status", "--rev", "HEAD", "--json").json()["stages"][0]["why"]
    assert (why["item"], why["old"], why["new"]) == ("e", "alpha==2.0", "alpha==1.0")


def test_a_cold_environment_is_a_line_of_its_own(project: Repo) -> None:
    """In what a build prints and in the record; its time is no time of the stage. A warm one is none."""
    write(project, "alpha")
    toml = project.read("pipeline.toml").replace(
        "[stage.a]", '[stage.b]\nrun = "touch b"\noutputs = { o = "b" }\nenvironment = "e"\n[stage.a]'
    )
    project.write("pipeline.toml", toml)
    result = project.pipe("build")
    lines = result.stdout.splitlines()
    assert len([line for line in lines if line.startswith("built     environment e  ")]) == 1
    assert "environment e: building an environment of 1 package for Python" in result.stderr
    record = project.pipe("show", "--json").json()
    (cold,) = record["environments"]
    assert (cold["name"], cold["where"], cold["how"]) == ("e", "", "built") and cold["end"] > cold["start"]
    took = cold["end"] - cold["start"]
    assert any(stage["start"] - record["time"] > took - 0.001 for stage in record["stages"])
    assert "built     environment e  " in project.pipe("show").stdout
    project.pipe("build", "--force")
    assert "environments" not in project.pipe("show", "--json").json()


def test_what_fails_says_where_it_is_asked_for(project: Repo, index: Path) -> None:
    """Resolving: exit 1, or 2 where it is the file that is wrong. Building: the stage fails and says it."""
    write(project, "alpha==9")
    failed = project.pipe("build", check=False)
    assert failed.returncode == 1
    assert "pipeline.toml:3: environment.e.packages: environment `e` can't be resolved: " in failed.stderr
    assert "uv says: " in failed.stderr and "Traceback" not in failed.stderr
    (told,) = project.pipe("build", "--json", check=False).json()["error"]["messages"]
    assert (told["file"], told["line"], told["key"]) == ("pipeline.toml", 3, "environment.e.packages")
    write(project, "alpha = 1")
    wrong = project.pipe("env", "build", "e", check=False)
    assert wrong.returncode == 2 and "pipeline.toml:3: environment.e.packages: " in wrong.stderr
    write(project, "alpha==1.0")
    project.pipe("env", "update")
    project.env["UV_CACHE_DIR"] += "-another"
    for wheel in index.glob("alpha-1.0-*"):
        wheel.unlink()
    failed = project.pipe("build", check=False)
    assert failed.returncode == 1 and "failed    environment e  " in failed.stdout
    assert "pipeline.toml:3: environment.e.packages: an environment can't be installed: " in failed.stdout
    assert project.pipe("show", "--json").json()["environments"][0]["how"] == "failed"


def test_an_image_that_no_stage_runs_in_is_left_alone(project: Repo) -> None:
    """Unless it is named: no daemon is there to ask."""
    write(project, "alpha")
    project.write("pipeline.toml", f'{project.read("pipeline.toml")}[environment.far]\nimage = "team/far:1"\n')
    for action in ("build", "update"):
        done = project.pipe("env", action)
        assert "environment `far` is an image that no stage in containers uses" in done.stderr
        assert project.pipe("env", action, "far", check=False).returncode == 2
    assert [entry["state"] for entry in project.pipe("env", "ls", "--json").json()["environments"]] == [
        "built",
        "not resolved",
    ]
