"""Reads the command line, runs a command, and turns errors into text and exit codes."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import NoReturn

from pipesmith.cli.commands import COMMANDS, LATER
from pipesmith.cli.output import Output
from pipesmith.errors import InternalError, PipeError, UserError, nearest

__all__ = ["command_parser", "run"]

_GLOBAL_FLAGS = {"--json": "json", "-q": "quiet", "--quiet": "quiet", "-v": "verbose", "--verbose": "verbose", "--no-color": "no_color"}


class _Parser(argparse.ArgumentParser):
    """Raises UserError instead of leaving the process, so that `--json` covers wrong use too."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message, f"`{self.prog} --help` says how")


class _Globals:
    def __init__(self) -> None:
        self.json = False
        self.quiet = False
        self.verbose = False
        self.no_color = bool(os.environ.get("NO_COLOR"))
        self.folder: str | None = None


def _split(args: list[str]) -> tuple[_Globals, list[str]]:
    """Return the global flags, which may stand anywhere before `--`, and the rest."""
    found = _Globals()
    rest: list[str] = []
    index = 0
    while index < len(args):
        word = args[index]
        if word == "--":
            rest += args[index:]
            break
        if word in _GLOBAL_FLAGS:
            setattr(found, _GLOBAL_FLAGS[word], True)
        elif word == "-C":
            if index + 1 == len(args):
                raise UserError("`-C` needs a folder")
            index += 1
            found.folder = args[index] if found.folder is None else os.path.join(found.folder, args[index])
        elif word.startswith("-C") and len(word) > 2 and not word.startswith("--"):
            found.folder = word[2:]
        else:
            rest.append(word)
        index += 1
    return found, rest


def command_parser(name: str) -> argparse.ArgumentParser:
    """Return the argument parser of one command."""
    module = importlib.import_module(f"pipesmith.cli.{name}_command")
    parser = _Parser(prog=f"pipe {name}", description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    module.add_arguments(parser)
    return parser


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = ["usage: pipe [-C DIR] [--json] [-q] [-v] [--no-color] COMMAND …", "", "commands:"]
    lines += [f"  {name:{width}}  {about}" for name, about in COMMANDS.items()]
    lines += ["", "`pipe COMMAND --help` says more of one. Exit: 0 done, 1 failed or stale, 2 wrong use, 130 interrupted."]
    return "\n".join(lines)


def run(args: list[str]) -> int:
    """Run one command line and return its exit code."""
    out = Output(json_mode="--json" in args, quiet=False, verbose="-v" in args or "--verbose" in args, color=False)
    try:
        flags, rest = _split(args)
        out = Output(json_mode=flags.json, quiet=flags.quiet, verbose=flags.verbose, color=not flags.no_color)
        return _run(flags, rest, out, args)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except PipeError as error:
        out.error(error)
        return error.exit_code
    except OSError as error:
        out.error(PipeError(f"`{error.filename}`: {error.strerror}" if error.filename else str(error)))
        return 1
    except Exception:
        import traceback

        traceback.print_exc()
        out.error(InternalError("this is a bug of pipesmith", "please report it with the lines above"))
        return InternalError.exit_code


def _run(flags: _Globals, rest: list[str], out: Output, args: list[str]) -> int:
    if not rest or rest[0] in ("-h", "--help", "help"):
        if len(rest) > 1 and rest[0] == "help" and rest[1] in COMMANDS:
            print(command_parser(rest[1]).format_help(), end="")
            return 0
        print(_help())
        return 0 if rest else 2
    if rest[0] == "--version":
        from pipesmith import __version__

        print(f"pipe {__version__}")
        return 0
    if flags.folder is not None:
        try:
            os.chdir(flags.folder)
        except OSError as error:
            raise UserError(f"`{flags.folder}`: {(error.strerror or 'no such folder').lower()}") from None
    name, *words = rest
    if name in LATER:
        raise UserError(f"this version has no `pipe {name}` yet")
    if name not in COMMANDS:
        near = nearest(name, COMMANDS)
        raise UserError(f"no command `{name}`", f"did you mean `pipe {near}`?" if near else "`pipe --help` lists the commands")
    module = importlib.import_module(f"pipesmith.cli.{name}_command")
    arguments = command_parser(name).parse_args(words)
    arguments.command_line = ["pipe", *sys.argv[1:]]
    arguments.args = args
    return int(module.run(arguments, out))
