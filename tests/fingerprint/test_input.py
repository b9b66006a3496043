"""What lies at an input's path, and what can't count."""

from __future__ import annotations

import os
import socket

import pytest
from blake3 import blake3

from pipesmith.fingerprint.tree import Found


def test_absent_and_file_and_untracked(bed):
    bed.repo.write(".gitignore", "ignored\n")
    bed.repo.write("tracked", "x")
    commit = bed.repo.commit()
    bed.repo.write("untracked", "x")
    bed.repo.write("ignored", "x")
    tree = bed.tree()
    assert tree.input("absent") == tree.input("tracked/below") == Found(digest=None)
    same = {tree.input(path).digest for path in ("tracked", "untracked", "ignored")}
    assert [each.hex for each in same] == [blake3(b"x").hexdigest()]
    assert tree.input("tracked").git == bed.repo.git("rev-parse", f"{commit}:tracked").stdout.strip()
    assert tree.input("untracked").git is tree.input("ignored").git is None


def test_git_of_a_folder_is_the_part_that_git_tracks(bed):
    bed.repo.write(".gitignore", "data/big\n")
    bed.repo.write("data/small", "small")
    bed.repo.commit()
    held = bed.tree().input("data")
    bed.repo.write("data/big", "big")
    partly = bed.tree().input("data")
    assert partly.git == held.git is not None
    assert partly.digest != held.digest and partly.digest.nfiles == 2
    bed.repo.write("loose/a", "a")
    assert bed.tree().input("loose").git is None


def test_empty_folders_count_only_where_git_holds_nothing(bed):
    bed.repo.write(".gitignore", "ignored/\n")
    bed.repo.write("ignored/a", "a")
    bed.repo.write("held/a", "a")
    bed.repo.commit()
    before = {path: bed.tree().input(path).digest for path in ("ignored", "held")}
    (bed.path / "ignored/empty").mkdir()
    (bed.path / "held/empty").mkdir()
    assert bed.tree().input("ignored").digest != before["ignored"]
    assert bed.tree().input("held").digest == before["held"]
    (bed.path / "alone").mkdir()
    assert bed.tree().input("alone").digest.nfiles == 0


@pytest.mark.parametrize("change", ["content", "name", "bit", "link", "new"])
def test_what_counts_of_a_folder(bed, change):
    bed.repo.write("data/deep/a", "a")
    os.symlink("a", bed.path / "data/deep/link")
    before = bed.tree().input("data").digest
    target = bed.path / "data/deep/a"
    if change == "content":
        target.write_text("b")
    elif change == "name":
        target.rename(bed.path / "data/deep/a2")
        (bed.path / "data/deep/link").unlink()
        os.symlink("a2", bed.path / "data/deep/link")
    elif change == "bit":
        target.chmod(0o755)
    elif change == "link":
        (bed.path / "data/deep/link").unlink()
        os.symlink("./a", bed.path / "data/deep/link")
    else:
        bed.repo.write("data/b", "")
    assert bed.tree().input("data").digest != before


def test_what_does_not_count_of_a_folder(bed):
    bed.repo.write("data/a", "a")
    before = bed.tree().input("data").digest
    os.utime(bed.path / "data/a", (0, 0))
    (bed.path / "data/a").chmod(0o600)
    (bed.path / "data").chmod(0o700)
    assert bed.tree().input("data").digest == before


def test_a_link_as_input_counts_by_its_text(bed):
    bed.repo.write("a", "a")
    os.symlink("a", bed.path / "link")
    found = bed.tree().input("link")
    assert found.digest.is_link and found.problem is None
    bed.repo.write("a", "changed")
    assert bed.tree().input("link").digest == found.digest


@pytest.mark.parametrize("target", ["nowhere", "/etc/hostname", "../../x"])
@pytest.mark.parametrize("place", ["data", "data/link", "data/deep/link"])
def test_links_that_dangle_or_lead_out_are_problems(bed, place, target):
    bed.repo.write("other/a", "a")
    (bed.path / place).parent.mkdir(parents=True, exist_ok=True)
    os.symlink(target, bed.path / place)
    found = bed.tree().input("data")
    assert f"`{place}`" in found.problem
    if target == "/etc/hostname":
        assert 'from = "/etc/hostname"' in found.problem


def test_a_folder_on_the_way_that_leads_out_is_a_problem(bed, tmp_path):
    (tmp_path / "big").mkdir()
    (tmp_path / "big/x").write_text("x")
    os.symlink(tmp_path / "big", bed.path / "data")
    found = bed.tree().input("data/x")
    assert found.digest is None
    assert "`data` is a link that leads out" in found.problem and f'from = "{tmp_path / "big"}"' in found.problem


@pytest.mark.parametrize("kind", ["fifo", "socket"])
@pytest.mark.parametrize("place", ["data", "data/odd"])
def test_what_has_no_content_is_a_problem(bed, kind, place, monkeypatch):
    (bed.path / place).parent.mkdir(exist_ok=True)
    if kind == "fifo":
        os.mkfifo(bed.path / place)
    else:
        monkeypatch.chdir(bed.path)
        socket.socket(socket.AF_UNIX).bind(place)
    found = bed.tree().input("data")
    assert found.digest is None and f"`{place}` is neither" in found.problem


def test_gits_own_folder_in_an_input_does_not_count_but_in_an_output_does(bed, make_repo):
    make_repo("work/data/clone").write("a", "a")
    bed.repo.write(".gitignore", "data/\n")
    before, out = bed.tree().input("data"), bed.tree().output("data")
    make_repo_git = bed.path / "data/clone/.git/description"
    make_repo_git.write_text("changed")
    assert bed.tree().input("data") == before
    assert bed.tree().output("data") != out


def test_the_whole_workspace_as_input(bed):
    bed.repo.write("a", "a")
    bed.repo.write("deep/b", "b")
    commit = bed.repo.commit()
    found = bed.tree().input(".")
    assert found.digest.nfiles == 2
    assert found.git == bed.repo.git("rev-parse", f"{commit}^{{tree}}").stdout.strip()
    assert bed.revision(commit).input(".") == found
