"""Where the changes come from: events, also when they overflow; looking again and again where there are none."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Repo

from pipesmith.watching.by_polling import PollingSource
from pipesmith.watching.change import Change, Kind, Source
from pipesmith.watching.coverage import Coverage
from pipesmith.watching.file_systems import silent_file_system
from pipesmith.watching.lookout import Lookout

from .conftest import Watch, until


def test_polling_sees_what_events_would_tell(pair: Repo, watch: Callable[..., Watch]) -> None:
    w = watch(env={"PIPE_WATCH": "polling"})
    w.until_ready()
    pair.ran()
    w.next(lambda: pair.write("a/a.txt", "aa\n"))
    w.next(lambda: pair.write("a/new.txt", "new\n"))
    assert pair.read("out/a") == "aa\nnew\n"
    pair.write("README.md", "nothing\n")
    w.next(lambda: os.replace(pair.write("elsewhere", "bb\n"), pair.path / "b/b.txt"))
    w.next(lambda: (pair.path / "out/b").unlink())
    w.next(lambda: pair.write("pipeline.toml", "broken"))
    assert pair.ran() == ["a", "a", "b"]
    assert len(w.documents) == 6
    assert w.end() == 130


def test_a_branch_switch_is_one_build_for_polling_too(pair: Repo, watch: Callable[..., Watch]) -> None:
    pair.git("checkout", "-q", "-b", "other")
    for number in range(50):
        pair.write(f"a/{number}.txt", "x\n")
    pair.commit()
    pair.git("checkout", "-q", "main")
    w = watch(env={"PIPE_WATCH": "polling"})
    w.until_ready()
    pair.ran()
    w.next(lambda: pair.git("checkout", "-q", "other"))
    assert pair.ran() == ["a"]


def _with_limit(name: str, limit: int) -> list[str] | None:
    """Return words before a command that set a limit of the user's for it, None where that can't be done here."""
    if shutil.which("unshare") is None:
        return None
    words = [
        "unshare",
        "--user",
        "--map-root-user",
        "sh",
        "-c",
        f'echo {limit} > /proc/sys/user/{name} && exec "$@"',
        "-",
    ]
    return words if subprocess.run([*words, "true"], capture_output=True).returncode == 0 else None


@pytest.mark.parametrize(
    ("name", "limit", "text"),
    [
        ("max_inotify_watches", 2, "too few inotify watches (fs.inotify.max_user_watches is "),
        ("max_inotify_instances", 0, "too many watchers (fs.inotify.max_user_instances is "),
    ],
)
def test_too_few_watches(
    pair: Repo, watch: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch, name: str, limit: int, text: str
) -> None:
    words = _with_limit(name, limit)
    if words is None:
        pytest.skip("no user namespaces here")
    real = subprocess.Popen

    def limited(args: list[str], **more: object) -> subprocess.Popen[str]:
        return real([*words, *args] if "watch" in args else args, **more)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(subprocess, "Popen", limited)
    w = watch()
    monkeypatch.undo()
    w.until_ready()
    assert text in w.text and "looking once a second instead" in w.text
    assert "help: `sudo sysctl fs.inotify." in w.text
    pair.ran()
    w.next(lambda: pair.write("a/a.txt", "aa\n"))
    assert pair.ran() == ["a"]
    assert w.text.count("looking once a second") == 1


def test_watches_that_run_out_later(pair: Repo, watch: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders of today fit, those that are made do not."""
    words = _with_limit("max_inotify_watches", 12)
    if words is None:
        pytest.skip("no user namespaces here")
    pair.write("pipeline.toml", pair.read("pipeline.toml").replace("cat a/*", "find a -type f | sort | xargs cat"))
    real = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda args, **more: real([*words, *args] if "watch" in args else args, **more)
    )
    w = watch()
    monkeypatch.undo()
    w.until_ready()
    assert "inotify" not in w.text

    def many() -> None:
        for number in range(20):
            pair.write(f"a/{number:02}/x.txt", f"{number}\n")

    w.next(many)
    w.until_said("too few inotify watches")
    w.until(lambda: "19\n" in pair.read("out/a"), "all of them")
    pair.write("a/19/x.txt", "last\n")
    w.until(lambda: "last\n" in pair.read("out/a"), "what no event tells of")


def test_a_queue_that_overflows_loses_nothing(pair: Repo, watch: Callable[..., Watch]) -> None:
    """The process is stopped while far more happens than the kernel keeps."""
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if most > 100_000:
        pytest.skip("the queue is too long to be filled here")
    pair.write("pipeline.toml", pair.read("pipeline.toml").replace("cat b/*", "find b -type f | sort | xargs cat"))
    w = watch()
    w.until_ready()
    pair.ran()
    w.process.send_signal(signal.SIGSTOP)
    for number in range(most // 2):  # each is two events and more
        with open(pair.path / f"a/{number % 50}.log", "w") as file:
            file.write("x")
    pair.write("b/deep/new.txt", "new\n")
    w.next(lambda: w.process.send_signal(signal.SIGCONT))
    assert pair.ran() == ["b"]
    assert pair.read("out/b") == "b\nnew\n"
    w.next(lambda: pair.write("b/deep/new.txt", "newer\n"))  # a folder that no event told of
    assert pair.read("out/b") == "b\nnewer\n"
    w.next(lambda: pair.write("a/a.txt", "aa\n"))
    assert "overflow" not in w.text


def test_on_a_terminal(pair: Repo) -> None:
    """A line that stands while it waits, the lines of the builds above it; Ctrl-C ends it."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pipesmith", "watch"],
        cwd=pair.path,
        env={**{k: v for k, v in pair.env.items() if k != "NO_COLOR"}, "TERM": "xterm", "COLUMNS": "100"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=lambda: (os.setsid(), __import__("fcntl").ioctl(0, 0x540E, 0)),  # type: ignore[arg-type, return-value]
    )
    os.close(theirs)
    seen = bytearray()

    def read() -> None:
        while select.select([ours], [], [], 0.01)[0]:
            try:
                seen.extend(os.read(ours, 65536))
            except OSError:
                return

    def said(text: bytes) -> Callable[[], bool]:
        return lambda: (read(), text in seen)[1]

    try:
        until(said(b"waiting for changes"), "that it waits")
        seen.clear()
        pair.write("a/a.txt", "aa\n")
        until(said(b"`a/a.txt` changed"), "what woke it")
        until(said(b"waiting for changes"), "that it waits again")
        os.write(ours, b"\x03")
        until(lambda: (read(), process.poll() is not None)[1], "its end")
        read()
        assert process.returncode == 130
        assert b"Traceback" not in seen
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_plain_lines_where_there_is_no_terminal(pair: Repo) -> None:
    process = pair.start("watch")
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if line.startswith("waiting"):
                break
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert lines[:2] == ["run a: never built", "run b: never built"]
        assert lines[-2].startswith("succeeded: 2 ran in ")
        assert lines[-1] == "waiting for changes"
        assert process.stderr is not None and process.stderr.read() == ""
    finally:
        process.kill()


# -- the room itself --------------------------------------------------------------------------------------------------


@pytest.fixture(params=["events", "polling"])
def make_source(request: pytest.FixtureRequest) -> Callable[[Callable[[Change], None]], Source]:
    if request.param == "polling":
        return PollingSource
    from pipesmith.watching.by_events import EventSource

    return EventSource


def test_a_source_tells_of_every_kind_of_change(
    tmp_path: Path, make_source: Callable[[Callable[[Change], None]], Source]
) -> None:
    told: list[Change] = []
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "in/deep/file").write_text("1")
    (tmp_path / "in/skip").mkdir()
    (tmp_path / "in/.git").mkdir()
    root = str(tmp_path)
    source = make_source(told.append)
    coverage = Coverage(
        root=root,
        exact=frozenset({f"{root}/exact"}),
        listed=frozenset({f"{root}/in"}),
        whole=frozenset({f"{root}/later/whole"}),
        skipped=frozenset({f"{root}/in/skip"}),
    )
    source.cover(coverage)

    def tells(path: str, kind: Kind, change: Callable[[], object]) -> None:
        told.clear()
        change()
        until(lambda: any(each.path == f"{root}/{path}" and each.kind is kind for each in told), f"{path} {kind}")

    try:
        tells("in/deep/file", Kind.WRITTEN, lambda: (tmp_path / "in/deep/file").write_text("22"))
        tells("in/deep/file", Kind.GONE, (tmp_path / "in/deep/file").unlink)
        tells("exact", Kind.WRITTEN, lambda: (tmp_path / "exact").write_text("1"))
        tells("in/new", Kind.WRITTEN, (tmp_path / "in/new").mkdir)
        tells("in/new/er", Kind.WRITTEN, (tmp_path / "in/new/er").mkdir)
        tells("in/new/er/file", Kind.WRITTEN, lambda: (tmp_path / "in/new/er/file").write_text("1"))
        tells("in/moved", Kind.WRITTEN, lambda: (tmp_path / "in/new").rename(tmp_path / "in/moved"))
        tells("in/moved/er/file", Kind.WRITTEN, lambda: (tmp_path / "in/moved/er/file").write_text("22"))
        tells("later", Kind.WRITTEN, lambda: (tmp_path / "later/whole/deep").mkdir(parents=True))
        until(  # a folder is watched a moment after it was made
            lambda: (
                (tmp_path / "later/whole/deep/x").write_text("1")
                and f"{root}/later/whole/deep/x" in {each.path for each in told}
            ),
            "what lies in a folder that was made with those above it",
        )
        until(lambda: (time.sleep(0.2), told.clear(), time.sleep(1.5), not told)[3], "silence")
        (tmp_path / "in/skip/x").write_text("1")
        (tmp_path / "in/.git/x").write_text("1")
        (tmp_path / "nobody's").write_text("1")
        tells("exact", Kind.WRITTEN, lambda: (tmp_path / "exact").write_text("22"))
        assert {each.path for each in told} == {f"{root}/exact"}
    finally:
        source.close()


def test_a_coverage_that_grows_hides_no_change(
    tmp_path: Path, make_source: Callable[[Callable[[Change], None]], Source]
) -> None:
    told: list[Change] = []
    root = str(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("1")
    source = make_source(told.append)
    try:
        source.cover(Coverage(root=root, listed=frozenset({f"{root}/one"})))
        (tmp_path / "one/x").write_text("22")
        source.cover(Coverage(root=root, listed=frozenset({f"{root}/one", f"{root}/two"})))
        until(lambda: any(each.path == f"{root}/one/x" for each in told), "the change before")
        assert not any(each.path.startswith(f"{root}/two") for each in told)
        (tmp_path / "two/x").write_text("22")
        until(lambda: any(each.path == f"{root}/two/x" for each in told), "the change after")
    finally:
        source.close()


@pytest.mark.parametrize(
    ("rows", "path", "expected"),
    [
        (["22 1 0:1 / / rw - ext4 /dev/sda rw"], "/far/x", None),
        (["22 1 0:1 / / rw - ext4 /dev/sda rw", "23 22 0:2 / /far rw shared:1 - nfs4 host:/x rw"], "/far/x", "nfs4"),
        (["22 1 0:1 / / rw - 9p none rw", "23 22 0:2 / /far rw - tmpfs none rw"], "/far/x", None),
        (["22 1 0:1 / / rw - ext4 d rw", "23 22 0:2 / /wor\\040k rw - fuse.sshfs h: rw"], "/wor k/x", "fuse.sshfs"),
        (["22 1 0:1 / / rw - ext4 d rw", "23 22 0:2 / /w rw - fuseblk h: rw"], "/w/x", None),
        (["22 1 0:1 / / rw - ext4 d rw", "23 22 0:2 / /far rw - nfs h: rw"], "/farshop/x", None),
        (["22 1 0:1 / / rw - ext4 d rw", "23 22 0:2 / /w rw - nfs h rw", "24 23 0:3 / /w rw - xfs h rw"], "/w/x", None),
        (["nonsense", ""], "/w/x", None),
    ],
)
def test_file_systems_that_tell_nothing(tmp_path: Path, rows: list[str], path: str, expected: str | None) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text("\n".join(rows) + "\n")
    assert silent_file_system(path, str(mounts)) == expected
    assert silent_file_system(path, str(tmp_path / "nowhere")) is None


def test_a_silent_file_system_is_polled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipesmith.watching.lookout.silent_file_system", lambda path: "nfs4")
    told: list[Change] = []
    notices: list[str] = []
    lookout = Lookout(told.append, lambda text, help: notices.append(text))
    lookout.cover(Coverage(root=str(tmp_path), exact=frozenset({f"{tmp_path}/x"})))
    (tmp_path / "x").write_text("1")
    until(lambda: told, "a change")
    lookout.close()
    assert notices == ["the file system here (nfs4) does not tell of changes: looking once a second"]
    assert not lookout.by_events


def test_nothing_that_is_started_inherits_the_events(pair: Repo, watch: Callable[..., Watch]) -> None:
    """A stage, or git, that held the queue open would keep the kernel filling it."""
    w = watch("a")
    w.until_ready()
    pair.write(
        "pipeline.toml",
        pair.read("pipeline.toml").replace("cat a/*", "ls -l /proc/self/fd /proc/$PPID/fd > $HOME/fds 2>&1; cat a/*"),
    )
    w.until(lambda: len(w.documents) == 2, "the second build")
    assert "inotify" not in (pair.home / "fds").read_text()
