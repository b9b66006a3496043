"""`hooks install` and `uninstall`: repeatable, where git looks, and never at the cost of somebody's own hook."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.conftest import Repo

from .conftest import PIPE, make_stale, passed, push, refused, theirs_ran

OwnHook = Callable[..., Path]


def state(path: Path) -> tuple[str, int, bytes]:
    """Return all of a file that counts: link text, mode, bytes."""
    link = os.readlink(path) if path.is_symlink() else ""
    return link, stat.S_IMODE(os.lstat(path).st_mode), path.read_bytes()


def files(repo: Repo) -> dict[str, tuple[str, int, bytes]]:
    """Return the state of everything of git's folder that hooks and configuration are made of, and of the work tree."""
    found = {}
    for top in (repo.path / ".git/hooks", repo.path / ".husky", repo.path / "hooks"):
        found.update({str(path): state(path) for path in top.rglob("*") if path.is_file()})
    return found


def test_install_and_uninstall_can_be_repeated(project: Repo) -> None:
    """A second install changes nothing and says where the hook is; uninstall leaves nothing of ours."""
    config = project.git("config", "--local", "--list").stdout
    first = project.pipe("hooks", "install")
    path = project.path / ".git/hooks/pre-push"
    assert f"pre-push: installed in `{path}`" in first.stdout
    before = files(project)
    again = project.pipe("hooks", "install")
    assert f"pre-push: is in `{path}`" in again.stdout and files(project) == before
    told = project.pipe("hooks", "install", "--json").json()
    assert told["changed"] == []
    assert told["hooks"] == [{"name": "pre-push", "path": str(path), "first": None, "by_itself": False}]
    assert os.access(path, os.X_OK)
    assert "pre-push: taken away" in project.pipe("hooks", "uninstall").stdout
    assert files(project) == {}
    assert project.git("config", "--local", "--list").stdout == config
    assert "no hooks" in project.pipe("hooks", "uninstall").stdout
    make_stale(project)
    passed(push(project))


def test_the_drivers_come_and_go(project: Repo) -> None:
    """Install sets the merge and diff drivers of pipe.lock; an uninstall of all takes them out, one of some does not."""
    config = project.git("config", "--local", "--list").stdout

    def attribute() -> str:
        return project.git("check-attr", "merge", "pipe.lock").stdout.split()[-1]

    assert "drivers of pipe.lock (merge, diff): set" in project.pipe("hooks", "install", "--all").stdout
    assert attribute() == "pipesmith"
    assert project.pipe("hooks", "install", "--json").json()["drivers"] == ["merge", "diff"]
    project.pipe("hooks", "uninstall", "post-merge")
    assert attribute() == "pipesmith"
    assert "drivers of pipe.lock: taken away" in project.pipe("hooks", "uninstall").stdout
    assert attribute() == "unspecified"
    assert project.git("config", "--local", "--list").stdout == config


def test_which_hooks(project: Repo) -> None:
    """`pre-push` unless others are named; `--all` installs all four; uninstall takes those that are named."""

    def there() -> list[str]:
        return [hook["name"] for hook in project.pipe("hooks", "install", "pre-push", "--json").json()["hooks"]]

    project.pipe("hooks", "install", "post-merge")
    assert there() == ["pre-push", "post-merge"]
    project.pipe("hooks", "install", "--all")
    assert there() == ["pre-push", "post-checkout", "post-merge", "post-rewrite"]
    project.pipe("hooks", "uninstall", "post-merge", "post-rewrite")
    assert there() == ["pre-push", "post-checkout"]
    project.pipe("hooks", "uninstall")
    assert files(project) == {}


@pytest.mark.parametrize("mode", [0o755, 0o700, 0o555])
def test_somebody_s_own_hook_is_chained(project: Repo, own_hook: OwnHook, mode: int) -> None:
    """Theirs runs first, both get arguments and lines, and it comes back byte for byte."""
    path = own_hook(".git/hooks/pre-push", mode=mode)
    before = files(project)
    done = project.pipe("hooks", "install")
    assert f"`{path}.before-pipe` runs first" in done.stdout
    project.pipe("hooks", "install")
    head = project.git("rev-parse", "HEAD").stdout.strip()
    passed(push(project))
    assert theirs_ran(project) == ["origin ../remote.git", f"refs/heads/main {head} refs/heads/main {'0' * 40}"]
    stale = make_stale(project)
    refused(push(project))
    assert theirs_ran(project) == ["origin ../remote.git", f"refs/heads/main {stale} refs/heads/main {head}"]
    project.pipe("hooks", "uninstall")
    assert files(project) == before
    passed(push(project))
    assert theirs_ran(project) != []


def test_their_exit_code_counts(project: Repo, own_hook: OwnHook) -> None:
    """Where theirs refuses, the push is refused, and ours is not asked."""
    own_hook(".git/hooks/pre-push", code=3)
    project.pipe("hooks", "install")
    done = push(project)
    assert done.returncode != 0 and "pre-push: refs" not in done.stderr
    make_stale(project)
    assert "error: pre-push:" not in push(project).stderr
    run = project.run(".git/hooks/pre-push", "origin", "url", input="", check=False)
    assert run.returncode == 3


def test_a_hook_that_does_not_run(project: Repo, own_hook: OwnHook) -> None:
    """One that is not executable was never run by git, and is not now; it comes back as it was."""
    own_hook(".git/hooks/pre-push", code=1, mode=0o644)
    before = files(project)
    project.pipe("hooks", "install")
    passed(push(project))
    assert theirs_ran(project) == []
    project.pipe("hooks", "uninstall")
    assert files(project) == before


def test_a_hook_that_is_a_link(project: Repo, own_hook: OwnHook) -> None:
    target = own_hook("scripts/gate")
    (project.path / ".git/hooks").mkdir(exist_ok=True)
    link = project.path / ".git/hooks/pre-push"
    link.symlink_to("../../scripts/gate")
    before, whole = state(link), state(target)
    project.pipe("hooks", "install")
    passed(push(project))
    assert theirs_ran(project)
    assert state(target) == whole
    project.pipe("hooks", "uninstall")
    assert state(link) == before


@pytest.mark.parametrize(
    "text",
    [
        '#!/bin/sh\n. "$(dirname "$0")/common.sh"\n',  # what lies beside it
        '#!/usr/bin/env bash\nset -eu\nname=$(basename "$0")\n[ "$name" = pre-push ] && echo "it is $name" >> $HOME/theirs\n',
        '#!/bin/bash\n[ "${0##*/}" = pre-push ] || exit 9\necho "it is pre-push" >> $HOME/theirs\n',
        '#!/usr/bin/env python3\nimport os\nopen(os.path.expanduser("~/theirs"), "a").write("it is pre-push\\n")\n',
        '#!/bin/bash\nmain() { echo "it is pre-push" >> $HOME/theirs; }\n# basename "$0"\nif [[ "${BASH_SOURCE[0]}" == "$0" ]]; then main; fi\n',
    ],
    ids=["beside", "basename", "pattern", "python", "main"],
)
def test_kinds_of_hooks(project: Repo, text: str) -> None:
    """Scripts that look at where they lie, at their own name, or at whether they are the program go on working."""
    project.write(".git/hooks/common.sh", "echo 'it is pre-push' >> $HOME/theirs\n")
    project.write(".git/hooks/pre-push", text, executable=True)
    project.pipe("hooks", "install")
    passed(push(project))
    assert theirs_ran(project) == ["it is pre-push"]


@pytest.mark.parametrize("where", ["absolute", "relative", "home"])
def test_core_hooks_path(project: Repo, own_hook: OwnHook, where: str) -> None:
    """Hooks go where core.hooksPath leads, also to a folder that is not there yet, and with a hook that is there."""
    folder = {
        "absolute": project.path.parent / "ours",
        "relative": project.path / "my hooks",
        "home": project.home / "h",
    }
    value = {"absolute": str(folder["absolute"]), "relative": "my hooks", "home": "~/h"}[where]
    project.git("config", "core.hooksPath", value)
    project.pipe("hooks", "install")
    assert (folder[where] / "pre-push").exists() and not project.exists(".git/hooks/pre-push")
    passed(push(project))
    make_stale(project)
    refused(push(project))
    project.pipe("hooks", "uninstall")
    assert list(folder[where].iterdir()) == []
    path = own_hook(folder[where] / "pre-push")
    before = state(path)
    nested = project.path / "src"
    project.run(sys.executable, "-m", "pipesmith", "-C", str(nested), "hooks", "install")
    refused(push(Repo(nested, project.home)))
    assert len(theirs_ran(project)) == 2
    project.pipe("hooks", "uninstall")
    assert state(path) == before and [each.name for each in folder[where].iterdir()] == ["pre-push"]
    assert project.git("config", "core.hooksPath").stdout.strip() == value


def test_a_global_hooks_path(project: Repo) -> None:
    project.git("config", "--global", "core.hooksPath", "~/all-hooks")
    project.pipe("hooks", "install")
    make_stale(project)
    refused(push(project))
    assert (project.home / "all-hooks/pre-push").exists()
    project.pipe("hooks", "uninstall")
    passed(push(project))


def test_hooks_turned_off(project: Repo) -> None:
    """core.hooksPath at /dev/null: git runs none, so installing one would be a lie."""
    project.git("config", "core.hooksPath", "/dev/null")
    done = project.pipe("hooks", "install", check=False)
    assert done.returncode == 2 and "core.hooksPath leads to `/dev/null`" in done.stderr and "help: " in done.stderr


# -- hooks that are versioned, husky -------------------------------------------------------------------------------


def test_a_versioned_hook_is_not_touched(project: Repo, own_hook: OwnHook) -> None:
    """A hook that git tracks stays as it is, and so does `git status`; it runs first all the same, and so do all others
    of its folder, also those that come later."""
    path = own_hook(".githooks/pre-push")
    project.git("config", "core.hooksPath", ".githooks")
    project.commit("a hook")
    before = state(path)
    done = project.pipe("hooks", "install")
    assert f"`{path}` runs first" in done.stdout and "core.hooksPath" in done.stdout
    assert state(path) == before and project.git("status", "--porcelain").stdout == ""
    assert project.pipe("hooks", "install", "--json").json()["changed"] == []
    passed(push(project))
    assert theirs_ran(project)[0] == "origin ../remote.git"
    make_stale(project)
    refused(push(project))
    assert len(theirs_ran(project)) == 2
    own_hook(".githooks/commit-msg", code=1)
    assert project.git("commit", "-q", "--allow-empty", "-m", "x", check=False).returncode != 0
    assert theirs_ran(project)
    project.pipe("hooks", "install", "post-merge")
    assert [hook["name"] for hook in project.pipe("hooks", "install", "--json").json()["hooks"]] == [
        "pre-push",
        "post-merge",
    ]
    project.pipe("hooks", "uninstall", "pre-push")
    passed(push(project))
    assert len(theirs_ran(project)) == 2
    project.pipe("hooks", "uninstall")
    assert project.git("config", "--local", "core.hooksPath").stdout.strip() == ".githooks"
    assert not project.exists(".git/hooks/pipe") and state(path) == before
    assert "pipesmith.hookspath" not in project.git("config", "--list").stdout


def test_a_versioned_hook_in_a_worktree(project: Repo, own_hook: OwnHook) -> None:
    """A relative core.hooksPath means each worktree's own folder; and its own configuration is set back there."""
    own_hook(".githooks/pre-push")
    project.commit("a hook")
    project.git("config", "extensions.worktreeConfig", "true")
    other = project.worktree()
    other.git("config", "--worktree", "core.hooksPath", ".githooks")
    other.pipe("hooks", "install")
    make_stale(other)
    refused(push(other, "origin", "HEAD:refs/heads/x"))
    assert len(theirs_ran(other)) == 2
    passed(push(project))
    other.pipe("hooks", "uninstall")
    assert other.git("config", "--worktree", "core.hooksPath").stdout.strip() == ".githooks"


def test_a_versioned_hook_of_a_global_folder(project: Repo, own_hook: OwnHook) -> None:
    """core.hooksPath of the global configuration leads into the work tree; the clone's own is unset again."""
    own_hook("hooks/pre-push")
    project.commit("a hook")
    project.git("config", "--global", "core.hooksPath", "hooks")
    project.pipe("hooks", "install")
    make_stale(project)
    refused(push(project))
    assert theirs_ran(project)
    project.pipe("hooks", "uninstall")
    assert project.git("config", "--local", "core.hooksPath", check=False).stdout == ""
    passed(push(project))
    assert theirs_ran(project)


def test_a_versioned_hook_that_runs_pipe(project: Repo) -> None:
    """It counts as installed: nothing is done, and it is said."""
    project.write(".githooks/pre-push", '#!/bin/sh\nexec pipe hooks run pre-push "$@"\n', executable=True)
    project.git("config", "core.hooksPath", ".githooks")
    project.commit("a hook")
    done = project.pipe("hooks", "install")
    assert "by itself" in done.stdout
    told = project.pipe("hooks", "install", "--json").json()
    assert told["changed"] == [] and told["hooks"][0]["by_itself"] is True
    assert project.git("config", "core.hooksPath").stdout.strip() == ".githooks"
    assert project.git("status", "--porcelain").stdout == ""
    make_stale(project)
    refused(push(project))


HUSKY_8 = """#!/usr/bin/env sh
if [ -z "$husky_skip_init" ]; then
  debug () {
    if [ "$HUSKY_DEBUG" = "1" ]; then
      echo "husky (debug) - $1"
    fi
  }

  readonly hook_name="$(basename -- "$0")"
  debug "starting $hook_name..."

  if [ "$HUSKY" = "0" ]; then
    debug "HUSKY env variable is set to 0, skipping hook"
    exit 0
  fi

  if [ -f ~/.huskyrc ]; then
    debug "sourcing ~/.huskyrc"
    . ~/.huskyrc
  fi

  readonly husky_skip_init=1
  export husky_skip_init
  sh -e "$0" "$@"
  exitCode="$?"

  if [ $exitCode != 0 ]; then
    echo "husky - $hook_name hook exited with code $exitCode (error)"
  fi

  if [ $exitCode = 127 ]; then
    echo "husky - command not found in PATH=$PATH"
  fi

  exit $exitCode
fi
"""
HUSKY_9 = """#!/usr/bin/env sh
[ "$HUSKY" = "2" ] && set -x
n=$(basename "$0")
s=$(dirname "$(dirname "$0")")/$n

[ ! -f "$s" ] && exit 0

if [ -f "$HOME/.huskyrc" ]; then
	echo "husky - '~/.huskyrc' is DEPRECATED, please move your code to ~/.config/husky/init.sh"
fi
i="${XDG_CONFIG_HOME:-$HOME/.config}/husky/init.sh"
[ -f "$i" ] && . "$i"

[ "${HUSKY-}" = "0" ] && exit 0

export PATH="node_modules/.bin:$PATH"
sh -e "$s" "$@"
c=$?

[ $c != 0 ] && echo "husky - $n script failed (code $c)"
[ $c = 127 ] && echo "husky - command not found in PATH=$PATH"
exit $c
"""
_HUSKY_9_NAMES = (
    *("pre-commit", "pre-merge-commit", "prepare-commit-msg", "commit-msg", "post-commit", "applypatch-msg"),
    *("pre-applypatch", "post-applypatch", "pre-rebase", "post-rewrite", "post-checkout", "post-merge", "pre-push"),
    *("pre-auto-gc",),
)


def husky(repo: Repo, version: int) -> None:
    """Lay out what husky does when it is installed."""
    if version == 8:
        repo.git("config", "core.hooksPath", ".husky")
        repo.write(".husky/_/.gitignore", "*")
        repo.write(".husky/_/husky.sh", HUSKY_8, executable=True)
        return
    repo.git("config", "core.hooksPath", ".husky/_")
    repo.write(".husky/_/.gitignore", "*")
    repo.write(".husky/_/h", HUSKY_9)
    for name in _HUSKY_9_NAMES:
        repo.write(f".husky/_/{name}", '#!/usr/bin/env sh\n. "${0%/*}/h"', executable=True)


@pytest.mark.parametrize("version", [8, 9])
def test_husky(project: Repo, version: int) -> None:
    """husky's own hooks stay as they are, versioned or made; they run first; the gate stands."""
    start = '#!/usr/bin/env sh\n. "$(dirname -- "$0")/_/husky.sh"\n\n' if version == 8 else ""
    for name in ("pre-push", "commit-msg"):
        text = f'{start}echo "{name} $@" >> $HOME/theirs\n'
        project.write(f".husky/{name}", text, executable=version == 8)
    project.commit("husky")
    husky(project, version)
    before = files(project)
    project.pipe("hooks", "install")
    assert {path: known for path, known in files(project).items() if "/.husky/" in path} == before
    assert project.git("status", "--porcelain").stdout == ""
    passed(push(project))
    assert theirs_ran(project) == ["pre-push origin ../remote.git"]
    make_stale(project)
    assert theirs_ran(project)[0].startswith("commit-msg")
    refused(push(project))
    assert theirs_ran(project) == ["pre-push origin ../remote.git"]
    project.pipe("hooks", "uninstall")
    assert files(project) == before
    assert project.git("config", "core.hooksPath").stdout.strip() == (".husky" if version == 8 else ".husky/_")


def test_husky_installed_again(project: Repo) -> None:
    """husky leads git to its folder anew whenever it is installed: the gate is gone, `doctor` says so, and installing
    it again or taking it away works."""
    husky(project, 9)
    project.pipe("hooks", "install")
    husky(project, 9)
    assert "none installed" in project.pipe("doctor").stdout
    make_stale(project)
    passed(push(project))
    project.pipe("hooks", "install")
    refused(push(project, "origin", "main:refs/heads/x"))
    husky(project, 9)
    project.pipe("hooks", "uninstall")
    assert not project.exists(".git/hooks/pipe")
    assert project.git("config", "core.hooksPath").stdout.strip() == ".husky/_"


@pytest.mark.parametrize("version", [8, 9])
def test_husky_with_a_line_of_pipe_s(project: Repo, version: int) -> None:
    """A line in `.husky/pre-push` is the way that lasts, and shares the gate: install leaves it at that."""
    start = '#!/usr/bin/env sh\n. "$(dirname -- "$0")/_/husky.sh"\n' if version == 8 else ""
    project.write(".husky/pre-push", f'{start}pipe hooks run pre-push "$@"\n', executable=version == 8)
    project.commit("husky")
    husky(project, version)
    before = files(project)
    assert "by itself" in project.pipe("hooks", "install").stdout
    assert files(project) == before
    make_stale(project)
    refused(push(project))


# -- kinds of repositories, other programs -------------------------------------------------------------------------


def test_worktrees_and_submodules(project: Repo) -> None:
    """Installing in a worktree installs for the clone; in a submodule for that alone."""
    other = project.worktree()
    other.pipe("hooks", "install")
    assert project.exists(".git/hooks/pre-push")
    shutil.copytree(project.path, project.path.parent / "inner", symlinks=True)
    project.pipe("hooks", "uninstall")
    project.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", "../inner", "sub")
    inside = Repo(project.path / "sub", project.home)
    inside.pipe("hooks", "install")
    assert project.exists(".git/modules/sub/hooks/pre-push") and not project.exists(".git/hooks/pre-push")
    make_stale(inside)
    refused(push(inside, str(project.path.parent / "remote.git"), "HEAD:refs/heads/x"))


def test_without_a_pipeline(make_repo: Callable[[str], Repo]) -> None:
    """A repository without a pipeline may have the gate as well; outside of any it is wrong use."""
    empty = make_repo("empty")
    empty.pipe("hooks", "install")
    assert empty.exists(".git/hooks/pre-push")
    outside = Repo(empty.home, empty.home)
    done = outside.pipe("hooks", "install", check=False)
    assert done.returncode == 2 and "git init" in done.stderr


def test_the_gate_outlives_a_program_that_is_gone(gated: Repo) -> None:
    """The hook starts the pipe that installed it; where that is gone, that of `.venv`, else that on PATH; without any
    it says so, and the push goes on."""
    path = gated.path / ".git/hooks/pre-push"
    program = str(PIPE) if str(PIPE) in path.read_text() else sys.executable
    assert program in path.read_text()
    refused_by = {"PATH": "/usr/bin:/bin"}
    make_stale(gated)
    refused(push(gated, env=refused_by))
    path.write_text(path.read_text().replace(program, "/gone/pipe"))
    refused(push(gated))
    done = push(gated, env=refused_by)
    assert done.returncode == 0
    assert "pre-push: no `pipe` in .venv or on PATH: nothing was checked" in done.stderr
    gated.write(".git/info/exclude", ".venv\n")
    gated.write(".venv/bin/pipe", f'#!/bin/sh\nexec {sys.executable} -m pipesmith "$@"\n', executable=True)
    refused(push(gated, "origin", "main:refs/heads/x", env=refused_by))


def test_install_brings_an_old_hook_up_to_date(gated: Repo) -> None:
    """One that names another program is written anew, the chained one stays."""
    path = gated.path / ".git/hooks/pre-push"
    good = path.read_text()
    path.write_text(good.replace(str(sys.prefix), "/gone"))
    assert gated.pipe("hooks", "install", "--json").json()["changed"] == ["pre-push"]
    assert path.read_text() == good


def test_both_places_taken(gated: Repo, own_hook: OwnHook) -> None:
    """Somebody wrote over our hook, which had another before it: nothing is guessed."""
    own_hook(".git/hooks/pre-push")
    own_hook(".git/hooks/pre-push.before-pipe")
    before = files(gated)
    done = gated.pipe("hooks", "install", check=False)
    assert done.returncode == 2 and "pre-push.before-pipe" in done.stderr and "help: " in done.stderr
    gated.pipe("hooks", "uninstall")
    assert files(gated) == before


@pytest.fixture
def sealed(project: Repo) -> Iterator[Path]:
    """The hooks folder on a read-only mount."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    folder = project.path / ".git/hooks"
    folder.mkdir(exist_ok=True)
    project.write(".git/hooks/pre-push", "#!/bin/sh\n", executable=True)
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_read_only_folder(project: Repo, sealed: Path) -> None:
    done = project.pipe("hooks", "install", check=False)
    assert done.returncode == 1 and f"`{sealed}`" in done.stderr and "read-only" in done.stderr
    assert "Traceback" not in done.stderr and "help: " in done.stderr
    assert [path.name for path in sealed.iterdir()] == ["pre-push"]


def test_doctor_tells(project: Repo) -> None:
    """`pipe doctor` says which hooks are there, and when one starts a pipe that is gone."""

    def told() -> str:
        return next(
            check["text"] for check in project.pipe("doctor", "--json").json()["checks"] if check["name"] == "hooks"
        )

    assert "none installed" in told() and "pipe hooks install" in told()
    project.pipe("hooks", "install", "pre-push", "post-merge")
    assert told().startswith("pre-push, post-merge")
    path = project.path / ".git/hooks/pre-push"
    path.write_text(path.read_text().replace(sys.prefix, "/gone"))
    assert "is gone" in told()
    project.git("config", "core.hooksPath", "/dev/null")
    assert "none installed" in told()


# -- the hook that `pipe init` lays out -----------------------------------------------------------------------------


def test_the_hook_of_init(make_repo: Callable[[str], Repo]) -> None:
    """`core.hooksPath hooks` is all it takes; it is the gate that install would be, and install says so."""
    repo = make_repo("new")
    repo.pipe("init", "--example")
    repo.pipe("build")
    repo.commit("built")
    repo.git("config", "core.hooksPath", "hooks")
    repo.git("init", "-q", "--bare", "../remote.git")
    repo.git("remote", "add", "origin", "../remote.git")
    passed(push(repo))
    repo.write("stages/report/more.py", "")
    repo.commit("stale")
    refused(push(repo), "source `stages/report` changed")
    assert "by itself" in repo.pipe("hooks", "install").stdout
    assert repo.git("status", "--porcelain").stdout == ""
    done = push(repo, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 0 and "nothing was checked" in done.stderr
