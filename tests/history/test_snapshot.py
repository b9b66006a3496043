"""The snapshot holds the exact source, nothing secret or big ever reaches git, and nothing of the user's is touched."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipesmith.errors import EnvironmentFailure
from pipesmith.git.repository import Repository
from pipesmith.git.snapshot import commit_tree, looks_secret, write_snapshot

if TYPE_CHECKING:
    from tests.conftest import Repo


class Shot:
    """A snapshot that was written. files: path to content. left_out: path to reason."""

    def __init__(self, repo: Repo, tree: str, left_out: dict[str, str]) -> None:
        self.tree = tree
        self.left_out = left_out
        self._repo = repo

    @property
    def paths(self) -> list[str]:
        listed = self._repo.git("ls-tree", "-r", "-z", "--name-only", self.tree).stdout
        return sorted(name for name in listed.split("\0") if name)

    def text(self, path: str) -> str:
        return self._repo.git("cat-file", "blob", f"{self.tree}:{path}").stdout

    def mode(self, path: str) -> str:
        return self._repo.git("ls-tree", self.tree, path).stdout.split(" ")[0]


def snapshot(repo: Repo, *, max_file_bytes: int = 1000, ignored: str = "", **left_out: str) -> Shot:
    git = Repository.discover(str(repo.path))
    tree, missing = write_snapshot(
        git,
        str(repo.pipe_dir / "tmp" / "index-test"),
        left_out={path.replace("__", "/"): reason for path, reason in left_out.items()},
        max_file_bytes=max_file_bytes,
        ignores=lambda path: bool(ignored) and path.startswith(ignored),
    )
    assert list((repo.pipe_dir / "tmp").iterdir()) == []
    return Shot(repo, tree, missing)


def objects(repo: Repo) -> bytes:
    """Return the content of every object of the repository."""
    return subprocess.run(
        ["git", "cat-file", "--batch-all-objects", "--batch"],
        cwd=repo.path,
        env=repo.env,
        capture_output=True,
        check=True,
    ).stdout


def test_clean_work_tree_is_the_tree_of_head(workspace: Repo) -> None:
    """Nothing changed: the snapshot is HEAD's own tree."""
    workspace.write("src/a.py", "a\n")
    workspace.write("b.sh", "b\n", executable=True)
    os.symlink("src/a.py", workspace.path / "link")
    workspace.commit()
    shot = snapshot(workspace)
    assert shot.tree == workspace.git("rev-parse", "HEAD^{tree}").stdout.strip()
    assert shot.left_out == {}


def test_uncommitted_and_untracked_files_are_in_it(workspace: Repo) -> None:
    """Changes, new files, deletions and modes are as in the work tree, not as in HEAD or the index."""
    for name in ("changed", "staged", "gone", "mode"):
        workspace.write(name, "old\n")
    workspace.commit()
    workspace.write("staged", "in the index\n")
    workspace.git("add", "staged")
    workspace.write("staged", "in the work tree\n")
    workspace.write("changed", "new\n")
    workspace.write("folder/deep/new.py", "new file\n")
    (workspace.path / "gone").unlink()
    (workspace.path / "mode").chmod(0o755)
    os.symlink("nowhere", workspace.path / "link")
    shot = snapshot(workspace)
    assert shot.paths == ["changed", "folder/deep/new.py", "link", "mode", "staged"]
    assert shot.text("staged") == "in the work tree\n"
    assert shot.text("changed") == "new\n"
    assert shot.text("link") == "nowhere"
    assert [shot.mode(name) for name in ("mode", "link", "changed")] == ["100755", "120000", "100644"]


def test_before_the_first_commit(workspace: Repo) -> None:
    """A repository without a commit, even without an index, has a snapshot."""
    assert snapshot(workspace).paths == []
    workspace.write("a", "a\n")
    assert snapshot(workspace).paths == ["a"]


def test_odd_names(workspace: Repo) -> None:
    """Spaces, quotes, newlines, globs, leading dashes, and bytes that are no UTF-8."""
    names = ["a b", 'quo"te', "new\nline", "-dash", "*", ":(top)x", "é", os.fsdecode(b"bad-\xff"), "tab\tname"]
    for name in names:
        (workspace.path / name).write_text(name.encode("utf-8", "replace").decode())
    workspace.git("add", "--", "-dash", "a b")
    workspace.git("commit", "-qm", "some")
    (workspace.path / "a b").unlink()
    assert snapshot(workspace).paths == sorted(set(names) - {"a b"})


SECRETS = [
    ".env",
    ".env.local",
    ".envrc",
    "sub/.ENV",
    "server.pem",
    "Server.PEM",
    "tls.key",
    "id_rsa",
    "deep/id_ed25519",
]
SECRETS += [
    ".netrc",
    ".pypirc",
    "kaggle.json",
    "Credentials",
    "credentials.json",
    "prod.tfstate",
    "credentials/a",
    ".env.d/b",
]


def test_untracked_secrets_enter_no_object(workspace: Repo) -> None:
    """Each is named in the record; neither its content nor its name is anywhere in git."""
    workspace.write("ok.py", "fine\n")
    for number, name in enumerate(SECRETS):
        workspace.write(name, f"TOPSECRET-{number}\n")
    shot = snapshot(workspace)
    assert shot.paths == ["ok.py"]
    assert shot.left_out == dict.fromkeys(sorted(SECRETS), "looks like a secret")
    assert b"TOPSECRET" not in objects(workspace)


@pytest.mark.parametrize("name", ["environment.yml", "keys.py", "identity.py", "my.env", "netrc", "src/id_maps/a.py"])
def test_these_are_no_secrets(name: str) -> None:
    assert not looks_secret(name)


def test_a_tracked_secret_is_the_users_choice(workspace: Repo) -> None:
    """What git tracks is in the snapshot as it is now: it is in the history already."""
    workspace.write(".env.example", "TOKEN=\n")
    workspace.commit()
    workspace.write(".env.example", "TOKEN=x\n")
    assert snapshot(workspace).text(".env.example") == "TOKEN=x\n"


def test_big_untracked_file_is_recorded_by_hash_and_enters_no_object(workspace: Repo) -> None:
    """The limit itself is not over the limit; a tracked file has no limit."""
    import blake3

    workspace.write("tracked.bin", b"t" * 5000)
    workspace.commit()
    workspace.write("tracked.bin", b"T" * 5000)
    workspace.write("limit.bin", b"l" * 1000)
    workspace.write("big.bin", b"B" * 1001)
    shot = snapshot(workspace)
    assert shot.paths == ["limit.bin", "tracked.bin"]
    assert shot.left_out == {"big.bin": f"1001 bytes, blake3:{blake3.blake3(b'B' * 1001).hexdigest()}"}
    assert b"B" * 1001 not in objects(workspace)
    assert shot.text("tracked.bin") == "T" * 5000


def test_declared_data_and_outputs_are_left_out_once(workspace: Repo) -> None:
    """A folder is one line of the record, whatever it holds; a path that only begins alike is taken."""
    workspace.write("data/x/1", "1\n")
    workspace.write("data/x/2", "2\n")
    workspace.write("data2/y", "y\n")
    workspace.write("out.txt", "o\n")
    shot = snapshot(workspace, data="a data input", **{"out.txt": "a cached output"})
    assert shot.paths == ["data2/y"]
    assert shot.left_out == {"data": "a data input", "out.txt": "a cached output"}


def test_ignored_files_are_left_out_and_not_recorded(workspace: Repo) -> None:
    """By .gitignore, info/exclude and .pipeignore; a file that is tracked though ignored is in it."""
    workspace.write(".gitignore", "*.log\n")
    workspace.write("forced.log", "1\n")
    workspace.git("add", "-f", "forced.log", ".gitignore")
    workspace.git("commit", "-qm", "one")
    workspace.write("forced.log", "2\n")
    workspace.write("other.log", "x\n")
    workspace.write("notes/a", "x\n")
    shot = snapshot(workspace, ignored="notes/")
    assert shot.paths == [".gitignore", "forced.log"]
    assert shot.text("forced.log") == "2\n"
    assert shot.left_out == {}


def test_outputs_on_their_way_are_not_seen(workspace: Repo) -> None:
    """What another build is putting into place at this moment is nobody's source."""
    workspace.write("a/.pipe-tmp-1234/part", "x\n")
    workspace.write("a/b", "x\n")
    shot = snapshot(workspace)
    assert (shot.paths, shot.left_out) == (["a/b"], {})


def test_nested_repositories_are_named(workspace: Repo) -> None:
    """With a commit (its id is recorded), and without one, which would make `git add` fail."""
    workspace.write("a", "a\n")
    for name in ("empty", "full"):
        workspace.git("init", "-q", name)
        workspace.write(f"{name}/inner", "x\n")
    workspace.git("-C", "full", "add", "-A")
    workspace.git("-C", "full", "commit", "-qm", "inner")
    commit = workspace.git("-C", "full", "rev-parse", "HEAD").stdout.strip()
    shot = snapshot(workspace)
    assert shot.paths == ["a"]
    assert shot.left_out == {
        "empty": "a nested repository without a commit",
        "full": f"a nested repository, at {commit}",
    }


def test_submodule_counts_by_its_commit(workspace: Repo, make_repo: Callable[[str], Repo]) -> None:
    """A moved submodule is in the tree; one with changes of its own is told; one not checked out stays what it was."""
    other = make_repo("other")
    other.write("x", "1\n")
    other.commit()
    workspace.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(other.path), "sub")
    workspace.commit()
    assert snapshot(workspace).left_out == {}
    workspace.write("sub/x", "2\n")
    assert snapshot(workspace).left_out == {"sub": "a submodule with changes of its own"}
    workspace.git("-C", "sub", "commit", "-qam", "two")
    shot = snapshot(workspace)
    moved = workspace.git("-C", "sub", "rev-parse", "HEAD").stdout.strip()
    assert (shot.mode("sub"), shot.left_out) == ("160000", {})
    assert moved in workspace.git("ls-tree", shot.tree, "sub").stdout
    linked = workspace.worktree()
    there = snapshot(linked)
    assert there.tree == workspace.git("rev-parse", "HEAD^{tree}").stdout.strip()


def test_users_index_head_stash_and_files_are_untouched(workspace: Repo) -> None:
    """Byte for byte, with staged, unstaged and stashed work about."""
    workspace.write("a", "1\n")
    workspace.commit()
    workspace.write("a", "stashed\n")
    workspace.git("stash", "-q")
    workspace.write("a", "staged\n")
    workspace.git("add", "a")
    workspace.write("a", "unstaged\n")
    workspace.write("new", "n\n")
    git = workspace.path / ".git"
    watched = ["index", "HEAD", "refs/stash", "logs/HEAD"]
    before = {name: (git / name).read_bytes() for name in watched}
    stamp = (git / "index").stat().st_mtime_ns
    snapshot(workspace)
    assert {name: (git / name).read_bytes() for name in watched} == before
    assert (git / "index").stat().st_mtime_ns == stamp
    assert workspace.git("status", "--porcelain").stdout == "MM a\n?? new\n"


def test_intent_to_add_and_unmerged_entries(workspace: Repo) -> None:
    """In the middle of a merge the work tree's files are what is built, conflict markers and all."""
    workspace.write("a", "base\n")
    workspace.commit()
    workspace.git("switch", "-qc", "side")
    workspace.write("a", "side\n")
    workspace.commit()
    workspace.git("switch", "-q", "main")
    workspace.write("a", "main\n")
    workspace.commit()
    workspace.git("merge", "side", check=False)
    workspace.write("meant", "m\n")
    workspace.git("add", "-N", "meant")
    shot = snapshot(workspace)
    assert shot.paths == ["a", "meant"]
    assert "<<<<<<<" in shot.text("a")
    (workspace.path / "a").unlink()
    assert snapshot(workspace).paths == ["meant"]


def test_files_and_folders_that_changed_places(workspace: Repo) -> None:
    """A file where a folder was, a folder where a file was, a link where a folder was."""
    workspace.write("folder/a", "a\n")
    workspace.write("file", "f\n")
    workspace.write("linked/b", "b\n")
    workspace.commit()
    for command in (
        "rm -r folder file linked",
        "mkdir file other",
        "touch folder file/inner other/b",
        "ln -s other linked",
    ):
        workspace.run("sh", "-c", command)
    assert snapshot(workspace).paths == ["file/inner", "folder", "linked", "other/b"]


@pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree"])
def test_files_git_was_told_not_to_look_at(workspace: Repo, flag: str) -> None:
    """The file as it is now is what is built; the user's index keeps its flag."""
    workspace.write("config", "default\n")
    workspace.write("other", "o\n")
    workspace.commit()
    workspace.git("update-index", flag, "config")
    workspace.write("config", "mine\n")
    assert snapshot(workspace).text("config") == "mine\n"
    assert workspace.git("status", "--porcelain").stdout == ""


def test_sparse_checkout(workspace: Repo) -> None:
    """Files outside the cone are in it though they are not on disk; new and changed ones outside of it as they are."""
    for name in ("in/a", "out/b", "out/c"):
        workspace.write(name, name)
    workspace.commit()
    workspace.git("sparse-checkout", "set", "--cone", "in")
    assert not workspace.exists("out/b")
    assert snapshot(workspace).tree == workspace.git("rev-parse", "HEAD^{tree}").stdout.strip()
    workspace.write("out/b", "changed\n")
    workspace.write("out/new", "new\n")
    shot = snapshot(workspace)
    assert shot.paths == ["in/a", "out/b", "out/c", "out/new"]
    assert shot.text("out/b") == "changed\n"


def test_split_index(workspace: Repo) -> None:
    """The user's split index is read, and stays split."""
    workspace.write("a", "a\n")
    workspace.commit()
    workspace.git("config", "core.splitIndex", "true")
    workspace.git("update-index", "--split-index")
    workspace.write("b", "b\n")
    before = sorted(path.name for path in (workspace.path / ".git").iterdir() if path.is_file())
    assert snapshot(workspace).paths == ["a", "b"]
    assert sorted(path.name for path in (workspace.path / ".git").iterdir() if path.is_file()) == before


def test_filters_and_line_ends_are_gits(workspace: Repo) -> None:
    """Attributes and clean filters apply to tracked and untracked files alike."""
    workspace.git("config", "filter.up.clean", "tr a-z A-Z")
    workspace.write(".gitattributes", "* text=auto\n*.up filter=up\n")
    workspace.write("crlf.txt", b"one\r\ntwo\r\n")
    workspace.write("loud.up", "loud\n")
    shot = snapshot(workspace)
    assert shot.text("crlf.txt") == "one\ntwo\n"
    assert shot.text("loud.up") == "LOUD\n"
    workspace.git("add", "-A")
    assert shot.tree == workspace.git("write-tree").stdout.strip()


def test_sha256_repository(workspace: Repo) -> None:
    """Ids of either length."""
    workspace.git("init", "-q", "--object-format=sha256", "new")
    inner = type(workspace)(workspace.path / "new", workspace.home)
    inner.write("a", "a\n")
    inner.commit()
    inner.write("b", "b\n")
    shot = snapshot(inner)
    assert len(shot.tree) == 64
    assert shot.paths == ["a", "b"]


def test_worktrees_have_snapshots_of_their_own(workspace: Repo) -> None:
    """The index of the work tree that is built counts, not the main one's."""
    workspace.write("a", "1\n")
    workspace.commit()
    linked = workspace.worktree()
    linked.write("a", "2\n")
    linked.write("only-there", "x\n")
    assert snapshot(linked).paths == ["a", "only-there"]
    assert snapshot(linked).text("a") == "2\n"
    assert snapshot(workspace).paths == ["a"]


def test_rewritten_in_the_second_of_the_commit(workspace: Repo) -> None:
    """Equal size, same second as the index: git has to look at the content (the copy keeps the index's time)."""
    for number in range(5):
        workspace.write("a", f"{number}-old\n")
        workspace.commit()
        workspace.write("a", f"{number}-new\n")
        assert snapshot(workspace).text("a") == f"{number}-new\n"


def test_unreadable_untracked_file_is_named(workspace: Repo) -> None:
    workspace.write("a", "a\n")
    workspace.write("locked", "x\n").chmod(0)
    if os.access(workspace.path / "locked", os.R_OK):
        pytest.skip("root reads everything")
    assert snapshot(workspace).left_out == {"locked": "can't be read"}


def test_a_file_that_vanishes_while_looked_at(workspace: Repo) -> None:
    """Editors' temporary files come and go; the snapshot has what stayed."""
    workspace.write("stays", "s\n")
    vanishing = workspace.write("vanishes", "v\n")

    def ignores(path: str) -> bool:
        if path == "vanishes":
            vanishing_later.append(path)
        return False

    vanishing_later: list[str] = []
    git = Repository.discover(str(workspace.path))
    real = git.process

    def process(*args: str, **rest: object) -> subprocess.CompletedProcess[bytes]:
        if "update-index" in args:
            vanishing.unlink()
        return real(*args, **rest)  # type: ignore[arg-type]

    git.process = process  # type: ignore[method-assign]
    tree, missing = write_snapshot(
        git, str(workspace.pipe_dir / "tmp/i"), left_out={}, max_file_bytes=100, ignores=ignores
    )
    assert vanishing_later == ["vanishes"]
    assert Shot(workspace, tree, missing).paths == ["stays"]


def test_repository_that_cannot_be_written(workspace: Repo) -> None:
    """No snapshot, an error that says so, and nothing left behind."""
    workspace.write("a", "a\n")
    git = Repository.discover(str(workspace.path))
    blocked = workspace.path / ".git" / "objects"
    blocked.rename(workspace.path / ".git" / "elsewhere")
    blocked.symlink_to("/proc/1/nothing")
    index = workspace.path.parent / "index"
    with pytest.raises((EnvironmentFailure, OSError)):
        write_snapshot(git, str(index), left_out={}, max_file_bytes=100, ignores=lambda path: False)
    assert not Path(index).exists()


def test_commit_without_an_identity(workspace: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that git knows no user of still has history."""
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.delenv(f"GIT_{role}_NAME")
        monkeypatch.delenv(f"GIT_{role}_EMAIL")
    workspace.git("config", "user.useConfigOnly", "true")
    git = Repository.discover(str(workspace.path))
    tree = git.run("write-tree").decode().strip()
    commit = commit_tree(git, tree, None, "a message\n")
    assert "pipe <pipe@localhost>" in workspace.git("cat-file", "commit", commit).stdout


def test_commit_message_is_utf8_whatever_the_configuration(workspace: Repo) -> None:
    """Another commit encoding, and characters that no encoding has."""
    workspace.git("config", "i18n.commitEncoding", "ISO-8859-1")
    git = Repository.discover(str(workspace.path))
    tree = git.run("write-tree").decode().strip()
    commit = commit_tree(git, tree, None, "größe \udcff\ud800 nul \0\n")
    body = workspace.git("log", "-1", "--encoding=UTF-8", "--format=%B", commit).stdout
    assert body.startswith("größe \\udcff\\ud800 nul \\0\n")
