"""Makes a Layout real on this machine: what is copied into the sandbox folder, and what will be mounted there.

Read-only things are collected as binds; only where something else has to lie *inside* a bound folder is that folder
opened up: made real, its entries bound one by one. Without namespaces the same plan is carried out by copying what
would be bound.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable

from pipesmith.errors import Cancelled, StageError
from pipesmith.executors.base import Layout, Mount
from pipesmith.executors.copying import copy_any, copy_file, copy_link, tree_stamps
from pipesmith.records import field, record

__all__ = ["Bind", "Sandbox", "materialise"]

Bind = tuple[str, str, bool]  # origin, target, writable; absolute
_MOST_BINDS = 20_000  # the kernel's limit of mounts in a namespace is 100,000 by default


@record(frozen=False)
class Sandbox:
    """A sandbox folder that is ready. binds: what is to be mounted (none where it was copied). inputs: copies that must
    not be written, path in the workspace to their stamps."""

    root: str
    binds: list[Bind] = field(default_factory=list)
    inputs: dict[str, dict[str, tuple[int, ...]]] = field(default_factory=dict)

    def written_input(self) -> str | None:
        """Return the path of an input whose copy is no longer what it was, None where all are."""
        for path, stamps in self.inputs.items():
            if tree_stamps(os.path.join(self.root, path)) != stamps:
                return path
        return None

    def unlock(self) -> None:
        """Make the folders of copied inputs writable, so that the sandbox can be removed."""
        for path, stamps in self.inputs.items():
            for place in (os.path.join(self.root, path), *stamps):
                try:
                    mode = os.lstat(place).st_mode
                    if stat.S_ISDIR(mode) and not mode & stat.S_IWUSR:
                        os.chmod(place, stat.S_IMODE(mode) | stat.S_IRWXU)
                except OSError:
                    continue


def materialise(layout: Layout, root: str, *, mounted: bool, stop: Callable[[], bool] = lambda: False) -> Sandbox:
    """Fill a new folder `root` as a layout says. mounted: there will be namespaces; else everything is copied.

    Raises StageError, with the path, where something can't be placed; Cancelled when `stop` says so.
    """
    os.mkdir(root)
    plan = _Plan(layout, root, stop)
    for mount in layout.mounts:
        if stop():
            raise Cancelled()
        plan.add(mount)
    for path in layout.folders:
        plan.folder(path)
    for path in layout.withheld:
        plan.withhold(path)
    for output in layout.outputs:
        plan.clear(output.path)
    for path in sorted(layout.visible):
        plan.visible(path)
    return plan.finish_mounted() if mounted else plan.finish_copied()


class _Plan:
    """What a sandbox will hold. Everything but binds is in the folder at once."""

    def __init__(self, layout: Layout, root: str, stop: Callable[[], bool]) -> None:
        self._layout = layout
        self._root = root
        self._stop = stop
        self._binds: dict[str, tuple[str, bool]] = {}  # path: (origin, writable)
        self._declared: set[str] = set()  # the binds that a layout names; others come from folders that were opened up
        self._visible: dict[str, str] = {}
        self._outside: list[Bind] = []
        self._real = {""}  # folders known to be real ones of the sandbox

    def add(self, mount: Mount) -> None:
        try:
            info = os.lstat(mount.origin)
        except OSError as error:
            raise StageError(f"`{mount.path}` can't be given to it: {mount.origin}: {error.strerror}") from None
        if os.path.isabs(mount.path):
            self._outside.append((mount.origin, mount.path, mount.writable))
            return
        path = _normal(mount.path)
        self._parent(path)
        if not (stat.S_ISDIR(info.st_mode) and mount.copy and path in self._real):
            self._remove(path)
        target = os.path.join(self._root, path)
        if stat.S_ISLNK(info.st_mode):
            copy_link(mount.origin, target)
        elif not mount.copy:
            self._declared.add(path)
            self._binds[path] = (mount.origin, mount.writable)
        elif stat.S_ISREG(info.st_mode):
            copy_file(mount.origin, target, info, read_only=False)
        else:
            copy_any(mount.origin, target, read_only=False, stop=self._stop)

    def folder(self, path: str) -> None:
        """Make a folder, unless what is bound there will show one."""
        path = _normal(path)
        if path and not self._shown(path) and not os.path.islink(os.path.join(self._root, path)):
            self._parent(f"{path}/.")

    def clear(self, path: str) -> None:
        """See to it that an output's folder is a real one and the output itself is not there."""
        path = _normal(path)
        self._parent(path)
        inside = next((bound for bound in self._declared if bound == path or bound.startswith(f"{path}/")), None)
        if inside is not None:
            raise StageError(f"output `{path}` would hold input `{inside}`", "give one of them another path")
        self._remove(path)

    def withhold(self, path: str) -> None:
        """See to it that something in a bound folder is not there."""
        path = _normal(path)
        self._parent(path)
        self._remove(path)

    def visible(self, path: str) -> None:
        """Let a folder of the workspace be seen at its own place, unless a bound folder shows it already."""
        place = _normal(os.path.relpath(path, self._layout.workspace))
        if not place or self._shown(place) or any(above in self._visible for above in _above(place)):
            return
        self._parent(place)
        self._visible[place] = path

    def _shown(self, path: str) -> bool:
        """Tell whether a path is bound, or is there in a folder that is."""
        if path in self._binds:
            return True
        for above in _above(path):
            if above in self._binds:
                return os.path.lexists(f"{self._binds[above][0]}/{path[len(above) + 1 :]}")
        return False

    def _parent(self, path: str) -> None:
        """Make the folders above a path real. A link on the way would lead out of the sandbox: refused."""
        for above in _above(path):
            if above in self._binds:
                self._open_up(above)
            if above in self._real:
                continue
            target = os.path.join(self._root, above)
            try:
                os.mkdir(target)
            except FileExistsError:
                mode = os.lstat(target).st_mode
                if not stat.S_ISDIR(mode):
                    kind = "a symbolic link" if stat.S_ISLNK(mode) else "a file"
                    raise StageError(
                        f"`{path}` can't be placed: `{above}` is {kind} there", "give one of them another path"
                    ) from None
            self._real.add(above)

    def _open_up(self, path: str) -> None:
        """Make a bound folder a real one whose entries are bound one by one, so that something can lie among them."""
        origin, writable = self._binds.pop(path)
        target = os.path.join(self._root, path)
        if not os.path.isdir(origin):
            raise StageError(
                f"`{path}` is a file, and something has to be placed below it", "give one of them another path"
            )
        os.makedirs(target, exist_ok=True)
        self._real.add(path)
        with os.scandir(origin) as entries:
            for entry in entries:
                if entry.is_symlink():
                    copy_link(entry.path, f"{target}/{entry.name}")
                else:
                    self._binds[f"{path}/{entry.name}"] = (entry.path, writable)

    def _remove(self, path: str) -> None:
        """Take away what lies at a path, and below it."""
        below = f"{path}/"
        self._binds.pop(path, None)
        if path in self._real:
            for bound in [bound for bound in self._binds if bound.startswith(below)]:
                del self._binds[bound]
        target = os.path.join(self._root, path)
        try:
            mode = os.lstat(target).st_mode
        except OSError:
            return
        if stat.S_ISDIR(mode):
            shutil.rmtree(target)
            self._real = {real for real in self._real if real != path and not real.startswith(below)}
        else:
            os.unlink(target)

    # -- the end ------------------------------------------------------------------------------------------------------

    def finish_mounted(self) -> Sandbox:
        """Make the mount points."""
        sandbox = Sandbox(root=self._root)
        for path, (origin, writable) in self._binds.items():
            target = os.path.join(self._root, path)
            info = os.lstat(origin)
            if stat.S_ISREG(info.st_mode) and not writable and len(sandbox.binds) >= _MOST_BINDS:
                copy_file(origin, target, info, read_only=True)
                continue
            _mount_point(target, folder=stat.S_ISDIR(info.st_mode))
            sandbox.binds.append((origin, target, writable))
        for path, origin in self._visible.items():
            target = os.path.join(self._root, path)
            if os.path.islink(target):
                continue
            _mount_point(target, folder=True)
            sandbox.binds.append((origin, target, False))
        for origin, place, writable in self._outside:
            _mount_point(place, folder=os.path.isdir(origin))
            sandbox.binds.append((origin, place, writable))
        return sandbox

    def finish_copied(self) -> Sandbox:
        """Copy what would be bound. What is writable, or only to be seen, is reached through a link."""
        sandbox = Sandbox(root=self._root)
        for path, (origin, writable) in self._binds.items():
            target = os.path.join(self._root, path)
            if writable:
                os.symlink(origin, target)
                continue
            copy_any(origin, target, read_only=True, stop=self._stop)
            if self._stop():
                raise Cancelled()
            sandbox.inputs[path] = tree_stamps(target)
        for path, origin in self._visible.items():
            target = os.path.join(self._root, path)
            if not os.path.lexists(target):
                os.symlink(origin, target)
        for origin, place, _writable in self._outside:
            os.symlink(origin, place)
        return sandbox


def _normal(path: str) -> str:
    """Return a path in normal form, `` for the workspace itself. Raises StageError where it leads out."""
    path = os.path.normpath(path)
    if path == ".":
        return ""
    if path.startswith(("/", "../")) or path == "..":
        raise StageError(f"`{path}` leads out of the workspace")
    return path


def _above(path: str) -> list[str]:
    """Return the folders above a path, the outermost first, without the workspace itself."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _mount_point(target: str, *, folder: bool) -> None:
    if folder:
        os.makedirs(target, exist_ok=True)
    elif not os.path.lexists(target):
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
