"""Content in, the same content out; never anything else."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from pipesmith.digest import Digest
from pipesmith.errors import EnvironmentFailure, UserError
from pipesmith.store.manifest import Entry, digest_of
from pipesmith.store.object_store import ObjectDamaged, ObjectMissing, ObjectStore, hash_file

from .conftest import MakeStore, tree

BIG = os.urandom(1_500_000)


def example(folder: Path) -> Path:
    """Make a folder with one of everything."""
    (folder / "sub/deep").mkdir(parents=True)
    (folder / "empty/inner").mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"a\n")
    (folder / "none").write_bytes(b"")
    (folder / "sub/run.sh").write_bytes(b"#!/bin/sh\n")
    (folder / "sub/run.sh").chmod(0o755)
    (folder / "sub/big").write_bytes(BIG)
    (folder / "sub/deep/same").write_bytes(b"a\n")
    (folder / "sub/link").symlink_to("../a.txt")
    (folder / "dangling").symlink_to("/nowhere/at all")
    (folder / "to-folder").symlink_to("sub")
    Path(os.fsdecode(os.fsencode(folder) + b'/caf\xe9 \n"x"')).write_bytes(b"odd")
    return folder


@pytest.mark.parametrize("move", [False, True])
@pytest.mark.parametrize("link", [False, True])
def test_a_folder_comes_back_as_it_was(store: ObjectStore, tmp_path: Path, move: bool, link: bool) -> None:
    source = example(tmp_path / "source")
    before = tree(source)
    digest = store.add_tree(str(source), move=move)
    assert digest.is_folder
    assert (digest.size, digest.nfiles) == (len(BIG) + 2 + 2 + 10 + 3, 9)
    store.place(digest, str(tmp_path / "out"), link=link)
    assert tree(tmp_path / "out") == before
    if not move:
        assert tree(source) == before, "what was copied stays as it was"


def test_a_file_comes_back_as_it_was(store: ObjectStore, tmp_path: Path) -> None:
    for content in (b"", b"x", BIG):
        source = tmp_path / "file"
        source.write_bytes(content)
        digest = store.add_tree(str(source), move=False)
        assert digest == Digest("blake3", blake3(content).hexdigest(), len(content))
        store.place(digest, str(tmp_path / "out"), link=False)
        assert (tmp_path / "out").read_bytes() == content
        (tmp_path / "out").unlink()


def test_objects_can_not_be_written_and_copies_can(store: ObjectStore, tmp_path: Path) -> None:
    digest = store.add_tree(str(example(tmp_path / "source")), move=True)
    for _algorithm, _hex, info in store.objects():
        assert info.st_mode & 0o777 == 0o444
    store.place(digest, str(tmp_path / "out"), link=False)
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "out/a.txt").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (tmp_path / "out/sub/run.sh").stat().st_mode & 0o777 == 0o777 & ~umask


def test_equal_content_lies_there_once(store: ObjectStore, tmp_path: Path) -> None:
    source = example(tmp_path / "source")
    store.add_tree(str(source), move=False)
    count = sum(1 for _ in store.objects())
    assert count == 6, "five contents and a manifest"
    store.add_tree(str(source), move=False)
    store.add_tree(str(source), move=True)
    assert sum(1 for _ in store.objects()) == count


def test_the_digest_of_a_folder_is_that_of_its_manifest(store: ObjectStore, tmp_path: Path) -> None:
    digest = store.add_tree(str(example(tmp_path / "source")), move=False)
    assert blake3(store.read(digest)).hexdigest() + ".dir" == digest.hex
    assert digest_of(store.manifest(digest).entries, "blake3")[0] == digest
    inner = store.manifest(digest).subtree("sub", "blake3")
    assert inner == store.add_tree(str(tmp_path / "source/sub"), move=False)
    assert store.manifest(digest).subtree("a.txt", "blake3") == store.add_tree(
        str(tmp_path / "source/a.txt"), move=False
    )
    assert store.manifest(digest).subtree("nothing", "blake3") is None
    assert store.manifest(digest).subtree("su", "blake3") is None


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (64 << 20) + 3])
@pytest.mark.parametrize("algorithm", ["blake3", "md5"])
def test_hash_file_at_every_way_of_reading(tmp_path: Path, size: int, algorithm: str) -> None:
    data = (os.urandom(4096) * (size // 4096 + 1))[:size]
    (tmp_path / "f").write_bytes(data)
    expected = (blake3(data) if algorithm == "blake3" else hashlib.md5(data)).hexdigest()
    assert hash_file(str(tmp_path / "f"), algorithm) == (expected, size)


# -- what can't be stored ---------------------------------------------------------------------------------------------


def test_a_socket_in_an_output_is_named(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d").mkdir()
    monkeypatch.chdir(tmp_path / "d")
    with socket.socket(socket.AF_UNIX) as bound, pytest.raises(UserError, match="`s` in"):
        bound.bind("s")
        store.add_tree(str(tmp_path / "d"), move=True)


def test_a_file_that_has_other_names_is_copied_not_taken(store: ObjectStore, tmp_path: Path) -> None:
    """A stage that hard-links its input into its output must not make that input an object."""
    (tmp_path / "input").write_bytes(BIG)
    (tmp_path / "out").mkdir()
    os.link(tmp_path / "input", tmp_path / "out/copy")
    digest = store.add_tree(str(tmp_path / "out"), move=True)
    (tmp_path / "input").write_bytes(b"written later")
    assert store.read(Digest("blake3", store.manifest(digest).entries[0].hex, 0)) == BIG
    assert (tmp_path / "input").stat().st_mode & 0o200


# -- missing and damaged ----------------------------------------------------------------------------------------------


def damage(path: str) -> None:
    """Flip a byte without changing size and mtime."""
    info = os.stat(path)
    os.chmod(path, 0o644)
    with open(path, "r+b") as file:
        byte = file.read(1)
        file.seek(0)
        file.write(bytes((byte[0] ^ 1,)))
    os.chmod(path, 0o444)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def objects_of(store: ObjectStore, digest: Digest) -> Iterator[str]:
    yield store.path(digest)
    for entry in store.manifest(digest).entries:
        if entry.kind == "f":
            yield store.path(Digest("blake3", entry.hex, 0))


def test_every_lost_object_is_missed(make_store: MakeStore, tmp_path: Path) -> None:
    digest = make_store().add_tree(str(example(tmp_path / "source")), move=False)
    assert make_store().has(digest)
    for path in sorted(set(objects_of(make_store(), digest))):
        os.rename(path, tmp_path / "aside")
        store = make_store()
        assert not store.has(digest)
        assert len(store.missing(digest)) in (1, 2)
        with pytest.raises(ObjectMissing):
            store.place(digest, str(tmp_path / "out"), link=True)
        assert not os.path.lexists(tmp_path / "out")
        os.rename(tmp_path / "aside", path)
    assert make_store().missing(digest) == []


@pytest.mark.parametrize("link", [("reflink", "hardlink", "copy"), ("copy",)])
def test_every_flipped_byte_is_seen_and_the_object_goes_to_the_trash(
    make_store: MakeStore, tmp_path: Path, link: tuple[str, ...]
) -> None:
    digest = make_store().add_tree(str(example(tmp_path / "source")), move=False)
    for path in sorted({p for p in objects_of(make_store(), digest) if os.path.getsize(p)}):
        damage(path)
        store = make_store(link=link)
        with pytest.raises(ObjectDamaged):
            store.place(digest, str(tmp_path / "out"), link=True)
        assert not os.path.lexists(tmp_path / "out")
        assert not os.path.exists(path), "it is a miss from now on"
        assert not store.has(digest)
        assert os.listdir(tmp_path / "pipe/trash")
        make_store().add_tree(str(tmp_path / "source"), move=False)
        make_store(link=link).place(digest, str(tmp_path / "out"), link=True)
        assert tree(tmp_path / "out") == tree(tmp_path / "source"), "made again, it is well again"
        subprocess.run(["rm", "-rf", tmp_path / "out"], check=True)


def test_a_cut_off_object_is_damaged(make_store: MakeStore, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(BIG)
    digest = make_store().add_tree(str(tmp_path / "f"), move=False)
    os.chmod(make_store().path(digest), 0o644)
    os.truncate(make_store().path(digest), 1000)
    with pytest.raises(ObjectDamaged):
        make_store().read(digest)
    with pytest.raises(ObjectMissing):
        make_store().read(digest)


def test_adding_mends_a_damaged_object(make_store: MakeStore, tmp_path: Path) -> None:
    for move in (False, True):
        (tmp_path / "f").write_bytes(b"content")
        digest = make_store().add_tree(str(tmp_path / "f"), move=False)
        damage(make_store().path(digest))
        assert make_store().add_tree(str(tmp_path / "f"), move=move) == digest
        assert make_store().read(digest) == b"content"


def test_check_reads_and_tells(make_store: MakeStore, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"content")
    digest = make_store().add_tree(str(tmp_path / "f"), move=False)
    store = make_store()
    assert store.check("blake3", digest.hex)
    damage(store.path(digest))
    assert not store.check("blake3", digest.hex)
    assert not store.check("blake3", digest.hex), "nothing there any more"


def test_what_a_collection_dropped_comes_back_while_it_is_restored(make_store: MakeStore, tmp_path: Path) -> None:
    source = example(tmp_path / "source")
    digest = make_store().add_tree(str(source), move=False)
    store = make_store()
    assert store.has(digest)
    collector = make_store()
    for algorithm, hex, _info in list(collector.objects()):
        collector.discard(algorithm, hex)
    assert not make_store().has(digest)
    store.place(digest, str(tmp_path / "out"), link=True)
    assert tree(tmp_path / "out") == tree(source)


def test_what_is_damaged_does_not_come_back_from_the_trash(make_store: MakeStore, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"content")
    digest = make_store().add_tree(str(tmp_path / "f"), move=False)
    damage(make_store().path(digest))
    with pytest.raises(ObjectDamaged):
        make_store().place(digest, str(tmp_path / "out"), link=False)
    with pytest.raises(ObjectMissing):
        make_store().place(digest, str(tmp_path / "out"), link=False)


# -- links ------------------------------------------------------------------------------------------------------------


def test_only_big_files_are_hard_links_and_those_are_read_only(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store(link=("hardlink", "copy"))
    digest = store.add_tree(str(example(tmp_path / "source")), move=False)
    store.place(digest, str(tmp_path / "out"), link=True)
    big, small = (tmp_path / "out/sub/big").stat(), (tmp_path / "out/a.txt").stat()
    assert big.st_nlink == 2 and big.st_mode & 0o777 == 0o444
    assert small.st_nlink == 1 and small.st_mode & 0o200
    store.place(digest, str(tmp_path / "copy"), link=False)
    assert (tmp_path / "copy/sub/big").stat().st_nlink == 1, "what git holds is never a link"


def test_a_big_program_is_copied_where_a_hard_link_would_make_others_executable(
    make_store: MakeStore, tmp_path: Path
) -> None:
    store = make_store(link=("hardlink", "copy"))
    (tmp_path / "s").mkdir()
    (tmp_path / "s/prog").write_bytes(BIG)
    (tmp_path / "s/prog").chmod(0o755)
    digest = store.add_tree(str(tmp_path / "s"), move=False)
    store.place(digest, str(tmp_path / "out"), link=True)
    assert (tmp_path / "out/prog").stat().st_mode & 0o100
    assert not os.stat(store.path(Digest("blake3", store.manifest(digest).entries[0].hex, 0))).st_mode & 0o100


def test_what_was_written_through_a_hard_link_is_never_given_out(make_store: MakeStore, tmp_path: Path) -> None:
    """Root, or a chmod, writes through a link: size and mtime put back, it is still seen."""
    store = make_store(link=("hardlink", "copy"))
    (tmp_path / "f").write_bytes(BIG)
    digest = store.add_tree(str(tmp_path / "f"), move=False)
    store.place(digest, str(tmp_path / "one"), link=True)
    store.flush()
    damage(str(tmp_path / "one"))
    for again in (store, make_store(link=("hardlink", "copy"))):
        with pytest.raises((ObjectDamaged, ObjectMissing)):
            again.place(digest, str(tmp_path / "two"), link=True)
        assert not os.path.lexists(tmp_path / "two")


def test_a_checked_big_object_is_not_read_again(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").write_bytes(BIG)
    store = make_store(link=("hardlink", "copy"))
    digest = store.add_tree(str(tmp_path / "f"), move=False)
    store.place(digest, str(tmp_path / "one"), link=True)

    def refuse(*_: object) -> tuple[str, int]:
        raise AssertionError("read")

    monkeypatch.setattr("pipesmith.store.object_store.hash_file", refuse)
    make_store(link=("hardlink", "copy")).place(digest, str(tmp_path / "two"), link=True)
    assert (tmp_path / "two").stat().st_nlink == 3


# -- md5: DVC's layout ------------------------------------------------------------------------------------------------


def test_md5_is_dvcs_layout(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store(hash="md5")
    (tmp_path / "d/sub").mkdir(parents=True)
    (tmp_path / "d/b.txt").write_bytes(b"b\n")
    (tmp_path / "d/sub/a.txt").write_bytes(b"a\n")
    digest = store.add_tree(str(tmp_path / "d"), move=False)
    listed = [
        {"md5": hashlib.md5(b"b\n").hexdigest(), "relpath": "b.txt"},
        {"md5": hashlib.md5(b"a\n").hexdigest(), "relpath": "sub/a.txt"},
    ]
    data = json.dumps(listed, sort_keys=True).encode()
    assert digest.hex == hashlib.md5(data).hexdigest() + ".dir"
    path = tmp_path / "pipe/cache/files/md5" / digest.hex[:2] / digest.hex[2:]
    assert path.read_bytes() == data
    store.place(digest, str(tmp_path / "out"), link=True)
    assert tree(tmp_path / "out") == tree(tmp_path / "d")
    assert make_store(hash="md5").has(digest)


@pytest.mark.parametrize("what", ["link", "empty"])
def test_md5_refuses_what_dvc_can_not_hold(make_store: MakeStore, tmp_path: Path, what: str) -> None:
    (tmp_path / "d/sub").mkdir(parents=True)
    (tmp_path / "d/x").write_bytes(b"x")
    if what == "link":
        (tmp_path / "d/sub/it").symlink_to("../x")
    with pytest.raises(
        UserError, match="`sub/it` is a symbolic link" if what == "link" else "`sub` is an empty folder"
    ):
        make_store(hash="md5").add_tree(str(tmp_path / "d"), move=False)


# -- manifests from elsewhere -----------------------------------------------------------------------------------------

HEX = "ab" * 32


@pytest.mark.parametrize(
    "rows",
    [
        [["f", "../x", HEX, 1, False]],
        [["f", "/etc/x", HEX, 1, False]],
        [["f", "a/../../x", HEX, 1, False]],
        [["f", "", HEX, 1, False]],
        [["l", "a", "/etc"], ["f", "a/passwd", HEX, 1, False]],
        [["l", "a/b", "/etc"], ["d", "a/b/c"]],
        [["f", "x", "../../../etc/passwd", 1, False]],
        [["z", "x"]],
        [["f"]],
        [7],
    ],
)
def test_a_manifest_that_leads_out_of_its_folder_is_none(
    store: ObjectStore, tmp_path: Path, rows: list[object]
) -> None:
    lines = ['["pipesmith-folder",1]', *(json.dumps(row) for row in rows)]
    data = ("\n".join(lines) + "\n").encode()
    added = store.add_bytes(data)
    digest = Digest("blake3", f"{added.hex}.dir", 0, 1)
    os.rename(store.path(added), store.path(digest))
    assert not store.has(digest)
    with pytest.raises(Exception, match="damaged"):
        store.place(digest, str(tmp_path / "out"), link=False)
    assert not os.path.lexists(tmp_path / "out")


def test_a_later_manifest_names_both_versions(store: ObjectStore) -> None:
    added = store.add_bytes(b'["pipesmith-folder",7]\n')
    digest = Digest("blake3", f"{added.hex}.dir", 0, 1)
    os.rename(store.path(added), store.path(digest))
    with pytest.raises(Exception, match=r"version 7.*version 1"):
        store.manifest(digest)


PATHS = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="/\0"), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(PATHS.filter(lambda p: p not in (".", "..")), st.binary(max_size=3), max_size=6), st.randoms())
def test_the_digest_of_a_folder_does_not_depend_on_order(files: dict[str, bytes], rand) -> None:  # type: ignore[no-untyped-def]
    entries = [Entry("f", path, blake3(data).hexdigest(), len(data)) for path, data in files.items()]
    shuffled = list(entries)
    rand.shuffle(shuffled)
    assert digest_of(entries, "blake3") == digest_of(shuffled, "blake3")


# -- disks and other processes ----------------------------------------------------------------------------------------


class FullDisk:
    """Lets a number of writes through, then the disk is full."""

    def __init__(self, writes: int) -> None:
        self.left = writes
        self._write = os.write

    def __call__(self, fd: int, data: object) -> int:
        if self.left <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.left -= 1
        return self._write(fd, data)  # type: ignore[arg-type]


@pytest.mark.parametrize("writes", range(12))
def test_a_full_disk_leaves_nothing_half_visible(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    source = example(tmp_path / "source")
    store = make_store(link=("copy",))
    full = FullDisk(writes)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        try:
            digest = store.add_tree(str(source), move=False)
        except EnvironmentFailure as error:
            digest = None
            assert "no space left" in error.text and str(tmp_path) in error.text
    again = make_store()
    for algorithm, hex, _info in list(again.objects()):
        assert again.check(algorithm, hex), "what is there is whole"
    leftovers = [
        name for _w, _d, names in os.walk(tmp_path / "pipe/cache") for name in names if name.startswith(".tmp-")
    ]
    assert leftovers == []
    if digest is None:
        digest = again.add_tree(str(source), move=False)
    full.left = writes
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        try:
            store.place(digest, str(tmp_path / "out"), link=False)
        except EnvironmentFailure:
            assert not os.path.lexists(tmp_path / "out")
        else:
            assert tree(tmp_path / "out") == tree(source)


WRITER = """
import sys
from pipesmith.pipeline.model import CacheConfig
from pipesmith.store.object_store import ObjectStore
from pipesmith.store.state_db import StateDB
pipe, source = sys.argv[1:]
store = ObjectStore(pipe + "/cache", pipe + "/tmp", StateDB(pipe + "/state.db"), CacheConfig())
while True:
    print(store.add_tree(source, move=False).hex, flush=True)
    for algorithm, hex, _ in list(store.objects())[::3]:
        store.discard(algorithm, hex)
    if len(sys.argv) > 3:
        break
"""


def test_two_processes_add_the_same_at_once(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for index in range(300):
        (source / f"f{index}").write_text(f"{index}\n" * 50)
    code = WRITER.replace("while True:", "for _ in range(3):").replace("    for algorithm", "    for algorithm")
    code = code[: code.index("    for algorithm")]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "pipe"), str(source)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    said = {line for process in running for line in process.communicate()[0].split()}
    assert [process.returncode for process in running] == [0, 0, 0]
    (hex,) = said
    digest = Digest("blake3", hex, 0, 300)
    assert store.has(digest)
    store.place(digest, str(tmp_path / "out"), link=True)
    assert tree(tmp_path / "out") == tree(source)


def test_killed_at_any_moment_what_has_a_name_is_whole(make_store: MakeStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for index in range(60):
        (source / f"f{index}").write_bytes(os.urandom(20_000 + index * 30_000))
    code = WRITER.replace("store.discard(algorithm, hex)", "__import__('os').unlink(store._path(algorithm, hex))")
    for pause in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "pipe"), str(source)], stdout=subprocess.DEVNULL
        )
        time.sleep(0.15 + pause * 0.013)
        process.kill()
        process.wait()
        store = make_store()
        for algorithm, hex, _info in list(store.objects()):
            assert store.check(algorithm, hex)


def test_objects_on_another_file_system_are_copied_in(store: ObjectStore, tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no other file system")
    source = other / f"pipesmith-{os.getpid()}"
    try:
        source.mkdir()
        (source / "big").write_bytes(BIG)
        (source / "small").write_bytes(b"s")
        digest = store.add_tree(str(source), move=True)
        store.place(digest, str(tmp_path / "out"), link=False)
        assert tree(tmp_path / "out") == {"big": (BIG, False), "small": (b"s", False)}
    finally:
        subprocess.run(["rm", "-rf", source], check=True)


def test_find_by_the_beginning_of_a_hash(store: ObjectStore) -> None:
    digest = store.add_bytes(b"content")
    assert store.find(digest.hex[:4]) == [digest]
    assert store.find(f"blake3:{digest.hex[:12]}") == [digest]
    assert store.find(f"md5:{digest.hex[:12]}") == []
    for bad in ("", digest.hex[:3], "../../x", "zzzzzz", "*" * 8):
        assert store.find(bad) == []


def test_the_store_may_vanish_between_two_stages(make_store: MakeStore, tmp_path: Path) -> None:
    """`.git/pipe` deleted while a process has it open costs time, never rightness."""
    store = make_store()
    (tmp_path / "f").write_bytes(b"content")
    digest = store.add_tree(str(tmp_path / "f"), move=False)
    subprocess.run(["rm", "-rf", tmp_path / "pipe"], check=True)
    assert not store.has(digest)
    assert store.add_tree(str(tmp_path / "f"), move=False) == digest
    assert store.read(digest) == b"content"
