"""A repository, found and asked."""

from __future__ import annotations

import os
import subprocess

import pytest

from pipesmith.errors import EnvironmentFailure, UserError
from pipesmith.git.repository import Repository, cut_credentials


def test_found_from_a_subfolder(workspace):
    (workspace.path / "a/b").mkdir(parents=True)
    found = Repository.discover(str(workspace.path / "a/b"))
    assert found.top == os.path.realpath(workspace.path)
    assert found.git_dir == found.common_dir == os.path.join(found.top, ".git")
    assert not found.is_bare and found.object_format == "sha1"


def test_worktree_shares_the_common_folder(workspace):
    workspace.write("a", "a")
    workspace.commit()
    other = workspace.worktree()
    found = Repository.discover(str(other.path))
    assert found.top == os.path.realpath(other.path)
    assert found.common_dir == os.path.realpath(workspace.path / ".git")
    assert found.git_dir == os.path.join(found.common_dir, "worktrees", "worktree")


def test_bare_and_sha256(workspace, tmp_path):
    workspace.git("init", "-q", "--bare", "--object-format=sha256", str(tmp_path / "bare"))
    found = Repository.discover(str(tmp_path / "bare"))
    assert found.is_bare and found.object_format == "sha256" and found.top == os.path.realpath(tmp_path / "bare")
    assert len(found.empty_id) == 64


def test_names_with_line_breaks(workspace, make_repo):
    other = make_repo("two\nlines\x85")
    assert Repository.discover(str(other.path)).top == os.path.realpath(other.path)


def test_submodule_is_a_repository_of_its_own(workspace, make_repo):
    sub = make_repo("sub")
    sub.write("a", "a")
    sub.commit()
    workspace.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(sub.path), "sub")
    found = Repository.discover(str(workspace.path / "sub"))
    assert found.top == os.path.realpath(workspace.path / "sub")
    assert found.git_dir == os.path.realpath(workspace.path / ".git/modules/sub")


def test_no_repository(workspace, tmp_path):
    (tmp_path / "plain").mkdir()
    with pytest.raises(UserError, match="is not in a git repository") as caught:
        Repository.discover(str(tmp_path / "plain"))
    assert caught.value.help == "run `git init`" and caught.value.exit_code == 2
    with pytest.raises(UserError, match="is not a folder"):
        Repository.discover(str(tmp_path / "absent"))


def test_no_git(workspace, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentFailure, match="`git` is not on PATH"):
        Repository.discover(str(workspace.path))


def test_gits_refusal_of_anothers_repository_is_told_as_it_is(workspace, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(UserError, match="dubious ownership") as caught:
        Repository.discover(str(workspace.path))
    assert caught.value.help.startswith("run `git config --global --add safe.directory ")


def test_inside_a_hook(workspace):
    """Git calls hooks with its variables set, relative to the top."""
    (workspace.path / "team").mkdir()
    workspace.write("team/a", "a")
    workspace.write(
        ".git/hooks/pre-commit",
        """
        #!/bin/sh
        python -c '
        import os
        from pipesmith.git.repository import Repository
        repo = Repository.discover(os.path.abspath("team"))
        print(repo.top, repo.run("ls-files", "-c", cwd=os.path.abspath("team")))
        ' > "$HOME/hook"
        """,
        executable=True,
    )
    workspace.git("add", "-A")
    workspace.git("commit", "-q", "-m", "x", "--", "team/a")
    assert (workspace.home / "hook").read_text() == f"{os.path.realpath(workspace.path)} b'a\\n'\n"


def test_git_dir_of_another_repository_is_left_alone(workspace, make_repo, monkeypatch):
    other = make_repo("other")
    monkeypatch.setenv("GIT_DIR", str(other.path / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other.path))
    found = Repository.discover(str(workspace.path))
    assert found.top == os.path.realpath(workspace.path)
    assert found.run("rev-parse", "--show-toplevel").decode().strip() == found.top


def test_heads_branches_and_revisions(workspace):
    repo = Repository.discover(str(workspace.path))
    assert repo.head() is None and repo.branch() == "main"
    workspace.write("a", "a")
    commit = workspace.commit()
    assert repo.head() == repo.resolve("HEAD") == repo.resolve("main") == repo.resolve(commit[:8]) == commit
    workspace.git("checkout", "-q", "--detach")
    assert repo.branch() is None
    for wrong in ("nothing", "--all", "HEAD:a", "main..HEAD"):
        with pytest.raises(UserError, match="is not a revision"):
            repo.resolve(wrong)


def test_dirty(workspace):
    repo = Repository.discover(str(workspace.path))
    workspace.write("a", "a")
    assert repo.is_dirty()
    workspace.commit()
    assert not repo.is_dirty()
    workspace.write("a", "b")
    assert repo.is_dirty()


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://me:token@example.com/x.git", "https://example.com/x.git"),
        ("https://token@example.com/x.git", "https://example.com/x.git"),
        ("https://example.com/x@y.git", "https://example.com/x@y.git"),
        ("ssh://git@example.com/x", "ssh://example.com/x"),
        ("git@example.com:x.git", "git@example.com:x.git"),
        ("/srv/a@b", "/srv/a@b"),
        ("https://me:p@ss@example.com/x", "https://example.com/x"),
    ],
)
def test_credentials_are_cut_out_of_urls(url, clean):
    assert cut_credentials(url) == clean


def test_remote_url(workspace):
    def url() -> str | None:
        return Repository.discover(str(workspace.path)).remote_url()

    assert url() is None
    workspace.git("remote", "add", "upstream", "https://me:secret@example.com/x")
    assert url() == "https://example.com/x"
    workspace.git("remote", "add", "other", "https://example.com/other")
    assert url() is None
    workspace.git("remote", "add", "origin", "https://example.com/origin")
    assert url() == "https://example.com/origin"


def test_failures_are_told_in_gits_words(workspace):
    repo = Repository.discover(str(workspace.path))
    with pytest.raises(EnvironmentFailure) as caught:
        repo.run("cat-file", "blob", "nothing")
    assert caught.value.text == "`git cat-file` failed: Not a valid object name nothing"


def test_configuration(workspace):
    workspace.git("config", "a.yes", "On")
    with open(workspace.path / ".git/config", "a") as file:
        file.write("[a]\n\tbare\n\tempty =\n")
    workspace.git("config", "--add", "a.twice", "1")
    workspace.git("config", "--add", "a.twice", "two\nlines")
    repo = Repository.discover(str(workspace.path))
    assert repo.config["a.twice"] == "two\nlines"
    assert repo.config_bool("a.yes", False) and repo.config_bool("a.bare", False)
    assert repo.config_bool("a.absent", True) and repo.config_bool("a.twice", True)


def test_no_question_takes_a_lock(workspace):
    workspace.write("a", "a")
    workspace.commit()
    repo = Repository.discover(str(workspace.path))
    before = (workspace.path / ".git/index").stat().st_mtime_ns
    os.utime(workspace.path / "a")
    assert not repo.is_dirty()
    assert (workspace.path / ".git/index").stat().st_mtime_ns == before
    subprocess.run(["git", "status"], cwd=workspace.path, check=True, capture_output=True)
    assert (workspace.path / ".git/index").stat().st_mtime_ns != before
