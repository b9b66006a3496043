"""The witness of a call that found everything fresh: what it looked at, and its answer.

It knows no rule of a build, only "what was looked at is as it was"; any difference, and the full path runs. This
module is on the path of every no-op, so it imports next to nothing (a test holds the list). Format:
docs/formats/witness.md.
"""

from __future__ import annotations

import marshal
import os
import stat
import sys
from _blake2 import blake2b

from pipesmith import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    _Folders = list[tuple[str, int, bytes, int]]
    _Listed = list[tuple[str, tuple[int, ...], tuple[str, ...], bytes]]

__all__ = ["RACY_NS", "Looked", "ask", "folder_signatures", "forget", "place", "stamp", "store"]

FORMAT = 2
RACY_NS = 20_000_000
_FORK_ABOVE = 20_000
_ALL = -1  # entries of a folder: all, else every other one from the first (0) or second (1) on
_VARIABLES = ("PIPE_", "GIT_")
_NAMES = ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "NO_COLOR", "TERM", "COLUMNS", "LANG", "LC_ALL")


class Looked:
    """What a call looked at.

    files: path to stamp, None for what is not there. folders: path to signatures of all its entries. listed: path of a
    folder to (its stamp, names of files, signature of those).
    """

    __slots__ = ("files", "folders", "listed")

    def __init__(self) -> None:
        self.files: dict[str, tuple[int, ...] | None] = {}
        self.folders: dict[str, tuple[bytes, ...]] = {}
        self.listed: dict[str, tuple[tuple[int, ...], tuple[str, ...], bytes]] = {}


def stamp(path: str) -> tuple[int, ...] | None:
    """Return what changes when a file or a folder's list of names does, None where nothing lies there."""
    try:
        info = os.lstat(path)
    except OSError:
        return None
    return (info.st_mode, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def folder_signatures(path: str, count: int) -> tuple[bytes, ...]:
    """Return a signature of a folder's own stamp and of all its entries, in the order in which the system lists them;
    of one with very many entries (`count`) two, each of every other entry, so that two processes can share the work."""
    if count < _FORK_ABOVE:
        return (_folder_signature(path, _ALL),)
    return (_folder_signature(path, 0), _folder_signature(path, 1))


def _folder_signature(path: str, part: int) -> bytes:
    flat: list[object] = [stamp(path)]
    add = flat.append
    wanted = True
    skip = part == 1
    with os.scandir(path) as entries:
        for entry in entries:
            if part >= 0:
                wanted, skip = not skip, not skip
                if not wanted:
                    continue
            add(entry.name)
            info = entry.stat(follow_symlinks=False)
            mode = info.st_mode
            add(mode)
            if mode & 0o170000 != 0o040000:
                add(info.st_ino)
                add(info.st_size)
                add(info.st_mtime_ns)
                add(info.st_ctime_ns)
    return blake2b(marshal.dumps(flat, 2), digest_size=16).digest()


def names_signature(folder: str, names: tuple[str, ...]) -> bytes:
    """Return a signature of the named files of a folder."""
    flat: list[object] = []
    prefix = folder + "/"
    lstat = os.lstat
    for name in names:
        info = lstat(prefix + name)
        flat += (info.st_mode, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
    return blake2b(marshal.dumps(flat, 2), digest_size=16).digest()


def _common_folder(folder: str) -> str | None:
    """Return the git folder that all worktrees of a clone share, without asking git; None where that is not plain."""
    while True:
        git = os.path.join(folder, ".git")
        try:
            if os.path.isdir(git):
                return git
            with open(git, encoding="utf-8") as file:
                head = file.read()
            if not head.startswith("gitdir: "):
                return None
            own = os.path.join(folder, head[8:].strip())
            try:
                with open(os.path.join(own, "commondir"), encoding="utf-8") as file:
                    return os.path.normpath(os.path.join(own, file.read().strip()))
            except FileNotFoundError:
                return own
        except FileNotFoundError:
            parent = os.path.dirname(folder)
            if parent == folder:
                return None
            folder = parent
        except OSError:
            return None


def place(args: list[str]) -> str | None:
    """Return where the witness of this very call lies, or would lie; None where there can be none."""
    environ = os.environ
    if "GIT_DIR" in environ or "GIT_WORK_TREE" in environ or "GIT_COMMON_DIR" in environ:
        return None
    folder = os.getcwd()
    if "-C" in args:
        at = args.index("-C")
        if "-C" in args[at + 1 :] or at + 1 == len(args):
            return None
        folder = os.path.join(folder, args[at + 1])
    common = _common_folder(os.path.realpath(folder))
    if common is None:
        return None
    known = [(name, environ[name]) for name in sorted(environ) if name.startswith(_VARIABLES) or name in _NAMES]
    what = (FORMAT, __version__, sys.executable, args, folder, known, sys.stdout.isatty(), os.geteuid())
    key = blake2b(marshal.dumps(what, 2), digest_size=16).hexdigest()
    return f"{common}/pipe/tmp/witness/{key}"


def ask(args: list[str]) -> str | None:
    """Return the answer of an equal call before, if everything that it looked at is as it was; else None."""
    try:
        where = place(args)
        if where is None:
            return None
        with open(where, "rb") as file:
            files, folders, listed, answer = marshal.load(file)
        return answer if _holds(files, folders, listed) else None
    except (OSError, ValueError, EOFError, TypeError):
        return None


def _holds(files: dict[str, tuple[int, ...] | None], folders: _Folders, listed: _Listed) -> bool:
    for path, before in files.items():
        if stamp(path) != before:
            return False
    work: list[tuple[int, int, int]] = [(entry[1], 0, index) for index, entry in enumerate(folders)]
    work += [(len(row[2]) + 1, 1, index) for index, row in enumerate(listed)]
    if sum(size for size, _kind, _index in work) < _FORK_ABOVE:
        return _all_hold(work, folders, listed)
    mine, others = _halves(work)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if _all_hold(others, folders, listed) else 1
        finally:
            os._exit(code)
    good = _all_hold(mine, folders, listed)
    _pid, status = os.waitpid(pid, 0)
    return good and status == 0


def _all_hold(work: list[tuple[int, int, int]], folders: _Folders, listed: _Listed) -> bool:
    try:
        for _size, kind, index in work:
            if kind == 0:
                path, _count, before, part = folders[index]
                if _folder_signature(path, part) != before:
                    return False
            else:
                path, own, names, before = listed[index]
                if stamp(path) != own or names_signature(path, names) != before:
                    return False
    except OSError:
        return False
    return True


def _halves(work: list[tuple[int, int, int]]) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    """Return two parts of about the same work. Threads would not help: the interpreter is what takes the time."""
    mine: list[tuple[int, int, int]] = []
    others: list[tuple[int, int, int]] = []
    balance = 0
    for item in sorted(work, reverse=True):
        if balance <= 0:
            mine.append(item)
            balance += item[0]
        else:
            others.append(item)
            balance -= item[0]
    return mine, others


def store(where: str, looked: Looked, sizes: dict[str, int], answer: str) -> None:
    """Write a witness down. sizes: entries of each folder. What can't be written is no loss."""
    folders: _Folders = []
    for path, signatures in looked.folders.items():
        many = len(signatures) > 1
        for part, signature in enumerate(signatures):
            folders.append((path, sizes.get(path, 0) // len(signatures), signature, part if many else _ALL))
    listed = [(path, *row) for path, row in looked.listed.items()]
    ready = f"{where}.{os.getpid()}"
    try:
        folder = os.path.dirname(where)
        if not os.path.isdir(folder):
            os.makedirs(folder, exist_ok=True)
            mode = stat.S_IMODE(os.stat(os.path.dirname(folder)).st_mode)
            if mode & stat.S_ISGID:  # a shared repository (store/modes.py, which is not worth importing here)
                os.chmod(folder, mode)
        with open(ready, "wb") as file:
            marshal.dump((looked.files, folders, listed, answer), file, 2)
            if os.stat(folder).st_mode & stat.S_ISGID:
                os.fchmod(file.fileno(), os.stat(folder).st_mode & 0o666)
        os.rename(ready, where)
    except (OSError, ValueError):
        forget(ready)


def forget(where: str) -> None:
    """Remove a witness; one that is not there is fine."""
    try:
        os.unlink(where)
    except OSError:
        pass
