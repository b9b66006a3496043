"""The merge and diff drivers of pipe.lock: what is set, what git does with it, and that it goes again."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Repo

from pipesmith.git import drivers, hook_scripts
from pipesmith.git.drivers import install_drivers, installed_drivers, uninstall_drivers
from pipesmith.git.repository import Repository

ATTRIBUTES = ".git/info/attributes"


def lock(**fingerprints: str) -> str:
    """A lockfile's text with these stages."""
    tables = "".join(
        f'\n[stage.{name}]\nfingerprint = "{text}"\nrun = "echo {text}"\n'
        for name, text in sorted(fingerprints.items())
    )
    return f"# Written by pipe; kept in git. A conflict in it: `pipe lock resolve`.\nversion = 1\n{tables}"


def opened(repo: Repo) -> Repository:
    return Repository.discover(str(repo.path))


def fork(repo: Repo, path: str = "pipe.lock") -> None:
    """Two branches, `main` and `other`, that changed neighbouring stages: as text they conflict."""
    repo.write(path, lock(a="1", b="1"))
    repo.commit("base")
    repo.git("checkout", "-q", "-b", "other")
    repo.write(path, lock(a="1", b="3"))
    repo.commit("other")
    repo.git("checkout", "-q", "main")
    repo.write(path, lock(a="2", b="1", c="2"))
    repo.commit("main")


MERGED = lock(a="2", b="3", c="2")


def test_what_is_set_and_taken_out(workspace: Repo) -> None:
    repo = opened(workspace)
    before = workspace.read(".git/config")
    assert installed_drivers(repo) == []
    done = install_drivers(repo)
    assert "merge.pipesmith.driver" in done and "diff.pipesmith.textconv" in done and done[-1] == "info/attributes"
    assert installed_drivers(repo) == ["merge", "diff"]
    assert install_drivers(repo) == [], "what is set is not set again"
    assert sorted(uninstall_drivers(repo)) == sorted(done)
    assert workspace.read(".git/config") == before
    assert not workspace.exists(ATTRIBUTES)
    assert installed_drivers(repo) == [] and uninstall_drivers(repo) == []


def test_the_command_that_sets_them(workspace: Repo) -> None:
    workspace.pipe("hooks", "install")
    fork(workspace)
    workspace.git("merge", "-q", "--no-edit", "other")
    assert workspace.read("pipe.lock") == MERGED
    workspace.pipe("hooks", "uninstall")
    workspace.git("reset", "-q", "--hard", "HEAD^1")
    assert workspace.git("merge", "-q", "other", check=False).returncode == 1


def test_attributes_of_others_stay(workspace: Repo) -> None:
    mine = "*.bin -diff\r\npipe.lock text"
    workspace.write(ATTRIBUTES, mine)
    (workspace.path / ATTRIBUTES).chmod(0o640)
    repo = opened(workspace)
    install_drivers(repo)
    assert workspace.read(ATTRIBUTES).startswith(mine.replace("\r\n", "\n"))
    assert workspace.git("check-attr", "text", "merge", "--", "pipe.lock").stdout.split() == (
        ["pipe.lock:", "text:", "set", "pipe.lock:", "merge:", "pipesmith"]
    )
    assert (workspace.path / ATTRIBUTES).stat().st_mode & 0o777 == 0o640
    uninstall_drivers(repo)
    assert (workspace.path / ATTRIBUTES).read_bytes() == f"{mine}\n".encode()


def test_a_driver_that_somebody_chose_stays(workspace: Repo) -> None:
    workspace.write(".gitattributes", "pipe.lock merge=union\n")
    repo = opened(workspace)
    install_drivers(repo)
    assert workspace.git("check-attr", "merge", "diff", "--", "pipe.lock").stdout.split()[2::3] == [
        "union",
        "pipesmith",
    ]
    assert installed_drivers(repo) == ["diff"]


def test_a_versioned_line_is_as_good(workspace: Repo) -> None:
    """Whoever clones it and has the configuration, has the drivers; whoever has not, merges as text."""
    workspace.write(".gitattributes", "pipe.lock merge=pipesmith diff=pipesmith\n")
    fork(workspace)
    assert workspace.git("merge", "-q", "other", check=False).returncode == 1
    assert "<<<<<<<" in workspace.read("pipe.lock")
    workspace.git("merge", "--abort")
    install_drivers(opened(workspace))
    (workspace.path / ATTRIBUTES).unlink()
    workspace.git("merge", "-q", "--no-edit", "other")
    assert workspace.read("pipe.lock") == MERGED


def test_an_older_installation_is_replaced(workspace: Repo) -> None:
    workspace.git("config", "merge.pipesmith.driver", "gone %O")
    workspace.git("config", "--add", "merge.pipesmith.driver", "gone too")
    install_drivers(opened(workspace))
    fork(workspace)
    workspace.git("merge", "-q", "--no-edit", "other")
    assert workspace.read("pipe.lock") == MERGED


# -- where it works -----------------------------------------------------------------------------------------------


def test_in_subfolders_from_any_folder(workspace: Repo) -> None:
    install_drivers(opened(workspace))
    place = "models/a b'%O\"/pipe.lock"
    fork(workspace, place)
    done = workspace.run("git", "-C", "models", "merge", "--no-edit", "other")
    assert workspace.read(place) == MERGED
    assert "CONFLICT" not in done.stdout
    shown = workspace.run("git", "-C", "models", "diff", "HEAD^1", "HEAD").stdout
    assert "-b: fingerprint: 1" in shown and "+b: fingerprint: 3" in shown


def test_in_a_folder_named_like_a_flag(workspace: Repo) -> None:
    install_drivers(opened(workspace))
    fork(workspace, "--json/pipe.lock")
    workspace.git("merge", "-q", "--no-edit", "other")
    assert workspace.read("--json/pipe.lock") == MERGED
    assert "+b: fingerprint: 3" in workspace.git("diff", "HEAD^1", "HEAD").stdout


def test_in_worktrees(workspace: Repo) -> None:
    """Set in one, it holds in all, with configuration of their own as well."""
    fork(workspace)
    workspace.git("config", "extensions.worktreeConfig", "true")
    tree = workspace.worktree("tree", "other")
    install_drivers(opened(tree))
    tree.git("merge", "-q", "--no-edit", "main")
    assert tree.read("pipe.lock") == MERGED
    workspace.git("merge", "-q", "--no-edit", "other")
    assert workspace.read("pipe.lock") == MERGED


def test_in_a_submodule(workspace: Repo, make_repo: Callable[[str], Repo]) -> None:
    inner = make_repo("inner")
    inner.write("pipe.lock", lock(a="1"))
    inner.commit()
    workspace.git("-c", "protocol.file.allow=always", "submodule", "-q", "add", str(inner.path), "sub")
    sub = Repo(workspace.path / "sub", workspace.home)
    install_drivers(opened(sub))
    fork(sub)
    sub.git("merge", "-q", "--no-edit", "other")
    assert sub.read("pipe.lock") == MERGED
    assert "merge.pipesmith" not in workspace.read(".git/config")


def test_in_a_bare_repository(workspace: Repo) -> None:
    """As a server merges that has pipe: no work tree at all."""
    fork(workspace)
    target = workspace.path.parent / "bare.git"
    workspace.git("clone", "-q", "--bare", str(workspace.path), str(target))
    bare = Repo(target, workspace.home)
    install_drivers(opened(bare))
    if bare.git("merge-tree", "--write-tree", "main", "main", check=False).returncode != 0:
        pytest.skip("this git merges in work trees only")
    tree = bare.git("merge-tree", "--write-tree", "main", "other").stdout.split()[0]
    assert bare.git("cat-file", "blob", f"{tree}:pipe.lock").stdout == MERGED


def test_with_hooks_elsewhere_and_line_ends_of_another_system(workspace: Repo) -> None:
    workspace.git("config", "core.hooksPath", "hooks")
    workspace.git("config", "core.autocrlf", "true")
    fork(workspace)
    workspace.git("checkout", "-q", "other")
    workspace.git("checkout", "-q", "main")
    assert b"\r\n" in (workspace.path / "pipe.lock").read_bytes()
    install_drivers(opened(workspace))
    workspace.git("merge", "-q", "--no-edit", "other")
    assert workspace.git("cat-file", "blob", "HEAD:pipe.lock").stdout == MERGED
    assert "+b: fingerprint: 3" in workspace.git("diff", "HEAD^1").stdout, "against the work tree, with its line ends"


# -- how git finds pipe -------------------------------------------------------------------------------------------


def script(path: Path) -> list[str]:
    """A program that is `pipe`, elsewhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\necho "$0" >> "$HOME/started"\nexec {sys.executable} -m pipesmith "$@"\n')
    path.chmod(0o755)
    return [str(path)]


def settle(repo: Repo, monkeypatch: pytest.MonkeyPatch, *programs: list[str]) -> None:
    monkeypatch.setattr(drivers, "_programs", lambda: list(programs))
    install_drivers(opened(repo))


def test_a_program_with_an_odd_path(workspace: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = script(tmp_path / 'it\'s 100%O "odd" $HOME `x` ;#é/pipe')
    settle(workspace, monkeypatch, program)
    fork(workspace)
    workspace.git("merge", "-q", "--no-edit", "other")
    assert workspace.read("pipe.lock") == MERGED
    assert "+b: fingerprint: 3" in workspace.git("diff", "HEAD^1").stdout
    assert set((workspace.home / "started").read_text().splitlines()) == set(program)


def test_a_module_where_no_script_was_installed(workspace: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the workspace named like one of Python's is not imported."""
    monkeypatch.setattr(hook_scripts, "_is_pipe", lambda command: False)
    install_drivers(opened(workspace))
    fork(workspace)
    for name in ("argparse.py", "pipesmith.py", "tomllib.py"):
        workspace.write(name, "raise SystemExit(3)\n")
    workspace.git("merge", "-q", "--no-edit", "other")
    assert workspace.read("pipe.lock") == MERGED
    assert "+b: fingerprint: 3" in workspace.git("diff", "HEAD^1").stdout


def test_the_path_is_the_second_choice(workspace: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a virtual environment went, or another user's clone."""
    program = script(tmp_path / "bin/pipe")
    settle(workspace, monkeypatch, [str(tmp_path / "gone/pipe")], ["pipe"])
    fork(workspace)
    env = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    workspace.git("merge", "-q", "--no-edit", "other", env=env)
    assert workspace.read("pipe.lock") == MERGED
    assert "+b: fingerprint: 3" in workspace.git("diff", "HEAD^1", env=env).stdout
    assert set((workspace.home / "started").read_text().splitlines()) == set(program)


def test_a_python_without_pipesmith_is_none(workspace: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `pip uninstall`: what was called by its module is not there any more."""
    settle(workspace, monkeypatch, [sys.executable, "-P", "-m", "no_such_module"], script(tmp_path / "bin/pipe"))
    fork(workspace)
    workspace.git("merge", "-q", "--no-edit", "other")
    assert workspace.read("pipe.lock") == MERGED
    assert "+b: fingerprint: 3" in workspace.git("diff", "HEAD^1").stdout


def test_a_disk_that_is_full_loses_nothing(workspace: Repo, tmp_path: Path) -> None:
    """What can't be written leaves ours whole; git calls it a conflict at most."""
    texts = {"O": lock(a="1", b="1"), "A": lock(a="2", b="1"), "B": lock(a="1", b="3")}
    for name, text in texts.items():
        workspace.write(name, text)
    limited = 'ulimit -f 0; exec "$@"'
    done = workspace.run(
        "sh", "-c", limited, "sh", sys.executable, "-m", "pipesmith", "lock", "merge", "O", "A", "B", check=False
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert {name: workspace.read(name) for name in texts} == texts
    assert sorted(path.name for path in workspace.path.iterdir()) == [".git", "A", "B", "O"]


@pytest.fixture
def bare_path(tmp_path: Path) -> str:
    """A PATH with git and the shell's programs, and no `pipe`."""
    folder = tmp_path / "few"
    folder.mkdir()
    for name in ("git", "sh", "cat", "echo"):
        real = next(Path(p, name) for p in os.environ["PATH"].split(os.pathsep) if Path(p, name).exists())
        (folder / name).symlink_to(real)
    return str(folder)


def test_without_pipe_it_is_as_without_drivers(
    workspace: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bare_path: str
) -> None:
    settle(workspace, monkeypatch, [str(tmp_path / "gone/pipe")], ["pipe"])
    fork(workspace)
    env = {"PATH": bare_path}
    done = workspace.git("merge", "-q", "other", check=False, env=env)
    assert done.returncode == 1
    assert "pipe.lock: no pipe here: merged as text; a conflict: pipe lock resolve" in done.stderr
    text = workspace.read("pipe.lock")
    assert "<<<<<<< ours\n" in text and ">>>>>>> theirs\n" in text
    workspace.git("merge", "--abort", env=env)
    shown = workspace.git("diff", "main", "other", "--", "pipe.lock", env=env).stdout
    assert '+fingerprint = "3"' in shown, "as text, not an error of git's"


def test_without_pipe_what_is_far_apart_still_merges(
    workspace: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bare_path: str
) -> None:
    settle(workspace, monkeypatch, [str(tmp_path / "gone/pipe")])
    rest = {f"m{number}": "1" for number in range(4)}
    workspace.write("pipe.lock", lock(a="1", z="1", **rest))
    workspace.commit()
    workspace.git("checkout", "-q", "-b", "other")
    workspace.write("pipe.lock", lock(a="1", z="3", **rest))
    workspace.commit()
    workspace.git("checkout", "-q", "main")
    workspace.write("pipe.lock", lock(a="2", z="1", **rest))
    workspace.commit()
    workspace.git("merge", "-q", "--no-edit", "other", env={"PATH": bare_path})
    assert workspace.read("pipe.lock") == lock(a="2", z="3", **rest)
