"""Environments of conda packages: resolved for every platform at once, pinned, installed, and part of the fingerprint."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from tests.conftest import Repo

from pipesmith.environments.conda_install import moved
from pipesmith.environments.conda_pins import canonical_line, parse_line

from .conda_channel import LIBRARY, PLATFORMS, PYTHON, Channel, program_in
from .conftest import make_wheel

STAGE = """
[stage.a]
run = "python -c 'import alpha; print(alpha.VERSION)' > {{outputs.o}} && alpha said >> {{outputs.o}} && {note}"
outputs = {{ o = "o.txt" }}
environment = "e"
"""


@pytest.fixture
def channel(tmp_path: Path) -> Channel:
    """alpha 1.0 and 2.0 on two platforms, beta (on every one that has alpha) needs it, gamma is there on one alone."""
    made = Channel(tmp_path / "channel")
    made.add_python()
    for version in ("1.0", "2.0"):
        made.add_module("alpha", version, subdirs=("linux-64", "linux-aarch64"))
    made.add("beta", "1.0", ("alpha >=1.0",), subdirs=("noarch",), files={"share/beta": "1\n"})
    made.add("gamma", "1.0")
    script = {"etc/conda/activate.d/delta.sh": 'export DELTA_DATA="$CONDA_PREFIX/share/delta"\necho loud\n'}
    made.add("delta", "1.0", files={**script, "share/delta/x": "1\n"})
    return made


@pytest.fixture
def project(repo: Repo, channel: Channel) -> Repo:
    """A repository whose PATH has the program, and whose settings name the channel."""
    program = program_in(repo.home / "tools")
    repo.env |= {
        "PATH": f"{program.parent}:{repo.env['PATH']}",
        "CONDA_CHANNELS": channel.url,
        "CONDA_SOLVER": "classic",
        "CONDA_ADD_PIP_AS_PYTHON_DEPENDENCY": "false",
    }
    return repo


def write(repo: Repo, *conda: str, more: str = "", stage: str = STAGE) -> None:
    listed = ", ".join(f'"{spec}"' for spec in conda)
    head = f'[environment.e]\npython = "{PYTHON}"\nconda = [{listed}]\n{more}\n'
    repo.write("pipeline.toml", head + stage.format(note=repo.note("a")))


def without_programs(path: str) -> str:
    """Return a PATH without the folders that have a program for conda packages."""
    names = ("micromamba", "mamba", "conda")
    folders = path.split(os.pathsep)
    return os.pathsep.join(each for each in folders if not any(os.path.exists(f"{each}/{name}") for name in names))


def pins(repo: Repo) -> list[str]:
    """Return the files of pinned packages with their platforms."""
    import tomllib

    lines = tomllib.loads(repo.read("pipe.lock"))["environment"]["e"]["conda"]
    return sorted(f"{parse_line(line).file} {' '.join(parse_line(line).platforms)}" for line in lines)


def test_a_stage_runs_in_conda_packages_pinned_for_every_platform(project: Repo) -> None:
    write(project, "beta")
    result = project.pipe("build")
    assert project.read("o.txt") == "2.0\n2.0 said\n"
    assert "building an environment of 3 packages" in result.stderr
    assert "environment `e` has no set of conda packages for osx-64, osx-arm64" in result.stderr
    assert "built     environment e  " in result.stdout
    python = f"python-{'.'.join(map(str, sys.version_info[:3]))}-0.tar.bz2"
    assert pins(project) == [
        "alpha-2.0-0.tar.bz2 linux-64",
        "alpha-2.0-0.tar.bz2 linux-aarch64",
        "beta-1.0-0.tar.bz2 linux-64 linux-aarch64",
        f"{python} linux-64",
        f"{python} linux-aarch64",
    ]
    assert "--hash=sha256:" in project.read("pipe.lock")
    (listed,) = project.pipe("env", "ls", "--json").json()["environments"]
    assert (listed["state"], listed["packages"], listed["python"]) == ("built", 3, PYTHON)
    assert project.pipe("build", "--json").json()["status"] == "up-to-date"
    project.commit()
    assert project.pipe("status", "--rev", "HEAD", "--json").stages(key="state") == {"a": "fresh"}


@pytest.mark.parametrize("name", ["mamba", "conda"])
def test_programs_of_another_name(project: Repo, tmp_path: Path, name: str) -> None:
    """With flags of their own; conda's is found where only the user's shell knows it."""
    program = program_in(tmp_path / name, name)
    project.env["PATH"] = without_programs(project.env["PATH"])
    project.env |= (
        {"CONDA_EXE": str(program)} if name == "conda" else {"PATH": f"{program.parent}:{project.env['PATH']}"}
    )
    write(project, "alpha")
    project.pipe("build")
    assert project.read("o.txt") == "2.0\n2.0 said\n"


def test_an_edited_table_keeps_what_fits_and_an_update_does_not(project: Repo, channel: Channel) -> None:
    write(project, "alpha==1.0", "beta")
    project.pipe("build")
    channel.add("beta", "1.1", ("alpha",), subdirs=("noarch",))
    write(project, "beta", "alpha  ==1.0")
    assert project.pipe("build", "--json").json()["status"] == "up-to-date"
    write(project, "alpha", "beta", "gamma")
    (why,) = project.pipe("status", "--json").json()["stages"][0]["why"]
    assert (why["item"], why["old"], why["new"]) == ("e", "gamma (none)", "gamma (any)")
    result = project.pipe("build")
    assert "environment `e` changed: gamma none -> 1.0" in result.stdout
    assert project.read("o.txt") == "1.0\n1.0 said\n"
    told = project.pipe("env", "update", "--json").json()["environments"]["e"]
    changed = {each["package"]: (each["old"], each["new"]) for each in told}
    assert changed == {"alpha": ("1.0", "2.0"), "beta": ("1.0", "1.1")}
    write(project, "alpha==1.0")
    result = project.pipe("build")
    assert "environment `e` changed: beta 1.0 -> none, gamma 1.0 -> none" in result.stdout


def test_without_a_program_the_error_says_what_to_install(repo: Repo) -> None:
    """Before anything runs: with exit 2, at the line that asks for it; also where the pin is there and the environment
    is not. What is built needs no program."""
    write(repo, "alpha")
    repo.env["PATH"] = without_programs(repo.env["PATH"])
    for command in (("build",), ("env", "build"), ("env", "update", "e")):
        failed = repo.pipe(*command, check=False)
        assert failed.returncode == 2 and "Traceback" not in failed.stderr
        assert "pipeline.toml:3: environment.e.conda: environment `e` is of conda packages" in failed.stderr
        assert "help: install micromamba" in failed.stderr
        assert "resolving" not in failed.stderr + failed.stdout  # nothing is
    assert not repo.exists("o.txt") and repo.ran() == []


def test_a_pin_needs_a_program_only_where_it_is_not_built(project: Repo) -> None:
    write(project, "alpha")
    project.pipe("build")
    project.ran()
    project.env["PATH"] = without_programs(project.env["PATH"])
    project.env.pop("MAMBA_EXE", None)
    project.pipe("build", "--force")
    assert project.ran() == ["a"]
    project.env["XDG_CACHE_HOME"] = str(project.home / "another")
    failed = project.pipe("build", "--force", check=False)
    assert failed.returncode == 2 and "pipeline.toml:3: environment.e.conda: " in failed.stderr
    assert project.pipe("build", "--json").json()["status"] == "up-to-date"


def test_what_the_program_says_is_kept(project: Repo, channel: Channel) -> None:
    write(project, "alpha", "nowhere")
    failed = project.pipe("build", check=False)
    assert failed.returncode == 1 and "Traceback" not in failed.stderr
    assert "pipeline.toml:3: environment.e.conda: environment `e` can't be resolved: " in failed.stderr
    assert "nowhere" in failed.stderr and " says: " in failed.stderr
    write(project, "alpha")
    project.pipe("env", "update")
    for subdir in ("linux-64", "linux-aarch64"):
        (channel.folder / subdir / "alpha-2.0-0.tar.bz2").write_bytes(b"other content")
    failed = project.pipe("build", check=False)
    assert failed.returncode == 1 and "failed    environment e" in failed.stdout
    assert "pipeline.toml:3: environment.e.conda: an environment can't be installed: " in failed.stdout
    assert not [name for name in os.listdir(project.home / ".cache/pipesmith/envs") if len(name) == 32]


def test_other_content_by_a_pinned_name_is_refused(project: Repo, channel: Channel) -> None:
    """The program compares the shorter hash, pipe the longer one."""
    write(project, "alpha")
    project.pipe("env", "update")
    lock = project.read("pipe.lock")
    line = next(line for line in lock.splitlines() if "linux-64/alpha" in line)
    known = line.partition("sha256:")[2][:64]
    project.write("pipe.lock", lock.replace(known, "0" * 64))
    failed = project.pipe("build", check=False)
    assert failed.returncode == 1 and "`alpha` is not what is pinned" in failed.stdout


def test_variables_of_an_activated_environment_are_there(project: Repo) -> None:
    stage = """
[stage.a]
run = "echo $CONDA_PREFIX $DELTA_DATA x$VIRTUAL_ENV > {{outputs.o}} && {note}"
outputs = {{ o = "o.txt" }}
environment = "e"
"""
    write(project, "delta", stage=stage)
    project.pipe("build")
    prefix, data, virtual = project.read("o.txt").split()
    assert data == f"{prefix}/share/delta" and virtual == "x" and os.path.isdir(data)


def test_packages_of_an_index_beside_those_of_conda(project: Repo, tmp_path: Path) -> None:
    """In the versions that conda gives, where both have one."""
    for name, version, requires in (("epsilon", "1.0", ("alpha",)), ("alpha", "1.0", ()), ("alpha", "3.0", ())):
        make_wheel(tmp_path / "wheels", name, version, requires)
    for name in [name for name in project.env if name.startswith("UV_")]:
        del project.env[name]
    cache = str(tmp_path / "uv-cache")
    project.env |= {"UV_OFFLINE": "1", "UV_FIND_LINKS": str(tmp_path / "wheels"), "UV_CACHE_DIR": cache}
    stage = STAGE.replace("import alpha;", "import alpha, epsilon;")
    write(project, "alpha==1.0", more='packages = ["epsilon"]', stage=stage)
    project.pipe("build")
    assert project.read("o.txt") == "1.0\n1.0 said\n"
    assert "epsilon==1.0" in project.read("pipe.lock") and '"alpha==' not in project.read("pipe.lock")
    write(project, "alpha==2.0", more='packages = ["epsilon"]', stage=stage)
    failed = project.pipe("build", check=False)  # the index has no alpha 2.0
    assert failed.returncode == 1 and "alpha==2.0" in failed.stderr


def test_channels_of_the_table(project: Repo, channel: Channel, tmp_path: Path) -> None:
    other = Channel(tmp_path / "other")
    other.add_python()
    other.add_module("alpha", "9.0", subdirs=PLATFORMS)
    write(project, "alpha", more=f'channels = ["{other.url}"]')
    project.pipe("build")
    assert project.read("o.txt") == "9.0\n9.0 said\n"
    repo_line = next(line for line in project.read("pipe.lock").splitlines() if "linux-64/alpha" in line)
    moved_line = repo_line.strip(' ",').replace("/other/", "/moved/")
    assert canonical_line(repo_line.strip(' ",')) == canonical_line(moved_line)
    write(project, "alpha", more='channels = ["file:///nowhere"]')
    failed = project.pipe("build", check=False)
    assert failed.returncode == 1 and "nowhere" in failed.stderr


def test_two_builds_at_once_install_one_environment(project: Repo, tmp_path: Path) -> None:
    more = '[stage.b]\nrun = "alpha > {{outputs.o}}"\noutputs = {{ o = "p" }}\nenvironment = "e"\n'
    write(project, "alpha", stage=STAGE + more)
    project.pipe("env", "update")
    processes = [project.start("build", stage) for stage in ("a", "b")]
    outs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outs
    assert sum(out.count("built     environment e") for out, _err in outs) == 1


def test_moved_leaves_the_original_and_the_rest_of_a_binary_as_they_are(tmp_path: Path) -> None:
    prefix, target = tmp_path / "a-rather-long-name", "/opt/e"
    (prefix / "bin").mkdir(parents=True)
    script, binary = f"#!{prefix}/bin/python\n", f"\0\1{prefix}/share:{prefix}/lib\0tail".encode()
    (prefix / "bin" / "tool").write_text(script)
    (prefix / "bin" / "tool").chmod(0o755)
    (prefix / "data.bin").write_bytes(binary)
    (prefix / "link").symlink_to(prefix / "bin")
    with moved(str(prefix), target) as copy:
        assert Path(copy, "bin", "tool").read_text() == f"#!{target}/bin/python\n"
        assert os.access(Path(copy, "bin", "tool"), os.X_OK)
        data = Path(copy, "data.bin").read_bytes()
        assert (
            len(data) == len(binary) and data.startswith(b"\0\1/opt/e/share:/opt/e/lib\0") and data.endswith(b"\0tail")
        )
        assert os.readlink(Path(copy, "link")) == "/opt/e/bin"
    assert (prefix / "bin" / "tool").read_text() == script and (prefix / "data.bin").read_bytes() == binary


def test_faults_of_the_table(repo: Repo) -> None:
    repo.write("pipeline.toml", '[environment.e]\nchannels = ["https://me:secret@example.com/c"]\npackages = ["x"]\n')
    failed = repo.pipe("status", check=False)
    assert failed.returncode == 2
    assert "pipeline.toml:2: environment.e.channels: `channels` are where `conda` packages come from" in failed.stderr
    assert "secret" not in failed.stderr and failed.stderr.count("environment.e.channels") == 2
    assert json.dumps(LIBRARY) not in failed.stderr
