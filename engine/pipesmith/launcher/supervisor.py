"""Starts and watches stages for one build. Started as `python -I -S supervisor.py FD`; asked and answering over that socket.

A request is one packet: marshalled `{"op": "run", "id", "spec": path of a marshalled spec}` with stdout and stderr as passed
descriptors, or `{"op": "cancel", "id"}`. An answer is `{"id", "exit", "signal", "problem", "timed_out", "cancelled", "cpu_s",
"peak_bytes"}`. The end of the socket means that pipe is gone: everything is killed.
"""

import marshal
import os
import select
import signal
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import namespaces
import stage_init

__all__ = ["main"]

_PACKET = 65536


class _Running:
    def __init__(self, number, pid, report, spec):
        self.number = number
        self.pid = pid
        self.report = report
        self.private = spec["private"]
        self.grace_s = spec["grace_s"]
        self.deadline = time.monotonic() + spec["timeout_s"] if spec["timeout_s"] else None
        self.kill_at = None
        self.timed_out = False
        self.cancelled = False

    def ask(self):
        """TERM now, KILL after the grace time."""
        if self.kill_at is None:
            self.kill_at = time.monotonic() + self.grace_s
            self.send(signal.SIGTERM)

    def end(self):
        self.send(signal.SIGKILL if self.private else signal.SIGUSR1)
        self.kill_at = time.monotonic() + 1.0

    def send(self, number):
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            pass


def main(fd):
    namespaces.set_subreaper()
    channel = socket.socket(fileno=fd)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    running = {}
    while True:
        moments = [each.deadline for each in running.values() if each.deadline is not None and not each.timed_out]
        moments += [each.kill_at for each in running.values() if each.kill_at is not None]
        timeout = max(0.0, min(moments) - time.monotonic()) if moments else None
        ready, _, _ = select.select([channel, wake_read], [], [], timeout)
        if wake_read in ready:
            try:
                os.read(wake_read, 4096)
            except BlockingIOError:
                pass
        if channel in ready:
            data, fds, _flags, _address = socket.recv_fds(channel, _PACKET, 2)
            if not data:
                _end(running)
                return
            request = marshal.loads(data)
            if request["op"] == "run":
                _run(request, [null, *fds], running, channel)
                for each in fds:
                    os.close(each)
            elif request["id"] in running:
                running[request["id"]].cancelled = True
                running[request["id"]].ask()
        now = time.monotonic()
        for each in running.values():
            if each.deadline is not None and now >= each.deadline and not each.timed_out:
                each.timed_out = True
                each.ask()
            if each.kill_at is not None and now >= each.kill_at:
                each.end()
        _reap(running, channel)


def _run(request, fds, running, channel):
    try:
        with open(request["spec"], "rb") as file:
            spec = marshal.load(file)
        pid, report = stage_init.start(spec, fds)
    except OSError as error:
        _answer(channel, {"id": request["id"], "exit": None, "signal": None, "problem": "can't start: %s" % error})
        return
    running[request["id"]] = _Running(request["id"], pid, report, spec)


def _reap(running, channel):
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        for number, each in list(running.items()):
            if each.pid == pid:
                del running[number]
                _finish(each, status, usage, channel)


def _finish(each, status, usage, channel):
    data = b""
    while chunk := os.read(each.report, 4096):
        data += chunk
    os.close(each.report)
    if data:
        answer = marshal.loads(data)
    else:
        answer = {"exit": None, "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else signal.SIGKILL, "problem": None}
    answer["id"] = each.number
    answer["timed_out"] = each.timed_out
    answer["cancelled"] = each.cancelled
    answer["cpu_s"] = usage.ru_utime + usage.ru_stime
    answer["peak_bytes"] = usage.ru_maxrss * 1024
    _answer(channel, answer)


def _answer(channel, answer):
    try:
        channel.send(marshal.dumps(answer))
    except OSError:
        pass


def _end(running):
    """pipe is gone: nothing may go on."""
    for each in running.values():
        each.end()
    until = time.monotonic() + 10
    left = {each.pid for each in running.values()}
    while left and time.monotonic() < until:
        try:
            pid, _status = os.waitpid(-1, 0)
        except ChildProcessError:
            return
        left.discard(pid)


if __name__ == "__main__":
    main(int(sys.argv[1]))
