"""Makes a Layout real on this machine: what is copied, where things will be mounted."""

from __future__ import annotations

import os
import shutil
import stat

from pipesmith.executors.base import Layout
from pipesmith.store.links import reflink

__all__ = ["Bind", "make_copies", "make_mounted"]

Bind = tuple[str, str, bool]  # origin, target, writable


def make_mounted(layout: Layout, root: str) -> list[Bind]:
    """Fill the sandbox folder for a sandbox of namespaces: copies of source, mount points for the rest. Returns the mounts."""
    binds: list[Bind] = []
    made = _Folders(root)
    for mount in layout.mounts:
        target = os.path.join(root, mount.path)
        made.parent(mount.path)
        mode = os.lstat(mount.origin).st_mode
        if stat.S_ISLNK(mode):
            _replace_link(mount.origin, target)
        elif mount.copy:
            _copy_file(mount.origin, target, mode)
        else:
            _mount_point(target, stat.S_ISDIR(mode))
            binds.append((mount.origin, target, mount.writable))
    _make_folders(layout, made)
    for path in layout.visible:
        target = os.path.join(root, os.path.relpath(path, layout.workspace))
        made.parent(os.path.relpath(path, layout.workspace))
        if not os.path.lexists(target):
            _mount_point(target, True)
            binds.append((path, target, False))
    return binds


def make_copies(layout: Layout, root: str) -> None:
    """Fill the sandbox folder where there are no namespaces: inputs are copies too, read-only by their mode."""
    made = _Folders(root)
    for mount in layout.mounts:
        target = os.path.join(root, mount.path)
        made.parent(mount.path)
        mode = os.lstat(mount.origin).st_mode
        if mount.writable:
            os.symlink(mount.origin, target)
        elif stat.S_ISLNK(mode):
            _replace_link(mount.origin, target)
        elif stat.S_ISDIR(mode):
            _copy_folder(mount.origin, target)
        else:
            _copy_file(mount.origin, target, mode)
            if not mount.copy:
                os.chmod(target, stat.S_IMODE(mode) & ~0o222)
    _make_folders(layout, made)


class _Folders:
    """Makes folders below a root, each once."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._made = {""}

    def parent(self, path: str) -> None:
        self.make(path.rpartition("/")[0])

    def make(self, path: str) -> None:
        if path not in self._made:
            os.makedirs(os.path.join(self._root, path), exist_ok=True)
            self._made.add(path)


def _make_folders(layout: Layout, made: _Folders) -> None:
    for path in layout.folders:
        made.make(path)
    for output in layout.outputs:
        made.parent(output.path)
        target = os.path.join(made._root, output.path)
        if os.path.lexists(target) and not any(mount.path == output.path for mount in layout.mounts if not mount.copy):
            shutil.rmtree(target) if os.path.isdir(target) and not os.path.islink(target) else os.unlink(target)


def _mount_point(target: str, folder: bool) -> None:
    if folder:
        os.makedirs(target, exist_ok=True)
    elif not os.path.lexists(target):
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT, 0o644))


def _replace_link(origin: str, target: str) -> None:
    if os.path.lexists(target):
        os.unlink(target)
    os.symlink(os.readlink(origin), target)


def _copy_file(origin: str, target: str, mode: int) -> None:
    if os.path.lexists(target):
        os.unlink(target)
    permissions = stat.S_IMODE(mode) | 0o200
    if reflink(origin, target, permissions):
        return
    read = os.open(origin, os.O_RDONLY)
    try:
        write = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, permissions)
        try:
            while chunk := os.read(read, 1 << 20):
                view = memoryview(chunk)
                while len(view):
                    view = view[os.write(write, view) :]
        finally:
            os.close(write)
    finally:
        os.close(read)


def _copy_folder(origin: str, target: str) -> None:
    os.makedirs(target, exist_ok=True)
    with os.scandir(origin) as children:
        for child in children:
            place = f"{target}/{child.name}"
            if child.is_symlink():
                _replace_link(child.path, place)
            elif child.is_dir(follow_symlinks=False):
                _copy_folder(child.path, place)
            else:
                mode = child.stat(follow_symlinks=False).st_mode
                _copy_file(child.path, place, mode)
                os.chmod(place, stat.S_IMODE(mode) & ~0o222)
    os.chmod(target, 0o555)
