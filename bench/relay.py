"""Passes connections on to a Docker daemon's socket, and counts what goes there.

python bench/relay.py SOCKET unix://DAEMON COUNT      the count so far stands in the file COUNT
"""

from __future__ import annotations

import os
import socket
import sys
import threading

_CHUNK = 1 << 20


def main(place: str, daemon: str, count: str) -> None:
    """Serve until killed."""
    if os.path.exists(place):
        os.unlink(place)
    guard = threading.Lock()
    total = 0

    def note(size: int) -> None:
        nonlocal total
        with guard:
            total += size
            with open(f"{count}.new", "w") as file:
                file.write(str(total))
            os.replace(f"{count}.new", count)

    def pump(origin: socket.socket, target: socket.socket, counted: bool) -> None:
        try:
            while data := origin.recv(_CHUNK):
                if counted:
                    note(len(data))
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{place}.new")
        server.listen(64)
        os.rename(f"{place}.new", place)
        while True:
            here, _ = server.accept()
            there = socket.socket(socket.AF_UNIX)
            there.connect(daemon.removeprefix("unix://"))
            for origin, target, counted in ((here, there, True), (there, here, False)):
                threading.Thread(target=pump, args=(origin, target, counted), daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
