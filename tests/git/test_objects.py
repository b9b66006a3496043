"""Objects read and bytes cleaned, by git programs that stay."""

from __future__ import annotations

import os

import pytest

from pipesmith.errors import EnvironmentFailure
from pipesmith.git.cleaned import Cleaner
from pipesmith.git.co_process import CoProcess, quoted
from pipesmith.git.ignore import ignored, tracked
from pipesmith.git.objects import ObjectReader
from pipesmith.git.repository import Repository


@pytest.fixture
def asked(workspace):
    return Repository.discover(str(workspace.path))


def test_trees_and_blobs(workspace, asked):
    workspace.write("lib/é\n", b"bytes\0\xff\n\n", executable=True)
    workspace.write("a", b"x" * 1_000_000)
    os.symlink("a", workspace.path / "link")
    commit = workspace.commit()
    reader = ObjectReader(asked)
    top = reader.tree_of(commit)
    assert {name: mode for name, (mode, _id) in reader.tree(top).items()} == {
        "a": "100644", "lib": "40000", "link": "120000",
    }  # fmt: skip
    mode, oid = reader.lookup(top, "lib/é\n")
    assert (mode, reader.blob(oid)) == ("100755", b"bytes\0\xff\n\n")
    assert len(reader.blob(reader.lookup(top, "a")[1])) == 1_000_000
    assert reader.lookup(top, ".") == ("40000", top)
    assert reader.lookup(top, "a/b") is reader.lookup(top, "absent") is None
    reader.close()


def test_missing_objects(asked):
    reader = ObjectReader(asked)
    for ask in (reader.tree_of, reader.tree, reader.blob):
        with pytest.raises(EnvironmentFailure, match="is not in this repository"):
            ask("1" * 40)
    assert reader.read("nothing such") is None
    reader.close()


def test_a_process_that_ended_is_told(asked):
    process = CoProcess(asked, ["hash-object", "--stdin-paths"])
    with pytest.raises(EnvironmentFailure, match="ended"):
        process.ask_all([b"absent"] * 10_000)
    process.close()


@pytest.mark.parametrize("name", ['"', "a\nb", "a\r", "\\", '"a\\', "é", "\udcff", "\x01"])
def test_quoted_paths_name_the_file(workspace, asked, name):
    with open(os.fsencode(workspace.path) + b"/" + os.fsencode(name), "wb") as file:
        file.write(b"content")
    process = CoProcess(asked, ["hash-object", "--stdin-paths"])
    assert process.ask(quoted(name)) == asked.run("hash-object", "--", name).strip()
    process.close()


def test_cleaned_bytes_of_new_files_and_no_trace_of_them(workspace, asked):
    workspace.write(".gitattributes", "* text\n")
    (workspace.path / "team").mkdir()
    workspace.write("team/a", b"a\r\n")
    objects = sorted(os.listdir(workspace.path / ".git/objects"))
    cleaner = Cleaner(asked, os.path.join(asked.top, "team"))
    oids = cleaner.ids(["a"])
    assert cleaner.content("a", oids[0], None) == b"a\n"
    with pytest.raises(EnvironmentFailure, match="changed while it was read"):
        cleaner.content("a", "1" * 40, None)
    cleaner.close()
    assert cleaner.ids(["a"]) == oids  # usable again
    cleaner.close()
    assert sorted(os.listdir(workspace.path / ".git/objects")) == objects


def test_ignored_and_tracked(workspace, asked):
    workspace.write(".gitignore", "*.log\n/out/\n")
    workspace.write("team/.gitignore", "!keep.log\n")
    workspace.write("team/kept/a", "a")
    workspace.write("forced.log", "a")
    workspace.git("add", "-f", "forced.log")
    workspace.commit()
    root = asked.top
    paths = ["out", "out/x", "a.log", "team/keep.log", "team/kept", "forced.log", "two\nlines.log"]
    assert ignored(asked, root, paths) == {"out/x", "a.log", "forced.log", "two\nlines.log"}
    (workspace.path / "out").mkdir()
    assert "out" in ignored(asked, root, paths)
    assert tracked(asked, root, [*paths, "team", "absent"]) == {"team/kept", "team", "forced.log"}
    assert ignored(asked, os.path.join(root, "team"), ["x.log", "keep.log"]) == {"x.log"}
    assert tracked(asked, os.path.join(root, "team"), ["kept/a", "kept"]) == {"kept/a", "kept"}
    assert ignored(asked, root, []) == tracked(asked, root, []) == set()
