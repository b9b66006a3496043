"""Output on its way: whole in the log, masked everywhere, bounded for listeners."""

from __future__ import annotations

import itertools
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipesmith.executors.output import JobOutput, Masker, usable_secrets

from .conftest import Box

Lines = list[tuple[str, str]]


class Recorded:
    """A JobOutput with a log and a listener."""

    def __init__(self, path: Path, secrets: tuple[str, ...] = ()) -> None:
        self.path = path
        self.lines: Lines = []
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.output = JobOutput(self.fd, secrets, lambda stream, text: self.lines.append((stream, text)))

    def texts(self) -> list[str]:
        return [text for _stream, text in self.lines]


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Callable[..., Recorded]]:
    made: list[Recorded] = []

    def make(*secrets: str) -> Recorded:
        made.append(Recorded(tmp_path / f"log-{len(made)}", secrets))
        return made[-1]

    yield make
    for each in made:
        os.close(each.fd)


def masked(secrets: list[str], *pieces: bytes) -> bytes:
    masker = Masker(usable_secrets(secrets))
    return b"".join(masker.feed(piece) for piece in pieces) + masker.end()


# -- secrets -----------------------------------------------------------------------------------------------


def test_secret_in_one_piece() -> None:
    assert masked(["hunter22"], b"a hunter22 b hunter22") == b"a *** b ***"


@given(st.integers(0, 16), st.integers(0, 16))
def test_secret_in_pieces(first: int, second: int) -> None:
    """Wherever the pieces part."""
    text = b"xx hunter22-a yy"
    low, high = sorted((first, second))
    assert masked(["hunter22-a"], text[:low], text[low:high], text[high:]) == b"xx *** yy"


@given(
    st.lists(st.text("ab", min_size=6, max_size=9), min_size=1, max_size=3),
    st.text("abc", max_size=60),
    st.lists(st.integers(0, 60), max_size=4),
)
def test_pieces_do_not_matter(secrets: list[str], text: str, cuts: list[int]) -> None:
    """Law: however a text is cut, what comes out holds no secret, and is what comes out of it whole."""
    data = text.encode()
    points = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    pieces = [data[low:high] for low, high in itertools.pairwise(points)]
    shown = masked(secrets, *pieces)
    assert shown == masked(secrets, data)
    assert not any(secret.encode() in shown for secret in secrets)


def test_beginning_of_a_secret_is_shown_in_the_end() -> None:
    assert masked(["hunter22"], b"hunt") == b"hunt"
    assert masked(["hunter22"], b"hunt", b"ing") == b"hunting"


def test_the_longer_secret_wins() -> None:
    """One secret is the beginning of another: nothing of the longer one is left."""
    assert masked(["hunter22", "hunter22-and-more"], b"hunter22", b"-and-more.") == b"***."


def test_each_line_of_a_secret_is_masked() -> None:
    """Short ones too, but for what is everywhere."""
    key = "-----BEGIN KEY-----\nabcdefgh\r\nQw==\n}\n-----END KEY-----\n"
    assert masked([key], b"1 abcdefgh 2 Qw== 3 -----END KEY----- }") == b"1 *** 2 *** 3 *** }"


def test_short_values_are_not_masked() -> None:
    assert usable_secrets(["12345", "", "123456"]) == [b"123456"]
    assert masked(["12345"], b"12345") == b"12345"


def test_secrets_that_are_not_text() -> None:
    assert masked([os.fsdecode(b"\xff\xfe-odd-\x80")], b"a\xff\xfe-odd-\x80b") == b"a***b"


def test_secret_over_two_writes_of_a_job(box: Box) -> None:
    """Masked in log, lines and tail, on both streams, also when each byte comes alone."""
    code = (
        "import os, sys, time\n"
        "for byte in b'token=s3cr3t-value!\\n':\n"
        "    os.write(1, bytes([byte])); os.write(2, bytes([byte])); time.sleep(0.001)\n"
    )
    result = box.python(code, secrets=("s3cr3t-value",))
    assert sorted(box.lines) == [("stderr", "token=***!"), ("stdout", "token=***!")]
    assert "s3cr3t" not in box.log.read_text()
    assert "s3cr3t" not in "".join(result.tail)


def test_secrets_are_not_left_on_the_disk(box: Box) -> None:
    """Nor anywhere in the job's scratch folder, which is kept after a failure."""
    box.run("exit 1", secrets=("s3cr3t-value",), env={"TOKEN": "s3cr3t-value"})
    for folder, _folders, files in os.walk(box.folder):
        for name in files:
            assert b"s3cr3t" not in Path(folder, name).read_bytes()


# -- lines -------------------------------------------------------------------------------------------------


def test_lines_of_both_streams(box: Box) -> None:
    result = box.run("echo one; echo two >&2; sleep 0.05; printf 'three\\nfour'")
    assert sorted(box.lines) == [("stderr", "two"), ("stdout", "four"), ("stdout", "one"), ("stdout", "three")]
    assert box.text() == ["one", "three", "four"]
    assert sorted(box.log.read_text().splitlines()) == ["four", "one", "three", "two"]
    assert sorted(result.tail) == ["four", "one", "three", "two"]
    assert result.tail[-2:] == ("three", "four")


def test_line_in_pieces(recorded: Callable[..., Recorded]) -> None:
    made = recorded()
    for piece in (b"a", b"b\nc", b"", b"d\n", b"\n", b"e"):
        made.output.feed("stdout", piece)
    assert made.output.end() == ("ab", "cd", "", "e")
    assert made.texts() == ["ab", "cd", "", "e"]
    assert made.path.read_bytes() == b"ab\ncd\n\ne"


def test_streams_do_not_mix_within_a_line(recorded: Callable[..., Recorded]) -> None:
    made = recorded()
    made.output.feed("stdout", b"half")
    made.output.feed("stderr", b"whole\n")
    made.output.feed("stdout", b" done\n")
    made.output.end()
    assert made.lines == [("stderr", "whole"), ("stdout", "half done")]


@pytest.mark.parametrize("pieces", [[b"a\r\nb\r\n"], [b"a\r", b"\nb\r", b"\n"], [b"a", b"\r\n", b"b", b"\r", b"\n"]])
def test_windows_line_ends(recorded: Callable[..., Recorded], pieces: list[bytes]) -> None:
    made = recorded()
    for piece in pieces:
        made.output.feed("stdout", piece)
    assert made.output.end() == ("a", "b")
    assert made.texts() == ["a", "b"]


@pytest.mark.parametrize("form", [b"%4.1f%%\r", b"\r%4.1f%%"])
def test_progress_is_shown_now_and_then_and_its_end_always(recorded: Callable[..., Recorded], form: bytes) -> None:
    """A thousand updates in no time: the first and the last are lines, and few between."""
    made = recorded()
    for percent in range(1001):
        made.output.feed("stderr", form % (percent / 10))
    made.output.feed("stderr", b"\ndone\n")
    tail = made.output.end()
    assert made.texts()[-2:] == ["100.0%", "done"]
    assert len(made.texts()) < 20
    assert tail == ("100.0%", "done")
    assert made.path.read_bytes().count(b"%") == 1001


def test_progress_is_shown_while_it_goes(recorded: Callable[..., Recorded]) -> None:
    made = recorded()
    made.output.feed("stderr", b"10%\r")
    time.sleep(0.11)
    made.output.feed("stderr", b"20%\r")
    assert made.texts() == ["10%", "20%"]
    made.output.end()
    assert made.texts() == ["10%", "20%"]


def test_binary_junk(box: Box) -> None:
    """Anything may come; the log has every byte of it."""
    junk = bytes(range(256)) * 400
    box.write("junk", junk)
    result = box.run("cat junk; cat junk >&2", mounts=box.inputs("junk"))
    assert result.ok
    log = box.log.read_bytes()
    assert len(log) == 2 * len(junk) and sorted(log) == sorted(junk * 2)
    assert all(isinstance(text, str) for _stream, text in box.lines)


def test_long_lines_are_cut_for_listeners(box: Box) -> None:
    result = box.run("head -c 3000000 /dev/zero | tr '\\0' x; echo; echo after")
    assert box.text()[-1] == "after"
    assert max(len(text) for text in box.text()) < 17_000
    assert all(len(text) < 17_000 for text in result.tail)
    assert box.log.stat().st_size == 3_000_007


def test_tail_is_the_last_forty_lines(box: Box) -> None:
    result = box.run("seq 100000")
    assert result.tail == tuple(str(number) for number in range(99_961, 100_001))


def test_a_flood_is_told_not_shown(box: Box) -> None:
    """Listeners get the first lines and how many are missing; the log has all."""
    box.run("seq 300000")
    shown = [text for text in box.text() if text.isdigit()]
    missing = sum(int(text.split()[1]) for text in box.text() if text.startswith("… "))
    assert shown[:1000] == [str(number) for number in range(1, 1001)]
    assert len(shown) + missing == 300_000
    assert len(shown) < 100_000
    assert box.log.read_text().splitlines() == [str(number) for number in range(1, 300_001)]


def test_hundred_megabytes(box: Box) -> None:
    """Memory stays bounded, and it takes about as long as writing a file."""
    box.run("true")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    result = box.run("yes | head -c 100000000")
    took = time.monotonic() - started
    assert result.ok
    assert box.log.stat().st_size == 100_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000
    assert took < 10


def test_listener_that_fails_stops_nothing_but_is_told(box: Box) -> None:
    def fail(_stream: str, _text: str) -> None:
        raise ValueError("broken")

    attempt = box.executor.submit(box.job("seq 10000; exit 3"), fail)
    result = attempt.wait()
    assert result.exit_code == 3
    assert result.problem is not None and "broken" in result.problem
    assert box.run("echo on").tail == ("on",)


def test_log_that_can_not_be_written_is_told(box: Box) -> None:
    """A full disk: the job goes on to its end, and does not pass as a success."""
    if not os.access("/dev/full", os.W_OK):
        pytest.skip("no /dev/full")
    box.log = Path("/dev/full")
    result = box.run("echo x; exit 0")
    assert (result.exit_code, result.problem) == (0, "its log can't be written: No space left on device")
    assert box.text() == ["x"]


def test_log_is_appended_to(box: Box) -> None:
    """A second try of a stage adds to its log."""
    box.run("echo one")
    box.run("echo two")
    assert box.log.read_text() == "one\ntwo\n"


def test_foreign_process_with_the_pipe_does_not_block_the_end(box: Box, tmp_path: Path) -> None:
    """The job hands its stdout to a process that is none of its own; the job ends all the same."""
    import socket
    import threading

    path = str(tmp_path / "s")
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    os.chmod(path, 0o777)
    server.listen()
    held: list[int] = []

    def take() -> None:
        connection, _ = server.accept()
        held.extend(socket.recv_fds(connection, 1, 1)[1])
        connection.sendall(b"y")

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    code = f"import socket; s = socket.socket(1); s.connect({path!r}); socket.send_fds(s, [b'x'], [1]); s.recv(1)"
    result = box.run([sys.executable, "-c", f"{code}; print('done')"])
    thread.join()
    server.close()
    for fd in held:
        os.close(fd)
    assert result.ok and result.tail == ("done",)
