"""`[cache] hash = "md5"` against the real DVC: one cache for both, and byte for byte the same objects in it."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from bench.tools import PEERS
from tests.conftest import Repo

Dvc = Callable[..., str]

PIPELINE = """
    [cache]
    hash = "md5"
    [stage.make]
    source = "make.py"
    run = "{note} && python make.py {{outputs.data}} {{outputs.report}}"
    outputs = {{ data = "out/data", report = "out/report.txt" }}
"""
MAKE = """
    import os, sys
    folder, report = sys.argv[1:]
    for path in ("b.txt", "a/x.txt", "a/deep/er/y", "a-b", "a.txt", "Z", "ü/ñ \\U0001f600.bin", "_", "a/\\"quoted\\" \\\\.txt"):
        os.makedirs(os.path.dirname(f"{folder}/{path}"), exist_ok=True)
        with open(f"{folder}/{path}", "w", encoding="utf-8", newline="") as file:
            file.write(f"{path}\\r\\n")
    open(f"{folder}/empty", "w").close()
    with open(f"{folder}/big", "wb") as file:
        file.write(bytes(range(256)) * 8192)
    with open(report, "w") as file:
        file.write("auc 0.9\\r\\n")
"""


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DVC in an environment of its own; one for all test processes."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "dvc-program"
    wanted = next(each for each in PEERS if each.startswith("dvc=="))
    with open(shared / "dvc-program.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "bin/dvc").exists():
            uv = [sys.executable, "-m", "uv"]
            subprocess.run([*uv, "venv", "-q", "--python", sys.executable, folder], check=True)
            subprocess.run([*uv, "pip", "install", "-q", "--python", folder / "bin/python", wanted], check=True)
    return folder / "bin/dvc"


@pytest.fixture
def dvc(repo: Repo, program: Path) -> Dvc:
    """Runs DVC in a project beside the repository (`where`: another one), whose cache is the repository's."""

    def run(*args: str, where: str = "dvc") -> str:
        folder = repo.path.parent / where
        env = {**repo.env, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(repo.home / "dvc-site")}
        if not folder.exists():
            folder.mkdir()
            subprocess.run([program, "init", "-q", "--no-scm"], cwd=folder, env=env, check=True)
        done = subprocess.run([program, *args], cwd=folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("cache", "dir", "-q", str(repo.pipe_dir / "cache"))
    return run


@pytest.fixture
def built(repo: Repo) -> dict[str, dict[str, str]]:
    """A built repository: name to what `--json` says of the output."""
    repo.write("make.py", MAKE)
    repo.write("pipeline.toml", PIPELINE.format(note=repo.note("make")))
    repo.commit()
    document = repo.pipe("build", "--json").json()
    assert repo.ran() == ["make"]
    return {out["name"]: out for out in document["stages"][0]["outputs"]}


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def objects(cache: Path) -> dict[str, bytes]:
    return bytes_of(cache / "files/md5")


def pointer(out: dict[str, str], path: str) -> str:
    """Return the text of a `.dvc` file for an output."""
    return json.dumps({"outs": [{"md5": out["hash"].removeprefix("md5:"), "hash": "md5", "path": path}]})


@pytest.mark.slow
def test_dvc_checks_out_what_pipe_built(repo: Repo, dvc: Dvc, built: dict[str, dict[str, str]]) -> None:
    project = repo.path.parent / "dvc"
    (project / "data.dvc").write_text(pointer(built["data"], "data"))
    (project / "report.txt.dvc").write_text(pointer(built["report"], "report.txt"))
    dvc("checkout")
    assert bytes_of(project / "data") == bytes_of(repo.path / "out/data")
    assert (project / "report.txt").read_bytes() == b"auc 0.9\r\n"
    assert "up to date" in dvc("status")


@pytest.mark.slow
def test_a_stage_in_dvc_lock_with_our_hashes_is_up_to_date(
    repo: Repo, dvc: Dvc, built: dict[str, dict[str, str]]
) -> None:
    """DVC takes hash, size and number of files as the lockfile has them, and runs nothing."""
    import tomllib

    project = repo.path.parent / "dvc"
    (project / "dvc.yaml").write_text(
        "stages:\n  make:\n    cmd: exit 9\n    outs: [data, report.txt]\n", encoding="utf-8"
    )
    locked = tomllib.loads(repo.read("pipe.lock"))["stage"]["make"]["outs"]
    outs = []
    for entry in locked if isinstance(locked, list) else locked.values():
        kept = {key: entry[key] for key in ("hash", "md5", "size", "nfiles") if key in entry}
        outs.append({"path": os.path.basename(entry["path"]), **kept})
    assert {"md5"} == {entry["hash"] for entry in outs}
    lock = {"schema": "2.0", "stages": {"make": {"cmd": "exit 9", "outs": outs}}}
    (project / "dvc.lock").write_text(json.dumps(lock))
    before = (project / "dvc.lock").read_text()
    dvc("checkout")
    assert bytes_of(project / "data") == bytes_of(repo.path / "out/data")
    assert "didn't change" in dvc("repro") or "up to date" in dvc("status")
    assert json.loads(before) == lock


@pytest.mark.slow
def test_objects_are_byte_for_byte_dvcs_own(repo: Repo, dvc: Dvc, built: dict[str, dict[str, str]]) -> None:
    """The same content, taken in by DVC into a cache of its own: the same names with the same bytes."""
    import shutil

    dvc("version", where="other")
    project = repo.path.parent / "other"
    shutil.copytree(repo.path / "out", project, dirs_exist_ok=True)
    dvc("add", "-q", "data", "report.txt", where="other")
    theirs = objects(project / ".dvc/cache")
    ours = objects(repo.pipe_dir / "cache")
    assert any(path.endswith(".dir") for path in theirs)
    assert theirs == {path: ours.get(path) for path in theirs}
    assert f"md5: {built['data']['hash'].removeprefix('md5:')}\n" in (project / "data.dvc").read_text()
    assert f"md5: {built['report']['hash'].removeprefix('md5:')}\n" in (project / "report.txt.dvc").read_text()


def test_pipe_restores_what_dvc_added(repo: Repo, dvc: Dvc, built: dict[str, dict[str, str]]) -> None:
    """Our own cache is emptied; what DVC puts there is enough to restore the stage without running it."""
    import shutil

    project = repo.path.parent / "dvc"
    shutil.copytree(repo.path / "out", project, dirs_exist_ok=True)
    before = bytes_of(repo.path / "out")
    shutil.rmtree(repo.path / "out")
    shutil.rmtree(repo.pipe_dir / "cache/files")
    assert repo.pipe("status", "--json").stages(key="state") == {"make": "stale"}
    dvc("add", "-q", "data", "report.txt")
    for name, path in (("data", "data.dvc"), ("report", "report.txt.dvc")):
        assert f"md5: {built[name]['hash'].removeprefix('md5:')}\n" in (project / path).read_text()
    assert repo.pipe("status", "--json").stages(key="state") == {"make": "restorable"}
    assert repo.pipe("build", "--json").stages() == {"make": "restored"}
    assert repo.ran() == [] and bytes_of(repo.path / "out") == before
    assert repo.pipe("verify", "--full").returncode == 0
    assert all(not path.stat().st_mode & stat.S_IWUSR for path in (repo.path / "out/data").glob("big"))
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"


@pytest.mark.slow
def test_an_input_that_dvc_added_is_read_in_place(repo: Repo, dvc: Dvc) -> None:
    """A folder under DVC's care in the same work tree is an input like any other, with DVC's own hash in the lock."""
    repo.write("data/a.txt", "1\n")
    repo.write("data/sub/b.txt", "2\n")
    repo.write(".gitignore", "/data\n")
    repo.write(
        "pipeline.toml",
        """
        [cache]
        hash = "md5"
        [stage.count]
        run = "cat {inputs.d}/a.txt {inputs.d}/sub/b.txt > {outputs.o}"
        inputs = { d = "data" }
        outputs = { o = "o.txt" }
        """,
    )
    repo.pipe("build")
    project = repo.path.parent / "dvc"
    (project / "data/sub").mkdir(parents=True)
    (project / "data/a.txt").write_text("1\n")
    (project / "data/sub/b.txt").write_text("2\n")
    dvc("add", "-q", "data")
    (line,) = [line for line in (project / "data.dvc").read_text().splitlines() if "md5:" in line]
    assert line.rpartition(" ")[2] in repo.read("pipe.lock")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("mkdir -p {outputs.o}/sub && ln -s x {outputs.o}/sub/it", "`sub/it` is a symbolic link"),
        ("mkdir -p {outputs.o}/sub/empty", "`sub/empty` is an empty folder"),
    ],
)
def test_what_dvc_can_not_hold_is_refused_with_its_path(repo: Repo, command: str, said: str) -> None:
    repo.write(
        "pipeline.toml",
        f"""
        [cache]
        hash = "md5"
        [stage.a]
        run = "{command}"
        outputs = {{ o = "out" }}
        """,
    )
    result = repo.pipe("build", check=False)
    assert result.returncode == 1
    assert said in result.stdout and "DVC" in result.stdout and 'hash = "blake3"' in result.stdout
    assert not repo.exists("out")
