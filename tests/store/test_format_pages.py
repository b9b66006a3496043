"""The pages under docs/formats say what the code does."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

from pipesmith.lockfile.emitter import render
from pipesmith.lockfile.reader import parse
from pipesmith.store.action_cache import ActionResult
from pipesmith.store.manifest import HEADER
from pipesmith.store.state_db import SCHEMA

PAGES = Path(__file__).parent.parent.parent / "docs" / "formats"


def rows(page: str) -> set[str]:
    """Return all words in backquotes in first columns of a page's tables."""
    found: set[str] = set()
    for line in (PAGES / page).read_text().splitlines():
        if line.startswith("|"):
            found.update(re.findall(r"`([^`]+)`", line.split("|")[1]))
    return found


def test_state_db_lists_every_table_with_its_columns() -> None:
    database = sqlite3.connect(":memory:")
    database.executescript(SCHEMA)
    tables = set()
    for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
        columns = [row[1] for row in database.execute(f"PRAGMA table_info({name})")]
        tables.add(f"{name}({', '.join(columns)})")
    assert rows("state-db.md") == tables


def test_action_cache_lists_every_key() -> None:
    assert rows("action-cache.md") == {*ActionResult(key="k", stage="s").as_json(), "checksum"}


def test_the_sample_of_pipe_lock_is_one_and_in_canonical_order() -> None:
    text = (PAGES / "pipe-lock.md").read_text().split("```toml\n")[1].split("```")[0]
    made_up = re.sub(r"…", "00", text)
    made_up = re.sub(r"definition = \"00\"", 'definition = "0000"', made_up)
    lockfile = parse(made_up)
    assert set(lockfile.stages) == {"train"}
    assert render(lockfile) == made_up


def test_the_manifest_header_is_there() -> None:
    assert f"`{HEADER}`" in (PAGES / "object-store.md").read_text()
