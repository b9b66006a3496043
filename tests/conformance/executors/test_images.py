"""Environments as images: made once, whoever asks; shared by a registry or by streaming; what fails says it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from .conftest import IMAGE, Place

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
STAGE = '[stage.a]\nrun = "cat /word.txt > {outputs.o}"\noutputs = { o = "o" }\n'


def of_a_dockerfile(repo, place: Place, *lines: str, more: str = "") -> None:
    """Have a place's stages run in the image of a Dockerfile that stands on the test image."""
    place.toml = place.toml.replace(f'image = "{IMAGE}"', f'dockerfile = "env/Dockerfile"\n{more}')
    repo.write("env/Dockerfile", "\n".join([f"FROM {IMAGE}", *lines, ""]))


def made(repo) -> list[tuple[str, str]]:
    """Return (environment, how) of what was cold in the last run."""
    return [(each["name"], each["how"]) for each in repo.pipe("show", "--json").json().get("environments", [])]


def test_two_builds_at_once_make_one_image(repo, docker_place, pipeline):
    """The second waits for the first, and finds it there."""
    word = uuid.uuid4().hex  # of this test alone: no daemon has its image
    of_a_dockerfile(repo, docker_place, f"RUN sleep 3; echo {word} > /word.txt")
    pipeline(docker_place, STAGE + STAGE.replace("[stage.a]", "[stage.b]").replace('o = "o"', 'o = "p"'))
    repo.commit()
    first, second = repo.start("build", "a"), repo.start("build", "b")
    outs = [process.communicate(timeout=120) for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outs
    told = [out + err for out, err in outs]
    assert sum(text.count("built     environment tools") for text in told) == 1
    assert repo.read("o") == repo.read("p")


def test_what_a_dockerfile_says_when_it_fails(repo, docker_place, pipeline):
    """The builder's words, what the step printed, and the line of pipeline.toml."""
    of_a_dockerfile(repo, docker_place, "RUN echo disk of cheese; exit 7")
    pipeline(docker_place, STAGE)
    line = repo.read("pipeline.toml").split("dockerfile", 1)[0].count("\n") + 1
    failed = repo.pipe("build", check=False)
    assert failed.returncode == 1 and "Traceback" not in failed.stderr
    where = f"pipeline.toml:{line}: environment.tools.dockerfile: the image of `env/Dockerfile` can't be built on"
    assert where in failed.stdout and "disk of cheese" in failed.stdout and "7" in failed.stdout
    assert made(repo) == [("tools", "failed")]
    again = repo.pipe("env", "build", check=False)
    assert again.returncode == 1 and where in again.stderr


def buildkit() -> Path | None:
    """A `docker` command that speaks to BuildKit, if one is here."""
    for folder in os.environ["PATH"].split(os.pathsep):
        program = Path(folder, "docker")
        if os.access(program, os.X_OK):
            said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
            old = re.search(r"version (\d+)\.", said)
            plugin = subprocess.run([program, "buildx", "version"], capture_output=True, check=False).returncode == 0
            if plugin or (old and int(old[1]) < 23):
                return program
    return None


@pytest.mark.parametrize("kind", ["buildkit", "classic"])
def test_a_dockerfile_is_built_by_buildkit_where_it_is_there(repo, docker_place, pipeline, kind):
    """A mounted cache is BuildKit's own: the classic builder refuses it, which is how it is told here."""
    program, word = buildkit(), uuid.uuid4().hex
    if program is None:
        pytest.skip("no `docker` command here speaks to BuildKit")
    tools = repo.home / "tools"
    tools.mkdir()
    (tools / "docker").symlink_to(program)
    repo.env["PATH"] = f"{tools}:{repo.env['PATH']}"
    if kind == "classic":
        repo.env["DOCKER_BUILDKIT"] = "0"
    repo.write("env/.dockerignore", "private.txt\n")
    repo.write("env/private.txt", "private\n")
    lines = ("COPY . /all", f"RUN test ! -e /all/private.txt && echo {word} > /word.txt")
    if kind == "classic":  # what it refuses, first
        of_a_dockerfile(repo, docker_place, "RUN --mount=type=cache,target=/kept true")
        pipeline(docker_place, STAGE)
        refused = repo.pipe("build", check=False)
        assert refused.returncode == 1 and "BuildKit" in refused.stdout
        of_a_dockerfile(repo, docker_place, *lines)
    else:
        of_a_dockerfile(repo, docker_place, "RUN --mount=type=cache,target=/kept true", *lines)
    pipeline(docker_place, STAGE)
    repo.pipe("build")
    assert repo.read("o") == f"{word}\n"
    assert made(repo) == [("tools", "built")]
    repo.pipe("build", "--force")
    assert made(repo) == []


def test_the_image_of_a_dockerfile_is_shared_by_a_registry(repo, docker_place, tls_place, registry, pipeline):
    """Built by one daemon and pushed; another one pulls it, and builds nothing."""
    word = uuid.uuid4().hex  # of this test alone: no daemon has its image
    hows = []
    for place in (docker_place, tls_place):
        of_a_dockerfile(repo, place, f"RUN echo {word} > /word.txt", more=f'registry = "{registry}/team"')
        pipeline(place, STAGE)
        repo.commit()
        repo.pipe("build", "--force")
        hows += made(repo)
    assert hows == [("tools", "built"), ("tools", "pulled")]
    pushed = repo.pipe("env", "push", "--json")
    name = pushed.json()["environments"]["tools"]
    assert re.fullmatch(rf"{re.escape(registry)}/team/pipesmith/environment:[0-9a-f]{{32}}", name)
    assert "sha256:" in pushed.stderr


def test_an_image_is_streamed_to_another_compute(repo, docker_place, tls_place, pipeline):
    """Without a registry the daemon that has it gives it, of another compute as well: built once for a build."""
    word = uuid.uuid4().hex  # of this test alone: no daemon has its image
    of_a_dockerfile(repo, docker_place, f"RUN echo {word} > /word.txt")
    other = tls_place.toml.partition("[environment")[0].replace("[compute.where]", "[compute.there]")
    second = STAGE.replace("[stage.a]", '[stage.b]\ncompute = "there"\nafter = ["a"]').replace('o = "o"', 'o = "p"')
    pipeline(docker_place, f"{other}{STAGE}{second}")
    repo.pipe("build")
    assert repo.read("o") == repo.read("p") == f"{word}\n"
    assert sorted(made(repo)) == [("tools", "built"), ("tools", "sent")]


def test_a_curated_environment_becomes_an_image(repo, docker_place, pipeline, index_of_curated):
    """`extends = "curated:…"`: its Python and packages, with a base of one's own."""
    docker_place.toml = docker_place.toml.replace(
        f'image = "{IMAGE}"', f'extends = "curated:pytorch"\npython = "{PYTHON}"\nbase = "{IMAGE}"'
    )
    pipeline(
        docker_place,
        """
        [stage.a]
        run = ["python", "-c", "import torch, numpy, pathlib; pathlib.Path('o').write_text(torch.VERSION + numpy.VERSION)"]
        outputs = { o = "o" }
        """,
    )
    result = repo.pipe("build")
    assert "building an image of 2 packages" in result.stderr and repo.read("o") == "2.51.30"
    assert made(repo) == [("tools", "built")]


@pytest.fixture
def index_of_curated(repo, tmp_path: Path) -> Path:
    """An index that has what the curated environment asks for, hand-made."""
    from tests.environments.conftest import make_wheel

    folder = tmp_path / "wheels"
    for name, version in (("torch", "2.5"), ("torch", "3.0"), ("numpy", "1.30")):
        make_wheel(folder, name, version, build=f"1{uuid.uuid4().hex}")  # whose image no daemon has
    for name in [name for name in repo.env if name.startswith("UV_")]:
        del repo.env[name]
    repo.env |= {"UV_OFFLINE": "1", "UV_FIND_LINKS": str(folder), "UV_CACHE_DIR": str(tmp_path / "uv-cache")}
    return folder


def test_conda_packages_become_an_image(repo, docker_place, pipeline, tmp_path: Path):
    """Installed here for the daemon's platform, and moved to their place in the image; programs start by their first
    line, variables of activation are there."""
    from tests.environments.conda_channel import Channel, program_in

    channel = Channel(tmp_path / "channel")
    channel.add_python()
    channel.add_module("alpha", "1.5")
    script, word = 'export DELTA_DATA="$CONDA_PREFIX/share/delta"\n', uuid.uuid4().hex  # no daemon has its image
    channel.add("delta", "1.0", files={"etc/conda/activate.d/delta.sh": script, "share/delta/x": f"{word}\n"})
    program = program_in(repo.home / "tools")
    repo.env |= {"PATH": f"{program.parent}:{repo.env['PATH']}", "CONDA_CHANNELS": channel.url}
    repo.env |= {"CONDA_SOLVER": "classic", "CONDA_ADD_PIP_AS_PYTHON_DEPENDENCY": "false"}
    table = f'conda = ["alpha", "delta"]\npython = "{PYTHON}"\nbase = "{IMAGE}"'
    docker_place.toml = docker_place.toml.replace(f'image = "{IMAGE}"', table)
    pipeline(
        docker_place,
        """
        [stage.a]
        run = "alpha said > {outputs.o} && cat $DELTA_DATA/x >> {outputs.o} && which python >> {outputs.o}"
        outputs = { o = "o" }
        """,
    )
    result = repo.pipe("build")
    assert repo.read("o") == f"1.5 said\n{word}\n/opt/environment/bin/python\n"
    assert "building an image of 3 packages" in result.stderr and made(repo) == [("tools", "built")]
    fingerprint = repo.pipe("build", "--json").json()["stages"][0]["fingerprint"]
    repo.write("pipeline.toml", repo.read("pipeline.toml").replace('compute = "where"', 'compute = "local"', 1))
    here = repo.pipe("build", "--json").json()["stages"][0]
    assert (here["status"], here["fingerprint"]) == ("fresh", fingerprint)


def test_what_is_no_name_of_an_image(repo, docker_place, pipeline):
    docker_place.toml = docker_place.toml.replace(IMAGE, "no name")
    pipeline(docker_place, STAGE)
    result = repo.pipe("build", check=False)
    assert result.returncode == 1
    assert (
        "environment.tools.image: environment `tools`: the image `no name` is neither in its registry" in result.stderr
    )


def test_a_base_with_another_python_is_told(repo, docker_place, pipeline, index_of_curated):
    """With the line that asks for it and what to write, as the failure of the stage that needs it."""
    table = f'packages = ["numpy"]\npython = "3.9"\nbase = "{IMAGE}"'
    docker_place.toml = docker_place.toml.replace(f'image = "{IMAGE}"', table)
    pipeline(docker_place, STAGE)
    line = repo.read("pipeline.toml").split("packages", 1)[0].count("\n") + 1
    failed = repo.pipe("build", check=False)
    assert failed.returncode == 1 and made(repo) == [("tools", "failed")]
    assert f"pipeline.toml:{line}: environment.tools.packages: environment `tools` asks for Python 3.9" in failed.stdout
    assert f'help: write `python = "{PYTHON}"`' in failed.stdout
    assert "environment tools, `where`" in repo.git("log", "-1", "--format=%B", "--glob=refs/pipe/runs/*").stdout
