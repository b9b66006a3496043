"""What a stage sees through the SDK, by the context file alone."""

from __future__ import annotations

import ast
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipesmith import sdk
from pipesmith.sdk import Run, SdkError

SDK = Path(sdk.__file__)
Start = Callable[..., Run]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Return the run of a stage that was started with a context of these keys."""

    def started(**keys: Any) -> Run:
        context = {
            "version": 1,
            "run": "20260101-1",
            "stage": "train@0.1",
            "inputs": {},
            "outputs": {},
            "params": {},
            "all_params": [],
            "git": {"commit": "abc", "branch": "main", "dirty": False},
            "workspace": str(tmp_path),
            "log": str(tmp_path / "log.jsonl"),
            "artifacts": str(tmp_path / "files"),
            **keys,
        }
        file = tmp_path / f"context-{len(list(tmp_path.iterdir()))}.json"
        file.write_text(json.dumps(context))
        monkeypatch.setenv("PIPE_CONTEXT", str(file))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sdk, "_STARTED_IN", str(tmp_path))
        return Run.get_context()

    return started


def logged(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]


def test_what_a_stage_knows_of_itself(start: Start) -> None:
    run = start()
    assert (run.id, run.stage) == ("20260101-1", "train@0.1")
    assert (run.git.commit, run.git.branch, run.git.dirty) == ("abc", "main", False)
    assert Run.get_context() is run


# -- params -------------------------------------------------------------------------------------------------------


def test_params_are_nested_as_in_pipeline_toml(start: Start) -> None:
    run = start(params={"train": {"lr": 0.1, "sizes": [1, 2]}, "seed": 7})
    assert run.params["train"]["lr"] == 0.1
    assert run.params == {"train": {"lr": 0.1, "sizes": [1, 2]}, "seed": 7}
    assert json.loads(json.dumps(run.params)) == run.params
    assert pickle.loads(pickle.dumps(run.params)) == run.params


@pytest.mark.parametrize(
    "ask",
    [
        lambda params: params["train"]["epochs"],
        lambda params: params["train"].get("epochs", 3),
        lambda params: "epochs" in params["train"],
    ],
)
def test_a_param_that_does_not_count_is_answered_with_the_key_to_add(start: Start, ask: Callable[[Any], Any]) -> None:
    run = start(params={"train": {"lr": 0.1}}, all_params=["train.epochs", "data.size"])
    with pytest.raises(SdkError) as caught:
        ask(run.params)
    assert str(caught.value) == (
        'param `train.epochs` does not count for stage `train@0.1`: add params = ["train.epochs"] to [stage.train]'
    )


def test_a_table_none_of_which_counts_is_answered_too(start: Start) -> None:
    with pytest.raises(SdkError, match='add params = \\["data"\\]'):
        start(all_params=["data.size"]).params["data"]


def test_a_param_that_is_nowhere(start: Start) -> None:
    run = start(params={"a": 1})
    with pytest.raises(SdkError, match="there is no param `b`"):
        run.params["b"]
    assert run.params.get("b") is None
    assert run.params.get("b", 5) == 5
    assert "b" not in run.params
    assert run.params.get("a", 5) == 1


def test_a_dotted_name_reaches_into_tables(start: Start) -> None:
    run = start(params={"train": {"lr": 0.1, "opt": {"name": "sgd"}}}, all_params=["train.epochs"])
    assert run.params["train.lr"] == 0.1 and run.params["train.opt.name"] == "sgd"
    assert "train.lr" in run.params and run.params.get("train.nope", 3) == 3
    with pytest.raises(SdkError, match=r"param `train\.epochs` does not count"):
        run.params["train.epochs"]
    with pytest.raises(SdkError, match=r"there is no param `train\.lr\.x`"):
        run.params["train.lr.x"]


# -- inputs and outputs -------------------------------------------------------------------------------------------


def test_paths_of_files_and_folders(start: Start, tmp_path: Path) -> None:
    for name in ("data/b.txt", "data/a/z.txt", "data/.hidden", "one.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    run = start(inputs={"data": {"path": "data"}, "one": {"path": "one.csv"}}, outputs={"model": {"path": "m/x.pkl"}})
    assert run.inputs["data"].path == Path("data")
    assert [path.as_posix() for path in run.inputs["data"].paths()] == ["data/.hidden", "data/a/z.txt", "data/b.txt"]
    assert run.inputs["one"].paths() == [Path("one.csv")]
    assert run.outputs["model"].path == Path("m/x.pkl")
    assert os.fspath(run.outputs["model"]) == "m/x.pkl"


def test_paths_hold_when_the_script_changes_its_folder(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.txt").write_text("x")
    (tmp_path / "elsewhere").mkdir()
    run = start(inputs={"i": {"path": "in.txt"}}, outputs={"o": {"path": "out.txt"}})
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run.inputs["i"].path.read_text() == "x"
    assert run.outputs["o"].path == tmp_path / "out.txt"


def test_open_reads_one_file(start: Start, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("é\n".encode())
    (tmp_path / "latin.csv").write_bytes("é".encode("latin-1"))
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "1").write_text("")
    (tmp_path / "two" / "2").write_text("")
    run = start(
        inputs={
            "a": {"path": "a.txt"},
            "latin": {"path": "latin.csv", "options": {"encoding": "latin-1"}},
            "two": {"path": "two"},
        }
    )
    with run.inputs["a"].open() as file:
        assert file.read() == "é\n"
    with run.inputs["a"].open("rb") as file:
        assert file.read() == "é\n".encode()
    with run.inputs["latin"].open() as file:
        assert file.read() == "é"
    with pytest.raises(SdkError, match=r"input `two` is 2 files: take them from \.paths\(\)"):
        run.inputs["two"].open()


def test_an_input_or_output_that_is_not_declared(start: Start) -> None:
    run = start(inputs={"clean": {"path": "c"}})
    with pytest.raises(SdkError) as caught:
        run.inputs["images"]
    assert str(caught.value) == (
        "stage `train@0.1` has no input `images` (it has `clean`): add it to [stage.train.inputs]"
    )
    with pytest.raises(SdkError, match=r"no output `m` \(it has none\): add it to \[stage\.train\.outputs\]"):
        run.outputs["m"]


# -- tables -------------------------------------------------------------------------------------------------------


def test_a_csv_is_read_with_the_options_of_its_dataset(start: Start, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "1.csv").write_bytes("id;name;day\n007;é;2026-01-02\n".encode("latin-1"))
    (tmp_path / "t" / "2.csv").write_bytes(b"id;name;day\n8;b;2026-01-03\n")
    options = {"delimiter": ";", "encoding": "latin-1", "types": {"id": "str", "day": "date"}}
    frame = start(inputs={"t": {"path": "t", "options": options}}).inputs["t"].to_pandas()
    assert frame["id"].tolist() == ["007", "8"]
    assert frame["name"].tolist() == ["é", "b"]
    assert frame["day"].tolist() == [pandas.Timestamp("2026-01-02"), pandas.Timestamp("2026-01-03")]


def test_a_csv_without_a_header(start: Start, tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    (tmp_path / "t.csv").write_text("1,a\n2,b\n")
    options = {"header": False, "types": {"f0": "float64"}}
    frame = start(inputs={"t": {"path": "t.csv", "options": options}}).inputs["t"].to_pandas()
    assert list(frame.columns) == ["f0", "f1"]
    assert frame["f0"].tolist() == [1.0, 2.0]
    assert str(frame["f0"].dtype) == "float64"


@pytest.mark.parametrize("kind", ["csv", "parquet", "json", "jsonl"])
def test_the_same_table_in_each_format(start: Start, tmp_path: Path, kind: str) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    file = tmp_path / f"t.{kind}"
    {
        "csv": lambda: frame.to_csv(file, index=False),
        "parquet": lambda: frame.to_parquet(file),
        "json": lambda: frame.to_json(file, orient="records"),
        "jsonl": lambda: frame.to_json(file, orient="records", lines=True),
    }[kind]()
    given = start(inputs={"t": {"path": file.name}}).inputs["t"]
    assert given.to_pandas().to_dict("list") == {"a": [1, 2], "b": ["x", "y"]}
    assert given.to_arrow().to_pydict() == {"a": [1, 2], "b": ["x", "y"]}


def test_a_library_that_the_environment_lacks_is_named(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.csv").write_text("a\n1\n")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(SdkError, match="`pandas` is not in this stage's environment: add it to its packages"):
        start(inputs={"t": {"path": "t.csv"}}).inputs["t"].to_pandas()


# -- what is logged -----------------------------------------------------------------------------------------------


def test_numbers_are_lines(start: Start, tmp_path: Path) -> None:
    run = start()
    run.log("loss", 0.5, step=7)
    run.log("n", 3)
    run.log("bad", float("nan"))
    run.log("far", float("-inf"))
    lines = logged(tmp_path)
    assert [{key: line[key] for key in line if key != "t"} for line in lines] == [
        {"name": "loss", "value": 0.5, "step": 7},
        {"name": "n", "value": 3},
        {"name": "bad", "value": "nan"},
        {"name": "far", "value": "-inf"},
    ]
    assert all(line["t"] > 1_700_000_000 for line in lines)


def test_what_is_no_number_is_refused(start: Start) -> None:
    with pytest.raises(SdkError, match="`log` takes a number"):
        start().log("loss", "high")


def test_an_image_is_kept_beside_the_log(start: Start, tmp_path: Path) -> None:
    (tmp_path / "confusion matrix.png").write_bytes(b"PNG1")
    run = start()
    run.log_image(tmp_path / "confusion matrix.png", step=2)
    (tmp_path / "confusion matrix.png").write_bytes(b"PNG2")
    run.log_image(str(tmp_path / "confusion matrix.png"))
    first, second = logged(tmp_path)
    assert (first["name"], first["step"]) == ("confusion matrix.png", 2)
    assert (tmp_path / "files" / first["image"]).read_bytes() == b"PNG1"
    assert (tmp_path / "files" / second["image"]).read_bytes() == b"PNG2"
    assert sorted(os.listdir(tmp_path / "files")) == sorted([first["image"], second["image"]])


def test_a_figure_is_kept_too(start: Start, tmp_path: Path) -> None:
    class Figure:
        def savefig(self, file: Any, format: str) -> None:
            file.write(format.encode())

    start().log_image(Figure(), name="curve")
    (line,) = logged(tmp_path)
    assert (tmp_path / "files" / line["image"]).read_bytes() == b"png"
    assert line["image"].startswith("curve-") and line["image"].endswith(".png")


@pytest.mark.parametrize(
    "rows",
    [[{"a": 1, "b": "x"}, {"a": 2, "b": None}], [["a", "b"], [1, "x"], [2, None]]],
)
def test_a_table_is_kept_as_columns_and_rows(start: Start, tmp_path: Path, rows: Any) -> None:
    start().log_table("confusion", rows)
    (line,) = logged(tmp_path)
    kept = json.loads((tmp_path / "files" / line["table"]).read_text())
    assert kept == {"columns": ["a", "b"], "rows": [[1, "x"], [2, None]]}


def test_lines_of_processes_that_log_at_once_stay_whole(start: Start, tmp_path: Path) -> None:
    start()
    program = (
        "import sys\nfrom pipesmith.sdk import Run\nrun = Run.get_context()\n"
        "for step in range(300): run.log('x' * 200 + sys.argv[1], step, step=step)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(SDK.parent.parent)}
    started = [subprocess.Popen([sys.executable, "-c", program, str(number)], env=env) for number in range(4)]
    assert [process.wait() for process in started] == [0] * 4
    lines = logged(tmp_path)
    assert len(lines) == 1200
    for number in range(4):
        mine = [line["step"] for line in lines if line["name"].endswith(f"x{number}")]
        assert mine == list(range(300))


def test_a_log_that_can_not_be_written_ends_no_stage(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = start(log=str(tmp_path / "gone" / "log.jsonl"))
    run.log("loss", 1)
    run.log("loss", 2)
    assert capsys.readouterr().err.count("what this stage logs is lost") == 1


# -- the module ---------------------------------------------------------------------------------------------------


def test_a_context_of_the_future_is_refused_with_both_versions(start: Start) -> None:
    with pytest.raises(SdkError, match="of version 2, this module reads version 1"):
        start(version=2)


def test_a_context_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPE_CONTEXT", "/gone/context.json")
    with pytest.raises(SdkError, match=r"`/gone/context\.json`, which PIPE_CONTEXT names, can't be read"):
        Run.get_context()


def test_the_module_needs_nothing_but_python_3_8() -> None:
    tree = ast.parse(SDK.read_text(), feature_version=(3, 8))
    for node in tree.body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert all(name.split(".")[0] in sys.stdlib_module_names for name in names)


def _old_pythons() -> list[str]:
    from glob import glob

    found = [os.path.expanduser(f"~/.pyenv/versions/3.{minor}.*/bin/python") for minor in (8, 9)]
    found += ["/usr/bin/python3.8", "/usr/bin/python3.9"]
    return [path for pattern in found for path in glob(pattern)]


@pytest.mark.parametrize("python", _old_pythons() or [sys.executable])
def test_the_module_runs_with_an_older_python(start: Start, tmp_path: Path, python: str) -> None:
    start(params={"train": {"lr": 0.1}}, inputs={"i": {"path": "x"}})
    program = (
        f"import sys; sys.path.insert(0, {str(SDK.parent)!r}); import sdk\n"
        "run = sdk.Run.get_context(); run.log('lr', run.params['train']['lr']); run.log_table('t', [{'a': 1}])\n"
        "assert run.inputs['i'].paths() == [run.inputs['i'].path]\n"
    )
    subprocess.run([python, "-c", program], check=True, cwd=tmp_path)
    assert [line["name"] for line in logged(tmp_path)] == ["lr", "t"]
