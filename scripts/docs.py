"""Writes the pages of docs/ that are made from code, and checks the links of all.

With --check it writes nothing and fails on a difference.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from pipesmith.cli.commands import COMMANDS
from pipesmith.cli.parsing import command_parser
from pipesmith.pipeline.schema import json_schema

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_LIST = re.compile(r"(<!-- commands: [^\n]*-->\n).*?(<!-- end of commands -->)", re.DOTALL)
_EXAMPLE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def pages() -> dict[Path, str]:
    """Return path to text of every page that is made from code."""
    made = {DOCS / "commands" / f"{name}.md": command_page(name) for name in COMMANDS}
    made[DOCS / "pipeline.schema.json"] = json.dumps(json_schema(), indent=2, sort_keys=True) + "\n"
    index = DOCS / "index.md"
    listed = "".join(f"- [pipe {name}](commands/{name}.md): {about}\n" for name, about in COMMANDS.items())
    made[index] = _LIST.sub(lambda found: found[1] + listed + found[2], index.read_text(encoding="utf-8"))
    return made


def command_page(name: str) -> str:
    """Return the page of one command, from its argument parser."""
    parser = command_parser(name)
    lines = [f"# pipe {name}", "", (parser.description or COMMANDS[name]).strip(), ""]
    lines += ["```", " ".join([f"pipe {name}", *(_usage(action) for action in _actions(parser))]), "```", ""]
    rows = [f"| {_names(action)} | {_about(action)} |" for action in _actions(parser)]
    if rows:
        lines += ["| argument | what |", "|---|---|", *rows, ""]
    if parser.epilog:
        lines += [parser.epilog.strip(), ""]
    lines += [
        "Also, before or after the command: `-C DIR`, `--json`, `-q`, `-v`, `--no-color`.",
        "Exit codes: [errors](../errors.md).",
        "",
    ]
    return "\n".join(lines)


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if action.choices is not None:
        return "|".join(map(str, action.choices))
    return str(action.metavar or action.dest.upper())


def _usage(action: argparse.Action) -> str:
    value = _value(action)
    if not action.option_strings:
        many = {"*": f"[{value} …]", "+": f"{value} …", "?": f"[{value}]"}
        return many.get(str(action.nargs), value)
    text = f"{action.option_strings[0]} {value}".strip()
    return text if action.required else f"[{text}]"


def _names(action: argparse.Action) -> str:
    names = action.option_strings or [_value(action)]
    value = f" {_value(action)}".rstrip() if action.option_strings else ""
    return ", ".join(f"`{name}{value}`" for name in names).replace("|", "\\|")


def _about(action: argparse.Action) -> str:
    return (action.help or "").replace("%%", "%").replace("|", "\\|")


def broken_links(files: list[Path]) -> list[str]:
    """Return `FILE: TARGET` of each link between files of the repository that leads nowhere."""
    broken = []
    for file in files:
        for target in _LINK.findall(_EXAMPLE.sub("", file.read_text(encoding="utf-8"))):
            path, _, anchor = target.partition("#")
            if "://" in path:
                continue
            there = file if not path else (file.parent / path).resolve()
            if not there.exists() or (anchor and anchor not in _anchors(there)):
                broken.append(f"{file.relative_to(ROOT)}: {target}")
    return broken


def _anchors(file: Path) -> set[str]:
    """Return the anchors of a page's headings, as git forges make them."""
    headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def markdown_files() -> list[Path]:
    """Return every page: those at the top, of docs/, stages/ and hooks/."""
    return [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("stages/**/*.md"), *ROOT.glob("hooks/*.md")]


def stale_pages() -> list[Path]:
    """Return the pages that are not what code would make of them, those of commands that are gone as well."""
    made = pages()
    differing = [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    return differing + [path for path in (DOCS / "commands").glob("*.md") if path not in made]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = stale_pages()
    if not check:
        made = pages()
        for path in stale:
            if path in made:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(made[path], encoding="utf-8")
                print(f"wrote {path.relative_to(ROOT)}")
            else:
                path.unlink()
                print(f"removed {path.relative_to(ROOT)}")
    broken = broken_links(markdown_files())
    for line in broken:
        print(f"broken link: {line}", file=sys.stderr)
    if check:
        for path in stale:
            print(f"out of date: {path.relative_to(ROOT)}; help: make docs", file=sys.stderr)
    return 1 if broken or (check and stale) else 0


if __name__ == "__main__":
    sys.exit(main())
