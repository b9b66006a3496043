"""Argument parsers: one a command, made by its module."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from typing import Any, NoReturn

from pipesmith.errors import UserError, nearest

__all__ = ["command_parser"]


def command_parser(name: str) -> argparse.ArgumentParser:
    """Return the argument parser of one command."""
    module = importlib.import_module(f"pipesmith.cli.{name.replace('-', '_')}_command")
    parser = _Parser(
        prog=f"pipe {name}",
        description=module.__doc__,
        formatter_class=_Help,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    return parser


class _Help(argparse.RawDescriptionHelpFormatter):
    """Is as wide as the terminal. argparse makes one for each flag, and asks `shutil`, which is dear to import."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    """Return what `shutil.get_terminal_size` does."""
    try:
        columns = int(os.environ["COLUMNS"])
    except (KeyError, ValueError):
        columns = 0
    if columns <= 0:
        try:
            columns = os.get_terminal_size(sys.__stdout__.fileno()).columns if sys.__stdout__ is not None else 0
        except (AttributeError, ValueError, OSError):
            columns = 0
    return columns if columns > 0 else 80


class _Parser(argparse.ArgumentParser):
    """Raises UserError instead of leaving the process, so that `--json` covers wrong use too."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Read words, with flags between them wherever they stand: `pipe logs RUN -f STAGE`, as in git and make."""
        found, left = self.parse_known_args(args, namespace)
        if not left:
            return found
        flags = [word for word in left if word.startswith("-") and word != "--"]
        if flags or any(each.nargs == argparse.REMAINDER for each in self._actions):
            self.error(f"unrecognized arguments: {' '.join(flags or left)}")
        return self.parse_intermixed_args(args, namespace)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        sys.stdout.flush()  # while what goes wrong with it is still told
        super().exit(status, message)

    def error(self, message: str) -> NoReturn:
        raise UserError(*self._told(message))

    def _told(self, message: str) -> tuple[str, str]:
        """Return argparse's message in our words, and what to do."""
        help = f"`{self.prog} --help` says how"
        if found := re.fullmatch(r"unrecognized arguments: (.*)", message):
            word = found[1].split(" ")[0]
            if not word.startswith("-"):
                return f"`{self.prog}` does not take `{found[1]}`", help
            near = nearest(word.partition("=")[0], [flag for action in self._actions for flag in action.option_strings])
            return f"`{self.prog}` has no flag `{word}`", f"did you mean `{near}`?" if near else help
        if found := re.fullmatch(r"argument [^:]*: invalid choice: '(.*)' \(choose from (.*)\)", message):
            choices = re.findall(r"'([^']*)'", found[2])
            near = nearest(found[1], choices)
            text = f"`{self.prog}` does not take `{found[1]}`: it is one of {', '.join(choices)}"
            return text, f"did you mean `{self.prog} {near}`?" if near else help
        if found := re.fullmatch(r"argument ([^:]*): invalid (int|float) value: '(.*)'", message):
            kind = "a whole number" if found[2] == "int" else "a number"
            return f"`{found[1].split('/')[0]}` needs {kind}, `{found[3]}` is not", help
        if found := re.fullmatch(r"argument ([^:]*): expected one argument", message):
            flag = found[1].split("/")[-1]
            taken = [action.metavar for action in self._actions if flag in action.option_strings]
            return f"`{flag}` needs {taken[0] if taken and taken[0] else 'a value'}", help
        if found := re.fullmatch(r"the following arguments are required: (.*)", message):
            optional = (argparse.REMAINDER, argparse.ZERO_OR_MORE)
            free = {str(action.metavar) for action in self._actions if action.nargs in optional}
            one_of = {action.dest: ", ".join(map(str, action.choices)) for action in self._actions if action.choices}
            needed = [
                f"one of {one_of[name]}" if name in one_of else name
                for name in found[1].split(", ")
                if name not in free
            ]
            return f"`{self.prog}` needs {' and '.join(needed)}", help
        return message.removeprefix("argument "), help
