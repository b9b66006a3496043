"""Shell completion: put `eval "$(pipe completion bash)"` into your shell's start-up file."""

from __future__ import annotations

import argparse

from pipesmith.cli.commands import COMMANDS
from pipesmith.cli.output import Output

__all__ = ["add_arguments", "run"]

_STAGES = "build status why accept checkout shell"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    parser.add_argument("--stages", action="store_true", help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.cli.main import command_parser

    if arguments.stages:
        from pipesmith.workspace import Workspace

        print("\n".join(Workspace.open(".").session().pipeline.groups))
        return 0
    options: dict[str, str] = {}
    for name in COMMANDS:
        flags = [
            flag for action in command_parser(name)._actions for flag in action.option_strings if flag.startswith("--")
        ]
        options[name] = " ".join(sorted({*flags, "--json"}))
    words = " ".join(COMMANDS)
    if arguments.shell == "fish":
        print(f"complete -c pipe -f -n __fish_use_subcommand -a '{words}'")
        for name, listed in options.items():
            for flag in listed.split():
                print(f"complete -c pipe -f -n '__fish_seen_subcommand_from {name}' -l {flag.removeprefix('--')}")
        print(
            f"complete -c pipe -f -n '__fish_seen_subcommand_from {_STAGES}' -a '(pipe completion fish --stages 2>/dev/null)'"
        )
        return 0
    cases = "\n".join(f'    {name}) words="{listed}" ;;' for name, listed in options.items())
    script = f"""_pipe() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" words
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{words}" -- "$current")); return
  fi
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  case " {_STAGES} " in
    *" ${{COMP_WORDS[1]}} "*) words="$words $(pipe completion bash --stages 2>/dev/null)" ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _pipe pipe"""
    print(f"autoload -Uz bashcompinit && bashcompinit\n{script}" if arguments.shell == "zsh" else script)
    return 0
