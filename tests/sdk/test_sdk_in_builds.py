"""The SDK inside a build, and outside one, where it reads pipeline.toml."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from select import select

import pytest
from tests.conftest import Repo, Result

from pipesmith.build.live_log import LiveLog
from pipesmith.build.sdk_path import sdk_folder
from pipesmith.history.logged import files_of, lines_of

PIPELINE = """
[params]
seed = 7
train = { lr = 0.1, epochs = 5 }
[dataset.images]
from = "store/*.txt"
[stage.prepare]
run = "echo clean > {outputs.clean}"
outputs = { clean = "data/clean.txt" }
[stage.train]
source = "src"
run = "python src/train.py"
inputs = { clean = "stage:prepare.clean", images = "dataset:images" }
outputs = { model = "models/m.txt" }
params = ["train.lr"]
"""
TRAIN = """
from pipesmith.sdk import Run
run = Run.get_context()
with run.outputs["model"].path.open("w") as file:
    file.write(run.inputs["clean"].open().read() + "".join(p.read_text() for p in run.inputs["images"].paths()))
    file.write("%s %s" % (run.params["train"]["lr"], run.stage))
run.log("loss", 0.5, step=1)
run.log_table("t", [{"a": 1}])
print("id", run.id is not None, run.git.commit)
"""


@pytest.fixture
def project(repo: Repo) -> Repo:
    repo.write("pipeline.toml", PIPELINE)
    repo.write("src/train.py", TRAIN)
    repo.write("store/1.txt", "one\n")
    repo.write("store/2.txt", "two\n")
    repo.commit()
    return repo


def by_hand(repo: Repo, script: str = "src/train.py", *, check: bool = True, **env: str) -> Result:
    """Start a script as a person does, outside a build."""
    engine = str(Path(__file__).parents[2] / "engine")
    return repo.run(sys.executable, script, check=check, env={"PYTHONPATH": engine, **env})


MODEL = "clean\none\ntwo\n0.1 train"


def test_a_stage_reads_writes_and_logs(project: Repo) -> None:
    """Also in the sandbox, which shows the stage no `.git`."""
    run = project.pipe("build", "--json").json()["run"]
    assert project.read("models/m.txt") == MODEL
    log = project.pipe_dir / "logs" / run / "train.log"
    lines = [json.loads(line) for line in Path(lines_of(str(log))).read_text().splitlines()]
    assert [(line["name"], line.get("value"), line.get("step")) for line in lines] == [
        ("loss", 0.5, 1),
        ("t", None, None),
    ]
    assert json.loads(Path(files_of(str(log)), lines[1]["table"]).read_text()) == {"columns": ["a"], "rows": [[1]]}
    assert not Path(lines_of(str(log))).is_symlink() and not Path(files_of(str(log))).is_symlink()
    assert not (project.pipe_dir / "logs" / run / "prepare.log.jsonl").exists()


WAIT = """
import pathlib, time
while not pathlib.Path(run.params["train"]["lr"]).exists():
    time.sleep(0.02)
"""


def test_what_is_logged_is_followed_live(project: Repo) -> None:
    """`pipe logs -f` shows it while the stage still runs."""
    go = project.home / "go"
    project.write("src/train.py", TRAIN + WAIT)
    project.write("pipeline.toml", PIPELINE.replace("lr = 0.1", f'lr = "{go}"'))
    building = project.start("build")
    following = None
    try:
        deadline = time.monotonic() + 30
        while '"running"' not in project.pipe("runs", "--json", check=False).stdout and time.monotonic() < deadline:
            time.sleep(0.1)
        following = project.start("logs", "-f", "latest", "train")
        assert following.stdout is not None
        assert select([following.stdout], [], [], 30)[0]
        assert following.stdout.readline() == "loss = 0.5 (step 1)\n"
        assert building.poll() is None
    finally:
        go.touch()
        building.communicate(timeout=30)
        if following is not None and following.stdout is not None:
            rest = following.stdout.read()  # not `communicate`, which forgets what `readline` has read ahead
            following.wait(30)
    assert building.returncode == 0
    assert rest.startswith("t = table t-") and "id True" in rest
    logged = project.pipe("logs", "--json").json()["logged"]["train"]
    assert [line["name"] for line in logged] == ["loss", "t"]


def test_what_is_logged_does_not_count(project: Repo) -> None:
    project.pipe("build")
    assert project.pipe("build", "--json").json()["status"] == "up-to-date"


def test_the_same_script_by_hand(project: Repo) -> None:
    project.pipe("build")
    (project.path / "models" / "m.txt").unlink()
    result = by_hand(project)
    assert project.read("models/m.txt") == MODEL
    assert f"id False {project.git('rev-parse', 'HEAD').stdout.strip()}" in result.stdout
    assert "pipe: loss = 0.5 (step 1)" in result.stderr


def test_by_hand_from_another_folder(project: Repo) -> None:
    project.pipe("build")
    (project.path / "models" / "m.txt").unlink()
    engine = str(Path(__file__).parents[2] / "engine")
    script = project.path / "src" / "train.py"
    project.run("sh", "-c", f"cd / && {sys.executable} {script}", env={"PYTHONPATH": engine})
    assert project.read("models/m.txt") == MODEL


def test_a_param_that_does_not_count_by_hand_too(project: Repo) -> None:
    project.write("src/train.py", "from pipesmith.sdk import Run\nRun.get_context().params['seed']\n")
    result = by_hand(project, check=False)
    assert 'param `seed` does not count for stage `train`: add params = ["seed"] to [stage.train]' in result.stderr


def test_a_script_that_no_stage_holds(project: Repo) -> None:
    project.write("other.py", "from pipesmith.sdk import Run\nprint(Run.get_context().stage)\n")
    result = by_hand(project, "other.py", check=False)
    assert "no stage's source holds `other.py`: set PIPE_STAGE to one of `prepare`, `train`" in result.stderr
    assert by_hand(project, "other.py", PIPE_STAGE="prepare").stdout == "prepare\n"
    result = by_hand(project, "other.py", check=False, PIPE_STAGE="trian")
    assert "PIPE_STAGE names `trian`, which is no stage of pipeline.toml: did you mean `train`?" in result.stderr


def test_a_script_that_several_stages_hold(project: Repo) -> None:
    extra = '[stage.more]\nsource = "src"\nrun = "true"\nmatrix = { k = [1, 2] }\n'
    project.write("pipeline.toml", PIPELINE + extra)
    result = by_hand(project, check=False)
    assert "several stages hold `src/train.py`: set PIPE_STAGE to one of `train`, `more@1`, `more@2`" in result.stderr
    result = by_hand(project, check=False, PIPE_STAGE="more")
    assert "PIPE_STAGE names `more`, which has a matrix: set it to one of `more@1`, `more@2`" in result.stderr


def test_a_bad_pipeline_toml_is_told_with_its_line(project: Repo) -> None:
    project.write("pipeline.toml", PIPELINE + "[stage.bad]\nrnu = 1\n")
    result = by_hand(project, check=False)
    assert "pipeline.toml:" in result.stderr and "rnu" in result.stderr


def test_cells_of_a_matrix_are_one_folder_by_hand(repo: Repo) -> None:
    repo.write(
        "pipeline.toml",
        """
        [stage.train]
        matrix = { k = [1, 2] }
        run = "echo {matrix.k} > {outputs.o}"
        outputs = { o = "o/{matrix.k}.txt" }
        [stage.all]
        source = "all.py"
        run = "python all.py"
        inputs = { models = "stage:train@*.o" }
        outputs = { r = "r.txt" }
        """,
    )
    repo.write(
        "all.py",
        "from pipesmith.sdk import Run\nrun = Run.get_context()\n"
        "text = ''.join(p.name + p.read_text() for p in run.inputs['models'].paths())\n"
        "run.outputs['r'].path.write_text(text)\n",
    )
    repo.pipe("build")
    built = repo.read("r.txt")
    (repo.path / "r.txt").unlink()
    by_hand(repo, "all.py")
    assert repo.read("r.txt") == built


def test_by_hand_never_writes_into_the_cache(repo: Repo) -> None:
    """Outputs over 1 MB may be one file with the cache's by a hard link."""
    script = "from pipesmith.sdk import Run\nRun.get_context().outputs['o'].path.write_bytes(b'{}' * 2_000_000)\n"
    repo.write(
        "pipeline.toml",
        """
        [cache]
        link = ["hardlink", "copy"]
        [stage.a]
        source = "a.py"
        run = "python a.py"
        outputs = { o = "o.bin" }
        """,
    )
    repo.write("a.py", script.format("x"))
    repo.pipe("build")
    repo.write("a.py", script.format("y"))
    by_hand(repo, "a.py")
    assert repo.read("o.bin").startswith("yyy")
    (repo.path / "o.bin").unlink()
    repo.pipe("checkout")
    assert repo.read("o.bin").startswith("xxx")


# -- where it comes from ------------------------------------------------------------------------------------------


def test_the_folder_on_the_path_is_made_once_and_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    sdk_folder.cache_clear()
    try:
        folder = Path(sdk_folder())
        assert sorted(os.listdir(folder / "pipesmith")) == ["__init__.py", "sdk.py"]
        before = (folder / "pipesmith" / "sdk.py").stat().st_ino
        sdk_folder.cache_clear()
        assert Path(sdk_folder()) == folder
        assert (folder / "pipesmith" / "sdk.py").stat().st_ino == before
        good = (folder / "pipesmith" / "sdk.py").read_bytes()
        (folder / "pipesmith" / "sdk.py").write_text("torn")
        sdk_folder.cache_clear()
        assert (Path(sdk_folder()) / "pipesmith" / "sdk.py").read_bytes() == good
        assert os.listdir(folder.parent) == [folder.name]
    finally:
        sdk_folder.cache_clear()


def test_a_home_that_can_not_be_written_is_no_hindrance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    sdk_folder.cache_clear()
    try:
        assert sdk_folder().startswith(str(tmp_path / "pipesmith-sdk-"))
    finally:
        sdk_folder.cache_clear()


def test_lines_of_an_earlier_attempt_are_kept(tmp_path: Path) -> None:
    log = str(tmp_path / "logs" / "a.log")
    for attempt in ("first", "second"):
        live = LiveLog(log)
        assert Path(lines_of(log)).is_symlink()
        with open(live.log, "a") as file:
            file.write(f"{attempt}\n")
        assert attempt in Path(lines_of(log)).read_text()
        live.close()
    assert Path(lines_of(log)).read_text() == "first\nsecond\n"
    assert not os.path.lexists(files_of(log))


def test_a_dataset_of_one_file_is_read_as_what_its_name_says(repo: Repo) -> None:
    """It appears at `inputs/NAME`, and its table is read all the same; in a build and outside one."""
    pytest.importorskip("pandas")
    repo.write(
        "pipeline.toml",
        """
        [dataset.labels]
        from = "store/labels.csv"
        options = { delimiter = ";", types = { id = "int64" } }
        [stage.a]
        source = "a.py"
        run = ["python", "a.py"]
        inputs = { labels = "dataset:labels" }
        outputs = { o = "o.json" }
        """,
    )
    repo.write("store/labels.csv", "id;breed\n1;pug\n")
    repo.write(
        "a.py",
        """
        import json
        from pipesmith.sdk import Run
        run = Run.get_context()
        run.outputs["o"].path.write_text(json.dumps(run.inputs["labels"].to_pandas().to_dict("list")))
        """,
    )
    repo.commit()
    repo.pipe("build")
    assert json.loads(repo.read("o.json")) == {"id": [1], "breed": ["pug"]}
    (repo.path / "o.json").unlink()
    by_hand(repo, "a.py")
    assert json.loads(repo.read("o.json")) == {"id": [1], "breed": ["pug"]}


@pytest.mark.parametrize(
    ("key", "first"),
    [
        ('env = { PYTHONPATH = "/opt/of-the-team" }', "/opt/of-the-team"),
        ('env = { PYTHONPATH = "" }', "/pipesmith/sdk/"),
        ('pass-env = ["PYTHONPATH"]', "/opt/of-the-user"),
    ],
)
def test_a_stage_s_own_python_path_comes_before_it(repo: Repo, key: str, first: str) -> None:
    """It is put on the path of every stage that is Python, whatever that adds."""
    repo.write("bin/python", f'#!/bin/sh\nexec {sys.executable} -S "$@"\n', executable=True)  # without site-packages
    script = "import sys; from pipesmith.sdk import Run; print(Run.get_context().stage, sys.path[1])"
    run = f'python -c "{script}" > {{outputs.o}}'
    repo.write("pipeline.toml", f"[stage.a]\nrun = '{run}'\noutputs = {{ o = \"o\" }}\n{key}\n")
    repo.pipe("build", env={"PATH": f"{repo.path / 'bin'}:{repo.env['PATH']}", "PYTHONPATH": "/opt/of-the-user"})
    stage, found = repo.read("o").split()
    assert stage == "a" and first in found
