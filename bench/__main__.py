"""Measures, prints each figure when it is known, and writes docs/performance.md."""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path

from bench.page import tables, write_page
from bench.rows import GROUPS, Sizes, growth_rows, machine, rows
from bench.tools import PEERS, ROOT, prepare_tools


def main() -> None:
    arguments = _arguments()
    only = arguments.only
    began = time.monotonic()
    sizes = Sizes.quick() if arguments.quick else Sizes.full()
    peers = not arguments.no_peers and (not only or "peers" in only)
    tools = prepare_tools(arguments.work.resolve(), peers=peers)
    figures = []
    for row in rows(tools, sizes, only):
        figures.append(row)
        print(f"{row.value:10.2f}{row.unit:3}  {row.what}   [{row.detail}]", flush=True)
    growth = []
    if not only or "growth" in only:
        for entry in growth_rows(tools, sizes):
            growth.append(entry)
            print(f"{entry.milliseconds:10.2f} ms  no-op, {entry.shape}", flush=True)
    about = f"{machine()}, Python {platform.python_version()}, {', '.join(PEERS)}; medians of {sizes.rounds} rounds."
    text = tables(figures, growth, about)
    print(f"\n{text}\n{time.monotonic() - began:.0f} s")
    if not arguments.quick and not only:
        write_page(ROOT / "docs/performance.md", text)
        print("wrote docs/performance.md")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="smaller graphs, fewer rounds; the page is left as it is")
    add("--no-peers", action="store_true", help="without DVC and Snakemake")
    groups = [*GROUPS, "growth"]
    add("--only", nargs="+", choices=groups, default=[], help="only these; the page is left as it is")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    add("--work", type=Path, default=cache / "pipesmith-bench", help="where graphs are laid out")
    return parser.parse_args()


if __name__ == "__main__":
    main()
