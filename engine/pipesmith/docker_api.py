"""Docker's HTTP API over one connection that is kept: what jobs in containers ask of a daemon.

The `docker` package would open a connection for every request, over ssh an `ssh` each, and takes as long to be imported
as a small container takes to run. It is used for images, since it knows registries and their credentials.
"""

from __future__ import annotations

import io
import json
import select
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from pipesmith.percent import query as query_text
from pipesmith.percent import quote
from pipesmith.records import field, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    import subprocess
    from typing import IO, Any

__all__ = ["Address", "ConnectionLost", "DaemonAnswer", "DockerApi", "moment"]

_TIMEOUT_S = 60.0
_CHUNK = 1 << 20
_NEWEST = (1, 45)  # of the API's versions, what this module was written for


class ConnectionLost(Exception):
    """A daemon can't be reached, or its connection has ended."""


class DaemonAnswer(Exception):
    """A daemon said no. status: of HTTP. text: what it said, in one line."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@record(frozen=False)
class Address:
    """Where a daemon listens, and what a connection to it learns for later ones. url: unix://, tcp://, ssh://. tls:
    absolute paths of `ca`, `cert` and `key`; what is not there is not used. secure: whether TLS is spoken at all.
    version: of the API, `` until the daemon was asked."""

    url: str
    tls: Mapping[str, str] = field(default_factory=dict)
    secure: bool = False
    version: str = ""
    _context: ssl.SSLContext | None = None

    def connect(self) -> _Link:
        """Open a connection. Raises OSError."""
        scheme, _, path = self.url.partition("://")
        if scheme in ("unix", "http+unix"):
            plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            plain.settimeout(_TIMEOUT_S)
            try:
                plain.connect(path)
            except BaseException:
                plain.close()
                raise
            return _Link(plain)
        from urllib.parse import urlsplit

        parts = urlsplit(self.url)
        if parts.scheme == "ssh":
            return _Ssh(parts.hostname or "", parts.username, parts.port)
        context = self._tls_context() if self.secure or parts.scheme == "https" else None
        port = parts.port or (2376 if self.secure else 2375)
        plain = socket.create_connection((parts.hostname or "", port), timeout=_TIMEOUT_S)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A host that vanishes says nothing; whoever waits for a long stage finds out by these.
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
            if context is not None:
                return _Link(context.wrap_socket(plain, server_hostname=parts.hostname))
        except BaseException:
            plain.close()
            raise
        return _Link(plain)

    def _tls_context(self) -> ssl.SSLContext:
        if self._context is None:
            import ssl

            for path in self.tls.values():
                open(path, "rb").close()  # what is not there is named, which ssl does not
            context = ssl.create_default_context(cafile=self.tls.get("ca"))
            if "ca" not in self.tls:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            if "cert" in self.tls and "key" in self.tls:
                context.load_cert_chain(self.tls["cert"], self.tls["key"])
            self._context = context
        return self._context


class _Link:
    """A stream to and from a daemon."""

    def __init__(self, stream: socket.socket) -> None:
        self.socket = stream

    def why_closed(self) -> str:
        """Return what is known of why the other end closed it."""
        return "the connection was closed"

    def close(self) -> None:
        self.socket.close()


class _Ssh(_Link):
    """Through the system's ssh, so that its configuration, agent and known_hosts hold. Ctrl-C does not reach it."""

    _WORDS = ("-T", "-o", "ConnectTimeout=30", "-o", "ServerAliveInterval=30")

    def __init__(self, host: str, user: str | None, port: int | None) -> None:
        import subprocess
        import tempfile

        words = [*self._WORDS, *(("-l", user) if user else ()), *(("-p", str(port)) if port else ())]
        ours, theirs = socket.socketpair()
        self._said: IO[bytes] = tempfile.TemporaryFile()
        try:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                [
                    "/bin/sh",
                    "-c",
                    'trap "" INT; exec "$@"',
                    "ssh",
                    "ssh",
                    *words,
                    "--",
                    host,
                    "docker system dial-stdio",
                ],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._said,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.settimeout(_TIMEOUT_S)
        super().__init__(ours)

    def why_closed(self) -> str:
        import subprocess

        try:
            self._process.wait(1)
        except subprocess.TimeoutExpired:
            pass
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), super().why_closed())

    def close(self) -> None:
        super().close()
        self._process.terminate()
        self._process.wait()
        self._said.close()


class DockerApi:
    """One connection to a daemon; each method is one request. Not thread-safe. A request that was not sent whole, or an
    answer that was not read to its end, is given up by the next request, which goes over a new connection.

    Raises DaemonAnswer where the daemon says no, ConnectionLost where it can't be reached."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._open()
        if not address.version:
            try:
                answer = self._exchange("GET", "/_ping")
                self._drain(answer)
            except DaemonAnswer as error:
                self.close()
                raise ConnectionLost(error.text) from None
            except BaseException:
                self.close()
                raise
            offered = tuple(int(part) for part in answer.version.split(".")) if answer.version else _NEWEST
            address.version = ".".join(map(str, min(offered, _NEWEST)))

    def _open(self) -> None:
        try:
            self._link = self._address.connect()
        except OSError as error:
            raise ConnectionLost(_text(error)) from None
        self._file = io.BufferedReader(self._link.socket.makefile("rb", 0), 1 << 16)
        self._kept = True  # whether another request may follow on it
        self._busy = False  # whether an answer is being read
        self._used = False  # whether anything was answered on it

    @property
    def is_good(self) -> bool:
        """Whether another request can follow: it is not in the middle of an answer, and the daemon did not close it."""
        if not self._kept or self._busy:
            return False
        poll = select.poll()
        poll.register(self._link.socket, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        try:
            self._file.close()
            self._link.close()
        except OSError:
            pass  # it is of no use any more

    # -- daemon, images, volumes --------------------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        found: dict[str, Any] = self._ask("GET", "/info")
        return found

    def image(self, name: str) -> dict[str, Any] | None:
        """Return what the daemon knows of an image, None where it has none."""
        return self._there("GET", f"/images/{quote(name, safe='/:@')}/json")

    def has_image(self, name: str) -> bool:
        return self.image(name) is not None

    def volume(self, name: str) -> dict[str, Any] | None:
        """Return what the daemon knows of a volume, None where there is none."""
        return self._there("GET", f"/volumes/{quote(name)}")

    def create_volume(self, name: str, labels: Mapping[str, str]) -> None:
        self._ask("POST", "/volumes/create", body={"Name": name, "Labels": dict(labels)})

    def remove_volume(self, name: str, *, force: bool = False) -> None:
        self._ask("DELETE", f"/volumes/{quote(name)}", {"force": "1"} if force else {})

    def volumes(self, label: str) -> list[dict[str, Any]]:
        """Return the volumes that have a label."""
        found: dict[str, Any] = self._ask("GET", "/volumes", {"filters": json.dumps({"label": [label]})})
        return found.get("Volumes") or []

    # -- containers ---------------------------------------------------------------------------------------------------

    def containers(self, filters: Mapping[str, list[str]], *, ended: bool) -> list[dict[str, Any]]:
        """Return the containers that filters of the API choose. ended: those that do not run as well."""
        query = {"filters": json.dumps(dict(filters)), "all": "1" if ended else "0"}
        found: list[dict[str, Any]] = self._ask("GET", "/containers/json", query)
        return found

    def container(self, name: str) -> dict[str, Any] | None:
        """Return what the daemon knows of a container, None where there is none."""
        return self._there("GET", f"/containers/{quote(name)}/json")

    def create_container(self, settings: Mapping[str, Any], name: str | None = None) -> str:
        """Make a container and return its id. settings: as the API has them."""
        made = self._ask("POST", "/containers/create", {"name": name} if name else {}, body=settings)
        return str(made["Id"])

    def start(self, container: str) -> None:
        self._ask("POST", f"/containers/{container}/start", timeout_s=None)

    def kill(self, container: str, signal: str) -> None:
        self._ask("POST", f"/containers/{container}/kill", {"signal": signal})

    def wait(self, container: str) -> None:
        """Block until a container does not run any more."""
        self._ask("POST", f"/containers/{container}/wait", timeout_s=None)

    def stats(self, container: str) -> dict[str, Any]:
        """Return what a container uses now."""
        query = {"stream": "false", "one-shot": "true"}
        found: dict[str, Any] = self._ask("GET", f"/containers/{container}/stats", query)
        return found

    def remove_container(self, container: str) -> None:
        """Kill and remove a container; one that is gone, or being removed, is fine."""
        try:
            self._ask("DELETE", f"/containers/{container}", {"force": "1", "v": "1"})
        except DaemonAnswer:
            pass

    def put(self, container: str, path: str, tar: Iterable[bytes]) -> None:
        """Unpack a tar at a path in a container."""
        self._drain(
            self._exchange("PUT", f"/containers/{container}/archive", {"path": path}, chunks=tar, timeout_s=None)
        )

    def get(self, container: str, path: str) -> Iterator[bytes] | None:
        """Return a tar of what lies at a path in a container, None where nothing does."""
        try:
            answer = self._exchange("GET", f"/containers/{container}/archive", {"path": path}, timeout_s=None)
        except DaemonAnswer as error:
            if error.status == 404 or error.text.endswith("not a directory"):  # a folder above it is a file
                return None
            raise
        return self._body(answer)

    def stamp(self, container: str, path: str) -> str | None:
        """Return what tells that the file or folder at a path has changed; None where nothing lies there."""
        try:
            answer = self._exchange("HEAD", f"/containers/{container}/archive", {"path": path})
        except DaemonAnswer:
            return None
        return answer.headers.get("x-docker-container-path-stat")

    def changes(self, container: str) -> list[str]:
        """Return the paths that a container has changed in what its image and volumes gave it."""
        return [str(each["Path"]) for each in self._ask("GET", f"/containers/{container}/changes") or ()]

    def events(self, container: str, since: float, until: float) -> Iterator[dict[str, Any]]:
        """Yield what a daemon remembers of a container, and what it tells of it until a time that is still to come.
        since, until: seconds since the epoch, on its clock."""
        filters = json.dumps({"container": [container], "type": ["container"]})
        query = {"since": f"{since:.6f}", "until": f"{until:.6f}", "filters": filters}
        held = b""
        for data in self._body(self._exchange("GET", "/events", query, timeout_s=None), at_once=True):
            *lines, held = (held + data).split(b"\n")
            yield from (json.loads(line) for line in lines if line.strip())
        if held.strip():
            yield json.loads(held)

    def execute(self, container: str, command: Sequence[str]) -> tuple[int, bytes]:
        """Run a command in a container that runs; return its exit code and what it said on stdout."""
        body = {"Cmd": list(command), "AttachStdout": True}
        made = self._ask("POST", f"/containers/{container}/exec", body=body)
        request = json.dumps({"Detach": False, "Tty": False}).encode()
        headers = {"Content-Type": "application/json"}
        answer = self._exchange("POST", f"/exec/{made['Id']}/start", headers=headers, chunks=request)
        said = b"".join(data for stream, data in self._frames(answer) if stream == "stdout")
        return int(self._ask("GET", f"/exec/{made['Id']}/json").get("ExitCode") or 0), said

    def attach(self, container: str) -> Iterator[tuple[str, bytes]]:
        """Return (stream, bytes) of all that a container says from now on; the connection is used up by it."""
        query = {"stream": "1", "stdout": "1", "stderr": "1"}
        upgrade = {"Connection": "Upgrade", "Upgrade": "tcp"}
        answer = self._exchange("POST", f"/containers/{container}/attach", query, headers=upgrade, timeout_s=None)
        return self._frames(answer)

    def logs(self, container: str, *, follow: bool) -> Iterator[tuple[str, bytes]]:
        """Return (stream, bytes) of all that a container has said. follow: and of what it says until it ends."""
        query = {"follow": "1" if follow else "0", "stdout": "1", "stderr": "1"}
        return self._frames(self._exchange("GET", f"/containers/{container}/logs", query, timeout_s=None))

    def _frames(self, answer: _Answer) -> Iterator[tuple[str, bytes]]:
        """Take apart what holds both streams: a head of eight bytes each, stream and length."""
        held = bytearray()
        for data in self._body(answer, at_once=True):
            held += data
            while len(held) >= 8:
                size = int.from_bytes(held[4:8], "big")
                if len(held) < 8 + size:
                    break
                yield ("stderr" if held[0] == 2 else "stdout", bytes(held[8 : 8 + size]))
                del held[: 8 + size]

    # -- HTTP ---------------------------------------------------------------------------------------------------------

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Mapping[str, Any] | None = None,
        timeout_s: float | None = _TIMEOUT_S,
    ) -> Any:
        """Return the JSON that a daemon answers with, None for an empty answer."""
        chunks, headers = None, {}
        if body is not None:
            chunks, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
        data = self._drain(self._exchange(method, path, query, headers=headers, chunks=chunks, timeout_s=timeout_s))
        return json.loads(data) if data.strip() else None

    def _there(self, method: str, path: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._ask(method, path)
        except DaemonAnswer as error:
            if error.status == 404:
                return None
            raise
        return found

    def _exchange(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        chunks: bytes | Iterable[bytes] | None = None,
        timeout_s: float | None = _TIMEOUT_S,
    ) -> _Answer:
        """Send a request and read the head of its answer; its body is left to be read."""
        if self._busy or not self._kept:
            self.close()
            self._open()
        self._busy = True
        version = f"/v{self._address.version}" if self._address.version else ""
        target = f"{version}{path}{'?' + query_text(query) if query else ''}"
        lines = [f"{method} {target} HTTP/1.1", "Host: docker", "User-Agent: pipesmith"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        whole = chunks if isinstance(chunks, bytes) else b""
        if chunks is None or isinstance(chunks, bytes):
            lines.append(f"Content-Length: {len(whole)}")
        else:
            lines += ["Content-Type: application/x-tar", "Transfer-Encoding: chunked"]
        request = "\r\n".join([*lines, "", ""]).encode() + whole
        streamed = None if chunks is None or isinstance(chunks, bytes) else chunks
        try:
            answer = self._answered(method, request, streamed, timeout_s)
        except ConnectionLost:
            if not self._used or method not in ("GET", "HEAD"):
                raise
            self.close()  # most likely it was closed for having been idle, and the request was never read
            self._open()
            self._busy = True
            answer = self._answered(method, request, streamed, timeout_s)
        self._used = True
        if answer.status >= 400:
            data = self._drain(answer)
            try:
                text = str(json.loads(data)["message"])
            except (ValueError, KeyError, TypeError):
                text = data.decode("utf-8", "replace")
            raise DaemonAnswer(answer.status, " ".join(text.split()) or f"status {answer.status}")
        return answer

    def _answered(
        self, method: str, request: bytes, streamed: Iterable[bytes] | None, timeout_s: float | None
    ) -> _Answer:
        self._link.socket.settimeout(timeout_s)
        if self._send(request) and streamed is not None:
            self._send_chunks(streamed)
        return self._head(bodiless=method == "HEAD")

    def _send(self, data: bytes) -> bool:
        """Send all of it; False where the daemon does not take it: it may have said why before it closed."""
        try:
            self._link.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            self._kept = False
            return False
        except OSError as error:
            raise ConnectionLost(_text(error)) from None
        return True

    def _send_chunks(self, chunks: Iterable[bytes]) -> None:
        for chunk in chunks:
            if chunk and not (self._send(b"%x\r\n" % len(chunk)) and self._send(chunk) and self._send(b"\r\n")):
                return
        self._send(b"0\r\n\r\n")

    def _head(self, *, bodiless: bool = False) -> _Answer:
        while True:
            line = self._line()
            words = line.split(None, 2)
            if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
                raise ConnectionLost("what answers there is no Docker daemon")
            headers: dict[str, str] = {}
            while (row := self._line().strip()) != b"":
                name, _, value = row.decode("latin-1").partition(":")
                headers[name.strip().lower()] = value.strip()
            answer = _Answer(int(words[1]), headers, bodiless)
            if answer.status >= 200 or answer.status == 101:
                break
        closes = "close" in headers.get("connection", "").lower() or words[0] == b"HTTP/1.0"
        self._kept = self._kept and not closes and not answer.until_closed
        self._busy = not bodiless
        return answer

    def _line(self) -> bytes:
        line = self._read(self._file.readline, 1 << 16)
        if not line.endswith(b"\n"):
            raise ConnectionLost(self._link.why_closed())
        return line

    def _read(self, read: Callable[[int], bytes], size: int) -> bytes:
        try:
            return read(size)
        except ConnectionResetError:
            raise ConnectionLost(self._link.why_closed()) from None
        except OSError as error:
            raise ConnectionLost(_text(error)) from None

    def _drain(self, answer: _Answer) -> bytes:
        return b"".join(self._body(answer))

    def _body(self, answer: _Answer, *, at_once: bool = False) -> Iterator[bytes]:
        """Yield an answer's body. at_once: in pieces as they come."""
        read = self._file.read1 if at_once else self._file.read
        if answer.bodiless:
            return
        if answer.until_closed:
            while data := self._read(self._file.read1, _CHUNK):
                yield data
            return
        if answer.chunked:
            while size := int(self._line().partition(b";")[0], 16):
                yield from self._exactly(size, read)
                self._line()
            while self._line().strip():
                pass
        else:
            yield from self._exactly(answer.length, read)
        self._busy = False

    def _exactly(self, size: int, read: Callable[[int], bytes]) -> Iterator[bytes]:
        while size:
            data = self._read(read, min(size, _CHUNK))
            if not data:
                raise ConnectionLost(self._link.why_closed())
            size -= len(data)
            yield data


@record(kw_only=False)
class _Answer:
    """The head of an answer."""

    status: int
    headers: Mapping[str, str]
    bodiless: bool  # whether nothing follows, whatever the headers say

    @property
    def version(self) -> str:
        return self.headers.get("api-version", "")

    @property
    def chunked(self) -> bool:
        return "chunked" in self.headers.get("transfer-encoding", "").lower()

    @property
    def until_closed(self) -> bool:
        """Whether its body ends with the connection."""
        none = self.bodiless or self.status in (204, 304)
        return self.status == 101 or not (none or self.chunked or "content-length" in self.headers)

    @property
    def length(self) -> int:
        return int(self.headers.get("content-length", 0))


def moment(text: str) -> float:
    """Return a time of a daemon's, such as `2026-01-01T10:00:00.123456789Z`, as seconds since the epoch."""
    from datetime import datetime

    whole, _, rest = text.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    zone = rest[len(digits) :] if digits else ""
    return datetime.fromisoformat(f"{whole}{zone}").timestamp() + (float(f"0.{digits}") if digits else 0.0)


def _text(error: OSError) -> str:
    """Return what an error of the connection says; of TLS without the library's own codes."""
    reason = getattr(error, "verify_message", None) or error.strerror or str(error)
    text = " ".join(str(reason).split()) or type(error).__name__
    return f"`{error.filename}`: {text}" if isinstance(error.filename, str) else text
