"""Files to and from a far side as tar streams: nothing is written to a temporary file, and no folder need be shared.

Names are UTF-8 with surrogates for bytes that are none, as PAX headers and the standard library have them. What comes
back is never trusted: no member leaves the folder that it is unpacked to, and owners are not kept.
"""

from __future__ import annotations

import os
import queue
import shutil
import stat
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator

from pipesmith.errors import EnvironmentFailure, StageError
from pipesmith.records import record

__all__ = ["CutShort", "Packer", "Parcel", "pack", "unpack"]

_CHUNK = 1 << 18  # memory for larger ones is given back to the system each time, which costs more than it saves
_AHEAD = 16  # chunks between the thread that packs and the one that sends


class CutShort(EnvironmentFailure):
    """A stream ended before what it carries."""

    def __init__(self, what: str) -> None:
        super().__init__(f"what came back is not whole: {what}", "build again")


@record(kw_only=False)
class Parcel:
    """One thing to be sent. origin: absolute path here, or None for an empty folder. place: absolute path there.
    read_only: it loses its write bits, and is root's there. without: absolute paths in it that are left out."""

    origin: str | None
    place: str
    read_only: bool = False
    without: frozenset[str] = frozenset()


class Packer:
    """Writes parcels into a tar stream. uid, gid: whose the files are there."""

    def __init__(self, write: Callable[[bytes], object], uid: int, gid: int) -> None:
        self._tar = tarfile.open(fileobj=_Sink(write), mode="w|", format=tarfile.PAX_FORMAT, bufsize=_CHUNK)  # type: ignore[call-overload]
        self._uid, self._gid = uid, gid
        self._folders: set[str] = set()

    def add(self, parcel: Parcel) -> None:
        """Write a file, link or folder with all that lies in it. Raises OSError."""
        place = parcel.place.strip("/")
        self._parents(place)
        if parcel.origin is None:
            self._folder(place, parcel.read_only)
            return
        self._any(parcel.origin, place, parcel)

    def end(self) -> None:
        self._tar.close()

    def _parents(self, place: str) -> None:
        parts = place.split("/")[:-1]
        for count in range(1, len(parts) + 1):
            above = "/".join(parts[:count])
            if above not in self._folders and above != "tmp":
                self._folder(above, False)

    def _folder(self, place: str, read_only: bool) -> None:
        if place in self._folders or not place:
            return
        self._folders.add(place)
        entry = self._entry(place, read_only)
        entry.type = tarfile.DIRTYPE
        entry.mode = 0o555 if read_only else 0o755
        self._tar.addfile(entry)

    def _entry(self, place: str, read_only: bool) -> tarfile.TarInfo:
        entry = tarfile.TarInfo(place)
        if not read_only:
            entry.uid, entry.gid = self._uid, self._gid
        return entry

    def _any(self, origin: str, place: str, parcel: Parcel) -> None:
        if origin in parcel.without:
            return
        read_only = parcel.read_only
        info = os.lstat(origin)
        if stat.S_ISDIR(info.st_mode):
            self._folder(place, read_only)
            with os.scandir(origin) as found:
                names = sorted(entry.name for entry in found)
            for name in names:
                self._any(f"{origin}/{name}", f"{place}/{name}", parcel)
            return
        entry = self._entry(place, read_only)
        entry.mtime = int(info.st_mtime)
        if stat.S_ISLNK(info.st_mode):
            entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(origin)
            self._tar.addfile(entry)
        elif stat.S_ISREG(info.st_mode):
            with open(origin, "rb") as file:
                info = os.fstat(file.fileno())
                entry.size = info.st_size
                bits = 0o111 if info.st_mode & 0o100 else 0
                entry.mode = (0o444 if read_only else 0o644) | bits
                self._tar.addfile(entry, file)  # raises where the file has become shorter
        else:
            raise OSError(0, "is neither a file, a folder nor a link", origin)


class _Sink:
    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    def write(self, data: bytes) -> int:
        self._write(bytes(data))
        return len(data)


class _Stopped(Exception):
    """Nobody takes the stream any more."""


def pack(parcels: Iterable[Parcel], uid: int, gid: int) -> Iterator[bytes]:
    """Yield a tar of parcels, packed by a thread of its own. Raises StageError for what can't be read."""
    ready: queue.Queue[bytes | BaseException | None] = queue.Queue(_AHEAD)
    stopped = threading.Event()

    def put(item: bytes | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.5)
                return
            except queue.Full:
                continue
        raise _Stopped

    def work() -> None:
        try:
            packer = Packer(put, uid, gid)
            for parcel in parcels:
                packer.add(parcel)
            packer.end()
            put(None)
        except _Stopped:
            pass
        except BaseException as error:
            if isinstance(error, OSError):  # as it is, it would look like a fault of the connection
                name, why = error.filename or "what is sent", error.strerror or f"it changed ({error})"
                error = StageError(f"`{name}` can't be sent: {why}", "build again")
            try:
                put(error)
            except _Stopped:
                pass

    thread = threading.Thread(target=work, name="pack", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()


def unpack(stream: Iterable[bytes], place: str) -> None:
    """Unpack a tar whose one top member becomes `place`, an absolute path that is not there.

    Raises CutShort where the stream ends too early or is damaged, EnvironmentFailure where a member would lead out,
    OSError where it can't be written. Executable bits and the texts of links are kept; times, owners and other bits
    are not."""
    source = _Source(iter(stream))
    made: dict[str, str] = {}
    top: str | None = None
    try:
        with tarfile.open(fileobj=source, mode="r|", bufsize=_CHUNK) as tar:  # type: ignore[call-overload]
            for member in tar:
                name = os.path.normpath(member.name)
                first = name.split("/")[0]
                if top is None:
                    top = first
                if first != top or name.startswith(("/", "..")):
                    raise EnvironmentFailure(f"what came back has a member that lies elsewhere: `{member.name}`")
                target = place + name[len(top) :]
                _unpack_one(tar, member, target, made)
                made[name] = target
    except tarfile.TarError as error:
        raise CutShort(str(error)) from None
    if top is None:
        raise CutShort("it is empty")
    for _rest in source:  # what pads the archive: the answer is read to its end
        pass


def _unpack_one(tar: tarfile.TarFile, member: tarfile.TarInfo, target: str, made: dict[str, str]) -> None:
    parent = os.path.dirname(target)
    if os.path.islink(parent):
        raise EnvironmentFailure(f"what came back has a member below a link: `{member.name}`")
    if member.isdir():
        os.makedirs(target, exist_ok=True)
    elif member.issym():
        os.symlink(member.linkname, target)
    elif member.islnk():
        origin = made.get(os.path.normpath(member.linkname))
        if origin is None:
            raise EnvironmentFailure(f"what came back has a hard link to what it does not hold: `{member.name}`")
        shutil.copy2(origin, target, follow_symlinks=False)
    elif member.isreg():
        content = tar.extractfile(member)
        assert content is not None
        mode = 0o777 if member.mode & 0o100 else 0o666
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(fd, "wb") as file:
            left = member.size
            while left:
                data = content.read(min(_CHUNK, left))
                if not data:
                    raise CutShort(f"`{member.name}` is cut short")
                file.write(data)
                left -= len(data)
    else:
        raise EnvironmentFailure(f"`{member.name}` is neither a file, a folder nor a link")


class _Source:
    """A stream of chunks as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, size: int) -> bytes:
        parts = [self._rest]
        have = len(self._rest)
        while have < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            parts.append(chunk)
            have += len(chunk)
        data = b"".join(parts)
        self._rest = data[size:]
        return data[:size]

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks
