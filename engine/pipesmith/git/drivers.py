"""The merge and diff drivers of pipe.lock: in a clone's configuration and `info/attributes`, so for all its worktrees.

Git finds the program by the absolute path of the one that set them, and where that is gone by PATH. Without any, locks
are merged and shown as text, as in a clone without drivers.
"""

from __future__ import annotations

import os
import shlex

from pipesmith.git.hook_scripts import programs as this_pipe
from pipesmith.git.repository import Repository

__all__ = ["install_drivers", "installed_drivers", "uninstall_drivers"]

_COMMENT = "# How git merges and shows pipe.lock; `pipe hooks uninstall` takes these two lines out."
_PATTERN = "pipe.lock"
_ATTRIBUTES = {"merge": "pipesmith", "diff": "pipesmith"}
_SECTIONS = ("merge.pipesmith", "merge.pipesmith-base", "diff.pipesmith")


def install_drivers(repo: Repository) -> list[str]:
    """Set both drivers in the clone's configuration and attributes; return what was not so before: keys of the
    configuration, `info/attributes`.

    An attribute that somebody gave pipe.lock otherwise stays as it is. Raises EnvironmentFailure, OSError.
    """
    done = []
    now = _configured(repo)
    for key, value in _settings(_programs()).items():
        if now.get(key) != [value]:
            repo.run("config", "--local", "--replace-all", key, value)
            done.append(key)
    wanted = {name: value for name, value in _ATTRIBUTES.items() if _given(repo, name) in (value, "unspecified")}
    line = " ".join([_PATTERN, *(f"{name}={value}" for name, value in wanted.items())])
    if _write_attributes(repo, line if wanted else None):
        done.append("info/attributes")
    return done


def uninstall_drivers(repo: Repository) -> list[str]:
    """Take out what `install_drivers` set, and return what there was of it. Raises EnvironmentFailure, OSError."""
    now = _configured(repo)
    for section in _SECTIONS:
        if any(key.startswith(f"{section}.") for key in now):
            repo.run("config", "--local", "--remove-section", section)
    gone = ["info/attributes"] if _write_attributes(repo, None) else []
    return [*now, *gone]


def installed_drivers(repo: Repository) -> list[str]:
    """Return which of `merge` and `diff` git would ask pipe for, in this clone."""
    keys = {"merge": "merge.pipesmith.driver", "diff": "diff.pipesmith.textconv"}
    there = [name for name, key in keys.items() if repo.process("config", "--get", key).returncode == 0]
    return [name for name in there if _given(repo, name) == _ATTRIBUTES[name]]


# -- what is set --------------------------------------------------------------------------------------------------


def _settings(programs: list[list[str]]) -> dict[str, str]:
    """Return key to value of the configuration. programs: ways to start pipe, the best one first."""
    return {
        "merge.pipesmith.name": "pipe.lock, stage by stage",
        "merge.pipesmith.driver": _merge_command(programs),
        "merge.pipesmith.recursive": "pipesmith-base",
        "merge.pipesmith-base.name": "pipe.lock, where several bases are made into one",
        "merge.pipesmith-base.driver": _merge_command(programs, "-q"),
        "diff.pipesmith.textconv": _text_command(programs),
    }


def _programs() -> list[list[str]]:
    return [this_pipe(), ["pipe"]]


def _merge_command(programs: list[list[str]], *flags: str) -> str:
    """Return what git runs, through a shell, with %O %A %B %P in their places: base, ours (and the result), theirs,
    and the path they have in the tree.

    126 and 127 are the shell's words for what did not start, 1 is Python's where the module is gone; `lock merge`
    itself ends with 1 only where it could not write, and then nothing is changed.
    """
    tries = [
        f"if command -v {shlex.quote(words[0])} >/dev/null 2>&1; then {shlex.join([*words, 'lock', 'merge', *flags])}"
        ' -- "$@"; s=$?; case $s in 1|126|127) ;; *) return $s;; esac; fi'
        for words in programs
    ]
    told = "no pipe here: merged as text; a conflict: pipe lock resolve"
    as_text = f'echo "$4: {told}" >&2; git merge-file -L ours -L base -L theirs --marker-size=MARKER "$2" "$1" "$3"'
    body = "; ".join([*tries, as_text]).replace("%", "%%").replace("=MARKER", "=%L")
    return f"f() {{ {body}; }}; f %O %A %B %P"


def _text_command(programs: list[list[str]]) -> str:
    """Return what git runs with the path of one version. What can't be shown is printed as it is."""
    tries = [f'{shlex.join(words)} lock show -- "$1" 2>/dev/null' for words in programs]
    return f'f() {{ {" || ".join([*tries, "cat -- "])}"$1"; }}; f'


def _configured(repo: Repository) -> dict[str, list[str]]:
    """Return key to values of what the clone's own configuration says of these drivers now."""
    output = repo.run("config", "--local", "-z", "--get-regexp", r"^(merge|diff)\.pipesmith(-base)?\.", ok=(0, 1))
    found: dict[str, list[str]] = {}
    for entry in os.fsdecode(output).split("\0"):
        key, given, value = entry.partition("\n")
        if given:
            found.setdefault(key, []).append(value)
    return found


# -- attributes ---------------------------------------------------------------------------------------------------


def _given(repo: Repository, attribute: str) -> str:
    """Return an attribute's value for a pipe.lock at the top, as git has it; `unspecified` where nobody gives one."""
    output = repo.run("check-attr", "-z", attribute, "--", _PATTERN)
    return os.fsdecode(output).split("\0")[2]


def _write_attributes(repo: Repository, line: str | None) -> bool:
    """Have this line, or none of ours, in `info/attributes`; return whether that is a change."""
    path = os.path.join(repo.common_dir, "info", "attributes")
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            before = file.read()
    except FileNotFoundError:
        before = ""
    if line is not None and f"{_COMMENT}\n{line}\n" in before:
        return False
    kept: list[str] = []
    ours = False
    for each in before.splitlines(keepends=True):
        if each.strip() == _COMMENT:
            ours = True
        elif ours and each.startswith(f"{_PATTERN} "):
            ours = False
        else:
            kept.append(each)
    text = "".join(kept)
    if line is not None:
        text += f"{'' if not text or text.endswith(chr(10)) else chr(10)}{_COMMENT}\n{line}\n"
    if text == before:
        return False
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if not text:
        os.unlink(path)
        return True
    ready = f"{path}.{os.getpid()}.tmp"
    with open(ready, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(text)
    if os.path.exists(path):
        os.chmod(ready, os.stat(path).st_mode & 0o7777)
    os.rename(ready, path)
    return True
