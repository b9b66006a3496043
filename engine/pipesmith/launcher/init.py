"""The first process of a job: makes its view, starts its command, reaps, and ends all that is left when that ends.

In a pid namespace it is process 1: when it goes, the kernel kills all others there. Elsewhere it is their subreaper and
kills them.
TERM asks all of the job to end; USR1, which only reaches it from outside a pid namespace, kills all.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # the module `signal` imports enum: 3 ms
import os

from . import landlock
from .namespaces import build_view, clone_flags, drop_powers, map_ids
from .processes import descendants, end_descendants, signal_all
from .syscalls import clone, close_from, prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["start"]

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_ASKED = (signal.SIGTERM, signal.SIGUSR1)
_TERMINAL = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


def start(job: dict[str, Any], streams: list[int]) -> tuple[int, int]:
    """Fork the first process of a job. Returns its pid and where its report can be read, once it has ended.

    job: `argv`, `env`, `cwd`, `private` `user` `pid` (which namespaces), `view` or None, `protected` and `allowed` (for
    Landlock, where there is no view), `terminal` (it keeps the terminal). streams: its stdin, stdout and stderr.
    The report is lines: `problem TEXT`, `ended WAIT-STATUS CPU-SECONDS PEAK-KIB`.
    """
    reader, writer = os.pipe()
    uid, gid = os.geteuid(), os.getegid()
    # Blocked until there are handlers: the first process of a pid namespace would lose them.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ASKED)
    try:
        pid = clone(clone_flags(user=job["user"], pid=job["pid"])) if job["private"] else os.fork()
    except OSError:
        os.close(reader)
        pid = -1
        raise
    finally:
        if pid:
            os.close(writer)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKED)
    if pid:
        return pid, reader
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        _first(job, streams, writer, uid, gid)
    except OSError as error:
        about = f"`{error.filename}`: " if error.filename else ""
        _report(writer, f"problem the sandbox could not be made: {about}{error.strerror}")
    except BaseException as error:
        _report(writer, f"problem the sandbox could not be made: {error!r}")
    finally:
        os._exit(0)


def _report(writer: int, line: str) -> None:
    os.write(writer, line.replace("\n", " ").encode("utf-8", "surrogateescape") + b"\n")


def _first(job: dict[str, Any], streams: list[int], writer: int, uid: int, gid: int) -> None:
    alone = job["pid"]
    _keep_only([*streams, writer])
    if job["user"]:
        map_ids(uid, gid)
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL if alone else signal.SIGUSR1)
    if not alone:
        prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if job["view"] is not None:
        build_view(job["view"], pid=alone)
    command = os.fork()
    if command == 0:
        _execute(job, streams, writer)

    def everyone(number: int) -> None:
        if alone:
            try:
                os.kill(-1, number)
            except ProcessLookupError:
                pass
        else:
            signal_all(descendants(os.getpid()), number)

    signal.signal(signal.SIGTERM, lambda _number, _frame: everyone(signal.SIGTERM))
    signal.signal(signal.SIGUSR1, lambda _number, _frame: everyone(signal.SIGKILL))
    for number in _TERMINAL:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKED)
    for fd in set(streams):
        os.close(fd)
    _wait(command, writer)
    if not alone:
        end_descendants()


def _keep_only(fds: list[int]) -> None:
    """Close every file descriptor of the supervisor's that is not one of these."""
    low = 3
    for fd in sorted(fd for fd in set(fds) if fd >= 3):
        os.closerange(low, fd)
        low = fd + 1
    close_from(low)


def _wait(command: int, writer: int) -> None:
    """Reap until the command has ended, then report. Times and sizes are those of all that were waited for."""
    cpu_s, peak_kib = 0.0, 0
    while True:
        pid, status, usage = os.wait4(-1, 0)
        cpu_s += usage.ru_utime + usage.ru_stime
        peak_kib = max(peak_kib, usage.ru_maxrss)
        if pid == command:
            _report(writer, f"ended {status} {cpu_s} {peak_kib}")
            return


def _take_terminal() -> None:
    """Lead a group of processes that is the terminal's foreground: one that a shell in a pid namespace can name."""
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.setpgid(0, 0)
    try:
        os.tcsetpgrp(0, os.getpgrp())
    except OSError:
        pass  # not its controlling terminal


def _execute(job: dict[str, Any], streams: list[int], writer: int) -> None:
    """Become the command. Exit codes where that can't be are those of a shell."""
    argv = [os.fsencode(word) for word in job["argv"]]
    try:
        if job["terminal"] and os.isatty(0):
            _take_terminal()
        for number in range(1, signal.NSIG):
            if signal.getsignal(number) not in (signal.SIG_DFL, None):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if not job["terminal"]:
            os.setsid()
        writer = os.dup(writer) if writer < 3 else writer
        spare = [fd if fd > 2 else os.dup(fd) for fd in streams]
        for target, fd in enumerate(spare):
            os.dup2(fd, target)
        _keep_only([writer])
        os.set_inheritable(writer, False)
        os.chdir(os.fsencode(job["cwd"]))
        if job["view"] is not None:
            drop_powers()
        elif job["protected"]:
            landlock.forbid_writes(job["protected"], job["allowed"])
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.execvpe(argv[0], argv, {os.fsencode(name): os.fsencode(value) for name, value in job["env"].items()})
    except OSError as error:
        missing, why = _why_not(job, error)
        _report(writer, f"problem {why}")
        os._exit(127 if missing else 126)
    except BaseException as error:
        _report(writer, f"problem `{job['argv'][0]}` can't be executed: {error!r}")
    finally:
        os._exit(127)


def _why_not(job: dict[str, Any], error: OSError) -> tuple[bool, str]:
    """Return whether something was missing, and what went wrong, for people."""
    name, cwd = job["argv"][0], job["cwd"]
    if error.filename is not None and os.fsdecode(error.filename) == cwd:
        return True, f"it can't run in the folder `{cwd}`: {error.strerror}"
    if "/" in name:
        if isinstance(error, FileNotFoundError):
            return True, f"`{name}` does not exist, or its interpreter does not"
    elif not any(os.path.exists(f"{folder}/{name}") for folder in job["env"].get("PATH", os.defpath).split(":")):
        return True, f"the command `{name}` is not on PATH"
    return False, f"`{name}` can't be executed: {error.strerror}"
