"""The connection to a Docker daemon, against servers that answer what a daemon would: cut anywhere, closed at any time."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipesmith.docker_api import Address, DaemonAnswer, DockerApi
from pipesmith.docker_client import Daemon, DaemonGone

Served = Callable[[Callable[[socket.socket], None]], str]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Starts a server that handles each connection by a function, and returns its URL."""
    servers: list[socket.socket] = []

    def start(handle: Callable[[socket.socket], None]) -> str:
        place = tmp_path / f"{len(servers)}.sock"
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(place))
        server.listen(8)
        servers.append(server)

        def one(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):  # the other end may go away at any time
                handle(connection)

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(connection,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        return f"unix://{place}"

    yield start
    for server in servers:
        server.close()


def head(connection: socket.socket) -> str:
    """Read a request without a body; return its first line."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        more = connection.recv(1)
        if not more:
            return ""
        data += more
    return data.partition(b"\r\n")[0].decode()


def said(status: str, body: bytes, *headers: str) -> bytes:
    rows = [f"HTTP/1.1 {status}", "Api-Version: 1.41", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(rows).encode() + body


def test_a_connection_is_kept_and_the_version_is_the_daemon_s(served) -> None:
    asked: list[list[str]] = []

    def handle(connection: socket.socket) -> None:
        asked.append([])
        while line := head(connection):
            asked[-1].append(line)
            connection.sendall(said("200 OK", b'{"NCPU": 3, "MemTotal": 5, "Architecture": "x86_64"}'))

    daemon = Daemon("box", served(handle))
    for _ in range(3):
        with daemon.api() as api:
            assert api.info()["NCPU"] == 3
    daemon.close()
    assert asked == [["GET /_ping HTTP/1.1", *["GET /v1.41/info HTTP/1.1"] * 3]]


def test_a_connection_that_the_daemon_closed_meanwhile_is_replaced(served) -> None:
    connections = []

    def handle(connection: socket.socket) -> None:
        connections.append(1)
        if len(connections) == 1:  # the version, then one answer
            head(connection)
            connection.sendall(said("200 OK", b"OK"))
        head(connection)
        connection.sendall(said("200 OK", b"{}"))

    daemon = Daemon("box", served(handle))
    for _ in range(3):
        with daemon.api() as api:
            assert api.info() == {}
    daemon.close()
    assert len(connections) == 3


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9\r\n", b"", b"HTTP/1.1 2", b"\0" * 100])
def test_what_is_no_daemon_is_told(served, greeting: bytes) -> None:
    def handle(connection: socket.socket) -> None:
        head(connection)
        connection.sendall(greeting)

    daemon = Daemon("box", served(handle))
    with pytest.raises(DaemonGone, match=r"the Docker daemon of `box`.* can't be reached: ."), daemon.api() as api:
        api.info()


def test_a_daemon_that_says_no_in_the_middle_of_a_stream_is_heard(served) -> None:
    """Its words are told, not that the connection broke."""

    def handle(connection: socket.socket) -> None:
        if "_ping" in head(connection):
            connection.sendall(said("200 OK", b"OK"))
            head(connection)
        connection.sendall(said("507 Full", json.dumps({"message": "no space\nleft"}).encode(), "Connection: close"))

    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(100_000)

    daemon = Daemon("box", served(handle))
    with pytest.raises(DaemonAnswer) as caught, daemon.api() as api:
        api.put("c", "/", endless())
    assert (caught.value.status, caught.value.text) == (507, "no space left")


def test_a_request_that_was_given_up_does_not_disturb_the_next(served) -> None:
    """Neither half a body sent, nor half an answer read."""

    def handle(connection: socket.socket) -> None:
        while line := head(connection):
            if "archive" in line and line.startswith("PUT"):
                while connection.recv(1 << 16):
                    pass
                return
            connection.sendall(said("200 OK", b"{}" if "info" in line else bytes(3_000_000)))

    def failing() -> Iterator[bytes]:
        yield b"half"
        raise KeyError

    api = DockerApi(Address(url=served(handle)))
    with pytest.raises(KeyError):
        api.put("c", "/", failing())
    assert api.info() == {}
    part = api.get("c", "/x")
    assert part is not None and next(part)
    assert api.info() == {}
    api.close()


frames = st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(max_size=40)), max_size=20)


def test_what_a_container_says_is_the_same_wherever_it_is_cut(served) -> None:
    plan: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        if "_ping" in head(connection):
            connection.sendall(said("200 OK", b"OK"))
            head(connection)
        connection.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        for piece in plan:
            connection.sendall(piece)

    address = Address(url=served(handle))

    @given(frames, st.lists(st.integers(0, 900), max_size=8))
    def check(wanted, cuts) -> None:
        whole = b"".join(
            bytes([1 if stream == "stdout" else 2, 0, 0, 0]) + len(data).to_bytes(4, "big") + data
            for stream, data in wanted
        )
        places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
        plan[:] = [whole[start:end] for start, end in itertools.pairwise(places)]
        api = DockerApi(address)
        assert list(api.attach("c")) == wanted
        api.close()

    check()
