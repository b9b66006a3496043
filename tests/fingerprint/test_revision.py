"""A commit has the ids that its checkout has, from objects and the lockfile alone."""

from __future__ import annotations

import os
from itertools import pairwise

import pytest
from blake3 import blake3

from pipesmith.digest import Digest
from pipesmith.errors import UserError
from pipesmith.fingerprint.revision import Revision
from pipesmith.git.objects import ObjectReader
from pipesmith.git.repository import Repository
from pipesmith.lockfile.model import LockedDep, Lockfile, StageLock


def lock_of(*deps: LockedDep, hash_paths=None) -> Lockfile:
    """Return a lockfile with a stage for each dep, and one with the hash-paths."""
    stages = {f"s{index}": StageLock(fingerprint="f", run="r", deps=(dep,)) for index, dep in enumerate(deps)}
    return Lockfile(stages={**stages, "last": StageLock(fingerprint="f", run="r", hash_paths=hash_paths or {})})


def digest(text: str) -> Digest:
    return Digest("blake3", blake3(text.encode()).hexdigest(), len(text))


def test_sources_and_files_of_an_older_commit(bed):
    bed.repo.write("lib/a.py", "old\n")
    bed.repo.write("params.yaml", "old: 1\n")
    os.symlink("params.yaml", bed.path / "link.yaml")
    commit = bed.repo.commit()
    old = bed.source("lib")
    bed.repo.write("lib/a.py", "new\n")
    bed.repo.commit()
    revision = bed.revision(commit)
    assert revision.source_id("lib") == old != bed.source("lib")
    assert revision.read("params.yaml") == revision.read("./params.yaml") == revision.read("link.yaml") == b"old: 1\n"
    assert revision.read("absent") is revision.read("lib") is revision.read("lib/a.py/below") is None
    assert revision.source_id("absent") is None
    assert revision.source_id("params.yaml") == bed.source("params.yaml")


def test_no_such_folder_at_the_commit(bed):
    bed.repo.write("a", "a")
    bed.repo.commit()
    with pytest.raises(UserError, match="no folder `team`"):
        bed.revision(folder="team")
    with pytest.raises(UserError, match="no folder `a`"):
        bed.revision(folder="a")


def test_input_that_git_does_not_hold_has_the_locks_digest(bed):
    bed.repo.write("a", "a")
    bed.repo.commit()
    revision = bed.revision()
    assert revision.input("data/x").digest is None
    revision.use_lock(lock_of(LockedDep(name="x", path="data/x", digest=digest("x"))))
    assert revision.input("data/x").digest == digest("x")


def test_entries_that_disagree_give_nothing(bed):
    bed.repo.write("a", "a")
    bed.repo.commit()
    revision = bed.revision()
    revision.use_lock(
        lock_of(
            LockedDep(name="x", path="data/x", digest=digest("x")),
            LockedDep(name="x", path="data/x", digest=digest("y")),
        )
    )
    assert revision.input("data/x").digest is None


def test_input_that_git_held_and_no_longer_holds_gives_nothing(bed):
    bed.repo.write("a", "a")
    bed.repo.commit()
    revision = bed.revision()
    revision.use_lock(lock_of(LockedDep(name="x", path="data/x", digest=digest("x"), git="1" * 40)))
    assert revision.input("data/x").digest is None


def test_partly_held_folder_has_the_locks_digest_while_gits_part_is_the_same(bed):
    bed.repo.write(".gitignore", "data/big\n")
    bed.repo.write("data/small", "small")
    bed.repo.write("data/big", "big")
    first = bed.repo.commit()
    found = bed.tree().input("data")
    assert found.git == bed.repo.git("rev-parse", "HEAD:data").stdout.strip()
    lock = lock_of(LockedDep(name="d", path="data", digest=found.digest, git=found.git))
    at_first = bed.revision(first)
    at_first.use_lock(lock)
    assert at_first.input("data") == found
    bed.repo.write("data/small", "changed")
    second = bed.revision(bed.repo.commit())
    second.use_lock(lock)
    assert second.input("data").digest != found.digest


def test_a_lock_of_another_algorithm_is_not_believed(bed):
    bed.repo.write(".gitignore", "x\n")
    bed.repo.commit()
    revision = bed.revision()
    revision.use_lock(lock_of(LockedDep(name="x", path="x", digest=Digest("md5", "0" * 32, 1))))
    assert revision.input("x").digest is None


def test_held_input_is_hashed_from_its_blob(bed):
    bed.repo.write("x", "content")
    bed.repo.write("folder/a", "a", executable=True)
    os.symlink("a", bed.path / "folder/link")
    bed.repo.commit()
    revision = bed.revision()
    for path in ("x", "folder", "folder/link", "folder/a"):
        assert revision.input(path) == bed.tree().input(path), path
    assert revision.input("x").digest == digest("content")
    assert revision.output("x") == digest("content")
    assert revision.output("folder") == bed.tree().output("folder")
    assert revision.output("absent") is None


def test_an_input_behind_a_linked_folder(bed):
    bed.repo.write("store/x", "content")
    os.symlink("store", bed.path / "data")
    commit = bed.repo.commit()
    found = bed.tree().input("data/x")
    assert found.git is not None
    assert bed.revision(commit).input("data/x") == found
    bed.repo.write("store/x", "changed")
    bed.repo.commit()
    revision = bed.revision()
    revision.use_lock(lock_of(LockedDep(name="x", path="data/x", digest=found.digest, git=found.git)))
    assert revision.input("data/x").digest == digest("changed")


@pytest.mark.parametrize("target", ["/etc", "../../..", "loop", "nowhere"])
def test_links_that_lead_nowhere_at_a_commit(bed, target):
    os.symlink(target, bed.path / "loop")
    bed.repo.commit()
    assert bed.revision().input("loop/x").digest is None
    assert bed.revision().read("loop") is None


def test_hash_paths(bed):
    bed.repo.write(".gitignore", "ignored\n")
    bed.repo.write("nb/eda.ipynb", "{}")
    bed.repo.write("ignored", "x")
    bed.repo.commit()
    revision, tree = bed.revision(), bed.tree()
    for path in ("nb/eda.ipynb", "nb", "."):
        assert revision.hash_path_id(path) == tree.hash_path_id(path) is not None
    assert revision.hash_path_id("absent") is tree.hash_path_id("absent") is None
    assert tree.hash_path_id("ignored") == digest("x").text
    assert revision.hash_path_id("ignored") is None
    revision.use_lock(lock_of(hash_paths={"ignored": digest("x").text}))
    assert revision.hash_path_id("ignored") == digest("x").text


def test_pipeignore_of_that_commit(bed):
    bed.repo.write("lib/a.py", "a")
    bed.repo.write("lib/a.md", "a")
    first = bed.repo.commit()
    bed.repo.write("lib/.pipeignore", "*.md\n!b.md\n.pipeignore\n")
    bed.repo.write("lib/b.md", "b")
    second = bed.repo.commit()
    assert bed.revision(first).source_id("lib") == bed.repo.git("rev-parse", f"{first}:lib").stdout.strip()
    expected = bed.would_commit("lib", drop=("lib/a.md", "lib/.pipeignore"))
    assert bed.revision(second).source_id("lib") == bed.source("lib") == expected
    assert bed.revision(second).source_id("lib/a.md") is bed.source("lib/a.md") is None


def test_a_pipeignore_that_is_a_link_or_ignored_by_git_is_none(bed):
    """Git reads no ignore file through a link; and what git does not hold can't count at a commit."""
    bed.repo.write("rules", "*\n")
    os.symlink("rules", bed.path / ".pipeignore")
    bed.repo.write("lib/a", "a")
    bed.repo.write("lib/.pipeignore", "a\n")
    bed.repo.write(".gitignore", "lib/.pipeignore\n")
    bed.repo.commit()
    assert bed.source(".") == bed.repo.git("rev-parse", "HEAD^{tree}").stdout.strip() == bed.revision().source_id(".")


def test_many_revisions_read_what_did_not_change_once(bed, monkeypatch):
    for index in range(20):
        bed.repo.write(f"lib/{index}/a", "a")
    bed.repo.write(".pipeignore", "*.md\n")
    commits = [bed.repo.commit()]
    for index in range(5):
        bed.repo.write("lib/3/a", f"{index}")
        commits.append(bed.repo.commit())
    repo = Repository.discover(str(bed.path))
    reader = ObjectReader(repo)
    reads: list[str] = []
    real = ObjectReader._answer
    monkeypatch.setattr(
        ObjectReader, "_answer", lambda self, process, name: (reads.append(name), real(self, process, name))[1]
    )
    ids = set()
    counts = []
    for commit in commits:
        revision = Revision(reader, commit, ".", "blake3")
        revision.exclude(frozenset({"out"}))
        ids.add(revision.source_id("lib"))
        counts.append(len(reads))
    reader.close()
    assert len(ids) == 6
    assert [after - before for before, after in pairwise(counts)] == [4] * 5  # commit, three trees


def test_bare_partial_and_shallow_clones(bed, make_bed, make_repo, tmp_path):
    bed.repo.write("lib/a", "a\n")
    bed.repo.write(".pipeignore", "b\n")
    bed.repo.write("lib/b", "b\n")
    bed.repo.commit()
    bed.repo.write("lib/a", "changed\n")
    commit = bed.repo.commit()
    bed.repo.git("config", "uploadpack.allowFilter", "true")
    expected = bed.source("lib")
    url = f"file://{bed.path}"
    for name, options in {
        "bare": ["--bare"],
        "partial": ["--filter=blob:none", "-n"],
        "shallow": ["--depth=1"],
    }.items():
        bed.repo.git("clone", "-q", *options, url, str(tmp_path / name))
        revision = bed.revision(commit, path=tmp_path / name)
        assert revision.source_id("lib") == expected, name
        assert revision.input("lib").digest == bed.tree().input("lib").digest


def test_digests_of_blobs_are_remembered(bed, monkeypatch):
    bed.repo.write("x", "content")
    bed.repo.commit()
    repo = Repository.discover(str(bed.path))
    for look in range(2):
        reader = ObjectReader(repo)
        if look:
            monkeypatch.setattr(ObjectReader, "blob", lambda self, oid: pytest.fail("read again"))
        revision = Revision(reader, repo.resolve("HEAD"), ".", "blake3", bed.state)
        assert revision.input("x").digest == digest("content")
        revision.flush()
        reader.close()
