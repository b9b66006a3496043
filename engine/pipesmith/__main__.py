"""The door: answers what needs no import, asks the witness, else hands on to `pipesmith.cli`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    try:
        return _main(argv)
    except KeyboardInterrupt:  # before there is a command that could tell of it
        print("error: interrupted", file=sys.stderr)
        if argv is None:
            _leave(130, at_once=True)
        return 130


def _main(argv: list[str] | None) -> int:
    args = sys.argv[1:] if argv is None else argv
    if argv is None and sys.getfilesystemencoding() != "utf-8":
        _in_utf8()
    if sys.stdout is None or sys.stderr is None:
        _open_closed()
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None and sys.stdout.encoding != "utf-8":
        reconfigure(errors="backslashreplace")  # PYTHONIOENCODING asks for another encoding
    if args == ["--version"]:
        from pipesmith import __version__

        if _said(f"pipe {__version__}\n"):
            return 0
    if "build" in args or "status" in args:
        from pipesmith.fingerprint import witness

        answer = witness.ask(args)
        if answer is not None and _said(answer):
            return 0
    import gc

    gc.set_threshold(100_000, 20, 20)  # to look for cycles takes longer than much of what commands do
    from pipesmith.cli import run

    code = run(args)
    if argv is None:
        _leave(code, at_once=not {"build", "hooks", "status"}.isdisjoint(args))
    return code


def _in_utf8() -> None:
    """Start over in Python's UTF-8 mode: names of files are bytes to git and the system, and UTF-8 in pipeline.toml and
    pipe.lock, whatever the locale says. Returns where that can't be."""
    import os

    if sys.executable:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _said(answer: str) -> bool:
    """Print an answer. False where nobody takes it: the command itself tells of that."""
    try:
        sys.stdout.write(answer)
        sys.stdout.flush()
    except OSError:
        return False
    return True


def _leave(code: int, *, at_once: bool) -> None:
    """See to it that the process ends with this exit code, although Python has its own mind about interrupts.

    One that comes while Python winds up would end it by the signal. And Python remembers a KeyboardInterrupt that
    passed through `exec`, as in dataclasses while they are imported, and ends by the signal although it was caught
    (CPython 3.11, `_Py_UnhandledKeyboardInterrupt`). at_once: nothing is left to be wound up, which would take long:
    Python looks for cycles in all that there is, several times over, unless it is told not to.
    """
    import gc
    import os
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if code == 130 or at_once:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                pass
        os._exit(code)
    gc.freeze()


def _open_closed() -> None:
    """Give a process that was started with closed outputs some that swallow everything."""
    import os

    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
