"""Many stages over three computes at once: each runs once, and neither daemons nor threads are made to suffer."""

from __future__ import annotations

import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

_REQUEST = re.compile(rb"(GET|POST|PUT|DELETE|HEAD) (/\S*) HTTP/1\.1\r\n")
_LOOKS = ("GET stats", "HEAD archive")  # asked again and again while a stage runs


class Counted:
    """A socket through which a daemon is reached, and the requests that went through it."""

    def __init__(self, place: Path, daemon: Path) -> None:
        self.place = place
        self.requests: Counter[str] = Counter()
        self.connections = 0
        self._daemon = daemon
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(place))
        self._server.listen(64)
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _serve(self) -> None:
        while True:
            try:
                here, _ = self._server.accept()
            except OSError:
                return
            there = socket.socket(socket.AF_UNIX)
            there.connect(str(self._daemon / "docker.sock"))
            self.connections += 1
            threading.Thread(target=self._pass, args=(here, there, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(there, here, False), daemon=True).start()

    def _pass(self, origin: socket.socket, target: socket.socket, counted: bool) -> None:
        try:
            while data := origin.recv(1 << 16):
                if counted:
                    for method, path in _REQUEST.findall(data):
                        what = path.partition(b"?")[0].rpartition(b"/")[2]
                        self.requests[f"{method.decode()} {what.decode()}"] += 1
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


@pytest.fixture
def counted(docker_place, tmp_path: Path) -> Iterator[Counted]:
    found = Counted(tmp_path / "counted.sock", docker_place.daemon)
    yield found
    found.close()


@pytest.mark.parametrize("count", [12, pytest.param(500, marks=pytest.mark.slow)])
def test_three_computes_at_once(repo, docker_place, tls_place, counted, count: int) -> None:
    first = f'[compute.near]\nkind = "docker"\nhost = "unix://{counted.place}"\n'
    second = f'[compute.far]\nkind = "docker"\n{tls_place.host}\n'
    image = f"[environment.tools]\n{docker_place.toml.partition('[environment.tools]')[2].strip()}\n"
    stages = [
        f'[stage.s{number}]\nrun = "echo {number} > {{outputs.o}}"\noutputs = {{ o = "out/{number}" }}\n'
        + ('compute = "local"\n' if number % 3 == 0 else f'environment = "tools"\ncompute = "{where}"\n')
        for number, where in ((number, ("near", "far")[number % 2]) for number in range(count))
    ]
    repo.write("pipeline.toml", first + second + image + "".join(stages))
    jobs = 6
    process = repo.start("build", "--json", f"-j{jobs}")
    threads = 0
    told: list[str] = []
    reader = threading.Thread(target=lambda: told.extend(process.communicate()), daemon=True)
    reader.start()
    while reader.is_alive():
        threads = max(threads, thread_count(process.pid))
        reader.join(0.1)
    assert process.returncode == 0, told[1]
    result = repo.pipe("show", "latest", "--json").json()
    assert len(result["stages"]) == count and {stage["status"] for stage in result["stages"]} == {"ran"}
    assert all(repo.read(f"out/{number}") == f"{number}\n" for number in range(count))

    near = [stage for stage in result["stages"] if stage["compute"] == "near"]
    seconds = sum(stage["end"] - stage["start"] for stage in near)
    assert counted.requests["POST start"] == counted.requests["POST wait"] == len(near)
    looks = sum(counted.requests[what] for what in _LOOKS)
    assert looks <= 3 * (seconds + len(near)), counted.requests
    assert sum(counted.requests.values()) - looks <= 14 * len(near) + 20, counted.requests
    assert counted.connections <= 2 * len(near) + 10
    assert threads <= 8 * jobs + 20


def test_each_host_of_a_pool_is_packed_by_what_was_asked(repo, docker_place, tls_place) -> None:
    """Three stages of 200 MB do not fit on two hosts of 300 MB, though those have 600 MB together: the third waits, and
    holds no slot meanwhile."""
    first = docker_place.host.partition('"')[2].rstrip('"')
    url, keys = tls_place.host.split("\n")
    url = url.partition('"')[2].rstrip('"')
    hosts = ", ".join(f'{{ url = "{each}", memory = "300M" }}' for each in (first, url))
    head = docker_place.toml.replace(docker_place.host, f"hosts = [{hosts}]\n{keys}")
    where = 'compute = "where"\nenvironment = "tools"\nresources = { memory = "200M" }'
    stages = [
        f'[stage.{name}]\nrun = "sleep 1; echo 1 > {{outputs.o}}"\noutputs = {{ o = "{name}.out" }}\n{where}\n'
        for name in "abc"
    ]
    near = '[stage.near]\nrun = "echo 1 > {outputs.o}"\noutputs = { o = "near.out" }\n'
    repo.write("pipeline.toml", f"{head}\n{''.join(stages)}{near}")
    built = repo.pipe("build", "-j3")
    order = [line.split()[1].rstrip(":") for line in built.stdout.splitlines() if line.startswith("run ")]
    assert order == ["a", "b", "near", "c"]


def thread_count(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"^Threads:\s*([0-9]+)", status, re.MULTILINE)
    return int(found[1]) if found else 0
