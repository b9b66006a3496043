"""`to`, `transfer` and datasets in whole builds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.conftest import Repo, Result


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    """The folder of the datastore `blob`, outside of every workspace."""
    folder = tmp_path / "blob-store"
    folder.mkdir()
    return folder


def pipeline(blob: Path, rest: str) -> str:
    return f'[datastore.blob]\nurl = "file://{blob}"\n{rest}'


def ended(repo: Repo, code: int, *args: str) -> Result:
    """Run `pipe` and return what it printed, having ended with this exit code."""
    result = repo.pipe(*args, check=False)
    assert result.returncode == code, result.stdout + result.stderr
    return result


def made(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


TO = """
[stage.a]
run = "mkdir {{outputs.d}} && echo 1 > {{outputs.o}} && echo 2 > {{outputs.d}}/x"
outputs = {{ o = {{ path = "o.txt", to = "blob:runs/{to}/" }}, d = {{ path = "d", to = "blob:folder/" }} }}
"""


def test_outputs_are_delivered_once(repo: Repo, blob: Path) -> None:
    """Delivered by the build that made them; a second build has nothing to do."""
    repo.write("pipeline.toml", pipeline(blob, TO.format(to="{stage.name}")))
    repo.pipe("build")
    assert made(blob) == {"runs/a/o.txt": "1\n", "folder/x": "2\n"}
    (blob / "folder" / "x").unlink()
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"
    assert made(blob) == {"runs/a/o.txt": "1\n"}


def test_where_to_does_not_count(repo: Repo, blob: Path) -> None:
    repo.write("pipeline.toml", pipeline(blob, TO.format(to="one")))
    repo.pipe("build")
    repo.write("pipeline.toml", pipeline(blob, TO.format(to="two")))
    assert repo.pipe("build", "--json").stages() == {"a": "fresh"}


def test_the_run_is_in_the_place(repo: Repo, blob: Path) -> None:
    repo.write("pipeline.toml", pipeline(blob, TO.format(to="{run.id}")))
    run = repo.pipe("build", "--json").json()["run"]
    assert made(blob)[f"runs/{run}/o.txt"] == "1\n"


def test_a_restored_output_is_delivered(repo: Repo, blob: Path) -> None:
    repo.write("pipeline.toml", pipeline(blob, TO.format(to="x")))
    repo.pipe("build")
    (blob / "runs" / "x" / "o.txt").unlink()
    (repo.path / "o.txt").unlink()
    assert repo.pipe("build", "--json").stages() == {"a": "restored"}
    assert made(blob)["runs/x/o.txt"] == "1\n"


def test_a_failed_delivery_is_made_up_for_by_the_next_build(repo: Repo, blob: Path) -> None:
    repo.write("pipeline.toml", pipeline(blob, TO.format(to="{run.id}")))
    (blob / "runs").write_text("in the way")
    first = ended(repo, 1, "build", "--json")
    assert first.stages() == {"a": "failed"}
    assert (repo.path / "o.txt").read_text() == "1\n"
    again = ended(repo, 1, "build")
    assert "delivery of `o.txt` to `blob:runs/" in again.stderr + again.stdout
    (blob / "runs").unlink()
    assert repo.pipe("build", "--json").stages() == {"a": "fresh"}
    assert made(blob) == {f"runs/{first.json()['run']}/o.txt": "1\n", "folder/x": "2\n"}


def test_a_datastore_of_another_kind_is_refused_before_anything_runs(repo: Repo) -> None:
    text = TO.replace("blob:folder/", "s3://bucket/x/").format(to="x")
    repo.write("pipeline.toml", f'[datastore.blob]\nurl = "az://a/b"\n{text}')
    result = ended(repo, 2, "build")
    assert "az://" in result.stderr and "s3://" in result.stderr
    assert not (repo.path / "o.txt").exists()


def test_a_transfer_is_a_stage(repo: Repo, blob: Path) -> None:
    (blob / "in" / "deep").mkdir(parents=True)
    (blob / "in" / "a").write_text("A")
    (blob / "in" / "deep" / "b").write_text("B")
    repo.write("pipeline.toml", pipeline(blob, '[stage.t]\ntransfer = { from = "blob:in/**", to = "blob:out/" }\n'))
    assert repo.pipe("build", "--json").stages() == {"t": "ran"}
    assert {name: text for name, text in made(blob).items() if name.startswith("out/")} == {
        "out/a": "A",
        "out/deep/b": "B",
    }
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"
    assert repo.pipe("build", "--json", "--force").stages() == {"t": "ran"}
    assert "0 copied, 2 there already" in repo.pipe("logs").stdout


def test_a_transfer_that_finds_nothing_fails(repo: Repo, blob: Path) -> None:
    repo.write("pipeline.toml", pipeline(blob, '[stage.t]\ntransfer = { from = "blob:in/**", to = "blob:out/" }\n'))
    result = ended(repo, 1, "build", "--json")
    assert result.stages() == {"t": "failed"}


DATA = """
[dataset.images]
from = "blob:images/**"
[stage.a]
run = "cat {inputs.images}/* > {outputs.o}"
inputs = { images = "dataset:images" }
outputs = { o = "o.txt" }
"""


def test_a_dataset_stays_as_it_was_pinned(repo: Repo, blob: Path) -> None:
    (blob / "images").mkdir()
    (blob / "images" / "1").write_text("one\n")
    repo.write("pipeline.toml", pipeline(blob, DATA))
    repo.pipe("build")
    (blob / "images" / "2").write_text("two\n")
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"
    assert repo.pipe("build", "--json", "--force").stages() == {"a": "ran"}
    assert (repo.path / "o.txt").read_text() == "one\n"


def test_a_pinned_object_that_changed_fails_the_stage_by_name(repo: Repo, blob: Path) -> None:
    (blob / "images").mkdir()
    (blob / "images" / "1").write_text("one\n")
    repo.write("pipeline.toml", pipeline(blob, DATA))
    repo.pipe("build")
    (blob / "images" / "1").write_text("ONE\n")
    result = ended(repo, 1, "build", "--force")
    assert "`1` of dataset `images` is no longer what pipe.lock pins" in result.stdout + result.stderr
    assert (repo.path / "o.txt").read_text() == "one\n"
    os.unlink(blob / "images" / "1")
    result = ended(repo, 1, "build", "--force")
    assert "`1` of dataset `images` is gone" in result.stdout + result.stderr


def test_a_glob_that_finds_nothing_ends_the_build_before_anything_runs(repo: Repo, blob: Path) -> None:
    repo.write("pipeline.toml", pipeline(blob, DATA))
    result = ended(repo, 2, "build")
    assert "dataset `images`: `blob:images/**` finds nothing" in result.stderr
