"""The snapshot at any state of the work tree, against a plain walk of it and what git says of each file."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipesmith.git.repository import Repository
from pipesmith.git.snapshot import commit_tree, looks_secret, write_snapshot

if TYPE_CHECKING:
    from tests.conftest import Repo

MOST = 1000


def shoot(repo: Repo, **options: object) -> tuple[str, dict[str, str]]:
    git = Repository.discover(str(repo.path))
    keys = {"left_out": {}, "max_file_bytes": MOST, "ignores": lambda path: False}
    return write_snapshot(git, str(repo.pipe_dir / "tmp" / "index-test"), **(keys | options))  # type: ignore[arg-type]


def rows(repo: Repo, tree: str) -> dict[str, tuple[str, str]]:
    """Return path to (mode, id) of a tree's files."""
    found = {}
    for row in repo.git("ls-tree", "-r", "-z", "--full-tree", tree).stdout.split("\0")[:-1]:
        head, _, path = row.partition("\t")
        mode, _kind, identity = head.split(" ")
        found[path] = (mode, identity)
    return found


# -- the oracle -------------------------------------------------------------------------------------------------------


def expected(repo: Repo) -> dict[str, tuple[str, str]]:
    """Return what the tree is to hold: a walk of the work tree, each file as `git hash-object` stores it."""
    index: dict[str, tuple[str, str]] = {}
    skipped = set()
    for row in repo.git("ls-files", "-z", "-v", "-s").stdout.split("\0")[:-1]:
        head, _, path = row.partition("\t")
        flag, mode, identity, _stage = head.split(" ")
        index[path] = (mode, identity)
        if flag in "Ss":
            skipped.add(path)
    there = set(walk(repo.path))
    news = there - index.keys()
    asked = "".join(f"{path}\0" for path in sorted(news))
    ignored = set(repo.run("git", "check-ignore", "-z", "--stdin", input=asked, check=False).stdout.split("\0"))
    taken = {path for path in news if path not in ignored and not looks_secret(path)}
    taken = {path for path in taken if os.lstat(repo.path / path).st_size <= MOST}
    # What git was told to skip is not there: it is in the tree all the same, where nothing else took its place.
    gone = {path for path in skipped - there if not (repo.path / path).is_dir()}
    held = taken | (index.keys() & there)
    found = {path: index[path] for path in gone if not any(str(above) in held for above in Path(path).parents)}
    for path in held:
        info = os.lstat(repo.path / path)
        if stat.S_ISLNK(info.st_mode):
            text = os.readlink(repo.path / path)
            identity = repo.run("git", "hash-object", "--stdin", input=text).stdout.strip()
            found[path] = ("120000", identity)
        else:
            identity = repo.git("hash-object", "--", path).stdout.strip()
            found[path] = ("100755" if info.st_mode & 0o100 else "100644", identity)
    return found


def walk(top: Path, folder: str = "") -> Iterator[str]:
    """Yield the paths of files and links, without what lies in other repositories."""
    with os.scandir(top / folder) as entries:
        for entry in entries:
            path = f"{folder}{entry.name}"
            if entry.is_symlink() or not entry.is_dir():
                if not entry.name.startswith(".pipe-tmp-"):
                    yield path
            elif entry.name != ".git" and not (top / path / ".git").exists():
                yield from walk(top, f"{path}/")


# -- random states ----------------------------------------------------------------------------------------------------

FOLDERS = ["", "", "src/", "src/deep/", "data/", "odd é/"]
NAMES = [
    "a",
    "b.txt",
    "c.py",
    "x.log",
    "-dash",
    "new\nline",
    'quo"te',
    "*",
    "tab\t",
    os.fsdecode(b"bad-\xff"),
    "A",
    "B.TXT",
    ".env",
    "id_rsa",
    "back\\slash",
    "sp ace ",
]


class Scene:
    """A work tree that random things happen to."""

    def __init__(self, repo: Repo, seed: int) -> None:
        self.repo = repo
        self.random = random.Random(seed)
        self.number = 0
        self.conflicted = False
        repo.write(".gitignore", "*.log\n/build\n")
        for _ in range(12):
            self.write()
        repo.commit("first")

    def path(self) -> Path:
        return self.repo.path / (self.random.choice(FOLDERS) + self.random.choice(NAMES))

    def files(self) -> list[str]:
        return sorted(walk(self.repo.path))

    def some(self) -> str:
        return self.random.choice(self.files())

    def content(self) -> bytes:
        self.number += 1
        size = self.random.choice([0, 3, 40, MOST, MOST + 1])
        return f"{self.number:05}".encode().ljust(size, b"x")[: max(size, 5)]

    def write(self) -> None:
        target = self.path()
        if any(each.is_symlink() or each.is_file() for each in target.parents if each != self.repo.path):
            return
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.write_bytes(self.content())

    def modify(self) -> None:
        target = self.repo.path / self.some()
        if not target.is_symlink():
            target.write_bytes(self.content())

    def delete(self) -> None:
        (self.repo.path / self.some()).unlink()

    def rename(self) -> None:
        source, target = self.repo.path / self.some(), self.path()
        if target.parent.is_dir() and not target.is_dir():
            os.rename(source, target)

    def mode(self) -> None:
        target = self.repo.path / self.some()
        if not target.is_symlink():
            target.chmod(self.random.choice([0o644, 0o755]))

    def link(self) -> None:
        target = self.repo.path / self.some()
        target.unlink()
        os.symlink(self.random.choice(["a", "src", "nowhere", "src/a"]), target)

    def to_folder(self) -> None:
        target = self.repo.path / self.some()
        target.unlink()
        target.mkdir()
        (target / "inner").write_bytes(self.content())

    def to_file(self) -> None:
        target = self.repo.path / self.random.choice(["src", "src/deep", "data"])
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
            target.write_bytes(self.content())

    def git(self, *args: str) -> None:
        self.repo.git("--literal-pathspecs", *args, check=False)

    def stage(self) -> None:
        self.git("add", "-f", "--", self.some())

    def stage_all(self) -> None:
        self.git("add", "-A")

    def unstage(self) -> None:
        self.git("rm", "-q", "--cached", "--", self.some())

    def intend(self) -> None:
        self.git("add", "-N", "--", self.some())

    def hide(self) -> None:
        flag = self.random.choice(["--assume-unchanged", "--skip-worktree"])
        self.git("update-index", flag, "--", self.some())

    def commit(self) -> None:
        self.git("commit", "-qm", "more")

    def nest(self) -> None:
        if not (self.repo.path / "nested").exists():
            self.git("init", "-q", "nested")
            (self.repo.path / "nested" / "file").write_text("x\n")

    def conflict(self) -> None:
        """Stop in the middle of a merge, rebase or cherry-pick."""
        if self.conflicted:
            return
        self.conflicted = True
        self.git("update-index", "--really-refresh")
        self.git("add", "-A")
        self.git("commit", "-qm", "all", "--allow-empty")
        self.git("switch", "-qc", "side")
        names = [path for path in self.files() if not (self.repo.path / path).is_symlink()][:4]
        for path in names:
            (self.repo.path / path).write_text("side\n")
        self.git("commit", "-qam", "side")
        self.git("switch", "-q", "main")
        for path in names[:2]:
            (self.repo.path / path).write_text("main\n")
        for path in names[2:3]:
            (self.repo.path / path).unlink()
        self.git("commit", "-qam", "main")
        self.git(*self.random.choice([("merge", "side"), ("rebase", "side"), ("cherry-pick", "side")]))

    def happen(self) -> None:
        quiet = [self.write, self.modify, self.delete, self.rename, self.mode, self.link, self.to_folder, self.to_file]
        told = [self.stage, self.stage_all, self.unstage, self.intend, self.hide, self.commit, self.nest, self.conflict]
        for _ in range(self.random.randrange(1, 14)):
            if self.files():
                self.random.choice(quiet if self.random.random() < 0.6 else told)()


def check_state(repo: Repo) -> str:
    """Check a snapshot against the oracle, and that nothing of the user's was touched; return its tree."""
    index = Path(repo.git("rev-parse", "--path-format=absolute", "--git-path", "index").stdout.strip())
    before = (index.read_bytes(), index.stat().st_mtime_ns)
    asked = [("status", "--porcelain=v2", "-z"), ("for-each-ref",), ("stash", "list"), ("ls-files", "-v")]
    seen = [repo.git("--no-optional-locks", *words).stdout for words in asked]
    wanted = expected(repo)
    tree, _missing = shoot(repo)
    assert rows(repo, tree) == wanted
    assert (index.read_bytes(), index.stat().st_mtime_ns) == before
    assert [repo.git("--no-optional-locks", *words).stdout for words in asked] == seen
    return tree


@pytest.mark.parametrize("seed", range(8))
def test_random_states(workspace: Repo, seed: int) -> None:
    """Four states of one repository, each on top of the last; the last is checked out elsewhere."""
    scene = Scene(workspace, seed)
    for _ in range(4):
        scene.happen()
        tree = check_state(workspace)
    commit = commit_tree(Repository.discover(str(workspace.path)), tree, None, "run\n")
    workspace.git("update-ref", "refs/pipe/runs/r1", commit)
    workspace.git("worktree", "add", "-q", "../then", "refs/pipe/runs/r1")
    there = workspace.path.parent / "then"
    assert set(walk(there)) - {".git"} == set(rows(workspace, tree))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 300))
def test_many_random_states(workspace: Repo, seed: int) -> None:
    scene = Scene(workspace, seed)
    for _ in range(6):
        scene.happen()
        check_state(workspace)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_snapshot_of_a_build(workspace: Repo, seed: int) -> None:
    """`refs/pipe/runs/ID` of a real build is what the oracle says, with the ignore file as the build left it."""
    scene = Scene(workspace, seed)
    workspace.write(
        "pipeline.toml",
        '[snapshot]\nmax-file = "1000"\n[stage.a]\nrun = "echo 1 > {outputs.o}"\noutputs = { o = "out.bin" }\n',
    )
    with (workspace.path / ".gitignore").open("a") as file:
        file.write("/out.bin\n")
    scene.happen()
    scene.modify()
    if not workspace.exists("pipeline.toml") or "max-file" not in workspace.read("pipeline.toml"):
        pytest.skip("the pipeline itself was hit")
    wanted = expected(workspace)
    run = workspace.pipe("build", "--json").json()["run"]
    found = rows(workspace, f"refs/pipe/runs/{run}")
    found.pop(".gitignore")  # a line may have been added to it
    wanted.pop(".gitignore", None)
    assert found == wanted


@pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree"])
def test_hidden_and_rewritten_within_a_second(workspace: Repo, flag: str) -> None:
    """Equal size, equal time as git keeps it: git marks no entry as doubtful that it was told not to look at."""
    workspace.write("a", "old\n")
    os.utime(workspace.path / "a", (1.5e9, 1.5e9))
    workspace.commit()
    workspace.git("update-index", flag, "a")
    before = os.stat(workspace.path / "a").st_ctime
    with (workspace.path / "a").open("r+") as file:
        file.write("new\n")
    os.utime(workspace.path / "a", (1.5e9, 1.5e9))
    if int(os.stat(workspace.path / "a").st_ctime) != int(before):
        workspace.git("config", "core.trustctime", "false")
    workspace.write("b", "b\n")
    workspace.git("add", "b")
    check_state(workspace)


# -- states that random ones do not reach -----------------------------------------------------------------------------


def oracle_by_add(repo: Repo) -> str:
    """Return the tree of `git add -A` in another index: for filters and attributes git itself is the oracle."""
    index = repo.path.parent / "oracle-index"
    source = Path(repo.git("rev-parse", "--path-format=absolute", "--git-path", "index").stdout.strip())
    if source.exists():
        shutil.copy2(source, index)
    env = {"GIT_INDEX_FILE": str(index)}
    repo.git("-c", "core.safecrlf=false", "add", "-A", env=env)
    return repo.git("write-tree", env=env).stdout.strip()


CONVERSIONS = {
    "autocrlf": ({"core.autocrlf": "true"}, ""),
    "autocrlf-input": ({"core.autocrlf": "input"}, "* text=auto\n"),
    "eol": ({"core.eol": "crlf"}, "*.txt text\n*.bat text eol=crlf\n*.sh eol=lf\n"),
    "ident": ({}, "*.txt ident\n"),
    "encoding": ({}, "*.u16 working-tree-encoding=UTF-16 text\n"),
    "filter": ({"filter.up.clean": "tr a-z A-Z"}, "*.txt filter=up\n"),
    "filter-missing": ({}, "*.txt filter=nowhere\n"),
    "filter-fails": ({"filter.bad.clean": "false"}, "*.txt filter=bad\n"),
    "safecrlf": ({"core.autocrlf": "true", "core.safecrlf": "true"}, ""),
}


@pytest.mark.parametrize("name", CONVERSIONS)
def test_conversions_are_gits(workspace: Repo, name: str) -> None:
    """Tracked files, changed and not, and untracked ones, among them one with CRLF that the index holds as it is."""
    settings, attributes = CONVERSIONS[name]
    contents = {
        "crlf.txt": b"a\r\nb\r\n",
        "lf.txt": b"a\nb\n",
        "mixed.txt": b"a\r\nb\n",
        "id.txt": b"$Id$\n",
        "run.sh": b"x\r\n",
        "run.bat": b"x\n",
    }
    contents["wide.u16"] = "größe\n".encode("utf-16")
    for path, data in contents.items():
        workspace.write(f"clean/{path}", data)
        workspace.write(f"changed/{path}", data)
    workspace.commit()
    for key, value in settings.items():
        workspace.git("config", key, value)
    workspace.write(".gitattributes", attributes)
    for path, data in contents.items():
        workspace.write(f"new/{path}", data)
        workspace.write(f"changed/{path}", data + data)
    assert shoot(workspace)[0] == oracle_by_add(workspace)


def test_a_required_filter_that_fails(workspace: Repo) -> None:
    """The file stays as git has it, an untracked one is left out; both are told, and all others are as they are."""
    workspace.write("a.big", "old\n")
    workspace.write("b.txt", "old\n")
    workspace.commit()
    workspace.write(".gitattributes", "*.big filter=lfs\n")
    workspace.git("config", "filter.lfs.clean", "no-such-program %f")
    workspace.git("config", "filter.lfs.required", "true")
    workspace.write("a.big", "newer\n")
    workspace.write("b.txt", "newer\n")
    workspace.write("c.big", "untracked\n")
    workspace.write("d.txt", "untracked\n")
    tree, missing = shoot(workspace)
    found = {path: workspace.git("cat-file", "blob", f"{tree}:{path}").stdout for path in rows(workspace, tree)}
    assert found == {
        ".gitattributes": "*.big filter=lfs\n",
        "a.big": "old\n",
        "b.txt": "newer\n",
        "d.txt": "untracked\n",
    }
    assert missing.keys() == {"a.big", "c.big"}
    assert missing["a.big"].startswith("as git has it: ") and "filter" in missing["c.big"]


def test_a_build_with_a_failing_filter_is_recorded(repo: Repo) -> None:
    """What no stage is given does not stop a build, nor its record."""
    repo.write("pipeline.toml", "[stage.a]\nrun = 'echo 1 > {outputs.o}'\noutputs = { o = 'o.txt' }\n")
    repo.write("a.big", "old\n")
    repo.write(".gitattributes", "*.big filter=lfs\n")
    repo.commit()
    repo.git("config", "filter.lfs.clean", "no-such-program %f")
    repo.git("config", "filter.lfs.required", "true")
    repo.write("a.big", "newer\n")
    done = repo.pipe("build", "--json")
    assert "no snapshot" not in done.stderr
    record = repo.pipe("show", "--json").json()
    assert record["left_out"].keys() == {"a.big"}
    assert repo.git("show", f"refs/pipe/runs/{record['id']}:a.big").stdout == "old\n"


def test_pipes_sockets_and_names_that_git_refuses(workspace: Repo) -> None:
    """A tracked file that became a pipe is gone from the tree; what git takes under no name is named."""
    workspace.write("a", "a\n")
    workspace.write("b", "b\n")
    workspace.commit()
    (workspace.path / "a").unlink()
    os.mkfifo(workspace.path / "a")
    os.mkfifo(workspace.path / "new-pipe")
    workspace.write("git~1", "x\n")
    os.symlink("b", workspace.path / ".gitmodules")
    tree, missing = shoot(workspace)
    assert rows(workspace, tree).keys() == {"b"}
    assert missing.keys() == {"a", "git~1", ".gitmodules"}


def test_a_file_system_monitor_is_not_believed(workspace: Repo) -> None:
    """A hook that says that nothing changed hides nothing from the snapshot, and hooks of the index do not run."""
    workspace.write("a", "old\n")
    hook = workspace.write("../monitor", "#!/bin/sh\nprintf 'token\\0'\n", executable=True)
    workspace.commit()
    workspace.git("config", "core.fsmonitor", str(hook))
    workspace.git("config", "core.fsmonitorHookVersion", "2")
    workspace.git("update-index", "--fsmonitor")
    workspace.git("status")
    workspace.write(".git/hooks/post-index-change", "#!/bin/sh\ntouch $HOME/ran-a-hook\n", executable=True)
    workspace.write("a", "newer\n")
    tree, _missing = shoot(workspace)
    assert workspace.git("cat-file", "blob", f"{tree}:a").stdout == "newer\n"
    assert not (workspace.home / "ran-a-hook").exists()


@pytest.mark.parametrize("cone", ["--cone", "--no-cone", "--sparse-index"])
def test_sparse_checkouts(workspace: Repo, cone: str) -> None:
    for path in ("in/a", "out/b", "out/deep/c", "top"):
        workspace.write(path, path)
    workspace.commit()
    workspace.git("sparse-checkout", "set", *(["--cone", cone] if cone == "--sparse-index" else [cone]), "in")
    assert not workspace.exists("out/deep/c")
    assert shoot(workspace)[0] == workspace.git("rev-parse", "HEAD^{tree}").stdout.strip()
    workspace.write("out/b", "changed\n")
    workspace.write("out/deep/new", "new\n")
    workspace.write("in/a", "changed\n")
    check_state(workspace)


def test_a_partial_clone_fetches_nothing(workspace: Repo) -> None:
    """Blobs that were never checked out stay where they are: the origin may be out of reach."""
    for path in ("in/a", "out/b"):
        workspace.write(path, f"{path}\n" * 20)
    workspace.commit()
    workspace.git("config", "uploadpack.allowFilter", "true")
    address = f"file://{workspace.path}"
    workspace.git("clone", "-q", "--filter=blob:none", "--sparse", address, "../partial")
    partial = type(workspace)(workspace.path.parent / "partial", workspace.home)
    partial.git("sparse-checkout", "set", "in")
    os.rename(workspace.path, workspace.path.parent / "moved")
    os.mkdir(workspace.path)
    partial.write("in/a", "changed\n")
    partial.write("in/new", "new\n")
    partial.git("mv", "in/a", "in/renamed")
    tree, _missing = shoot(partial)
    assert rows(partial, tree).keys() == {"in/new", "in/renamed", "out/b"}
    assert Repository.discover(str(partial.path)).is_dirty()
    commit_tree(Repository.discover(str(partial.path)), tree, partial.git("rev-parse", "HEAD").stdout.strip(), "run\n")


def test_a_shallow_clone(workspace: Repo) -> None:
    for text in ("1\n", "2\n"):
        workspace.write("a", text)
        workspace.commit()
    workspace.git("clone", "-q", "--depth=1", f"file://{workspace.path}", "../shallow")
    shallow = type(workspace)(workspace.path.parent / "shallow", workspace.home)
    shallow.write("a", "3\n")
    check_state(shallow)


def test_a_submodule_that_git_was_told_to_ignore(workspace: Repo, make_repo: Callable[[str], Repo]) -> None:
    """Its commit counts all the same; so does that of one that is new, staged or not."""
    other = make_repo("other")
    other.write("x", "1\n")
    other.commit()
    workspace.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(other.path), "sub")
    workspace.commit()
    workspace.git("config", "submodule.sub.ignore", "all")
    workspace.write("sub/x", "2\n")
    assert shoot(workspace)[1] == {"sub": "a submodule with changes of its own"}
    workspace.git("-C", "sub", "commit", "-qam", "two")
    moved = workspace.git("-C", "sub", "rev-parse", "HEAD").stdout.strip()
    assert rows(workspace, shoot(workspace)[0])["sub"] == ("160000", moved)
    shutil.rmtree(workspace.path / "sub")
    workspace.write("sub", "a file now\n")
    assert rows(workspace, shoot(workspace)[0])["sub"][0] == "100644"


def test_names_that_differ_in_case_alone(workspace: Repo) -> None:
    for path in ("README", "readme", "Dir/a", "dir/a"):
        workspace.write(path, path)
    workspace.git("add", "README", "Dir")
    check_state(workspace)


def test_inside_a_hook_of_a_partial_commit(workspace: Repo) -> None:
    """`git commit FILE` has an index of its own: that one says what is tracked, and stays what it is."""
    workspace.write("a", "1\n")
    workspace.write("pipeline.toml", "[stage.a]\nrun = 'echo 1 > {outputs.o}'\noutputs = { o = 'o.txt' }\n")
    workspace.write(".gitignore", "/o.txt\n")
    workspace.commit()
    workspace.write("a", "2\n")
    workspace.write("new", "n\n")
    hook = workspace.write(
        ".git/hooks/pre-commit", f"#!/bin/sh\nexec {sys.executable} -m pipesmith build\n", executable=True
    )
    workspace.git("commit", "-qm", "part", "a")
    hook.unlink()
    run = workspace.pipe("show", "--json").json()
    assert rows(workspace, f"refs/pipe/runs/{run['id']}").keys() == {".gitignore", "a", "new", "pipeline.toml"}
    assert workspace.git("status", "--porcelain").stdout == "?? new\n?? pipe.lock\n"


def test_declared_data_by_where_it_lies(repo: Repo) -> None:
    """An input that appears elsewhere in the sandbox, and datasets of files in the workspace, whole or by a glob."""
    repo.write(
        "pipeline.toml",
        """
        [dataset.whole]
        from = "raw/"
        [dataset.some]
        from = "mixed/**/*.csv"
        [stage.a]
        run = "cat {inputs.x} > {outputs.o}"
        inputs = { x = { from = "data/x.txt", path = "given/x" }, w = "dataset:whole", s = "dataset:some" }
        outputs = { o = "o.txt" }
        """,
    )
    for path in ("data/x.txt", "given/x", "raw/1", "raw/deep/2", "mixed/a.csv", "mixed/deep/b.csv", "mixed/code.py"):
        repo.write(path, f"{path}\n")
    repo.pipe("build")
    record = repo.pipe("show", "--json").json()
    assert record["left_out"] == dict.fromkeys(["data/x.txt", "raw", "mixed/**/*.csv"], "a data input")
    found = rows(repo, f"refs/pipe/runs/{record['id']}").keys() - {"pipe.lock"}
    assert found == {".gitignore", "given/x", "mixed/code.py", "pipeline.toml"}


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_files_are_not_read_again(workspace: Repo, count: int) -> None:
    """What the index knows to be unchanged is not opened: counted by strace, for all programs that git starts."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    for number in range(count):
        folder = workspace.path / f"d{number // 100}"
        if number % 100 == 0:
            folder.mkdir()
        (folder / f"f{number}").write_text(f"{number}\n")
    workspace.git("add", "-A")
    workspace.git("commit", "-qm", "many")
    for path in workspace.path.glob("d*/f*"):
        os.utime(path, (1e9, 1e9))
    workspace.git("update-index", "-q", "--refresh")
    changed = ["d0/f1", "d4/f400", "new"]
    for path in changed:
        workspace.write(path, "changed!\n")
    log = workspace.path.parent / "opened"
    program = (
        "import sys; from pipesmith.git.repository import Repository; from pipesmith.git.snapshot import write_snapshot;"
        "r = Repository.discover('.'); r.is_dirty();"
        "print(write_snapshot(r, sys.argv[1], left_out={}, max_file_bytes=1000, ignores=lambda p: False)[0])"
    )
    done = subprocess.run(
        ["strace", "-f", "-qq", "-e", "trace=open,openat", "-e", "signal=none", "-o", str(log), sys.executable, "-c", program, str(workspace.pipe_dir / "tmp/i")],
        cwd=workspace.path, env=workspace.env, capture_output=True, text=True,
    )  # fmt: skip
    if "ptrace" in done.stderr.lower():
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    assert len(rows(workspace, done.stdout.strip())) == count + 1
    opened = {
        line.split('"')[1]
        for line in log.read_text().splitlines()
        if '"' in line and "O_DIRECTORY" not in line and "= -1" not in line
    }
    assert {path for path in opened if path.startswith("d") and "/f" in path} | ({"new"} & opened) == set(changed)
