"""`.pipeignore` has gitignore's rules: what it says is what git says of the same files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipesmith.fingerprint.pipeignore import PipeIgnore

_NAMES = ["a", "b", "ab", "a.b", "aab", "-", "é", "A", "[a]", "b b", "]", "a]"]


def by_git(repo, folder: Path, files: dict[str, bytes], paths: list[str]) -> set[str]:
    """Return which of the paths git finds ignored by the files, given them as its own ignore files."""
    repo.run("rm", "-rf", str(folder))
    folder.mkdir()
    repo.run("git", "init", "-q", str(folder))
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"")
    for path, data in files.items():
        if (folder / path).parent.is_dir():
            (folder / path).write_bytes(data)
    repo.run("git", "-C", str(folder), "add", "-A")
    args = ["ls-files", "-z", "-c", "-i", "--exclude-per-directory=.pipeignore"]
    return set(repo.run("git", "-C", str(folder), *args).stdout.split("\0")) & set(paths)


def by_us(files: dict[str, bytes], paths: list[str]) -> set[str]:
    ignore = PipeIgnore({path: data.decode("utf-8", "surrogateescape") for path, data in files.items()})
    return {path for path in paths if ignore.ignores(path)}


_PATHS = [
    *(
        "a",
        "b/a",
        "b/ab",
        "ab/a/b",
        "ab/b/a/ab",
        "a.b",
        "aab/é",
        "é/a",
        "A",
        "b b",
        "[a]/a",
        "a]",
        "-/-",
        "aab/a/b/ab/b",
    ),
    *("a.b ", "#a", "!a", "ab/]", "b/aab/a", "aab/b/b", "\\a"),
]


def _path_set() -> list[str]:
    # "a" is a file: nothing may lie below it.
    return _PATHS


@pytest.mark.parametrize(
    "lines",
    [
        *(
            "a",
            "a/",
            "/a",
            "b/a",
            "b/",
            "b/*",
            "**/a",
            "a/**",
            "ab/**",
            "ab/**/b",
            "ab/**/ab",
            "*",
            "*b",
            "a*",
            "?",
            "??",
        ),
        *(
            "[ab]",
            "[!a]",
            "[^a]",
            "[a-c]*",
            "[[:upper:]]",
            "[[:nope:]]",
            "[",
            "[a",
            "[]]",
            "[!]]",
            "a[]]",
            "[a-]",
            "[-a]",
        ),
        *("[a\\]]", "[[]a]", "[[:alpha]a", "[b-a]", "[/]", "ab[/]a", "ab?a", "[a-b][a-b]", "\\#a", "#a", "\\!a", "!a"),
        *("a.b ", "a.b\\ ", "b b", "*\n!a", "*\n!*/\n!b", "b/\n!b/a", "b/*\n!b/a", "/", "//", "", " ", "a//", "ab**/b"),
        *(
            "aa**/b",
            "***/a",
            "ab/***/ab",
            "**",
            "**/",
            "*/",
            "/*",
            "/*/",
            "*/*",
            "*/*/*",
            "ab/*",
            "ab/?",
            "\\a",
            "\\\\a",
        ),
        *("a\\", "é", "?é", "??/a", "a\r", "\ufeffa", "ab**", "a**b", "/ab/a/b", "ab/a", "ab/a/", "aab/a/b/", "aa/"),
        *("aab/a/", "/**/b", "**/b/**", "b\x0ba", "b\x0b"),
    ],
)
def test_one_file_as_git_reads_it(repo, tmp_path, lines):
    files = {".pipeignore": lines.encode()}
    assert by_us(files, _path_set()) == by_git(repo, tmp_path / "ignored", files, _path_set())


def test_deeper_files_decide_first(repo, tmp_path):
    files = {".pipeignore": b"ab\n*.b\n", "b/.pipeignore": b"!ab\n/a\n", "ab/b/.pipeignore": b"!*\n"}
    assert by_us(files, _path_set()) == by_git(repo, tmp_path / "ignored", files, _path_set())


_PATTERN = st.text(
    alphabet=["a", "b", "*", "?", "/", "[", "]", "!", "^", "-", "\\", " ", ".", "é", "A", ":"], max_size=8
)
_LINES = st.lists(_PATTERN | st.sampled_from(["**/a", "a/**", "b/", "!a", "/b", "[ab]*"]), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    top=_LINES,
    inner=_LINES | st.just([]),
    paths=st.lists(
        st.lists(st.sampled_from(_NAMES), min_size=1, max_size=4).map("/".join), min_size=1, max_size=12, unique=True
    ),
)
def test_any_patterns_as_git_reads_them(repo, tmp_path, top, inner, paths):
    chosen = [path for path in paths if not any(other.startswith(f"{path}/") for other in paths)]
    files = {".pipeignore": "\n".join(top).encode(), "b/.pipeignore": "\n".join(inner).encode()}
    if not any(path.startswith("b/") for path in chosen):
        del files["b/.pipeignore"]
    assert by_us(files, chosen) == by_git(repo, tmp_path / "ignored", files, chosen)


def test_names_that_are_no_text():
    name = os.fsdecode(b"\xff\xfe")
    assert PipeIgnore({".pipeignore": "??\n"}).ignores(name)
    assert PipeIgnore({".pipeignore": name}).ignores(name)
