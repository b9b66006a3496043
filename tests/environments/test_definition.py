"""What an environment asks for, whatever the way it is written in."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pipesmith.environments.definition import asked_of, definition_digest
from pipesmith.errors import UserError
from pipesmith.pipeline.model import Environment


def read(files: Mapping[str, str]):  # type: ignore[no-untyped-def]
    return lambda path: files[path].encode() if path in files else None


def digest(*packages: str, requirements: str | None = None, python: str = "3.11", **files: str) -> str:
    named = {name.replace("__", "/") + ".txt": text for name, text in files.items()}
    environment = Environment(name="e", python=python, packages=packages, requirements=requirements)
    return definition_digest(environment, read(named))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a==1", "b"), ("b", "a==1")),
        (("Scikit_Learn == 1.7.2",), ("scikit-learn==1.7.2",)),
        (("a>=1, <2",), ("a<2,>=1",)),
        (("a (>=1)",), ("a>=1",)),
        (("a[Two,one]>=1",), ("a[one, two] >= 1",)),
        (('a; sys_platform=="win32"',), ("a ; sys_platform == 'win32'",)),
        (('a; "win32" == sys_platform',), ("a; sys_platform == 'win32'",)),
        (("a", "a"), ("a",)),
    ],
)
def test_the_same_said_in_another_way(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert digest(*one) == digest(*other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a==1",), ("a==2",)),
        (("a",), ("b",)),
        (("a[one]",), ("a",)),
        (("a; sys_platform == 'win32'",), ("a",)),
        (("a>=1",), ("a>1",)),
    ],
)
def test_what_differs_differs(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert digest(*one) != digest(*other)


def test_the_python_version_counts() -> None:
    assert digest("a") != digest("a", python="3.12")


def test_a_file_says_what_the_table_would() -> None:
    text = "# what we need\n\nA == 1  # exactly\nb[x]>=2, \\\n   <3\n"
    assert digest(requirements="req.txt", req=text) == digest("a==1", "b[x]<3,>=2")


def test_included_files_count_from_the_folder_of_the_file_that_names_them() -> None:
    def with_inner(text: str) -> str:
        return digest(requirements="deps/all.txt", deps__all="-r inner.txt\nb\n", deps__inner=text)

    assert with_inner("a==1\n") == digest("a==1", "b")
    assert with_inner("a==2\n") != with_inner("a==1\n")


def test_constraints_are_no_requirements() -> None:
    environment = Environment(name="e", requirements="r.txt")
    asked = asked_of(environment, read({"r.txt": "a\n-c c.txt\n", "c.txt": "a<2\nz<9\n"}))
    assert asked.requirements == ("a",)
    assert asked.constraints == ("a<2", "z<9")


def test_files_that_include_each_other_end() -> None:
    assert digest(requirements="a.txt", a="-r b.txt\nx\n", b="-r a.txt\ny\n") == digest("x", "y")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("-e .", "editable install"),
        ("--index-url https://example.com/simple", "the option `--index-url`"),
        ("./wheels/a-1.whl", "local path"),
        ("../a", "local path"),
        ("a @ file:///tmp/a-1.whl", "local path"),
        ("-r ../other.txt", "outside the workspace"),
        ("-r gone.txt", "`gone.txt` does not exist"),
    ],
)
def test_what_can_not_be_pinned_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        digest(requirements="req.txt", req=f"{text}\n")
    assert said in caught.value.text
    assert caught.value.text.startswith("environment `e`: ")
    assert caught.value.help


def test_an_editable_install_in_the_table_is_refused_too() -> None:
    with pytest.raises(UserError, match="editable install"):
        digest("-e .")


def test_hashes_in_a_requirements_file_are_kept() -> None:
    environment = Environment(name="e", requirements="r.txt")
    asked = asked_of(environment, read({"r.txt": "a==1 \\\n  --hash=sha256:bb \\\n  --hash=sha256:aa\n"}))
    assert asked.requirements == ("a==1 --hash=sha256:aa --hash=sha256:bb",)


def test_conda_specs_and_channels_count() -> None:
    """In any order, with any spaces; channels in theirs, since the first that has a package gives it."""

    def digest(conda: tuple[str, ...], channels: tuple[str, ...] = ()) -> str:
        return definition_digest(Environment(name="e", conda=conda, channels=channels), lambda path: None)

    assert digest(("a  >=1", "b")) == digest(("b", "a >=1")) != digest(("a >=2", "b"))
    assert digest(("a",), ("x", "y")) != digest(("a",), ("y", "x")) != digest(("a",))
