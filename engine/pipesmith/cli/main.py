"""Reads the command line, runs a command, and turns errors into text and exit codes."""

from __future__ import annotations

import importlib
import os
import sys

from pipesmith.cli.commands import COMMANDS, LATER
from pipesmith.cli.output import Output
from pipesmith.errors import Cancelled, EnvironmentFailure, InternalError, PipeError, UserError, nearest

__all__ = ["run"]

_GLOBAL_FLAGS = {
    "--json": "json",
    "-q": "quiet",
    "--quiet": "quiet",
    "-v": "verbose",
    "--verbose": "verbose",
    "--no-color": "no_color",
}


class _Globals:
    def __init__(self) -> None:
        self.json = False
        self.quiet = False
        self.verbose = False
        self.no_color = bool(os.environ.get("NO_COLOR"))
        self.folder: str | None = None


def _split(args: list[str]) -> tuple[_Globals, list[str]]:
    """Return the global flags, which may stand anywhere before `--` (before the command of `pipe shell STAGE COMMAND`),
    and the rest."""
    found = _Globals()
    rest: list[str] = []
    index = 0
    while index < len(args):
        word = args[index]
        if word == "--" or (rest[:1] == ["shell"] and len(rest) == 2):
            rest += args[index:]
            break
        if word in _GLOBAL_FLAGS:
            setattr(found, _GLOBAL_FLAGS[word], True)
        elif word == "-C":
            if index + 1 == len(args):
                raise UserError("`-C` needs a folder", "write `pipe -C DIR COMMAND`")
            index += 1
            found.folder = args[index] if found.folder is None else os.path.join(found.folder, args[index])
        elif word.startswith("-C") and len(word) > 2:
            found.folder = word[2:] if found.folder is None else os.path.join(found.folder, word[2:])
        else:
            rest.append(word)
        index += 1
    return found, rest


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = ["usage: pipe [-C DIR] [--json] [-q] [-v] [--no-color] COMMAND …", "", "commands:"]
    lines += [f"  {name:{width}}  {about}" for name, about in COMMANDS.items()]
    lines += [
        "",
        "`pipe COMMAND --help` says more of one. Exit: 0 done, 1 failed or stale, 2 wrong use, 130 interrupted.",
    ]
    return "\n".join(lines)


def run(args: list[str]) -> int:
    """Run one command line and return its exit code."""
    out = Output(json_mode="--json" in args, quiet=False, verbose="-v" in args or "--verbose" in args, color=False)
    try:
        flags, rest = _split(args)
        out = Output(json_mode=flags.json, quiet=flags.quiet, verbose=flags.verbose, color=not flags.no_color)
        code = _run(flags, rest, out, args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return _told(out, Cancelled())
    except BrokenPipeError:
        _swallow()
        return 1
    except PipeError as error:
        return _told(out, error)
    except OSError as error:
        return _told(out, _fault(error))
    except Exception:
        import traceback

        traceback.print_exc()
        return _told(out, InternalError("this is a bug of pipesmith", "please report it with the lines above"))


def _told(out: Output, error: PipeError) -> int:
    """Print an error and return its exit code. Where nothing can be printed, the code alone has to do."""
    try:
        out.error(error)
    except OSError:
        pass
    _swallow()
    return error.exit_code


def _swallow() -> None:
    """Let what can't be printed go nowhere: nobody reads it any more, or the disk is full."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(nowhere, stream.fileno())


def _fault(error: OSError) -> EnvironmentFailure:
    text = (error.strerror or str(error)).lower()
    if not isinstance(error.filename, (str, bytes)):
        return EnvironmentFailure(text)
    from pipesmith.store.disk import permission_help

    path = os.fsdecode(error.filename)
    return EnvironmentFailure(f"`{path}`: {text}", permission_help(error, path))


def _run(flags: _Globals, rest: list[str], out: Output, args: list[str]) -> int:
    if not rest:
        if out.json_mode:
            raise UserError("no command", "`pipe --help` lists the commands")
        print(_help(), file=sys.stderr)
        return 2
    if rest[0] in ("-h", "--help", "help"):
        if len(rest) > 1 and rest[0] == "help":
            _known(rest[1])
            from pipesmith.cli.parsing import command_parser

            print(command_parser(rest[1]).format_help(), end="")
        else:
            print(_help())
        return 0
    if rest[0] == "--version":
        from pipesmith import __version__

        if out.json_mode:
            out.json({"version": __version__})
        else:
            print(f"pipe {__version__}")
        return 0
    name, *words = rest
    _known(name)
    _enter(flags.folder)
    module = importlib.import_module(f"pipesmith.cli.{name.replace('-', '_')}_command")
    if name == "hooks" and words[:1] == ["run"] and not {"-h", "--help"} & set(words):
        return int(module.run_hook(words[1:], out))  # git waits, and passes words as they are: no need of argparse
    from pipesmith.cli.parsing import command_parser

    arguments = command_parser(name).parse_args(words)
    arguments.command_line = ["pipe", *sys.argv[1:]]
    arguments.args = args
    arguments.words = [*_said(flags), name, *words]
    return int(module.run(arguments, out))


def _said(flags: _Globals) -> list[str]:
    """Return the global flags that were given, but for `-C`, which has been followed."""
    given = {"--json": flags.json, "-q": flags.quiet, "-v": flags.verbose, "--no-color": flags.no_color}
    return [flag for flag, is_given in given.items() if is_given]


def _known(name: str) -> None:
    """Raise UserError for what is no command of this version."""
    if name in LATER:
        raise UserError(f"this version has no `pipe {name}` yet", "`pipe --help` lists the commands that it has")
    if name not in COMMANDS:
        near = nearest(name, COMMANDS)
        raise UserError(
            f"no command `{name}`", f"did you mean `pipe {near}`?" if near else "`pipe --help` lists the commands"
        )


def _enter(folder: str | None) -> None:
    """Go to the folder of `-C`. Raises UserError where that, or the current one, is not there."""
    if folder is not None:
        try:
            os.chdir(folder)
        except OSError as error:
            raise UserError(
                f"`{folder}`: {(error.strerror or 'no such folder').lower()}", "`-C` takes a folder that is there"
            ) from None
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError("the current folder is gone", "go to another with `cd`") from None
