"""What a job sees and may change. Every test holds for both kinds of sandbox, as root and as an ordinary user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pipesmith
from pipesmith.executors.base import Mount

from .conftest import Box, quoted


def test_sees_source_and_inputs_and_nothing_else(box: Box) -> None:
    """Only what was declared is in the sandbox; it is at its own place, `cwd` is the workspace."""
    box.write("src/train.py", "print(1)\n")
    box.write("data/a.csv", "1,2\n")
    box.write("secret.txt", "x")
    result = box.run("find . | sort", mounts=(*box.source("src/train.py"), *box.inputs("data")), folders=("src",))
    assert result.ok
    assert box.text() == [".", "./data", "./data/a.csv", "./src", "./src/train.py"]


def test_the_workspace_has_its_own_path(private_box: Box) -> None:
    """With namespaces the sandbox lies over the workspace's own path."""
    private_box.run("pwd -P")
    assert private_box.text() == [str(private_box.workspace)]


def test_undeclared_file_is_not_there_by_absolute_path(private_box: Box) -> None:
    secret = private_box.write("secret.txt", "x")
    result = private_box.run(f"cat {quoted(secret)}")
    assert result.exit_code == 1
    assert "No such file" in private_box.text("stderr")[0]


def test_git_folder_is_not_there(private_box: Box) -> None:
    private_box.write(".git/HEAD", "ref: refs/heads/main\n")
    result = private_box.run(f"ls -d {quoted(private_box.workspace)}/.git; ls -A")
    assert private_box.text() == []
    assert result.exit_code == 0


def test_hidden_folder_outside_the_workspace_is_empty(private_box: Box) -> None:
    """The git folder of a monorepo or linked worktree lies outside the workspace: it appears empty, and stays so."""
    git = private_box.folder / "home" / "outer.git"
    git.mkdir()
    (git / "HEAD").write_text("x")
    result = private_box.run(f"ls -A {quoted(git)}; echo y > {quoted(git)}/new", hidden=(str(git),))
    assert result.exit_code != 0
    assert private_box.text() == []
    assert os.listdir(git) == ["HEAD"]


def test_the_pipe_folder_is_hidden_wherever_it_is(private_box: Box) -> None:
    """A repository whose git folder is elsewhere: its objects are not to be had though nobody listed it as hidden."""
    from pipesmith.executors.local import LocalExecutor

    elsewhere = private_box.folder / "elsewhere" / "pipe"
    elsewhere.mkdir(parents=True)
    (elsewhere / "state.db").write_text("x")
    executor = LocalExecutor(str(elsewhere), "namespaces")
    try:
        result = executor.submit(private_box.job(f"ls -A {quoted(elsewhere)}"), private_box.note).wait()
    finally:
        executor.close()
    assert result.ok
    assert private_box.text() == []


def test_outputs_lie_in_the_root_of_the_result(box: Box) -> None:
    """The folder of an output is there, the output is not, and the workspace has it not either afterwards."""
    result = box.run("test ! -e out/deep/model && echo m > out/deep/model", outputs=("out/deep/model",))
    assert result.ok
    assert (Path(result.root) / "out/deep/model").read_text() == "m\n"
    assert not (box.workspace / "out").exists()


def test_old_output_in_a_source_folder_is_not_given(box: Box) -> None:
    box.write("src/a.py", "")
    box.write("src/made", "old")
    result = box.run(
        "test ! -e src/made && echo new > src/made", mounts=box.source("src/a.py", "src/made"), outputs=("src/made",)
    )
    assert result.ok, box.lines
    assert (box.workspace / "src/made").read_text() == "old"
    assert (Path(result.root) / "src/made").read_text() == "new\n"


def test_source_is_a_private_copy(box: Box) -> None:
    """A job may scribble on its source; the workspace's stays."""
    place = box.write("src/a.py", "old\n")
    result = box.run("echo new > src/a.py; rm -f src/a.py; touch src/b.py", mounts=box.source("src/a.py"))
    assert result.ok
    assert place.read_text() == "old\n"
    assert os.listdir(place.parent) == ["a.py"]


@pytest.mark.parametrize(
    "attack",
    [
        "echo x > data/a.csv",
        "echo x >> data/a.csv",
        "rm -f data/a.csv",
        "touch data/new",
        "chmod 777 data/a.csv",
        "mv data data2",
        "chmod u+w data data/a.csv && echo x > data/a.csv",
        "python3 -c \"import os; os.truncate('data/a.csv', 0)\"",
    ],
)
def test_writing_to_an_input_changes_nothing_and_is_told(box: Box, attack: str) -> None:
    """The workspace's input stays; the job does not pass as a success, whether the write failed or hit a copy."""
    place = box.write("data/a.csv", "1\n")
    place.parent.chmod(0o755)
    result = box.run(attack, mounts=box.inputs("data"))
    assert not result.ok
    assert place.read_text() == "1\n"
    assert os.listdir(place.parent) == ["a.csv"]
    assert place.stat().st_mode & 0o777 == 0o644
    assert place.stat().st_nlink == 1


def test_writing_to_an_input_file_changes_nothing(box: Box) -> None:
    place = box.write("table.csv", "1\n")
    result = box.run("chmod u+w table.csv; echo 2 > table.csv", mounts=box.inputs("table.csv"))
    assert not result.ok
    assert place.read_text() == "1\n"


def test_workspace_can_not_be_written_by_absolute_path(box: Box) -> None:
    """Neither a file that was given nor one that was not, nor a new one."""
    if box.mode == "copies" and not box.executor.probe().landlock:
        pytest.skip("no Landlock here")
    given, other = box.write("src/a.py", "old\n"), box.write("other.txt", "old\n")
    box.run(
        f"echo new > {quoted(given)}; echo new > {quoted(other)}; rm -rf {quoted(box.workspace)}/other.txt;"
        f" echo new > {quoted(box.workspace)}/made; mkdir {quoted(box.pipe_dir)}/cache",
        mounts=box.source("src/a.py"),
    )
    assert given.read_text() == "old\n"
    assert other.read_text() == "old\n"
    assert not (box.workspace / "made").exists()
    assert not (box.pipe_dir / "cache").exists()


UNDO = [
    "umount {ws}",
    "umount -l {ws}",
    "umount {ws}/data",
    "mount -o remount,rw,bind {ws}/data",
    "mount -o remount,rw {ws}/data",
    "mount --bind /tmp {ws}/data",
    "nsenter -t 1 -m sh -c 'echo x > {ws}/data/a.csv'",
    "unshare -m umount {ws}",
    "unshare -Urm sh -c 'umount -l {ws}; echo x > {ws}/data/a.csv; echo x > {ws}/other.txt'",
    "unshare -Urm sh -c 'mount -o remount,rw,bind {ws}/data && echo x > {ws}/data/a.csv'",
    "unshare -Urm sh -c 'mkdir -p $TMPDIR/m; mount --bind {parent} $TMPDIR/m; echo x > $TMPDIR/m/project/other.txt'",
    "unshare -Urm sh -c 'cd $TMPDIR; mkdir m; mount --rbind {parent} m; umount m/project; echo x >m/project/other.txt'",
    # Not by way of other stages' processes, which a stage without a pid namespace can reach: docs/sandbox.md.
    'own=$(grep CapEff /proc/self/status); for p in /proc/[0-9]*; do [ "$(grep CapEff $p/status)" = "$own" ] || '
    "{{ echo x > $p/root{ws}/other.txt; echo x > $p/cwd/other.txt; }}; done",
    'own=$(grep CapEff /proc/self/status); for p in /proc/[0-9]*; do [ "$(grep CapEff $p/status)" = "$own" ] || '
    "for f in $p/fd/*; do echo x > $f/other.txt; echo x > $f/../other.txt; done; done",
    "chroot / sh -c 'echo x > {ws}/data/a.csv'",
    "cd ..; echo x > project/other.txt; cd {parent}/project; echo x > other.txt",
    "ln -s {ws} l; echo x > l/other.txt; ln {ws}/data/a.csv h; echo x > h",
]


@pytest.mark.parametrize("attack", UNDO)
def test_the_view_can_not_be_undone(private_box: Box, attack: str) -> None:
    """Not even by root, nor in namespaces of its own: the workspace stays as it is."""
    data, other = private_box.write("data/a.csv", "old\n"), private_box.write("other.txt", "old\n")
    outer = private_box.folder / "home"
    command = attack.format(ws=quoted(private_box.workspace), parent=quoted(outer))
    private_box.run(f"({command}) 2>/dev/null; cat data/a.csv", mounts=private_box.inputs("data"))
    assert private_box.text()[-1:] == ["old"]
    assert data.read_text() == "old\n"
    assert other.read_text() == "old\n"


def test_root_can_not_open_by_handle(private_box: Box) -> None:
    """open_by_handle_at would reach files that no path leads to."""
    other = private_box.write("other.txt", "old\n")
    code = f"""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
inode = ({other.stat().st_ino}).to_bytes(4, "little")
handle = ctypes.create_string_buffer(b"\\x08\\0\\0\\0\\x01\\0\\0\\0" + inode + bytes(99))
mount = os.open("/", os.O_RDONLY)
fd = libc.open_by_handle_at(mount, handle, os.O_RDWR)
print(fd, os.strerror(ctypes.get_errno()))
"""
    private_box.python(code)
    assert private_box.text() == ["-1 Operation not permitted"]


def test_stage_keeps_uid_and_home(box: Box) -> None:
    box.run("id -u; id -g")
    assert box.text() == [str(os.getuid()), str(os.getgid())]


def test_outside_the_workspace_is_writable(private_box: Box) -> None:
    """HOME's caches and all else are as the user has them."""
    result = private_box.run(
        f"echo x > {quoted(private_box.folder)}/outside && cat {quoted(private_box.folder)}/outside"
    )
    assert result.ok
    assert (private_box.folder / "outside").read_text() == "x\n"


def test_tmpdir_is_writable(box: Box) -> None:
    result = box.run('echo x > "$TMPDIR/t" && mkdir "$TMPDIR/d" && mv "$TMPDIR/t" "$TMPDIR/d/t" && cat "$TMPDIR/d/t"')
    assert result.ok, box.lines
    assert box.text() == ["x"]


def test_devices_are_there(box: Box) -> None:
    result = box.run("echo x > /dev/null && head -c 4 /dev/urandom | wc -c && cat; test -e /dev/stdin")
    assert result.ok, box.lines
    assert box.text() == ["4"]


def test_cwd(box: Box) -> None:
    box.write("sub/dir/f", "x\n")
    result = box.run(
        "cat f; basename $PWD; echo o > ../o", mounts=box.inputs("sub/dir/f"), folders=("sub/dir",), cwd="sub/dir"
    )
    assert result.ok
    assert box.text() == ["x", "dir"]


def test_missing_cwd_is_told(box: Box) -> None:
    result = box.run("true", cwd="nowhere")
    assert result.problem is not None
    assert result.problem.startswith("it can't run in the folder") and "nowhere`: No such file" in result.problem


def test_executable_bit_links_and_empty_folders(box: Box) -> None:
    """In copies of source and in inputs alike."""
    for folder in ("src", "data"):
        box.write(f"{folder}/tool", "#!/bin/sh\necho ran\n", executable=True)
        box.write(f"{folder}/plain", "")
        (box.workspace / folder / "link").symlink_to("tool")
        (box.workspace / folder / "empty").mkdir()
    result = box.run(
        "for d in src data; do $d/tool; test ! -x $d/plain && readlink $d/link && test -d $d/empty; ls $d/empty; done",
        mounts=(*box.source("src/tool", "src/plain", "src/link", "src/empty"), *box.inputs("data")),
    )
    assert result.ok, box.lines
    assert box.text() == ["ran", "tool", "ran", "tool"]


def test_input_that_is_a_link_is_a_link(box: Box) -> None:
    box.write("real", "x\n")
    (box.workspace / "link").symlink_to("real")
    result = box.run("readlink link; cat link", mounts=box.inputs("real", "link"))
    assert result.ok
    assert box.text() == ["real", "x"]


def test_file_times_are_kept(box: Box) -> None:
    for path in ("a", "b"):
        os.utime(box.write(path, "x"), (1_000_000_000, 1_000_000_000))
    box.run("stat -c %Y a b", mounts=(*box.source("a"), *box.inputs("b")))
    assert box.text() == ["1000000000"] * 2


ODD = [
    "with space",
    "quote'\"",
    "new\nline",
    "back\\slash",
    "tab\t",
    "-dash",
    "ümlaut",
    os.fsdecode(b"bytes\xff\xfe"),
    "dollar$x",
]


@pytest.mark.parametrize("name", ODD)
def test_odd_names(box: Box, name: str) -> None:
    """Names are bytes; all that a file system takes will do, for source, inputs and outputs."""
    box.write(f"in {name}/{name}", "x\n")
    box.write(f"src/{name}", "y\n")
    argv = ["/bin/sh", "-c", 'cat "$1" "$2" > "$3"', "sh", f"./in {name}/{name}", f"src/{name}", f"out {name}/{name}"]
    result = box.run(
        argv, mounts=(*box.source(f"src/{name}"), *box.inputs(f"in {name}")), outputs=(f"out {name}/{name}",)
    )
    assert result.ok, (result, box.lines)
    assert (Path(result.root) / f"out {name}/{name}").read_text() == "x\ny\n"


def test_deep_paths(box: Box) -> None:
    deep = "/".join(["d" * 100] * 15)
    box.write(f"{deep}/f", "x\n")
    result = box.run(f"cat {deep}/f > {deep}/o", mounts=box.source(f"{deep}/f"), outputs=(f"{deep}/o",))
    assert result.ok, box.lines


def test_input_lies_in_a_folder_that_is_an_input(box: Box) -> None:
    """A later mount lies over an earlier one, also where the earlier one has no place for it."""
    box.write("data/a", "a\n")
    box.write("data/sub/b", "b\n")
    box.write("elsewhere/c", "c\n")
    more = Mount(origin=str(box.workspace / "elsewhere"), path="data/sub/new")
    result = box.run("cat data/a data/sub/b data/sub/new/c; find data | sort", mounts=(*box.inputs("data"), more))
    assert result.ok, (result, box.lines)
    assert box.text() == ["a", "b", "c", "data", "data/a", "data/sub", "data/sub/b", "data/sub/new", "data/sub/new/c"]
    assert not (box.workspace / "data/sub/new").exists()


def test_output_lies_in_a_folder_that_is_an_input(box: Box) -> None:
    box.write("data/a", "a\n")
    box.write("data/out", "old\n")
    result = box.run("test ! -e data/out; cat data/a > data/out", mounts=box.inputs("data"), outputs=("data/out",))
    assert result.ok, (result, box.lines)
    assert (Path(result.root) / "data/out").read_text() == "a\n"
    assert (box.workspace / "data/out").read_text() == "old\n"


def test_source_lies_in_a_folder_that_is_an_input(box: Box) -> None:
    """Listed after the input, the source file is a private copy among read-only things."""
    box.write("data/a", "a\n")
    box.write("data/prep.py", "p\n")
    result = box.run("echo x > data/prep.py; cat data/a", mounts=(*box.inputs("data"), *box.source("data/prep.py")))
    assert result.ok, (result, box.lines)
    assert (box.workspace / "data/prep.py").read_text() == "p\n"


def test_same_path_twice_the_later_counts(box: Box) -> None:
    box.write("one", "1\n")
    box.write("two", "2\n")
    places = [str(box.workspace / name) for name in ("one", "two")]
    result = box.run("cat x", mounts=tuple(Mount(origin=place, path="x") for place in places))
    assert result.ok
    assert box.text() == ["2"]


def test_link_on_the_way_does_not_lead_out(box: Box) -> None:
    """A link in the source must not make pipe write where it points."""
    outside = box.folder / "outside"
    outside.mkdir()
    (box.workspace / "lib").symlink_to(outside)
    box.write("x", "x\n")
    result = box.run(
        "true", mounts=(*box.source("lib"), Mount(origin=str(box.workspace / "x"), path="lib/x", copy=True))
    )
    assert result.problem is not None and "`lib` is a symbolic link" in result.problem
    assert os.listdir(outside) == []


@pytest.mark.parametrize("path", ["../x", "a/../../x", ".."])
def test_path_that_leads_out_is_refused(box: Box, path: str) -> None:
    box.write("x", "x\n")
    result = box.run("true", mounts=(Mount(origin=str(box.workspace / "x"), path=path, copy=True),))
    assert result.problem is not None and "leads out" in result.problem


def test_output_that_holds_an_input_is_refused(box: Box) -> None:
    box.write("data/raw/a", "")
    result = box.run("true", mounts=box.inputs("data/raw"), outputs=("data",))
    assert result.problem == "output `data` would hold input `data/raw`"


def test_missing_input_is_told(box: Box) -> None:
    result = box.run("true", mounts=box.inputs("nowhere"))
    assert result.problem is not None and "nowhere" in result.problem and "No such file" in result.problem


def test_visible_folder_at_its_own_place(box: Box) -> None:
    """An environment inside the workspace works by absolute and by relative path, and stays as it is."""
    tool = box.write(".venv/bin/tool", "#!/bin/sh\necho ran\n", executable=True)
    box.run(
        f"{quoted(tool)}; .venv/bin/tool; echo x > .venv/new; echo x > {quoted(tool)}",
        visible=(str(box.workspace / ".venv"), str(box.workspace / ".venv/bin")),
    )
    assert box.text() == ["ran", "ran"]
    if box.mode == "namespaces" or box.executor.probe().landlock:
        assert os.listdir(box.workspace / ".venv") == ["bin"]
        assert "echo ran" in tool.read_text()


def test_writable_mount_outside(box: Box) -> None:
    """A folder that outlives the job (checkpoints) at a place in TMPDIR: what is written there is there afterwards."""
    kept = box.pipe_dir / "keep" / "s"
    kept.mkdir(parents=True)
    (kept / "old").write_text("1\n")
    job = box.job('cat "$TMPDIR/keep/old" && echo 2 > "$TMPDIR/keep/new"')
    from dataclasses import replace

    mount = Mount(origin=str(kept), path=f"{job.tmpdir}/keep", writable=True)
    for sandboxed in (True, False):
        again = replace(job, sandboxed=sandboxed, layout=replace(job.layout, mounts=(mount,)))
        result = box.executor.submit(again, box.note).wait()
        assert result.ok, (result, box.lines)
        assert (kept / "new").read_text() == "2\n"
        (kept / "new").unlink()
        shutil.rmtree(job.scratch)
        os.mkdir(job.scratch)
        place = Path(job.tmpdir, "keep")
        place.rmdir() if place.is_dir() and not place.is_symlink() else place.unlink()


def test_without_a_sandbox_it_runs_in_the_workspace(box: Box) -> None:
    box.write("other.txt", "x\n")
    result = box.run("cat other.txt; echo y > made", sandboxed=False)
    assert result.ok
    assert result.root == str(box.workspace)
    assert (box.workspace / "made").read_text() == "y\n"


def test_the_sandbox_can_be_removed_afterwards(box: Box) -> None:
    box.write("data/sub/a", "x")
    result = box.run("true", mounts=box.inputs("data"))
    shutil.rmtree(Path(result.root).parent)
    assert (box.workspace / "data/sub/a").read_text() == "x"


def test_a_folder_of_many_files_costs_one_mount(private_box: Box) -> None:
    many = private_box.workspace / "many"
    many.mkdir()
    for number in range(2000):
        (many / str(number)).touch()
    result = private_box.run("wc -l < /proc/self/mountinfo; ls many | wc -l", mounts=private_box.inputs("many"))
    mounts, files = map(int, private_box.text())
    with open("/proc/self/mountinfo") as file:
        assert mounts < len(file.readlines()) + 200  # others mount and unmount meanwhile
    assert result.ok and files == 2000


def test_mounts_do_not_reach_the_machine(private_box: Box) -> None:
    """What was mounted for a job is gone with it, and was never seen outside."""
    private_box.write("data/a", "x")
    private_box.run("true", mounts=private_box.inputs("data"))
    with open("/proc/self/mountinfo") as file:
        assert str(private_box.folder) not in file.read()


def test_other_processes_are_not_seen(private_box: Box) -> None:
    if not private_box.executor.probe().pid:
        pytest.skip("no pid namespace here")
    private_box.run(f"ls -d /proc/[0-9]* | wc -l; kill -0 {os.getpid()}; echo $?")
    count, code = private_box.text()
    assert int(count) < 8
    assert code != "0"


def test_asking_for_what_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PIPE_SANDBOX=namespaces on a machine without: a problem, never a silent fallback."""
    box = Box(tmp_path, "namespaces")
    from pipesmith.executors.probe import Probe

    monkeypatch.setattr(
        box.executor, "probe", lambda: Probe(mode="copies", why="no namespaces: clone: Operation not permitted")
    )
    try:
        result = box.run("true")
    finally:
        box.executor.close()
    assert result.problem == "this machine offers no namespaces: clone: Operation not permitted"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
def test_all_of_it_as_an_ordinary_user(tmp_path: Path) -> None:
    """The tests of sandboxes and of how jobs in them end, run by `nobody`."""
    engine = Path(pipesmith.__file__).parent.parent
    here = Path(__file__).parent
    home = Path("/tmp") / f"pipesmith-nobody-{os.getpid()}"
    home.mkdir(mode=0o755)
    try:
        shutil.copytree(engine, home / "engine", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(here, home / "tests", ignore=shutil.ignore_patterns("__pycache__"))
        subprocess.run(["chown", "-R", "65534:65534", str(home)], check=True)
        become = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "env"]
        packages = [path for path in sys.path if path.endswith("site-packages")]
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "PYTHONPATH": os.pathsep.join([str(home / "engine"), *packages]),
        }
        for python in (sys.executable, "/usr/bin/python3"):
            ready = [*become, python, "-c", "import pytest, pipesmith.executors.local"]
            if subprocess.run(ready, env=env, cwd=home, capture_output=True).returncode == 0:
                break
        else:
            pytest.skip("no Python here that `nobody` may run")
        done = subprocess.run(
            [
                *become,
                python,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                f"--basetemp={home}/base",
                "-k",
                "(sandbox or cancel) and not pids",
                "tests",
            ],
            env=env,
            cwd=home,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    finally:
        shutil.rmtree(home, ignore_errors=True)
