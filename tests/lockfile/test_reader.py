"""A lockfile that can't be read is the user's file: exit 2, and where the fault is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipesmith.errors import UserError
from pipesmith.lockfile.emitter import render
from pipesmith.lockfile.facts import facts
from pipesmith.lockfile.markers import first_marker
from pipesmith.lockfile.merge import merge
from pipesmith.lockfile.model import Lockfile
from pipesmith.lockfile.reader import parse
from pipesmith.store.state_db import StateDB

from .test_round_trip import many

GOLDEN = Path(__file__).parent.parent / "golden" / "pipe-lock"
STAGE = 'version = 1\n\n[stage.a]\nfingerprint = "f"\n'


def fault(text: str) -> tuple[str | None, int | None, str | None, str, str]:
    """Return file, line, key, text and help of the error that a text is answered with."""
    with pytest.raises(UserError) as caught:
        parse(text)
    assert caught.value.exit_code == 2
    (finding,) = caught.value.findings()
    return finding.file, finding.line, finding.key, finding.text, finding.help or ""


def test_no_toml() -> None:
    file, line, _key, text, help = fault(STAGE + "run = python\n")
    assert (file, line) == ("pipe.lock", 5)
    assert "can't be read" in text
    assert "git checkout pipe.lock" in help


def test_deep_nesting_is_no_crash() -> None:
    assert fault("version = 1\nx = " + "[" * 5000)[0] == "pipe.lock"


def test_a_number_of_too_many_digits_is_no_crash() -> None:
    assert "can't be read" in fault(f"{STAGE}params = {{ x = {'9' * 5000} }}\n")[3]


@pytest.mark.parametrize("version", ["", 'version = "1"\n', "version = 0\n"])
def test_no_version(version: str) -> None:
    assert "version = 1" in fault(version + "[stage.a]\n")[3]


def test_a_later_version_names_both() -> None:
    _file, _line, _key, text, help = fault("version = 99\n")
    assert "version 99" in text and "version 1" in text
    assert "update" in help


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "`fingerprint`"),
        ("fingerprint = 3", "`fingerprint`"),
        ('fingerprint = "f"\nouts = [{ name = "o", path = "p", hash = "sha0", sha0 = "ab", size = 1 }]', "sha0"),
        ('fingerprint = "f"\nouts = [{ name = "o", path = "p", hash = "md5", size = 1 }]', "md5"),
        ('fingerprint = "f"\nouts = [{ name = "o", path = "p", hash = "md5", md5 = "../x", size = 1 }]', "../x"),
        ('fingerprint = "f"\nouts = [{ name = "o", path = "p", hash = "md5", md5 = "ab", size = "1" }]', "size"),
        ('fingerprint = "f"\nouts = [{ name = "o", path = ["p"], hash = "md5", md5 = "ab", size = 1 }]', "path"),
        ('fingerprint = "f"\nouts = "x"', ""),
        ('fingerprint = "f"\ndeps = [1]', ""),
        ('fingerprint = "f"\nmetrics.x = "y"', ""),
    ],
)
def test_a_wrong_entry_is_named_by_stage_and_line(line: str, said: str) -> None:
    _file, number, key, text, _help = fault(f"{STAGE}\n[stage.b]\n{line}\n")
    assert (number, key) == (6, "stage.b")
    assert said.strip("`") in text


def test_stages_that_are_no_table() -> None:
    assert fault("version = 1\nstage = 5\n")[2] == "stage."


MARKED = f"""{STAGE}
<<<<<<< HEAD
[stage.b]
=======
[stage.c]
>>>>>>> other
"""


def test_conflict_markers_say_what_to_run() -> None:
    file, line, _key, text, help = fault(MARKED)
    assert (file, line) == ("pipe.lock", 6)
    assert "conflict markers" in text
    assert "pipe lock resolve" in help


def test_text_that_looks_like_a_marker_inside_a_value_is_none() -> None:
    from pipesmith.lockfile.model import StageLock

    text = render(
        Lockfile(stages={"s": StageLock(fingerprint="f", run="cat <<<<<<< a\n<<<<<<< b\n=======\n>>>>>>> c")})
    )
    assert first_marker(text) is None
    assert parse(text).stages["s"].run == "cat <<<<<<< a\n<<<<<<< b\n=======\n>>>>>>> c"


def test_golden_files_of_every_version_are_read_and_written_as_they_are() -> None:
    found = sorted(GOLDEN.glob("v*.lock"))
    assert [path.name for path in found] == ["v1.lock"]
    text = found[0].read_text()
    lockfile = parse(text)
    assert render(lockfile) == text
    assert set(lockfile.stages) == {"prepare", "train@0.01-3", "odd"}
    assert lockfile.stages["odd"].outs[0].path == 'out/caf\udce9 "x"\n.csv'
    assert lockfile.stages["train@0.01-3"].accepted is not None
    assert lockfile.stages["train@0.01-3"].params["none"] is None
    assert lockfile.datasets["images"].objects[0].version == "etag-1"
    assert lockfile.environments["project"].resolved


class TestMemory:
    """A parsed text is remembered, so that a large lockfile costs little when nothing changed."""

    def test_the_second_reading_needs_no_toml(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        text = render(many(200))
        parse(text, cache=StateDB(str(tmp_path / "state.db")))
        monkeypatch.setitem(__import__("sys").modules, "tomllib", None)
        assert parse(text, cache=StateDB(str(tmp_path / "state.db"))) == many(200)

    def test_another_text_is_not_taken_for_it(self, tmp_path: Path) -> None:
        state = StateDB(str(tmp_path / "state.db"))
        parse(render(many(200)), cache=state)
        assert parse(render(many(201)), cache=state) == many(201)

    def test_a_damaged_memory_is_a_miss(self, tmp_path: Path) -> None:
        state = StateDB(str(tmp_path / "state.db"))
        text = render(many(200))
        parse(text, cache=state)
        state.write([("UPDATE parsed SET value = ?", (b"\xff\x00",))])
        assert parse(text, cache=state) == many(200)

    def test_what_is_remembered_stays_small(self, tmp_path: Path) -> None:
        state = StateDB(str(tmp_path / "state.db"))
        for count in range(60, 100):
            parse(render(many(count)), cache=state)
        assert state.query("SELECT count(*) FROM parsed")[0][0] <= 22

    def test_broken_text_is_not_remembered(self, tmp_path: Path) -> None:
        state = StateDB(str(tmp_path / "state.db"))
        text = render(many(200)) + "\nx = \n"
        for _ in range(2):
            with pytest.raises(UserError):
                parse(text, cache=state)


VALUE = re.compile(r'(?<== )("[^"\n]*"|\d[\d.]*|true|false|\[[^\n]*\]|\{[^\n]*\})')
OTHERS = ["3", '"x"', "true", "[]", "{}", "[1]", '["a"]', "{ a = 1 }", "1.5", "nan", "1979-05-27", "[[]]", '""', "[{}]"]


@pytest.mark.parametrize("other", OTHERS)
def test_a_value_of_another_type(other: str) -> None:
    """It is either read, and then everything can be done with it, or told as the user's fault: never a crash."""
    text = (GOLDEN / "v1.lock").read_text()
    read = 0
    for place in VALUE.finditer(text):
        changed = text[: place.start()] + other + text[place.end() :]
        try:
            lockfile = parse(changed)
        except UserError as error:
            assert "pipe.lock" in error.findings()[0].render()
            continue
        read += 1
        assert render(parse(render(lockfile))) == render(lockfile)
        assert facts(lockfile)
        assert merge(lockfile, lockfile, parse(text)).dropped == ()
    assert read < len(VALUE.findall(text))
