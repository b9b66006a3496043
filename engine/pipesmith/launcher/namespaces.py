"""Linux namespaces by bare system calls: a stage's own view of the file system and of processes. Sources: mount_namespaces(7),
user_namespaces(7), pid_namespaces(7), mount_setattr(2)."""

import ctypes
import os

__all__ = ["clone", "drop_capabilities", "enter", "set_parent_death_signal", "set_subreaper"]

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
_SIGCHLD = 17
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = (
    1,
    2,
    4,
    8,
    32,
    4096,
    16384,
    1 << 18,
)
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR_RDONLY = 1
_SYS_CLONE = {"x86_64": 56, "aarch64": 220}
_SYS_MOUNT_SETATTR = 442
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER = 1, 24, 36
# What would let root reach behind its mounts: SYS_ADMIN (mount), MKNOD and SYS_RAWIO (the disk itself), SYS_MODULE,
# DAC_READ_SEARCH (files by handle).
_DROPPED = (2, 16, 17, 21, 27)

# PyDLL keeps the interpreter's lock over the call: the child of `clone` goes on with it held.
_libc = ctypes.PyDLL(None, use_errno=True)


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def _check(result, what):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, "%s: %s" % (what, os.strerror(number)))


def clone(private):
    """Fork; with `private` into new mount and process namespaces, as an ordinary user in a new user namespace too. Returns as
    os.fork. Raises OSError."""
    if not private:
        return os.fork()
    flags = CLONE_NEWNS | CLONE_NEWPID | _SIGCHLD
    if os.geteuid() != 0:
        flags |= CLONE_NEWUSER
    number = _SYS_CLONE.get(os.uname().machine)
    if number is None:
        raise OSError(38, "clone: not known for this machine")
    pid = _libc.syscall(number, flags, 0, 0, 0, 0)
    if pid < 0:
        error = ctypes.get_errno()
        raise OSError(error, "clone: %s" % os.strerror(error))
    return pid


def _mount(source, target, kind, flags):
    encode = os.fsencode
    _check(
        _libc.mount(encode(source) if source else None, encode(target), encode(kind) if kind else None, flags, None),
        "mount %s" % target,
    )


def _read_only(path):
    attributes = _MountAttr(_MOUNT_ATTR_RDONLY, 0, 0, 0)
    done = _libc.syscall(
        _SYS_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(path), _AT_RECURSIVE, ctypes.byref(attributes), ctypes.sizeof(attributes)
    )
    if done != 0:
        if ctypes.get_errno() != 38:
            _check(done, "mount_setattr %s" % path)
        _mount(None, path, None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY)  # before Linux 5.12: the top one only


def map_user(uid, gid):
    """Keep the user's own ids in a new user namespace. Called in the child, before anything else."""
    for name, text in (("setgroups", "deny"), ("uid_map", "%d %d 1" % (uid, uid)), ("gid_map", "%d %d 1" % (gid, gid))):
        fd = os.open("/proc/self/" + name, os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def enter(spec):
    """Make the sandbox real, in the child of `clone`. spec: `workspace`, `root` (the sandbox folder), `binds` as (origin, target,
    writable), `hidden` folders, `empty` (a folder with nothing in it). Raises OSError."""
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    for origin, target, writable in spec["binds"]:
        _mount(origin, target, None, _MS_BIND | _MS_REC)
        if not writable:
            _read_only(target)
    _mount(spec["root"], spec["root"], None, _MS_BIND | _MS_REC)
    _mount(spec["root"], spec["workspace"], None, _MS_BIND | _MS_REC)
    for folder in spec["hidden"]:
        _mount(spec["empty"], folder, None, _MS_BIND)
        _read_only(folder)
    _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)


def drop_capabilities():
    """Take from what is executed next what would let root undo its mounts."""
    for capability in _DROPPED:
        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


def set_parent_death_signal(number):
    _libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def set_subreaper():
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
