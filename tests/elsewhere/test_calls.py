"""Places of their own, for programs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.conftest import Repo

from .conftest import Looks, two_stages


@pytest.fixture
def project(workspace: Repo) -> Repo:
    workspace.write("pipeline.toml", two_stages(workspace))
    workspace.write("src/word", "one\n")
    workspace.commit("first")
    return workspace


def test_a_build_of_a_commit(project: Repo) -> None:
    from pipesmith import Workspace

    commit = project.git("rev-parse", "HEAD").stdout.strip()
    looks = Looks(project)
    result = Workspace.open(project.path).build(["a"], rev="HEAD")
    assert (result.status, result.revision, result.not_locked) == ("succeeded", commit, ("a",))
    looks.same()


def test_a_commit_for_the_time_of_a_with(project: Repo) -> None:
    from pipesmith import Workspace
    from pipesmith.workspace.elsewhere import commit_elsewhere

    looks = Looks(project)
    with commit_elsewhere(Workspace.open(project.path), "main") as other:
        assert (Path(other.root) / "src/word").read_text() == "one\n"
        assert other.build().status == "succeeded"
        assert other.status().fresh
        assert (Path(other.root) / "out/b.txt").read_text() == "one\n1\n"
        root = other.root
    assert not os.path.exists(root)
    looks.same()
    assert project.ran() == ["a", "b"]


def test_another_tree_on_top_of_a_commit(project: Repo) -> None:
    """As what-if builds a merge that was made in memory."""
    from pipesmith import Workspace
    from pipesmith.workspace.elsewhere import commit_elsewhere

    project.write("src/word", "merged\n")
    project.git("add", "-A")
    tree = project.git("write-tree").stdout.strip()
    project.git("reset", "-q", "--hard")
    with commit_elsewhere(Workspace.open(project.path), "HEAD", tree=tree) as other:
        result = other.build()
        assert (Path(other.root) / "out/b.txt").read_text() == "merged\n1\n"
        assert result.run is not None
        record = other.run_store.get(result.run)
        assert (record.dirty, record.snapshot) == (True, tree)


def test_only_the_workspace_is_checked_out_and_what_stands_above_it(workspace: Repo) -> None:
    from pipesmith import Workspace
    from pipesmith.workspace.elsewhere import commit_elsewhere

    for path in ("uv.toml", "other/x", "sub #1/uv.toml", "sub #1/more/y", "sub #1/ws/z"):
        workspace.write(path, "\n")
    workspace.write("sub #1/ws/pipeline.toml", two_stages(workspace))
    workspace.commit()
    with commit_elsewhere(Workspace.open(workspace.path / "sub #1/ws"), "HEAD") as other:
        top = Path(other.repo.top)
        found = {str(path.relative_to(top)) for path in top.rglob("*") if path.is_file()} - {".git"}
        assert found == {"uv.toml", "sub #1/uv.toml", "sub #1/ws/z", "sub #1/ws/pipeline.toml"}


def test_an_error_while_a_place_is_used_leaves_nothing(project: Repo) -> None:
    from pipesmith import Workspace
    from pipesmith.workspace.elsewhere import commit_elsewhere, work_tree_elsewhere

    looks = Looks(project)
    for made in (
        commit_elsewhere(Workspace.open(project.path), "HEAD"),
        work_tree_elsewhere(Workspace.open(project.path), "e"),
    ):
        with pytest.raises(ZeroDivisionError), made:
            raise ZeroDivisionError
    looks.same()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_git_folder_that_can_not_be_written(project: Repo) -> None:
    (project.path / ".git").chmod(0o555)
    try:
        said = project.pipe("build", "--rev", "HEAD", check=False)
    finally:
        (project.path / ".git").chmod(0o755)
    assert said.returncode == 1
    assert "can't be written" in said.stderr
