"""The documentation can't fall behind the program."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pipesmith import errors
from pipesmith.cli.commands import COMMANDS, LATER
from pipesmith.pipeline.keys import TABLES
from pipesmith.pipeline.reader import read_pipeline
from pipesmith.verdict.reasons import REASON_KINDS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_script", ROOT / "scripts/docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["docs_script"] = module
    spec.loader.exec_module(module)
    return module


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def test_pages_made_from_code_are_up_to_date(generator: ModuleType) -> None:
    """`make docs` would change nothing."""
    assert [str(path.relative_to(ROOT)) for path in generator.stale_pages()] == []


def test_no_link_leads_nowhere(generator: ModuleType) -> None:
    assert generator.broken_links(generator.markdown_files()) == []


def test_a_broken_link_is_found(generator: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("# One thing\n[a](page.md) [b](gone.md) [c](#one-thing) [d](#another) [e](https://example.com/x)\n")
    assert generator.broken_links([page]) == ["page.md: gone.md", "page.md: #another"]


def test_every_command_is_in_the_readme() -> None:
    documented = set(re.findall(r"`(?:pipe )?([a-z-]+)`", text("README.md")))
    assert set(COMMANDS) - documented == set()


def test_no_command_of_a_later_version_is_in_the_readme() -> None:
    assert set(re.findall(r"`pipe ([a-z-]+)", text("README.md"))) & set(LATER) == set()


@pytest.mark.parametrize("table", TABLES)
def test_every_key_of_pipeline_toml_is_documented(table: str) -> None:
    page = text("docs/formats/pipeline-toml.md")
    assert [key for key in TABLES[table] if f"`{key}`" not in page] == []


def test_every_reason_is_documented() -> None:
    rows = set(re.findall(r"^\| `([a-z-]+)` \|", text("docs/concepts.md"), re.MULTILINE))
    assert rows == set(REASON_KINDS)


def test_every_kind_of_error_is_documented_with_its_exit_code() -> None:
    rows = set(re.findall(r"^\| `([a-z]+)` \| `(\w+)` \| (\d+) \|$", text("docs/errors.md"), re.MULTILINE))
    classes = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.PipeError) and value is not errors.PipeError
    ]
    assert rows == {(each.kind, each.__name__, str(each.exit_code)) for each in classes}


def test_every_dependency_has_its_reason() -> None:
    import tomllib

    project = tomllib.loads(text("pyproject.toml"))["project"]
    listed = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    names = {re.split(r"[\[<>=~! ]", requirement)[0] for requirement in listed} - {"pipesmith"}
    page = text("docs/dependencies.md")
    assert {name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", page)} == set()


def test_constraints_are_names_and_versions_only() -> None:
    lines = text("constraints.txt").splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []


def examples() -> list[tuple[str, str]]:
    """Return (page, TOML) of each example: a whole pipeline, or lines to add to one."""
    found = []
    for page in ("README.md", "docs/how-to/moving-from-make.md"):
        for example in re.findall(r"^```toml\n(.*?)^```", text(page), re.DOTALL | re.MULTILINE):
            found.append((page, example))
    return found


@pytest.mark.parametrize(("page", "example"), examples())
def test_examples_are_good_pipelines(page: str, example: str) -> None:
    """What the pages show as pipeline.toml is accepted by the reader."""
    pipeline = read_pipeline(example, files=lambda path: None, default_name="example")
    assert pipeline.stages or pipeline.computes
