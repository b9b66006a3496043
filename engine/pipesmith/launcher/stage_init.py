"""The first process of a stage: sets up its world, starts the command, reaps, and leaves nothing running when the command ends."""

import marshal
import os
import signal
import time

import namespaces

__all__ = ["start"]


def start(spec, fds, setsid=True):
    """Fork the first process of a stage and return (pid, fd from which its report is read).

    spec: `argv`, `env`, `cwd` (absolute), `private` (namespaces or not) and what `namespaces.enter` takes. fds: stdin, stdout, stderr.
    """
    read, write = os.pipe()
    uid, gid = os.geteuid(), os.getegid()
    pid = namespaces.clone(spec["private"])
    if pid:
        os.close(write)
        return pid, read
    report = {"exit": None, "signal": None, "problem": None}
    try:
        namespaces.set_parent_death_signal(signal.SIGKILL if spec["private"] else signal.SIGUSR1)
        os.close(read)
        os.set_inheritable(write, False)
        if setsid:
            os.setsid()
        _first(spec, fds, uid, gid, report)
    except OSError as error:
        report["problem"] = "the sandbox could not be made: %s" % (error.strerror or error)
    except BaseException as error:
        report["problem"] = "the sandbox could not be made: %r" % (error,)
    finally:
        try:
            os.write(write, marshal.dumps(report))
        finally:
            os._exit(0)


def _first(spec, fds, uid, gid, report):
    private = spec["private"]
    if private:
        if uid != 0:
            namespaces.map_user(uid, gid)
        namespaces.enter(spec)
    else:
        namespaces.set_subreaper()
    state = {"command": 0}

    def everyone(number):
        if private:
            try:
                os.kill(-1, number)
            except ProcessLookupError:
                pass
        else:
            for pid in _descendants(os.getpid()):
                _kill(pid, number)

    def ask(_number, _frame):
        everyone(signal.SIGTERM)

    def end(_number, _frame):
        _end_all(everyone, private)
        os._exit(0)

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGUSR1, end)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    failed_read, failed_write = os.pipe()
    os.set_inheritable(failed_write, False)
    command = os.fork()
    if command == 0:
        os.close(failed_read)
        _execute(spec, fds, failed_write)
    state["command"] = command
    for fd in set(fds):
        os.close(fd)
    os.close(failed_write)
    words = os.read(failed_read, 4096)
    while True:
        try:
            pid, status = os.waitpid(-1, 0)
        except ChildProcessError:
            break
        if pid == command:
            if os.WIFSIGNALED(status):
                report["signal"] = os.WTERMSIG(status)
            else:
                report["exit"] = os.WEXITSTATUS(status)
            break
    if words:
        report["problem"] = words.decode("utf-8", "replace")
    _end_all(everyone, private)


def _execute(spec, fds, failed):
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    argv = spec["argv"]
    try:
        if spec.get("session", True):
            os.setsid()
        for target, fd in enumerate(fds):
            if fd == target:
                os.set_inheritable(fd, True)
            else:
                os.dup2(fd, target)
        os.closerange(3, failed)
        os.closerange(failed + 1, 1024)
        os.chdir(spec["cwd"])
        if spec["private"]:
            namespaces.drop_capabilities()
        os.execvpe(argv[0], argv, spec["env"])
    except FileNotFoundError as error:
        what = "the command `%s` is not on PATH" if "/" not in argv[0] else "`%s` does not exist, or its interpreter does not"
        where = argv[0] if error.filename in (None, argv[0]) or "/" not in argv[0] else error.filename
        os.write(failed, ((what % where) if os.path.isdir(spec["cwd"]) else "no folder `%s`" % spec["cwd"]).encode())
    except OSError as error:
        os.write(failed, ("`%s`: %s" % (argv[0], error.strerror)).encode())
    finally:
        os._exit(127)


def _end_all(everyone, private):
    """Kill what is left until nothing is."""
    if private:
        return  # the kernel ends all others of a process namespace with its first process
    for _ in range(1000):
        if not _descendants(os.getpid()):
            return
        everyone(signal.SIGKILL)
        while True:
            try:
                pid, _status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                break
        time.sleep(0.002)


def _kill(pid, number):
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def _descendants(pid):
    found = []
    stack = [pid]
    while stack:
        where = "/proc/%d/task" % stack.pop()
        try:
            threads = os.listdir(where)
        except OSError:
            continue
        for thread in threads:
            try:
                with open("%s/%s/children" % (where, thread)) as file:
                    below = [int(word) for word in file.read().split()]
            except OSError:
                continue
            found += below
            stack += below
    return found
