"""Shell completion: put `eval "$(pipe completion bash)"` into your shell's start-up file."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from pipesmith.cli.commands import COMMANDS
from pipesmith.cli.output import Output

__all__ = ["add_arguments", "run"]

_STAGES = "build status why accept what-if checkout shell"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    parser.add_argument("--stages", action="store_true", help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace, out: Output) -> int:
    if arguments.stages:
        from pipesmith.workspace import Workspace

        print("\n".join(Workspace.open(".").session().pipeline.groups))
        return 0
    options = _options()
    script = _fish(options) if arguments.shell == "fish" else _bash(options)
    if arguments.shell == "zsh":
        script = f"autoload -Uz bashcompinit && bashcompinit\n{script}"
    if out.json_mode:
        out.json({"shell": arguments.shell, "script": script})
    else:
        print(script)
    return 0


def _options() -> dict[str, list[str]]:
    """Return the long flags of each command."""
    from pipesmith.cli.parsing import command_parser

    options: dict[str, list[str]] = {}
    for name in COMMANDS:
        flags = (flag for action in command_parser(name)._actions for flag in action.option_strings)
        options[name] = sorted({*(flag for flag in flags if flag.startswith("--")), "--json"} - {"--stages"})
    return options


def _fish(options: Mapping[str, list[str]]) -> str:
    lines = [f"complete -c pipe -f -n __fish_use_subcommand -a '{' '.join(options)}'"]
    for name, flags in options.items():
        for flag in flags:
            long = flag.removeprefix("--")
            lines.append(f"complete -c pipe -f -n '__fish_seen_subcommand_from {name}' -l {long}")
    stages = "(pipe completion fish --stages 2>/dev/null)"
    lines.append(f"complete -c pipe -f -n '__fish_seen_subcommand_from {_STAGES}' -a '{stages}'")
    return "\n".join(lines)


def _bash(options: Mapping[str, list[str]]) -> str:
    cases = "\n".join(f'    {name}) words="{" ".join(flags)}" ;;' for name, flags in options.items())
    return f"""_pipe() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" words
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{" ".join(options)}" -- "$current")); return
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
