"""The files by which git decides, found wherever the workspace lies."""

from __future__ import annotations

import os

import pytest

from pipesmith.git.deciding import files_that_decide, filter_programs, ignored_folders
from pipesmith.git.repository import Repository


@pytest.mark.parametrize("folder", [".", "team/deep"])
def test_configuration_attributes_and_programs(workspace, folder):
    workspace.write("included.cfg", "[core]\n\texcludesFile = mine\n\tattributesFile = ~/attributes\n")
    workspace.git("config", "include.path", "../included.cfg")
    workspace.write("clean.sh", "#!/bin/sh\ncat\n", executable=True)
    workspace.git("config", "filter.toy.clean", "sh ./clean.sh %f")
    workspace.git("config", "filter.bad.clean", "'unclosed")
    (workspace.path / folder).mkdir(parents=True, exist_ok=True)
    repo = Repository.discover(str(workspace.path / folder))
    root = os.path.join(repo.top, folder) if folder != "." else repo.top
    found = {os.path.realpath(path) for path in files_that_decide(repo, root)}
    expected = [
        ".git/config",
        ".git/index",
        ".git/info/exclude",
        "included.cfg",
        "mine",
        ".gitignore",
        ".gitattributes",
    ]
    for path in expected:
        assert os.path.join(repo.top, path) in found, path
    assert os.path.realpath(workspace.home / "attributes") in found
    assert os.path.join(repo.top, "clean.sh") in {os.path.normpath(path) for path in filter_programs(repo)}
    assert os.path.join(repo.git_dir, "HEAD") in found  # what is included may hang on the branch
    if folder != ".":
        assert os.path.join(repo.top, "team/.gitignore") in found and os.path.join(root, ".gitignore") in found


def test_folders_ignored_as_a_whole(workspace):
    workspace.write(".gitignore", "out/\n*.log\n")
    workspace.write("out/deep/a", "a")
    workspace.write("lib/a.log", "a")
    workspace.write("lib/a", "a")
    repo = Repository.discover(str(workspace.path))
    assert ignored_folders(repo, repo.top) == {os.path.join(repo.top, "out")}
