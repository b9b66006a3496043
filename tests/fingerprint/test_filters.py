"""Attributes, line ends and filter programs: a file counts by the bytes that git would store."""

from __future__ import annotations

from blake3 import blake3


def hex_of(data: bytes) -> str:
    return blake3(data).hexdigest()


def test_text_eol_ident_and_a_filter(bed):
    bed.repo.git("config", "filter.toy.clean", "tr a-z A-Z")
    bed.repo.git("config", "filter.toy.smudge", "tr A-Z a-z")
    bed.repo.write(".gitattributes", "*.txt text\n*.id ident\n*.toy filter=toy\n")
    bed.repo.write("lib/.gitattributes", "*.c eol=crlf\n")
    bed.repo.write("lib/a.txt", b"a\r\nb\r\n")
    bed.repo.write("lib/a.id", "$Id: something $\n")
    bed.repo.write("lib/a.toy", "shout\n")
    bed.repo.write("lib/a.c", b"int a;\r\n")
    bed.repo.write("lib/a.bin", b"\r\n\0")
    assert bed.source("lib") == bed.would_commit("lib")
    bed.repo.commit()
    assert bed.source("lib") == bed.repo.git("rev-parse", "HEAD:lib").stdout.strip()


def test_a_file_committed_with_crlf_before_text_auto_stays_clean(bed):
    """Git leaves such a file's line ends as they are in the index, though `hash-object` does not."""
    bed.repo.write("lib/a.txt", b"a\r\nb\r\n")
    bed.repo.write("lib/b.txt", b"a\nb\n")
    bed.repo.commit()
    bed.repo.write(".gitattributes", "* text=auto\n")
    bed.repo.commit()
    assert bed.repo.git("status", "--porcelain").stdout == ""
    assert bed.source("lib") == bed.repo.git("rev-parse", "HEAD:lib").stdout.strip()
    bed.repo.write("lib/a.txt", b"a\r\nb\r\nc\r\n")
    bed.repo.write("lib/b.txt", b"a\r\nb\r\nc\r\n")
    bed.repo.write("lib/new.txt", b"a\r\n")
    assert bed.source("lib") == bed.would_commit("lib")


def test_autocrlf_and_safecrlf(bed):
    bed.repo.git("config", "core.autocrlf", "input")
    bed.repo.git("config", "core.safecrlf", "true")
    bed.repo.write("lib/a.txt", b"a\r\nb\r\n")
    assert bed.source("lib") == bed.would_commit("lib")


def test_changed_attributes_are_seen_though_no_file_was_touched(bed, tick):
    bed.repo.write("lib/a.txt", b"a\r\n")
    bed.repo.commit()
    tick()
    raw = bed.source("lib/a.txt")
    places = {
        ".gitattributes": bed.path / ".gitattributes",
        "lib/.gitattributes": bed.path / "lib/.gitattributes",
        "info/attributes": bed.path / ".git/info/attributes",
        "core.attributesFile": bed.repo.home / "attributes",
    }
    bed.repo.git("config", "core.attributesFile", "~/attributes")
    for name, place in places.items():
        tree = bed.tree()
        assert tree.source_id("lib/a.txt") == raw
        tree.flush()
        place.parent.mkdir(exist_ok=True)
        place.write_text("*.txt text\n")
        assert bed.source("lib/a.txt") == bed.would_commit("lib/a.txt") != raw, name
        place.unlink()
    bed.repo.git("config", "core.autocrlf", "true")
    assert bed.source("lib/a.txt") == raw  # CRLF in the index: left alone
    assert bed.would_commit("lib/a.txt") == raw


def test_an_attributes_file_that_git_ignores_counts_as_git_counts_it(bed):
    bed.repo.write(".gitignore", "lib/.gitattributes\n")
    bed.repo.write("lib/.gitattributes", "* text\n")
    bed.repo.write("lib/a", b"a\r\n")
    assert bed.source("lib") == bed.would_commit("lib")


def test_a_changed_filter_command_or_program_is_seen(bed, tick):
    program = bed.repo.write("clean.sh", "#!/bin/sh\nsed s/a/b/\n", executable=True)
    bed.repo.write(".gitattributes", "*.x filter=toy\n")
    bed.repo.git("config", "filter.toy.clean", "./clean.sh")
    bed.repo.write("a.x", "a\n")
    tick()
    seen = []
    for _look in range(2):
        tree = bed.tree()
        seen.append(tree.source_id("a.x"))
        tree.flush()
    assert seen == [bed.would_commit("a.x")] * 2
    program.write_text("#!/bin/sh\nsed s/a/ccc/\n")
    assert bed.source("a.x") == bed.would_commit("a.x") != seen[0]
    bed.repo.git("config", "filter.toy.clean", "sed s/a/dddd/")
    assert bed.source("a.x") == bed.would_commit("a.x")


def test_git_is_asked_once_for_what_did_not_change(bed, tick):
    log = bed.repo.home / "log"
    bed.repo.write(".gitattributes", "*.x filter=toy\n")
    bed.repo.git("config", "filter.toy.clean", f"echo x >> {log}; tr a b")
    for index in range(5):
        bed.repo.write(f"lib/{index}.x", "a\n")
    bed.repo.commit()
    log.unlink()
    tick()
    ids = []
    for _look in range(3):
        tree = bed.tree()
        ids.append((tree.source_id("lib"), tree.input("lib")))
        tree.flush()
    assert ids[0] == ids[1] == ids[2]
    assert len(log.read_text().split()) == 5


def test_a_required_filter_that_fails_is_told(bed):
    import pytest

    from pipesmith.errors import EnvironmentFailure

    bed.repo.write(".gitattributes", "*.x filter=toy\n")
    bed.repo.git("config", "filter.toy.clean", "false")
    bed.repo.git("config", "filter.toy.required", "true")
    bed.repo.write("a.x", "a\n")
    with pytest.raises(EnvironmentFailure, match=r"external filter .false. failed"):
        bed.source("a.x")


def test_an_input_counts_by_the_bytes_that_git_stores(bed, tick):
    bed.repo.write(".gitattributes", "*.csv text\n*.raw -text\n")
    bed.repo.write(".gitignore", "ignored.csv\n")
    for name in ("tracked.csv", "ignored.csv", "same.raw"):
        bed.repo.write(f"data/{name}", b"a\r\nb\r\n")
    commit = bed.repo.commit()
    bed.repo.write("data/untracked.csv", b"a\r\nb\r\n")
    tick()
    for _look in range(2):
        tree = bed.tree()
        digests = {name: tree.input(f"data/{name}").digest for name in ("tracked.csv", "untracked.csv", "same.raw")}
        assert digests["tracked.csv"].hex == digests["untracked.csv"].hex == hex_of(b"a\nb\n")
        assert digests["tracked.csv"].size == 4
        assert digests["same.raw"].hex == hex_of(b"a\r\nb\r\n")
        assert tree.input("data/ignored.csv").digest.hex == hex_of(b"a\r\nb\r\n")
        assert tree.output("data/tracked.csv").hex == hex_of(b"a\r\nb\r\n")
        tree.flush()
    assert bed.revision(commit).input("data/tracked.csv").digest == digests["tracked.csv"]


def test_a_folder_input_is_the_same_at_the_commit(bed, make_bed):
    bed.repo.write(".gitattributes", "*.csv text\n")
    bed.repo.write("data/a.csv", b"a\r\n")
    bed.repo.write("data/deep/b", "b\n", executable=True)
    (bed.path / "data/link").symlink_to("a.csv")
    (bed.path / "data/empty").mkdir()
    before = bed.tree().input("data")
    commit = bed.repo.commit()
    after = bed.tree().input("data")
    assert before.digest == after.digest
    assert before.git is None and after.git == bed.repo.git("rev-parse", "HEAD:data").stdout.strip()
    assert bed.revision(commit).input("data") == after
    assert make_bed(bed.repo.clone()).tree().input("data") == after


def test_crlf_in_the_index_with_ident_has_the_bytes_of_git_add(bed):
    bed.repo.write("a.txt", b"$Id$\r\n")
    bed.repo.commit()
    bed.repo.write(".gitattributes", "* text=auto ident\n")
    bed.repo.write("a.txt", b"$Id: x $\r\nb\r\n")
    assert bed.source("a.txt") == bed.would_commit("a.txt")
    tree = bed.tree()
    assert tree.input("a.txt").digest.hex == hex_of(b"$Id$\r\nb\r\n")
    tree.flush()
    bed.state.write([("DELETE FROM gitmap WHERE key LIKE 'blob:%'", ())])
    assert bed.tree().input("a.txt").digest.hex == hex_of(b"$Id$\r\nb\r\n")
