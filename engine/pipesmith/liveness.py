"""Whether a process is still there, and what is known of it. A pid alone does not tell: pids are given out again."""

from __future__ import annotations

import os

__all__ = ["ancestors", "is_alive", "process_mark", "told_process"]


def process_mark(pid: int | None = None) -> str:
    """Return what sets a process apart from all others that had its pid: the boot's id and its start in clock ticks.

    Empty where the system does not say (no /proc), or there is no such process.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        with open(f"/proc/{os.getpid() if pid is None else pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (OSError, ValueError):
        return ""
    if fields[0] in (b"Z", b"X"):
        return ""
    return f"{boot} {int(fields[19])}"


def is_alive(pid: int, mark: str) -> bool:
    """Return whether the process with this pid and mark still runs here. Without a mark the pid has to do."""
    if pid <= 0:
        return False
    if mark:
        return process_mark(pid) == mark
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def ancestors(pid: int) -> tuple[int, ...]:
    """Return a process and those that it descends from, as far as the system says."""
    found: list[int] = []
    while pid > 0 and pid not in found:
        found.append(pid)
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            break
    return tuple(found)


def told_process(pid: int) -> str:
    """Return what people know a process by: `pid 4242 of ada (python train.py)`, as far as the system says."""
    text = f"pid {pid}"
    try:
        uid = os.stat(f"/proc/{pid}").st_uid
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().decode(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return text
    if uid != os.getuid():
        text += f" of {_user_name(uid)}"
    command = " ".join([os.path.basename(words[0]), *words[1:]]).strip()
    command = "".join(letter if letter.isprintable() else " " for letter in command)
    return f"{text} ({command[:60]})" if command else text


def _user_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
