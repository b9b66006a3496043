"""Measures, prints each figure when it is known, and writes docs/performance.md."""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path

from bench.page import tables, write_page
from bench.rows import Sizes, growth_rows, machine, rows
from bench.tools import PEERS, ROOT, prepare_tools


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller graphs, fewer rounds; the page is left as it is")
    parser.add_argument("--no-peers", action="store_true", help="without DVC and Snakemake")
    parser.add_argument(
        "--only", metavar="WORD", help="print only figures that hold the word; the page is left as it is"
    )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser.add_argument("--work", type=Path, default=cache / "pipesmith-bench", help="where graphs are laid out")
    arguments = parser.parse_args()

    began = time.monotonic()
    sizes = Sizes.quick() if arguments.quick else Sizes.full()
    tools = prepare_tools(arguments.work.resolve(), peers=not arguments.no_peers)
    figures = []
    for row in rows(tools, sizes):
        if arguments.only is None or arguments.only in row.what:
            figures.append(row)
            print(f"{row.value:10.2f}{row.unit:3}  {row.what}   [{row.detail}]", flush=True)
    growth = []
    for entry in growth_rows(tools, sizes):
        growth.append(entry)
        print(f"{entry.milliseconds:10.2f} ms  no-op, {entry.shape}", flush=True)
    about = f"{machine()}, Python {platform.python_version()}, {', '.join(PEERS)}; medians of {sizes.rounds} rounds."
    text = tables(figures, growth, about)
    print(f"\n{text}\n{time.monotonic() - began:.0f} s")
    if not arguments.quick and arguments.only is None:
        write_page(ROOT / "docs/performance.md", text)
        print("wrote docs/performance.md")


if __name__ == "__main__":
    main()
